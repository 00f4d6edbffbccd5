"""What autograd has recorded."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor


def nodes(tensors: Iterable[Tensor]) -> Iterator[Any]:
    """The nodes of the graphs that tensors were computed in, each once, in no order; of leaves ``AccumulateGrad``."""
    waiting: list[Any] = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        yield node
        new = {following for following, _ in node.next_functions if following is not None} - seen
        seen |= new
        waiting += new
