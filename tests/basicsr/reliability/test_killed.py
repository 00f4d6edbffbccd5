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
}
EVERY = [(variant, workers, processes) for variant in VARIANTS for workers in (0, 2) for processes in (1, 2)]
KILLS = 2  # of each of the twelve
FEW = [('sf', 2, 1), ('ps', 0, 2)]


def kill(run: TrainingRun, dice: random.Random) -> None:
    """All of it, or of several ranks one, upon which torchrun ends the others."""
    ranks = [pid for pid in run.pids()[1:] if b'train.py' in Path(f'/proc/{pid}/cmdline').read_bytes()]
    if run.processes > 1 and ranks and dice.random() < 0.5:
        os.kill(dice.choice(ranks), signal.SIGKILL)
        assert run.wait(120) != 0
    else:
        run.kill()


def run_killed(run: TrainingRun, kills: int, dice: random.Random) -> list[int]:
    """Trains, killed as many times, to the end; returns the iterations that the log had reached at each kill."""
    reached: list[int] = []
    arguments: list[str] = []
    while len(reached) < kills:
        run.start(*arguments)
        if not run.wait_for_iteration(dice.randint(max(reached, default=0) + 1, 29)):
            break
        time.sleep(dice.uniform(0, 0.1))  # within a step, a save or a validation
        if run.process.poll() is not None:
            break
        kill(run, dice)
        reached.append(max(run.losses()))
        arguments = ['--auto_resume'] if any((run.experiment / 'training_states').glob('*.state')) else []
    run.finish('--auto_resume')
    return reached


def check(folder: Path, opt: dict[str, Any], variant: str, workers: int, processes: int, kills: int) -> None:
    opt['train']['dil'] = VARIANTS[variant]
    opt['datasets']['train']['num_worker_per_gpu'] = workers
    opt['datasets']['train']['prefetch_mode'] = 'cpu' if workers else None
    whole, killed = (TrainingRun(folder / name, opt, processes) for name in ('whole', 'killed'))
    whole.finish()
    assert sorted(whole.losses()) == list(range(1, 31))
    dice = random.Random(f'{variant} {workers} {processes}')
    reached = run_killed(killed, kills, dice)
    assert len(reached) == kills, reached
    assert_same_runs(whole, killed)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(('variant', 'workers', 'processes'), EVERY)
def test_killed_and_resumed(long_run, tmp_path, variant, workers, processes):
    check(tmp_path, long_run, variant, workers, processes, KILLS)


@pytest.mark.parametrize(('variant', 'workers', 'processes'), FEW)
def test_killed_once_and_resumed(long_run, tmp_path, variant, workers, processes):
    check(tmp_path, long_run, variant, workers, processes, 1)
