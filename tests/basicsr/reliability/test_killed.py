"""A run killed by SIGKILL at random points and resumed ends as one that was not, bit for bit."""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from training_runs import TrainingRun, assert_same_runs

VARIANTS = {
    'sf': {'variant': 'sf', 'patches': 'fresh'},
    'ps': {'variant': 'ps', 'inner': {'type': 'SGD', 'lr': 0.01}},
    'erm': {'variant': 'erm', 'erm_steps': 3},
    'phi': {'variant': 'ps', 'inner': {'type': 'SGD', 'lr': 0.01}, 'deploy': 'phi', 'deploy_patches': 6},
}
EVERY = [(variant, workers, processes) for variant in VARIANTS for workers in (0, 2) for processes in (1, 2)]
KILLS = 2  # of each of the sixteen
LAST = 48  # of 60 iterations, is waited for


def kill(run: TrainingRun, dice: random.Random) -> None:
    """All of it, or of several ranks one, upon which torchrun ends the others."""
    ranks = run.ranks()
    if len(ranks) > 1 and dice.random() < 0.5:
        os.kill(dice.choice(ranks), signal.SIGKILL)
        assert run.wait(120) != 0
    else:
        run.kill()


def run_killed(run: TrainingRun, kills: int, dice: random.Random) -> None:
    """Trains to the end, killed as many times, each time in a later part of the run."""
    for k in range(kills):
        run.start('--auto_resume')
        assert run.wait_for_iteration(dice.randint(k * LAST // kills + 1, (k + 1) * LAST // kills))
        time.sleep(dice.uniform(0, 0.1))  # within a step, a save or a validation
        assert run.process.poll() is None
        kill(run, dice)
    run.finish('--auto_resume')


def check(folder: Path, opt: dict[str, Any], variant: str, workers: int, processes: int, kills: int) -> None:
    opt['train']['dil'] = VARIANTS[variant]
    if 'deploy' in VARIANTS[variant]:
        opt['train']['ema_decay'] = 0
    opt['datasets']['train']['num_worker_per_gpu'] = workers
    opt['datasets']['train']['prefetch_mode'] = 'cpu' if workers else None
    whole, killed = (TrainingRun(folder / name, opt, processes) for name in ('whole', 'killed'))
    whole.finish()
    assert sorted(whole.losses()) == list(range(1, 61))
    run_killed(killed, kills, random.Random(f'{variant} {workers} {processes}'))
    assert_same_runs(whole, killed)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(('variant', 'workers', 'processes'), EVERY)
def test_killed_and_resumed(long_run, tmp_path, variant, workers, processes):
    check(tmp_path, long_run, variant, workers, processes, KILLS)


def test_killed_once_and_resumed(long_run, tmp_path):
    """One of them for every day."""
    check(tmp_path, long_run, 'ps', 2, 2, 1)
