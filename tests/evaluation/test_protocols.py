from typing import Any

import pytest
import torch

from dil_plugin.errors import OptionError
from dil_plugin.evaluation.protocols import Protocol, load_protocol, parse_protocol, table_names

BLUR = {'type': 'GaussianBlur', 'sigma': 2}


def block(**changes: Any) -> dict[str, Any]:
    return {'name': 'mine', 'title': 'Mine', 'datasets': ['Set5'], 'conditions': [{'name': '2', 'distortion': BLUR}],
            **changes}


@pytest.mark.parametrize(('name', 'channel', 'scale', 'datasets'), [
    ('denoising', 'RGB', 1, 5), ('deblurring', 'RGB', 1, 5), ('hybrid', 'Y', 1, 4), ('real_denoising', 'Y', 1, 3),
    ('deraining', 'Y', 1, 3), ('realsr', 'Y', 4, 2), ('backbones', 'RGB', 1, 3), ('augmentation', 'Y', 4, 2),
])
def test_as_the_paper_measures(name: str, channel: str, scale: int, datasets: int) -> None:
    protocol = load_protocol(name)
    assert (protocol.name, protocol.channel, protocol.scale, protocol.crop_border) == (name, channel, scale, 0)
    assert len(protocol.datasets) == datasets


def test_all_tables_of_the_paper() -> None:
    assert {load_protocol(name).paper_table for name in table_names()} == set('1234567')


@pytest.mark.parametrize(('name', 'seen', 'unseen', 'training'), [
    ('denoising', [5, 10, 15, 20], [30, 40, 50], (5, 20)),
    ('deblurring', [1, 2, 3, 4], [4.2, 4.4, 4.6, 4.8, 5.0], (1, 4)),
])
def test_degrees(name: str, seen: list[float], unseen: list[float], training: tuple[float, float]) -> None:
    protocol = load_protocol(name)
    assert [c.degree for c in protocol.conditions if c.seen] == seen
    assert [c.degree for c in protocol.conditions if not c.seen] == unseen
    assert [c.degree for c in protocol.conditions if c.table] == unseen
    assert protocol.degree is not None
    assert protocol.degree.training == training
    for condition in protocol.conditions:
        assert float(condition.name) == condition.degree == condition.distortion['sigma']


def test_the_noise_has_its_level() -> None:
    """On the 0-255 scale; grey is far enough from black and white that nothing is clipped."""
    protocol = load_protocol('denoising')
    grey = torch.full((1, 3, 128, 128), 0.5)
    for condition in protocol.conditions:
        if condition.degree <= 30:
            noisy = protocol.distortion(condition)(grey, torch.Generator().manual_seed(0))
            assert float((noisy - grey).std()) * 255 == pytest.approx(condition.degree, rel=0.03)


def test_pairs_have_no_distortion() -> None:
    for name in ('real_denoising', 'deraining', 'realsr', 'augmentation'):
        protocol = load_protocol(name)
        assert [protocol.distortion(condition) for condition in protocol.conditions] == [None]


def test_severe_alone_is_seen() -> None:
    assert [c.name for c in load_protocol('hybrid').conditions if c.seen] == ['severe']


def test_condition_by_name() -> None:
    assert load_protocol('denoising').condition('40').degree == 40


def test_unknown_table() -> None:
    with pytest.raises(OptionError, match="--table: unknown table 'debluring'; did you mean 'deblurring'"):
        load_protocol('debluring')


def test_own_protocol() -> None:
    protocol = parse_protocol(block(channel='Y', crop_border=4))
    assert isinstance(protocol, Protocol)
    assert (protocol.channel, protocol.crop_border, protocol.paper_table) == ('Y', 4, None)


@pytest.mark.parametrize(('changes', 'words'), [
    ({'chanel': 'Y'}, ['protocol', "'chanel'", "did you mean 'channel'"]),
    ({'channel': 'L'}, ['protocol.channel', 'L', 'RGB']),
    ({'crop_border': -1}, ['protocol.crop_border', '-1']),
    ({'scale': 0}, ['protocol.scale', '0']),
    ({'datasets': []}, ['protocol.datasets']),
    ({'datasets': ['Set5', 'Set14', 'Set5']}, ['datasets', 'Set5', 'twice']),
    ({'groups': ['A', 'A']}, ['groups', 'twice']),
    ({'conditions': [{'name': 'a'}, {'name': 'a'}]}, ['conditions', 'a', 'twice']),
    ({'conditions': []}, ['protocol.conditions']),
    ({'conditions': [{'name': ''}]}, ['protocol.conditions[0].name']),
    ({'degree': {'label': 'sigma', 'training': [1, 2]}}, ['conditions', 'degree']),
    ({'scale': 2}, ['conditions[2].distortion', 'scale 2', 'scale 1']),
    ({'conditions': [{'name': 'x', 'distortion': {'type': 'GaussianBlur', 'sigma': [1, 2]}}]}, ['[x]', 'one']),
    ({'conditions': [{'name': 'x', 'distortion': {'type': 'GausianBlur', 'sigma': 1}}]}, ['[x]', 'GausianBlur']),
    ({'title': None}, ['protocol.title']),
])
def test_mistakes(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(OptionError) as error:
        parse_protocol(block(**changes))
    assert all(word in str(error.value) for word in words), error.value
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('raw', [None, [1], 'text'])
def test_no_block(raw: Any) -> None:
    with pytest.raises(OptionError, match='protocol: expected a block'):
        parse_protocol(raw)
