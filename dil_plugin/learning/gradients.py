"""Gradients of a loss, or of the mean of several, with the graph of one batch or micro-batch at a time."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from dil_plugin.learning.double_backward import refusing_in_one_line
from dil_plugin.learning.types import Grads, LossFunction, Pair, Params

T = TypeVar('T')


def gradient(value: Tensor, params: Params, create_graph: bool = False) -> Grads:
    """``d value / d params``, zeros for parameters that the value does not depend on; see ``unshared``."""
    with refusing_in_one_line():
        grads = torch.autograd.grad(
            value, list(params.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True)
    return list(grads) if create_graph else unshared(grads)


def unshared(grads: Sequence[Tensor]) -> Grads:
    """The same values, no two in the same memory, so that they may be updated in place.

    Autograd gives one tensor as the gradient of both terms of a sum of parameters, and tensors of stride 0.
    """
    seen: set[int] = set()
    own = []
    for grad in grads:
        storage = grad.untyped_storage().data_ptr()
        own.append(grad.clone(memory_format=torch.contiguous_format) if storage in seen or 0 in grad.stride() else grad)
        seen.add(storage)
    return own


def mean_gradient(loss: LossFunction, params: Params, pairs: Sequence[Pair]) -> tuple[Grads, Tensor]:
    """Gradient of ``(1/n) sum_i L(f_params(lq_i), gt_i)``, the inner loss of Eq. 5, one graph at a time.

    Returns:
        The gradient and the n losses ``(n,)``, detached.
    """
    total: Grads = []
    values = []
    for pair in pairs:
        shares = []
        for fraction, part in micro_batches(loss, pair):
            value, grads = loss_and_gradient(loss, params, part, fraction, len(pairs))
            total = accumulated(total, grads)
            shares.append(value)
        values.append(torch.stack(shares).sum())
    return total, torch.stack(values)


def loss_and_gradient(loss: LossFunction, params: Params, pair: Pair, fraction: float = 1.0, count: int = 1,
                      create_graph: bool = False) -> tuple[Tensor, Grads]:
    """``fraction * L`` of a batch, detached, and the gradient of ``fraction * L / count``.

    The network holds ``params`` until both are there, see ``Substitution``.
    """

    def both() -> tuple[Tensor, Grads]:
        value = loss(params, pair) * fraction
        return value.detach(), gradient(value / count, params, create_graph)

    return network_at(loss, params, both)


def recorded_gradient(loss: LossFunction, params: Params, pair: Pair, fraction: float = 1.0,
                      count: int = 1) -> tuple[Tensor, Grads]:
    """``loss_and_gradient``, whose gradient can be differentiated.

    Raises:
        OptionError: It cannot.
    """
    value, grads = loss_and_gradient(loss, params, pair, fraction, count, create_graph=True)
    require: Callable[[Grads], None] | None = getattr(loss, 'require_second_derivative', None)
    if require is not None:
        require(grads)
    return value, grads


def network_at(loss: LossFunction, params: Params, run: Callable[[], T]) -> T:
    """``run()`` while the network of the loss holds ``params``; a loss without a network just runs it."""
    at: Callable[[Params, Callable[[], T]], T] | None = getattr(loss, 'at', None)
    return run() if at is None else at(params, run)


def micro_batches(loss: LossFunction, pair: Pair) -> Iterator[tuple[float, Pair]]:
    """Divides a batch into parts of at most ``loss.micro_batch`` images, each with its share of the images.

    The mean loss of the batch is the sum of the parts' mean losses times their shares. A loss without this attribute,
    or with None, takes the batch as it is.
    """
    size = getattr(loss, 'micro_batch', None)
    if size is None or size >= len(pair.lq):
        yield 1.0, pair
        return
    count = len(pair.lq)
    for lq, gt in zip(pair.lq.split(size), pair.gt.split(size), strict=True):
        yield len(lq) / count, Pair(lq, gt)


def laid_out_like(params: Sequence[Tensor], grads: Grads) -> Grads:
    """The gradients with the strides of their parameters, as ``backward`` would have left them in ``.grad``.

    Autograd, a compiled network and averages over ranks give other strides where weights or images are channels last,
    and fused optimisers walk through memory without a look at them.
    """
    return [grad if grad.stride() == param.stride() else torch.empty_like(param).copy_(grad)
            for param, grad in zip(params, grads, strict=True)]


def accumulated(total: Grads, grads: Grads) -> Grads:
    """``total + grads`` in the memory of ``total``; an empty total is zero."""
    if not total:
        return grads
    torch._foreach_add_(total, grads)
    return total
