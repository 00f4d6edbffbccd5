"""The learning rate of every iteration, in closed form: ``min(1, k / N)`` times the schedule's."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from basicsr.models.base_model import BaseModel
from basicsr.models.lr_scheduler import CosineAnnealingRestartLR, MultiStepRestartLR

from dil_plugin.basicsr.models.learning_rates import update_rates

LR, LAST = 2e-3, 40


def steps_down(k, gamma=0.5, milestones=(3, 7, 7, 25)):
    return LR * gamma**sum(m < k for m in milestones)


def starts_anew(k):
    """Milestones 3 and 25, and at 12 seven tenths of the first rate."""
    return LR * (0.5**(k > 3) if k <= 12 else 0.7 * 0.5**(k > 25))


def half_cosines(k):
    """Periods 10, 5 and 25 with weights 1, 0.5 and 0.25; the least rate 1e-5."""
    done = k - 1
    start, length, weight = next(part for part in ((0, 10, 1), (10, 5, 0.5), (15, 25, 0.25)) if done <= sum(part[:2]))
    return 1e-5 + weight * (LR - 1e-5) * (1 + math.cos(math.pi * (done - start) / length)) / 2


SCHEDULES = {
    'steps': (MultiStepRestartLR, {'milestones': [3, 7, 7, 25], 'gamma': 0.5}, steps_down),
    'restart': (MultiStepRestartLR, {'milestones': [3, 25], 'gamma': 0.5, 'restarts': [0, 12],
                                     'restart_weights': [1, 0.7]}, starts_anew),
    'cosine': (CosineAnnealingRestartLR, {'periods': [10, 5, 25], 'restart_weights': [1, 0.5, 0.25], 'eta_min': 1e-5},
               half_cosines),
}


def built(name):
    kind, options, _ = SCHEDULES[name]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], LR)
    scheduler = kind(optimizer, **options)
    optimizer.step()  # torch warns of schedules that step first
    return optimizer, scheduler


def resumed(name, optimizer, scheduler):
    states = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
    for one, state in zip(fresh := built(name), states, strict=True):
        one.load_state_dict(state)
    return fresh


def expected(name, warmup):
    return [SCHEDULES[name][2](k) * (min(1, k / warmup) if warmup > 0 else 1) for k in range(1, LAST + 1)]


@pytest.mark.parametrize('warmup', [-1, 0, 1, 2, 10, LAST + 5])
@pytest.mark.parametrize('name', SCHEDULES)
def test_every_iteration_has_the_rate_of_the_closed_form(name, warmup):
    optimizer, scheduler = built(name)
    rates = []
    for k in range(1, LAST + 1):
        update_rates([scheduler], k, warmup)
        rates.append(optimizer.param_groups[0]['lr'])
    assert rates == pytest.approx(expected(name, warmup), rel=1e-12)


@pytest.mark.parametrize('name', SCHEDULES)
def test_without_warm_up_it_is_basicsrs_to_the_bit(name):
    ours, theirs = built(name), built(name)
    model = SimpleNamespace(schedulers=[theirs[1]])
    for k in range(1, LAST + 1):
        update_rates([ours[1]], k)
        BaseModel.update_learning_rate(model, k)
        assert ours[0].param_groups[0]['lr'] == theirs[0].param_groups[0]['lr']
    assert ours[1].state_dict() == theirs[1].state_dict()


@pytest.mark.parametrize('name', SCHEDULES)
def test_resumed_after_any_iteration_it_goes_on_to_the_bit(name):
    whole, scheduler = built(name)
    rates, saved = [], []
    for k in range(1, LAST + 1):
        update_rates([scheduler], k, 10)
        rates.append(whole.param_groups[0]['lr'])
        saved.append(resumed(name, whole, scheduler))
    for k in range(1, LAST):
        optimizer, scheduler = saved[k - 1]
        for later in range(k + 1, LAST + 1):
            update_rates([scheduler], later, 10)
            assert optimizer.param_groups[0]['lr'] == rates[later - 1]


@pytest.mark.parametrize('done', [1, 4, 9, 10, 26])
@pytest.mark.parametrize('name', SCHEDULES)
def test_a_training_state_of_basicsrs_rates_goes_on_with_the_right_ones(name, done):
    """As those of earlier versions are, too: within the warm-up, at its end and after milestones."""
    optimizer, scheduler = built(name)
    model = SimpleNamespace(
        schedulers=[scheduler], _get_init_lr=lambda: [[LR]],
        _set_lr=lambda rates: optimizer.param_groups[0].update(lr=rates[0][0]))
    for k in range(1, done + 1):
        BaseModel.update_learning_rate(model, k, 10)
    if done > 9 and name == 'steps':  # what is mended: nine tenths, and no milestone
        assert optimizer.param_groups[0]['lr'] == pytest.approx(LR * 0.9 * (0.5 if done > 25 else 1))
    optimizer, scheduler = resumed(name, optimizer, scheduler)
    rates = []
    for k in range(done + 1, LAST + 1):
        update_rates([scheduler], k, 10)
        rates.append(optimizer.param_groups[0]['lr'])
    assert rates == pytest.approx(expected(name, 10)[done:], rel=1e-12)


def test_training_has_these_rates(base, pipeline):
    base['train'] |= {'warmup_iter': 3, 'scheduler': {'type': 'MultiStepLR', 'milestones': [1], 'gamma': 0.5}}
    log = ''.join(path.read_text() for path in (pipeline(base) / 'experiments/run').glob('*.log'))
    assert [line.split('lr:(')[1].split(',')[0] for line in log.splitlines() if ', lr:(' in line] == [
        '3.333e-04', '3.333e-04', '5.000e-04', '5.000e-04']
