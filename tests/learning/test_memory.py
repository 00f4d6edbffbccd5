"""How many graphs the second-order variants hold at a time, counted in bytes saved for backward."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from learning_helpers import meta_batch, network_loss
from torch import Tensor

from dil_plugin.learning import ERM, ParallelSecondOrder, SerialSecondOrder
from dil_plugin.learning.hessian import exact, exact_recomputed, finite_difference


class SavedBytes:
    """Counts the bytes that autograd holds, and remembers the most it held."""

    def __init__(self) -> None:
        self.live = 0
        self.peak = 0

    def pack(self, tensor: Tensor) -> Any:
        saved = _Saved(tensor)
        size = tensor.numel() * tensor.element_size()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(saved, self._release, size)
        return saved

    def _release(self, size: int) -> None:
        self.live -= size


class _Saved:

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def peak_bytes(variant: Any, n: int) -> int:
    loss, params = network_loss('rrdb', 'l1')
    batch = meta_batch(n, size=16)
    count = SavedBytes()
    with torch.autograd.graph.saved_tensors_hooks(count.pack, lambda saved: saved.tensor):
        variant(loss, params, batch)
    assert count.peak > 0
    assert count.live == 0, 'a graph outlives the call'
    return count.peak


@pytest.mark.parametrize('variant', [
    SerialSecondOrder(0.05),
    SerialSecondOrder(0.05, exact_recomputed),
    SerialSecondOrder(0.05, finite_difference),
    ParallelSecondOrder(0.05),
    ParallelSecondOrder(0.05, finite_difference),
], ids=['ss', 'ss recomputed', 'ss finite difference', 'ps', 'ps finite difference'])
def test_one_graph_at_a_time(variant: Any) -> None:
    one, two, six = (peak_bytes(variant, n) for n in (1, 2, 6))
    assert max(two, six) <= 1.02 * one


def test_count_sees_graphs_that_are_held() -> None:
    """The control: here all n graphs wait for the outer gradient."""
    variant = ParallelSecondOrder(0.05, exact)
    assert peak_bytes(variant, 6) > 3 * peak_bytes(variant, 1)


@pytest.mark.parametrize('make', [SerialSecondOrder, ParallelSecondOrder], ids=['ss', 'ps'])
def test_finite_difference_needs_first_order_memory(make: Callable[..., Any]) -> None:
    first_order = peak_bytes(ERM(), 1)
    assert peak_bytes(make(0.05, finite_difference), 4) <= 1.02 * first_order
    assert peak_bytes(make(0.05, exact), 4) > 1.5 * first_order
