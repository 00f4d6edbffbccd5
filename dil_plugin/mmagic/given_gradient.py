"""A loss whose gradient is given, so that mmengine's optimiser wrappers can do with it what they do with any loss."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dil_plugin.learning.types import Grads


def loss_with_gradient(value: Tensor, params: Sequence[Tensor], grads: Grads) -> Tensor:
    """A scalar equal to ``value`` whose ``backward()`` adds ``grads`` to ``params[i].grad``.

    ``OptimWrapper.update_params`` divides it for accumulation, ``AmpOptimWrapper`` scales and unscales it, and
    DistributedDataParallel sees a gradient for every parameter: all are linear in the gradient.

    Args:
        value: Scalar; what is logged.
        params: Leaves that require gradients.
        grads: One tensor for each, of its shape.
    """
    loss: Tensor = _Given.apply(value, len(params), *params, *grads)
    return loss


class _Given(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, value: Tensor, count: int, *tensors: Tensor) -> Tensor:
        ctx.grads = tensors[count:]
        return value.detach().clone()

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> tuple[Any, ...]:
        grads = torch._foreach_mul(list(ctx.grads), weight)
        return None, None, *grads, *([None] * len(grads))
