"""``tools/average_checkpoints.py`` beside torch's own averaged model."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import dil_plugin.basicsr  # noqa: F401

# isort: split
from basicsr.archs import build_network

from dil_plugin.checkpoint_averaging import average_checkpoints, average_files
from dil_plugin.checkpoints import NOTES, NetworkNotes, load_checkpoint, refuse_not_finite, save_atomically
from dil_plugin.errors import DataError, DILError, OptionError
from dil_plugin.evaluation.networks import load_network

ROOT = Path(__file__).parents[1]
RRDB = {'type': 'RRDBNetNoUpsample', 'num_feat': 6, 'num_block': 1, 'num_grow_ch': 3}
SWINIR = {'type': 'SwinIR', 'img_size': 16, 'window_size': 8, 'depths': [2], 'num_heads': [2], 'embed_dim': 8,
          'mlp_ratio': 2, 'upscale': 1, 'upsampler': '', 'resi_connection': '1conv'}


def network(options: dict, seed: int) -> nn.Module:
    module = build_network(dict(options))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def saved(folder: Path, options: dict, count: int = 3, key: str = 'params') -> list[Path]:
    import msgspec
    paths = []
    for k in range(count):
        notes = msgspec.to_builtins(NetworkNotes(network_g=options, iteration=100 * (k + 1)))
        paths.append(folder / f'net_g_{100 * (k + 1)}.pth')
        save_atomically({key: network(options, k).state_dict(), NOTES: notes}, paths[-1])
    return paths


def mean_by_torch(options: dict, count: int) -> dict[str, Tensor]:
    averaged = AveragedModel(network(options, 0))
    for k in range(count):
        averaged.update_parameters(network(options, k))
    return averaged.module.state_dict()


@pytest.mark.parametrize('options', [RRDB, SWINIR], ids=['rrdb', 'swinir'])
@pytest.mark.parametrize(('count', 'key'), [(2, 'params'), (5, 'params_theta')])
def test_mean_of_the_weights(tmp_path: Path, options: dict, count: int, key: str):
    content, _ = average_checkpoints(saved(tmp_path, options, count, key), key)
    assert list(content) == ['params', NOTES]
    assert content[NOTES]['iteration'] == 100 * count
    expected = mean_by_torch(options, count)
    assert list(content['params']) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(content['params'][name], value, rtol=1e-6, atol=1e-6)
        assert content['params'][name].dtype == value.dtype


def test_the_tool_writes_what_every_tool_reads(tmp_path: Path):
    paths = saved(tmp_path, RRDB)
    command = [sys.executable, str(ROOT / 'tools/average_checkpoints.py'), *map(str, paths), '-o',
               str(tmp_path / 'swa.pth')]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout == f'{tmp_path / "swa.pth"}: the mean of 3 checkpoints: params\n'
    image = torch.rand(1, 3, 8, 8)
    module = build_network(dict(RRDB))
    module.load_state_dict(load_checkpoint(tmp_path / 'swa.pth', 'x')['params'])
    with torch.no_grad():
        assert torch.equal(load_network(tmp_path / 'swa.pth')(image), module(image))
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2
    assert again.stderr.startswith('error: output: ')
    assert again.stderr.rstrip().endswith('--overwrite to replace it')
    assert subprocess.run([*command, '--overwrite'], capture_output=True).returncode == 0


def test_a_file_without_notes(tmp_path: Path):
    for k in range(2):
        torch.save({'params': network(RRDB, k).state_dict()}, tmp_path / f'{k}.pth')
    assert list(average_checkpoints([tmp_path / '0.pth', tmp_path / '1.pth']).content) == ['params']


def norm_files(folder: Path) -> list[Path]:
    paths = [folder / f'{k}.pth' for k in range(2)]
    for k, path in enumerate(paths):
        norm = nn.BatchNorm2d(3)
        norm.running_mean += k
        torch.save({'params': norm.state_dict()}, path)
    return paths


def test_mistakes_are_named(tmp_path: Path):
    one, two, three = saved(tmp_path, RRDB)
    other = tmp_path / 'other.pth'
    torch.save({'params': network({**RRDB, 'num_feat': 8}, 0).state_dict()}, other)
    more = tmp_path / 'more.pth'
    torch.save({'params': network({**RRDB, 'num_block': 2}, 0).state_dict()}, more)
    cases: list[tuple[list[Path], type[DILError], str]] = [
        ([one], OptionError, 'two or more'), ([one, tmp_path / 'none.pth'], DataError, 'there is no file'),
        ([one, other], DataError, 'not those of .*conv'), ([one, more], DataError, 'not those of .*body.1'),
        (norm_files(tmp_path), DataError, 'running_mean is a running statistic'),
    ]
    for paths, kind, words in cases:
        with pytest.raises(kind, match=words):
            average_checkpoints(paths)
    with pytest.raises(DataError, match="has no 'params_ema', only params"):
        average_checkpoints([one, two], 'params_ema')
    with pytest.raises(DataError, match='is there already'):
        average_files([one, two], two, overwrite=True)
    with pytest.raises(DataError, match='cannot be written'):
        average_files([one, two], tmp_path / 'no/such/folder.pth')
    assert three.is_file()


def written(path: Path, **values: float) -> Path:
    torch.save({key: {'w': torch.full((3,), value)} for key, value in values.items()}, path)
    return path


def test_the_moving_averages_are_taken_where_every_tool_takes_them(tmp_path: Path):
    paths = [written(tmp_path / f'{k}.pth', params=10.0 * k, params_ema=float(k)) for k in (1, 2)]
    content, selection = average_checkpoints(paths)
    assert torch.equal(content['params']['w'], torch.full((3,), 1.5))
    assert selection == 'params_ema, the moving average of the weights'  # nothing of files that are not written
    content, selection = average_checkpoints(paths, 'params')
    assert torch.equal(content['params']['w'], torch.full((3,), 15.0))
    assert selection == 'params'
    with pytest.raises(DataError, match=r"3.pth: has no 'params_ema', only params"):
        average_checkpoints([*paths, written(tmp_path / '3.pth', params=3)])


def test_weights_that_are_not_finite_or_counted_twice_are_refused(tmp_path: Path):
    one, two = (written(tmp_path / f'{k}.pth', params=float(k)) for k in (1, 2))
    for value in (float('nan'), float('inf')):
        broken = written(tmp_path / 'broken.pth', params=value)
        with pytest.raises(DataError, match=r'broken\.pth: w is not finite'):
            average_checkpoints([one, broken, two])
    (tmp_path / 'link.pth').symlink_to(one)
    for again in (one, tmp_path / 'link.pth', tmp_path / 'x' / '..' / '1.pth'):
        with pytest.raises(OptionError, match=r'is given twice'):
            average_checkpoints([one, two, again])
    with pytest.raises(DataError, match=r'latest\.pth: holds the same weights as .*2\.pth'):
        average_checkpoints([one, two, written(tmp_path / 'latest.pth', params=2.0)])


def test_masks_of_attention_may_be_infinite(tmp_path: Path):
    """Of 0 and -inf alone; weights may not, and none may be NaN."""
    mask = torch.full((4, 4), float('-inf')).triu(1)
    paths = [tmp_path / f'{k}.pth' for k in (1, 2)]
    for k, path in enumerate(paths):
        torch.save({'params': {'w': torch.full((3,), float(k)), 'mask': mask}}, path)
    params = average_checkpoints(paths)[0]['params']
    assert torch.equal(params['mask'], mask)
    assert torch.equal(params['w'], torch.full((3,), 0.5))
    infinite = float('inf')
    for values in ([0, infinite], [-infinite, -infinite], [0, -infinite, 0.5], [0, -infinite, float('nan')]):
        with pytest.raises(DataError, match=r'x\.pth: mask is not finite'):
            refuse_not_finite({'mask': torch.tensor(values)}, 'x.pth')
