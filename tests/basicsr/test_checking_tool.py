"""``tools/check.py``: what it finds before a job is queued, and that it leaves nothing behind."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn
from torch.nn import functional

from dil_plugin.basicsr.checks import checking_tool, trial_step
from dil_plugin.basicsr.checks.checking_tool import check, duration, read_images
from dil_plugin.errors import DataError, NumericalError, OptionError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checked(tmp_path, monkeypatch):
    """The summary of a YAML; the loggers stay as they are."""

    def run(opt, *arguments):
        path = tmp_path / 'check.yml'
        path.write_text(yaml.safe_dump(opt))
        return list(check(str(tmp_path / 'root'), ['-opt', str(path), *arguments]))

    (tmp_path / 'root').mkdir()
    return run


def files_below(folder):
    return sorted(path for path in folder.rglob('*') if path.name != 'check.yml' and path.suffix != '.log')


@pytest.mark.parametrize('variant', ['sf', 'pf', 'ss', 'ps', 'erm'])
def test_summary(base, checked, crops_lmdb, tmp_path, variant, pipeline):
    base['train']['dil'] = {'variant': variant, **({'patches': 'fresh'} if variant == 'sf' else {})}
    base['train']['total_iter'] = 100
    base['datasets']['val_1'] = {
        'name': 'noisy', 'type': 'DistortionAugmentedDataset', 'dataroot_gt': str(crops_lmdb),
        'io_backend': {'type': 'lmdb'}, 'distortions': [{'type': 'GaussianNoise', 'sigma': 30}]}
    base['val'] = {'val_freq': 50, 'save_img': False}
    before = files_below(tmp_path)
    lines = checked(base, '--images', '4')
    assert files_below(tmp_path) == before
    text = '\n'.join(lines)
    from dil_plugin.basicsr.archs.rrdb_no_upsample_arch import RRDBNetNoUpsample
    network = RRDBNetNoUpsample(num_feat=6, num_block=1, num_grow_ch=3)
    count = sum(p.numel() for p in network.parameters())
    for words in ('train: 6 images, 4 of them read', 'noisy: 6 images, 4 of them read', f'{count:,} parameters',
                  '30 iterations per epoch and process, 4 epochs', 'some iterations with 4 images on cpu',
                  '100 iterations: '):
        assert words in text
    assert re.search(r'memory +\d+\.\d [GM]iB at most', text)

    base['train']['total_iter'], base['logger']['save_checkpoint_freq'] = 2, 2
    base.pop('val'), base['datasets'].pop('val_1')
    run = pipeline(base) / 'experiments/run'
    size = sum(file.stat().st_size for file in [run / 'models/net_g_2.pth', run / 'training_states/2.state'])
    found = float(re.search(r'disk +51 checkpoints with training states of (\S+) MiB', text)[1])
    assert found == pytest.approx(size / 2**20, abs=0.06)


def test_the_step_is_one_of_the_training(base, checked, monkeypatch):
    """At the batch size of the YAML, with all its confounders, and the gradient reaches the optimiser."""
    seen, steps = [], []
    from dil_plugin.basicsr.models.dil_model import DILModel
    feed, take = DILModel.feed_data, torch.optim.Adam.step
    monkeypatch.setattr(DILModel, 'feed_data', lambda self, data: seen.append(data['gt'].shape) or feed(self, data))
    monkeypatch.setattr(torch.optim.Adam, 'step', lambda self: steps.append(1) or take(self))
    base['train']['dil'] = {'variant': 'ps'}
    base['datasets']['train']['batch_size_per_gpu'] = 3
    checked(base)
    assert seen == [(3, 3, 16, 16)] * 2
    assert len(steps) == 2


class LayerNormByHand(torch.autograd.Function):
    """Takes what it saves for constants, as NAFNet's."""

    @staticmethod
    def forward(ctx, x):
        deviation = (x.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
        y = (x - x.mean(1, keepdim=True)) / deviation
        ctx.save_for_backward(y, deviation)
        return y

    @staticmethod
    def backward(ctx, grad):
        y, deviation = ctx.saved_tensors
        return (grad - y * (grad * y).mean(1, keepdim=True) - grad.mean(1, keepdim=True)) / deviation


class NormForTest(nn.Module):

    def forward(self, x):
        return LayerNormByHand.apply(x)


@ARCH_REGISTRY.register()
class ByHandForTest(nn.Module):

    def __init__(self, norm=True, dtype=None):
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, 6, 3, 1, 1), nn.Conv2d(6, 3, 3, 1, 1)
        self.norm = NormForTest() if norm else nn.Identity()
        self.dtype, self.unused = getattr(torch, dtype or '', None), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        if self.dtype and x.dtype != self.dtype:
            raise TypeError(f'{self.dtype} wanted')
        return x + self.tail(functional.gelu(self.norm(self.head(x))))


@pytest.mark.parametrize(('variant', 'network', 'words'), [
    ('ps', {}, r'warning: hvp: exact differs by \d\S* % .* in float64; at fault: norm \(NormForTest\);'),
    ('ss', {'norm': False}, r'hvp: exact agrees with differences .* in float64 \(relative error \S+e-(09|1\d)\)'),
    ('ps', {'dtype': 'float32'}, r'hvp: exact was not compared with differences in float64 \(TypeError: torch.float32'),
    ('sf', {}, '')])
def test_the_exact_product_is_compared(base, checked, variant, network, words):
    """And the parameters that no gradient reaches are named."""
    base['network_g'] = {'type': 'ByHandForTest', **network}
    base['train']['dil'] = {'variant': variant}
    text = '\n'.join(checked(base))
    assert '2 of 6 parameters had no gradient in the first 2 steps' in text
    assert 'unused.weight, unused.bias' in text
    assert re.search(words, text) if words else 'hvp' not in text


@pytest.mark.parametrize('images', ['all', None])
def test_damaged_images_are_found(base, checked, crops, tmp_path, images):
    folder = tmp_path / 'images'
    shutil.copytree(crops, folder)
    bad = sorted(folder.iterdir())[1:3]
    for path in bad:
        path.write_bytes(path.read_bytes()[:400])
    base['datasets']['train']['dataroot_gt'] = str(folder)
    with pytest.raises(DataError, match=rf'{bad[0]}.*cannot be decoded .* \(and 1 more of the 6'):
        checked(base, *(['--images', images] if images else []))


def test_images_that_would_be_skipped_are_named(base, checked, crops, tmp_path):
    folder = tmp_path / 'images'
    shutil.copytree(crops, folder)
    bad = sorted(folder.iterdir())[1:3]
    for path in bad:
        path.write_bytes(path.read_bytes()[:400])
    base['datasets']['train'] |= {'dataroot_gt': str(folder), 'on_bad_image': 'skip'}
    line, = (line for line in checked(base, '--images', 'all') if 'train: ' in line)
    assert 'train: 6 images, 6 of them read; 2 cannot be used' in line
    assert all(path.name in line for path in bad)


@pytest.mark.parametrize(('count', 'expected'), [(None, list(range(10))), (5, [0, 2, 4, 6, 8]), (3, [0, 3, 6]),
                                                 (40, list(range(10)))])
def test_the_sample_is_spread_over_the_data_set(count, expected):
    seen = []

    class Ten:

        def __len__(self):
            return 10

        def __getitem__(self, index):
            seen.append(index)

    assert read_images(Ten(), count) == (len(expected), {})
    assert seen == expected


def test_numbers_that_are_not_finite(base, checked, tmp_path):
    from dil_plugin.basicsr.archs.rrdb_no_upsample_arch import RRDBNetNoUpsample
    network = RRDBNetNoUpsample(num_feat=6, num_block=1, num_grow_ch=3)
    state = {name: value.fill_(float('nan')) for name, value in network.state_dict().items()}
    torch.save({'params': state}, tmp_path / 'nan.pth')
    base['path']['pretrain_network_g'] = str(tmp_path / 'nan.pth')
    with pytest.raises(NumericalError, match='2 of the first steps are not finite.*l_inner nan'):
        checked(base)


def test_an_accumulated_step_is_taken(base, checked, monkeypatch):
    steps = []
    take = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, 'step', lambda self: steps.append(1) or take(self))
    base['train'] |= {'dil': {'variant': 'ps'}, 'accum_iter': 3}
    checked(base)
    assert len(steps) == 1


def test_a_run_that_has_skipped_steps_and_validates_is_resumed(base, checked, pipeline, crops, tmp_path, monkeypatch):
    """What it skipped is over, and its validation is not repeated."""
    from dil_plugin.basicsr.models.dil_model import DILModel
    from dil_plugin.sampling import MetaBatchSampler
    base['train']['dil'] = {'variant': 'ps', 'deploy': 'phi', 'deploy_patches': 2}
    base['train']['ema_decay'] = 0
    base['datasets']['val_1'] = {
        'name': 'noisy', 'type': 'DistortionAugmentedDataset', 'dataroot_gt': str(crops),
        'io_backend': {'type': 'disk'}, 'distortions': [{'type': 'GaussianNoise', 'sigma': 30}]}
    base['val'] = {'val_freq': 4, 'save_img': False, 'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}}
    sample, calls = MetaBatchSampler.sample, []

    def once_bad(self, gt, *rest):
        calls.append(1)
        return sample(self, gt * float('nan') if len(calls) == 2 else gt, *rest)

    monkeypatch.setattr(MetaBatchSampler, 'sample', once_bad)
    root = pipeline(base)
    shutil.move(root / 'experiments', tmp_path / 'root/experiments')
    state = torch.load(tmp_path / 'root/experiments/run/training_states/4.state', weights_only=True)
    assert state['dil']['watch']['skipped']['counts'][0] == 1
    monkeypatch.setattr(DILModel, 'validation', lambda *_: pytest.fail('a validation in a check'))
    trained, feed = [], DILModel.feed_data
    monkeypatch.setattr(DILModel, 'feed_data', lambda self, data: trained.append(
        {name: value.clone() for name, value in self.net_g.state_dict().items()}) or feed(self, data))
    checked(base, '--auto_resume')
    saved = torch.load(tmp_path / 'root/experiments/run/models/net_g_4.pth', weights_only=True)
    assert all(torch.equal(value, saved['params_theta'][name]) for name, value in trained[0].items())


def test_too_little_memory(base, checked, monkeypatch):
    from dil_plugin.basicsr.models.dil_model import DILModel

    def full(self, _):
        torch.empty(2**50)

    monkeypatch.setattr(DILModel, 'optimize_parameters', full)
    with pytest.raises(OptionError, match=r'datasets\.train\.batch_size_per_gpu: 4 patches need more memory'):
        checked(base)


def test_other_errors_of_a_step_are_not_about_memory(base, checked, monkeypatch):
    from dil_plugin.basicsr.models.dil_model import DILModel

    def wrong(self, _):
        raise RuntimeError('of another kind')

    monkeypatch.setattr(DILModel, 'optimize_parameters', wrong)
    with pytest.raises(OptionError, match=r'a training step fails \(RuntimeError: of another kind, .*py line \d+\)'):
        checked(base)


def test_too_little_disk_space(base, checked, monkeypatch):
    monkeypatch.setattr(checking_tool.shutil, 'disk_usage', lambda _: shutil._ntuple_diskusage(10, 5, 2**20))
    base['train']['total_iter'], base['logger']['save_checkpoint_freq'] = 1000, 10
    with pytest.raises(OptionError, match=r'logger\.save_checkpoint_freq: 10, which makes 101 .* 1\.0 MiB are free') \
            as error:
        checked(base)
    allowed = int(re.search(r'allowed: a number >= (\d+)', str(error.value))[1])
    base['logger']['save_checkpoint_freq'] = allowed
    checked(base)
    base['logger']['save_checkpoint_freq'] = allowed - 1
    with pytest.raises(OptionError, match='save_checkpoint_freq'):
        checked(base)


def test_a_folder_that_cannot_be_made(base, checked, tmp_path):
    (tmp_path / 'root/experiments').write_text('a file')
    with pytest.raises(DataError, match='experiments/run cannot be made'):
        checked(base)


def test_a_run_to_go_on_with(base, checked, pipeline, tmp_path):
    root = pipeline(base)
    shutil.move(root / 'experiments', tmp_path / 'root/experiments')
    before = {path: path.stat().st_mtime_ns for path in files_below(tmp_path / 'root')}
    lines = checked(base, '--auto_resume')
    assert any('4.state, iteration 4' in line for line in lines)
    assert {path: path.stat().st_mtime_ns for path in files_below(tmp_path / 'root')} == before


def test_the_peak_is_that_of_the_step(base, checked, monkeypatch):
    """300 MiB more in the step are 300 MiB more in the summary."""
    from dil_plugin.basicsr.models.dil_model import DILModel
    if not trial_step._RESET.exists():
        pytest.skip('the system does not tell')
    take, found = DILModel.optimize_parameters, []
    for more in (1, 300):

        def optimize(self, current_iter, more=more):
            torch.ones(more * 2**18).sum()
            take(self, current_iter)

        monkeypatch.setattr(DILModel, 'optimize_parameters', optimize)
        line, = (line for line in checked(base) if line.startswith('memory'))
        number, unit = re.search(r'memory +(\S+) ([GM])iB', line).groups()
        found.append(float(number) * (1024 if unit == 'G' else 1))
    assert 150 < found[1] - found[0] < 450


@pytest.mark.parametrize(('seconds', 'words'), [(0.25, '0.25 s'), (61, '1 min 1 s'), (3600, '1 h 0 min'),
                                                (3 * 86400 + 7200, '3 d 2 h')])
def test_durations(seconds, words):
    assert duration(seconds) == words


def tool(path, *arguments):
    return subprocess.run([sys.executable, 'tools/check.py', '-opt', str(path), *arguments], capture_output=True,
                          text=True, cwd=ROOT, timeout=250,
                          env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)})


def test_tool(base, tmp_path):
    base['name'] = f'checked_{os.getpid()}'
    path = tmp_path / 'options.yml'
    path.write_text(yaml.safe_dump(base))
    done = tool(path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == 'all is fine'
    assert not (ROOT / 'experiments' / base['name']).exists()
    done = tool(path, '--force_yml', 'train:total_iter=no')
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    assert "error: train.total_iter: expected a number > 0, got 'no'" in done.stderr
    done = tool(path, '--images', 'some')
    assert done.returncode == 2
    assert "got 'some'; allowed: an integer >= 1, all" in done.stderr
