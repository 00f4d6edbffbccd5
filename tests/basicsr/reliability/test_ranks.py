"""Training states of several ranks: each has a part of its own, and all take the same state."""

import shutil

import pytest
import torch
from training_runs import TrainingRun, assert_same_runs, differences

from dil_plugin.basicsr.models.dil_model import DILModel
from dil_plugin.basicsr.resuming.training_states import load_resume_state


@pytest.fixture
def pooled(base):
    """With a pool of pairs, which differs between the ranks."""
    base['datasets']['train'] |= {'batch_size_per_gpu': 4, 'gt_size': 16, 'dataset_enlarge_ratio': 2}
    base |= {'queue_size': 8}
    base['train'] |= {'dil': {'variant': 'ps', 'patches': 'same'}, 'total_iter': 8}
    base['logger']['save_checkpoint_freq'] = 4
    return base


@pytest.fixture
def two_ranks(pooled, tmp_path):
    run = TrainingRun(tmp_path / 'run', pooled, 2)
    run.finish()
    return run


def test_each_rank_goes_on_with_its_own(two_ranks, pooled, tmp_path):
    """Damaged on one rank alone, the newest state is left by both; the pool of each is its own."""
    states = two_ranks.experiment / 'training_states'
    mine, other = (torch.load(states / name, weights_only=True) for name in ('4.state', '4.state.rank1'))
    assert differences(mine['dil']['sampler']['pool'], other['sampler']['pool'])
    assert differences(mine['dil']['sampler']['noise'], other['sampler']['noise'])

    again = TrainingRun(tmp_path / 'again', pooled, 2)
    shutil.copytree(two_ranks.experiment, again.experiment)
    damaged = again.experiment / 'training_states/8.state.rank1'
    damaged.write_bytes(damaged.read_bytes()[:-100])
    (again.experiment / 'models/net_g_8.pth').unlink()
    shutil.copy(two_ranks.experiment / 'models/net_g_8.pth', again.experiment / 'models')
    again.finish('--auto_resume')
    assert 'Resuming training from epoch: 3, iter: 4.' in again.log()
    assert f'{damaged} cannot be read as a checkpoint' in again.log()
    assert_same_runs(two_ranks, again)


def test_another_number_of_ranks_begins_new_draws(two_ranks, pooled, parsed, pipeline, tmp_path):
    """All else is restored; the draws are neither those that were used, nor those of the start.

    After 8 epochs of one iteration come those of three, so it was the eighth of 7 epochs: the run goes on all the same.
    """
    pooled['name'] = 'alone'
    shutil.copytree(two_ranks.experiment, tmp_path / 'experiments/alone')
    opt = parsed(pooled, True, '--auto_resume')
    state = load_resume_state(opt)
    assert (state['iter'], state['dil']['world_size']) == (8, 2)
    model = DILModel(opt)
    fresh = model.sampler.noise.get_state()
    model.resume_training(state)
    noise = model.sampler.noise.get_state()
    assert not torch.equal(noise, fresh)
    assert not torch.equal(noise, state['dil']['sampler']['noise'])
    assert not differences(model.optimizer_g.state_dict()['state'][0]['exp_avg'],
                           state['optimizers'][0]['state'][0]['exp_avg'])
    pooled['train']['total_iter'] = 20
    pipeline(pooled, 'train', '--auto_resume')
    log = ''.join(path.read_text() for path in (tmp_path / 'experiments/alone').glob('*.log'))
    assert 'processes: 2 -> 1' in log
    assert 'iter:      20, lr' in log
