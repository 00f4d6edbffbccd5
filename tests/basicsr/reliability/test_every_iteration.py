"""Interrupted after each iteration of a run in turn, in one process: the same end, bit for bit."""

import copy
import itertools
import signal

import pytest
import torch
from test_killed import VARIANTS
from training_runs import differences

from dil_plugin.basicsr.models import resumable_model

LAST = 7


def saved(run):
    return [torch.load(run / name, weights_only=True)
            for name in (f'models/net_g_{LAST}.pth', f'training_states/{LAST}.state')]


@pytest.mark.parametrize('options', [
    {'dil': VARIANTS['sf'], 'amp': 'fp16', 'accum_iter': 3},
    {'dil': VARIANTS['sf'] | {'inner': {'type': 'Adam', 'lr': 1e-4}}},
    {'dil': VARIANTS['ps'] | {'hvp': 'finite_difference'}, 'amp': 'bf16', 'clip_grad_norm': 0.1},
    {'dil': VARIANTS['erm'], 'accum_iter': 2},
    {'dil': VARIANTS['erm'] | {'erm_sampling': 'serial'}},
    {'dil': {'variant': 'mldg', 'inner': {'type': 'SGD', 'lr': 0.01}}, 'amp': 'bf16'},
    {'dil': VARIANTS['ps'] | {'deploy': 'phi', 'deploy_patches': 5}, 'ema_decay': 0},
], ids=lambda options: f'{options["dil"]["variant"]}-{options.get("amp")}')
def test_any_iteration(long_run, pipeline, options):
    """In the warm-up (5), before and after milestones, in the middle of accumulations and epochs (6 iterations)."""
    long_run['train'] |= {'total_iter': LAST, **options}
    long_run['train']['scheduler']['milestones'] = [2, 6]
    long_run['logger'] |= {'save_checkpoint_freq': 1, 'keep_last': None}
    run = pipeline(long_run) / 'experiments/run'
    whole = saved(run)
    for iteration in range(LAST - 1, 0, -1):
        for later in range(iteration + 1, LAST + 1):
            (run / f'training_states/{later}.state').unlink()
            (run / f'models/net_g_{later}.pth').unlink()
        pipeline(long_run, 'train', '--auto_resume')
        assert not differences(whole, saved(run)), iteration


def test_stopped_after_any_iteration(long_run, pipeline, monkeypatch):
    """By a signal, which writes a state out of turn, also between epochs (6 iterations) and before a validation (4)."""
    long_run['train'] |= {'total_iter': LAST, 'dil': VARIANTS['sf']}
    long_run['logger'] |= {'save_checkpoint_freq': LAST, 'keep_last': None}
    whole = saved(pipeline(long_run) / 'experiments/run')
    for iteration in range(1, LAST):
        opt = copy.deepcopy(long_run) | {'name': f'stopped{iteration}'}
        looks = itertools.count()
        monkeypatch.setattr(resumable_model, 'received_signal',
                            lambda at=iteration, looks=looks: signal.SIGTERM * (next(looks) == at))
        with pytest.raises(SystemExit) as stop:
            pipeline(opt)
        assert stop.value.code == 143
        run = pipeline(opt, 'train', '--auto_resume') / 'experiments' / opt['name']
        assert [path.name for path in sorted((run / 'training_states').iterdir())] == [
            f'{iteration}.state', f'{LAST}.state']
        found = [one for one in differences(whole, saved(run)) if 'dil_plugin/name' not in one]  # in the notes
        assert not found, iteration
