"""Gradients of a loss, or of the mean of several, with the graph of one batch or micro-batch at a time."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dil_plugin.learning.types import Grads, LossFunction, Pair, Params


def gradient(value: Tensor, params: Params, create_graph: bool = False) -> Grads:
    """``d value / d params``, zeros for parameters that the value does not depend on; see ``unshared``."""
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
            value = loss(params, part) * fraction
            grads = gradient(value / len(pairs), params)
            total = accumulated(total, grads)
            shares.append(value.detach())
        values.append(torch.stack(shares).sum())
    return total, torch.stack(values)


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
