"""Two and four processes with a part of the images each against one process with all of them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_worker import CASES, VARIANTS, Case, meta_gradients
from learning_helpers import equal, meta_batch, relative_error

from dil_plugin.learning import MetaBatch, average_over_ranks
from dil_plugin.learning.distributed import CommonBuffers

PLAIN = ['erm', 'sf', 'pf', 'ss', 'ps']


@pytest.fixture(scope='module')
def ranks(run_ranks: Callable[..., list[Any]]) -> dict[int, list[Any]]:
    """What each of two and of four processes computed."""
    worker = Path(__file__).resolve().parent / 'distributed_worker.py'
    return {world: run_ranks(worker, world) for world in (2, 4)}


alone = cache(lambda case: meta_gradients(case, 0, 1))


def limit(case: Case, name: str) -> float:
    """Adam divides every gradient by its own size, so that of a small one the rounding error is enlarged with it.

    One process in float32 is 2e-6 from float64 then.
    """
    if case.dtype is torch.float64:
        return 1e-12
    return 1e-5 if 'Adam' in name else 1e-6


@pytest.mark.parametrize('name', VARIANTS)
@pytest.mark.parametrize('case', CASES, ids=str)
@pytest.mark.parametrize('world', [2, 4])
def test_processes_give_the_meta_gradient_of_one(case: Case, name: str, world: int, ranks: Any) -> None:
    for rank in ranks[world]:
        assert relative_error(rank['averaged'][tuple(case)][name], alone(case)[name]) < limit(case, name)


@pytest.mark.parametrize('world', [2, 4])
def test_ranks_agree_bit_for_bit(world: int, ranks: Any) -> None:
    first, *others = (rank['averaged'] for rank in ranks[world])
    for rank in others:
        for case, grads in first.items():
            for name in VARIANTS:
                assert equal(rank[case][name], grads[name]), (case, name)


@pytest.mark.parametrize('name', PLAIN)
def test_without_averaging_the_ranks_differ(name: str, ranks: Any) -> None:
    """The control: half of the images is not the whole."""
    first, second = (rank['local'][name] for rank in ranks[2])
    assert not equal(first, second)
    assert relative_error(first, alone(CASES[0])[name]) > 1e-3


def test_buffers_are_those_of_the_first_rank(ranks: Any) -> None:
    """Running statistics and the integer beside them; DistributedDataParallel broadcasts them, too."""
    first, second = (rank['buffers'] for rank in ranks[2])
    assert not torch.equal(first['own']['1.running_mean'], second['own']['1.running_mean'])
    for name, value in first['own'].items():
        assert torch.equal(first['after'][name], value)
        assert torch.equal(second['after'][name], value)
    assert int(second['after']['1.num_batches_tracked']) == 2
    assert second['after']['1.num_batches_tracked'].dtype is torch.int64


def test_only_buffers_that_training_changes_travel(ranks: Any) -> None:
    """Mean, variance and count, not the constant of 1000 numbers."""
    for rank in ranks[2]:
        assert rank['buffers']['sent'] == [13, 13]


def test_average_of_several_dtypes(ranks: Any) -> None:
    """Weights 3 and 1; in float16 3 * 60000 would overflow."""
    for rank in (rank['averages'] for rank in ranks[2]):
        floats, double, half, empty, scalar, strided = rank['mixed']
        assert torch.equal(floats, torch.full((2, 3), 1.25))
        assert torch.equal(strided, torch.full((1, 2, 2, 2), 1.25))
        assert torch.equal(double, torch.tensor(2.25, dtype=torch.float64))
        assert torch.equal(half, torch.full((4, ), 45000., dtype=torch.float16))
        assert empty.numel() == 0
        assert torch.equal(scalar, torch.tensor([7.]))
        assert equal(rank['given'], rank['before'])


def test_a_rank_without_images_counts_nothing(ranks: Any) -> None:
    for rank in ranks[2]:
        assert torch.equal(rank['averages']['ignored'][0], torch.tensor([3., 4.]))


def test_equal_weights_change_no_bit(ranks: Any) -> None:
    """Eight images on each rank, or an average of ranks as it was always taken: the sum over two, halved."""
    first, second = (rank['averages'] for rank in ranks[2])
    expected = (first['noise'][0] + second['noise'][0]) / 2
    for rank in (first, second):
        assert torch.equal(rank['plain'][0], expected)
        assert torch.equal(rank['equal'][0], expected)


def test_single_process_averages_nothing() -> None:
    grads = [torch.ones(2), torch.zeros(3)]
    assert average_over_ranks(grads, 3) is grads
    CommonBuffers(torch.nn.BatchNorm2d(3))()


def test_images_of_a_batch() -> None:
    """Of the query, and of the confounders where there is none."""
    whole = meta_batch(2, batch=3)
    assert whole.images == 3
    assert MetaBatch(whole.confounders).images == 3
    assert MetaBatch((), whole.query).images == 3
