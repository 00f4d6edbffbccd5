"""Two processes with half of the images each against one process with all of them, in mmengine's wrappers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from .conftest import relative_error

CASES = ['sf', 'pf', 'ss', 'ps', 'mldg', 'erm serial', 'erm 1', 'erm 2']


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """What each process computed: two together, then one alone."""
    folder = tmp_path_factory.mktemp('ranks')
    worker = Path(__file__).with_name('distributed_worker.py')
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(path for path in sys.path if path)}

    def run(world):
        paths = [folder / f'{rank}_of_{world}.pt' for rank in range(world)]
        processes = [
            subprocess.Popen([sys.executable, str(worker), str(rank), str(world), (folder / f'meet_{world}').as_uri(),
                              str(path)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            for rank, path in enumerate(paths)
        ]
        try:
            for process in processes:
                _, errors = process.communicate(timeout=200)
                assert process.returncode == 0, errors
        finally:
            for process in processes:
                process.kill()
        return [torch.load(path) for path in paths]

    return run(2), run(1)


@pytest.mark.parametrize(('wrapper', 'name'), [
    *(('DILDistributedDataParallel', name) for name in CASES),
    *(('MMDistributedDataParallel', name) for name in CASES if name != 'erm 2'),  # which is refused, see below
])
def test_two_processes_give_the_gradients_of_one(wrapper, name, results):
    two, [one] = results
    alone = one['DILDistributedDataParallel', name]['grads']
    assert len(alone) == (2 if name == 'erm 2' else 1)
    for rank in two:
        grads = rank[wrapper, name]['grads']
        assert len(grads) == len(alone)
        for ours, expected in zip(grads, alone, strict=True):
            assert relative_error(ours, expected) < 1e-5


@pytest.mark.parametrize('name', CASES)
def test_ranks_stay_equal(name, results):
    two, _ = results
    first, second = (rank['DILDistributedDataParallel', name]['grads'] for rank in two)
    assert all(torch.equal(a, b) for ours, theirs in zip(first, second, strict=True)
               for a, b in zip(ours, theirs, strict=True))


def test_weights_of_the_first_rank_are_taken(results):
    two, _ = results
    assert two[0]['start'] != two[1]['start']
    assert two[0]['wrapped'] == two[1]['wrapped'] == two[0]['start']


def test_draws_of_the_ranks_differ(results):
    """Each rank distorts its own images, with noise of its own; the order of the confounders is common."""
    two, _ = results
    assert not torch.equal(two[0]['noise'], two[1]['noise'])
    assert torch.equal(two[0]['order'], two[1]['order'])


def test_what_the_default_wrapper_cannot_do_is_refused(results):
    """With the line that is to be added to the config."""
    two, _ = results
    line = "model_wrapper_cfg = dict(type='DILDistributedDataParallel')"
    assert line in two[0]['MMDistributedDataParallel', 'erm 2']['error']
    assert 'model.dil.erm_steps' in two[0]['MMDistributedDataParallel', 'erm 2']['error']
    assert line in two[0]['MMSeparateDistributedDataParallel', 'sf']['error']


def test_separate_wrapper_does_rename_the_weights(results):
    """Why it is refused."""
    two, _ = results
    assert 'generator.module.conv_first.weight' in two[0]['MMSeparateDistributedDataParallel', 'sf']['names']
    assert 'generator.conv_first.weight' in two[0]['MMDistributedDataParallel', 'sf']['names']


@pytest.mark.parametrize('wrapper', ['DILDistributedDataParallel', 'MMDistributedDataParallel'])
def test_ranks_skip_together(wrapper, results):
    """What is not finite on one rank is not finite on both; each names what is wrong with its own images."""
    two, _ = results
    first, second = (rank[wrapper, 'spoiled'] for rank in two)
    for ours, theirs in zip(first['weights'], second['weights'], strict=True):
        assert all(map(torch.equal, ours, theirs))
    moved = [not all(map(torch.equal, before, after))
             for before, after in zip(first['weights'], first['weights'][1:], strict=False)]
    assert moved == [False, True, False, False]
    assert all(value.isfinite().all() for value in first['weights'][-1])
    assert first['skipped'] == second['skipped'] == 3
    assert 'the inner loss of GaussianNoise(sigma=15) is not finite' in second['error']
    assert 'or a loss of another process is not' in first['error']
