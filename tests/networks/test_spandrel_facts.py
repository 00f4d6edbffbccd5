"""What spandrel makes of networks: the rule in plain values, and the package itself where it is installed."""

from pathlib import Path

import pytest
import torch

import dil_plugin.basicsr  # noqa: F401  (before spandrel, which imports torchvision)
from dil_plugin.checkpoint_conversion import convert, describe
from dil_plugin.evaluation.networks import build_module
from dil_plugin.networks.spandrel_facts import spandrel_problem

RRDB = {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 1}
SWINIR = {'type': 'SwinIR', 'img_size': 56, 'depths': [2], 'num_heads': [2], 'embed_dim': 16, 'mlp_ratio': 2,
          'upscale': 1, 'upsampler': '', 'resi_connection': '1conv'}
ALIKE, OTHER_IMAGE, REFUSED = 'alike', 'other image', 'refused'
FACTS = [
    ({'type': 'RRDBNet', 'scale': 4, 'num_grow_ch': 32, **RRDB}, ALIKE),
    ({'type': 'RRDBNet', 'scale': 2, 'num_grow_ch': 32, **RRDB}, ALIKE),
    ({'type': 'RRDBNet', 'scale': 4, 'num_grow_ch': 8, **RRDB}, REFUSED),
    ({'type': 'RRDBNetNoUpsample', 'num_grow_ch': 32, **RRDB}, ALIKE),
    ({'type': 'RRDBNetNoUpsample', 'num_grow_ch': 16, **RRDB}, REFUSED),
    ({'type': 'RRDBNetNoUpsample', 'num_grow_ch': 32, 'bias': False, **RRDB}, REFUSED),
    ({**SWINIR, 'window_size': 8, 'img_range': 1.0}, ALIKE),
    ({**SWINIR, 'window_size': 7, 'img_range': 255.0}, ALIKE),
    ({**SWINIR, 'window_size': 7, 'img_range': 1.0}, OTHER_IMAGE),
    (SWINIR, OTHER_IMAGE),  # BasicSR's defaults: a window of 7, a range of 1
    ({**SWINIR, 'window_size': 8, 'img_range': 255.0}, OTHER_IMAGE),
    ({**SWINIR, 'window_size': 8, 'img_range': 1.0, 'qkv_bias': False}, REFUSED),
    ({**SWINIR, 'window_size': 8, 'img_range': 1.0, 'patch_norm': False}, REFUSED),
    ({**SWINIR, 'window_size': 8, 'img_range': 1.0, 'ape': True}, REFUSED),
]


@pytest.mark.parametrize(('options', 'fact'), FACTS)
def test_the_rule(options: dict, fact: str) -> None:
    problem = spandrel_problem(options)
    assert (problem is None) == (fact == ALIKE)
    assert problem is None or ('compute other images' in problem) == (fact == OTHER_IMAGE)
    assert spandrel_problem({**options, 'type': f'{options["type"]}_basicsr'}) == problem


def test_the_words_name_option_and_values() -> None:
    assert spandrel_problem({'type': 'RRDBNet', 'num_grow_ch': 8}) == \
        'spandrel and chaiNNer cannot load its checkpoints: num_grow_ch is 8, they know 32 alone'
    assert spandrel_problem({'type': 'SwinIR'}) == (
        'spandrel and chaiNNer load its checkpoints and compute other images: img_range is 1, with window_size 7 they '
        'assume 255')
    assert spandrel_problem({'type': 'RRDBNet'}) is None
    assert spandrel_problem({'type': 'MSRResNet'}) is None  # which spandrel does not know, and says so


@pytest.mark.parametrize(('options', 'fact'), FACTS)
def test_the_package_itself(options: dict, fact: str, tmp_path: Path) -> None:
    spandrel = pytest.importorskip('spandrel')
    torch.manual_seed(0)
    network = build_module(options, '').eval()
    torch.save({'params': network.state_dict()}, tmp_path / 'net.pth')
    if fact == REFUSED:
        with pytest.raises((RuntimeError, KeyError, spandrel.UnsupportedModelError)):
            spandrel.ModelLoader(device='cpu').load_from_file(tmp_path / 'net.pth')
        return
    model = spandrel.ModelLoader(device='cpu').load_from_file(tmp_path / 'net.pth').eval()
    image = torch.rand(1, 3, 56, 56)
    with torch.no_grad():
        difference = float((model.model(image) - network(image)).abs().max())
    assert (difference < 1e-5) == (fact == ALIKE)


@pytest.mark.parametrize('notes', [True, False])
def test_a_conversion_says_it(notes: bool) -> None:
    state = build_module({'type': 'RRDBNet', 'scale': 4, 'num_grow_ch': 8, **RRDB}, '').state_dict()
    config = "model = dict(generator=dict(type='RRDBNet', in_channels=3, out_channels=3, mid_channels=8, " \
             'num_blocks=1, growth_channels=8, upscale_factor=4))'
    content = {'state_dict': {f'generator.{name}': value for name, value in state.items()},
               'meta': {'cfg': config} if notes else {}}
    conversion = convert(content, 'iter_1.pth')
    assert (conversion.network is not None) == notes
    assert describe(conversion, Path('net.pth')).splitlines()[-1] == \
        'warning: spandrel and chaiNNer cannot load its checkpoints: num_grow_ch is 8, they know 32 alone'
