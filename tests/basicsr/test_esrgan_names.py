"""Checkpoints of ESRGAN's own repository, whose RRDBNet has other names, load as BasicSR's."""

from pathlib import Path

import dil_plugin.basicsr  # noqa: F401  BasicSR needs its shims

# isort: split
import pytest
import torch
import yaml
from basicsr.archs import build_network
from basicsr.models import build_model
from basicsr.utils.options import parse_options
from torch import Tensor

from dil_plugin.checkpoints import network_names
from dil_plugin.errors import DataError
from dil_plugin.evaluation.networks import load_network

NETWORK = {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 2, 'num_grow_ch': 4}

TABLE = [('conv_first', 'conv_first'), ('conv_body', 'trunk_conv'), ('conv_up1', 'upconv1'), ('conv_up2', 'upconv2'),
         ('conv_hr', 'HRconv'), ('conv_last', 'conv_last')]
TABLE += [(f'body.{b}.rdb{r}.conv{c}', f'RRDB_trunk.{b}.RDB{r}.conv{c}')
          for b in range(2) for r in (1, 2, 3) for c in range(1, 6)]
"""Every layer's name in BasicSR and in ESRGAN (RRDBNet_arch.py), written out."""


def as_esrgan(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f'{theirs}.{kind}': state[f'{ours}.{kind}'] for ours, theirs in TABLE for kind in ('weight', 'bias')}


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network(dict(NETWORK))


@pytest.fixture
def checkpoint(network: torch.nn.Module, tmp_path: Path) -> Path:
    """As RRDB_PSNR_x4.pth: the parameters alone, under ESRGAN's names."""
    torch.save(as_esrgan(network.state_dict()), tmp_path / 'RRDB_PSNR_x4.pth')
    return tmp_path / 'RRDB_PSNR_x4.pth'


def test_all_names_are_translated(network: torch.nn.Module) -> None:
    state = network.state_dict()
    translated = network_names(as_esrgan(state))
    assert translated.keys() == state.keys()
    assert all(torch.equal(translated[name], state[name]) for name in state)


@pytest.mark.parametrize('name', ['body.0.rdb1.conv1.weight', 'HRconv.weight', 'layers.0.RDB1.weight', 'a.upconv1.b'])
def test_other_networks_keep_their_names(name: str) -> None:
    """Only a state dict with ESRGAN's trunk is one of ESRGAN's."""
    assert list(network_names({f'module.{name}': torch.zeros(1)})) == [name]


@pytest.mark.parametrize('param_key', ['params', 'params_ema'])
def test_training_begins_with_them(network, checkpoint, base, tmp_path, monkeypatch, param_key) -> None:
    base.update(scale=4, network_g=NETWORK, distortions=[{'type': 'Downsample', 'scale': 4}],
                path={'pretrain_network_g': str(checkpoint), 'param_key_g': param_key, 'strict_load_g': True})
    base['datasets']['train']['gt_size'] = 32
    path = tmp_path / 'options.yml'
    path.write_text(yaml.safe_dump(base))
    monkeypatch.setattr('sys.argv', ['tool', '-opt', str(path)])
    model = build_model(parse_options(str(tmp_path), True)[0])
    loaded = model.net_g.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in network.state_dict().items())


def test_restoring_takes_them_too(network: torch.nn.Module, checkpoint: Path, tmp_path: Path) -> None:
    options = tmp_path / 'options.yml'
    options.write_text(yaml.safe_dump({'network_g': NETWORK, 'scale': 4}))
    image = torch.rand(1, 3, 12, 16)
    with torch.no_grad():
        torch.testing.assert_close(load_network(checkpoint, options)(image), network.eval()(image))


def test_another_size_is_named(checkpoint: Path, tmp_path: Path) -> None:
    options = tmp_path / 'options.yml'
    options.write_text(yaml.safe_dump({'network_g': {**NETWORK, 'num_feat': 6}, 'scale': 4}))
    with pytest.raises(DataError, match='RRDB_PSNR_x4.pth'):
        load_network(checkpoint, options)
