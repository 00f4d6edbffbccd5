"""What networks and other people's data sets draw from the global generators is the same after a resume."""

import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from basicsr.utils import set_random_seed
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY
from torch import nn
from torch.utils import data
from training_runs import differences

from dil_plugin.basicsr.data.numbered_samples import NumberedSamples
from dil_plugin.basicsr.resuming.numbered_steps import sample_seeded, seed_step


def numpy_draw():
    return np.random.rand()  # noqa: NPY002


@ARCH_REGISTRY.register()
class DropoutForTest(nn.Module):
    """Dropout, and noise by NumPy and Python: all of the global generators."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.Dropout(0.5), nn.Conv2d(4, 3, 3, 1, 1))

    def forward(self, x):
        if not self.training:
            return x + self.body(x)
        return x + self.body(x) + random.random() + numpy_draw()


@DATASET_REGISTRY.register()
class GlobalDrawsForTest(data.Dataset):
    """Somebody's data set that draws from all of the global generators."""

    def __init__(self, opt):
        self.opt = opt

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return {'gt': torch.rand(3, 16, 16) * 0.5 + 0.2 * random.random() + 0.2 * numpy_draw() + index / 100}


def drawn():
    return random.random(), numpy_draw(), torch.rand(1).item()


def states(root):
    return [torch.load(root / f'experiments/run/{name}', weights_only=True)
            for name in ('models/net_g_6.pth', 'training_states/6.state')]


def foreign(base, tmp_path, workers, prefetch):
    base['network_g'] = {'type': 'DropoutForTest'}
    base['train'] |= {'dil': {'variant': 'sf'}, 'total_iter': 6}
    base['datasets']['train'] = {
        'name': 'somebody', 'type': 'GlobalDrawsForTest', 'batch_size_per_gpu': 2, 'num_worker_per_gpu': workers,
        'dataset_enlarge_ratio': 1, 'gt_size': 16, 'prefetch_mode': prefetch}
    return base


@pytest.mark.parametrize('val_freq', [1, 5])
@pytest.mark.parametrize(('workers', 'prefetch'), [(0, None), (2, None), (2, 'cpu')])
def test_dropout_and_global_draws(base, crops, pipeline, tmp_path, workers, prefetch, val_freq):
    """Resumed in the middle of the second epoch; validations draw, too."""
    foreign(base, tmp_path, workers, prefetch)
    base['datasets']['val_1'] = {
        'name': 'val', 'type': 'DistortionAugmentedDataset', 'dataroot_gt': str(crops), 'io_backend': {'type': 'disk'},
        'distortions': [{'type': 'GaussianNoise', 'sigma': 30}]}
    base['val'] = {'val_freq': val_freq, 'save_img': False}
    root = pipeline(base)
    whole = states(root)
    for name in ('models/net_g_6.pth', 'training_states/6.state'):
        (root / 'experiments/run' / name).unlink()
    set_random_seed(99)
    pipeline(base, 'train', '--auto_resume')
    assert not differences(whole, states(root))


def test_the_number_of_workers_does_not_matter(base, pipeline, tmp_path):
    runs = []
    for workers in (0, 2):
        pipeline(foreign(base, tmp_path, workers, None))
        runs.append(states(tmp_path))
    assert not differences(*runs)


def test_steps_and_ranks_draw_differently():
    seen = set()
    for seed, rank, iteration in ((0, 0, 1), (0, 0, 2), (0, 1, 1), (1, 0, 1)):
        seed_step(seed, rank, iteration)
        first = drawn()
        seed_step(seed, rank, iteration)
        assert drawn() == first
        seen |= set(first)
    assert len(seen) == 12


def test_a_sample_leaves_no_trace_and_follows_its_number():
    set_random_seed(1)
    expected = drawn()
    set_random_seed(1)
    samples = []
    for draw in (5, 5, 6):
        with sample_seeded(3, draw):
            samples.append(drawn())
    assert drawn() == expected
    assert samples[0] == samples[1]
    assert not set(samples[0]) & set(samples[2])


def test_an_index_without_a_number_is_left_alone():
    dataset = NumberedSamples(GlobalDrawsForTest({'name': 'x'}), 0)
    torch.manual_seed(0)
    one = dataset[0]['gt']
    assert not torch.equal(one, dataset[0]['gt'])
    assert (dataset.opt, len(dataset)) == ({'name': 'x'}, 6)


def test_a_drawn_seed_is_kept(base, pipeline, monkeypatch):
    """Without manual_seed BasicSR draws one each time; a resumed run takes its first."""
    import basicsr.utils.options
    monkeypatch.setattr(basicsr.utils.options, 'random', SimpleNamespace(randint=lambda *_: next(numbers)))
    del base['manual_seed']
    base['train']['total_iter'] = 6
    numbers = iter([41, 42])
    root = pipeline(base)
    whole = states(root)
    assert whole[1]['dil']['manual_seed'] == 41
    for name in ('models/net_g_6.pth', 'training_states/6.state'):
        (root / 'experiments/run' / name).unlink()
    pipeline(base, 'train', '--auto_resume')
    assert not differences(whole, states(root))


def test_another_seed_is_reported(base, pipeline):
    root = pipeline(base)
    base |= {'manual_seed': 4}
    base['train']['total_iter'] = 6
    pipeline(base, 'train', '--auto_resume')
    logs = ''.join(path.read_text() for path in Path(root / 'experiments/run').glob('*.log'))
    assert 'manual_seed is 4, the run began with 3' in logs
    assert yaml.safe_load((root / 'options.yml').read_text())['manual_seed'] == 4
