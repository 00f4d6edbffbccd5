"""Two processes with half of the images each against one process with all of them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_worker import meta_gradients
from learning_helpers import equal, relative_error

from dil_plugin.learning import average_over_ranks

WORLD = 2
NAMES = ['erm', 'sf', 'pf', 'ss', 'ps']


@pytest.fixture(scope='module')
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two processes computed."""
    folder = tmp_path_factory.mktemp('ranks')
    worker = Path(__file__).resolve().parent / 'distributed_worker.py'
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(path for path in sys.path if path)}
    results = [folder / f'{rank}.pt' for rank in range(WORLD)]
    processes = [
        subprocess.Popen([sys.executable, str(worker), str(rank), str(WORLD), (folder / 'meet').as_uri(), str(result)],
                         env=environment, stderr=subprocess.PIPE, text=True) for rank, result in enumerate(results)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    return [torch.load(result, weights_only=True) for result in results]


@pytest.fixture(scope='module')
def alone() -> dict[str, list[torch.Tensor]]:
    return meta_gradients(0, 1)


@pytest.mark.parametrize('name', NAMES)
def test_two_processes_give_the_meta_gradient_of_one(name: str, ranks: list[dict[str, Any]], alone: Any) -> None:
    for rank in ranks:
        assert relative_error(rank['averaged'][name], alone[name]) < 1e-12


@pytest.mark.parametrize('name', NAMES)
def test_ranks_agree_bit_for_bit(name: str, ranks: list[dict[str, Any]]) -> None:
    assert equal(ranks[0]['averaged'][name], ranks[1]['averaged'][name])


@pytest.mark.parametrize('name', NAMES)
def test_without_averaging_the_ranks_differ(name: str, ranks: list[dict[str, Any]], alone: Any) -> None:
    """The control: half of the images is not the whole."""
    assert not equal(ranks[0]['local'][name], ranks[1]['local'][name])
    assert relative_error(ranks[0]['local'][name], alone[name]) > 1e-6


def test_single_process_averages_nothing() -> None:
    grads = [torch.ones(2), torch.zeros(3)]
    assert average_over_ranks(grads) is grads
