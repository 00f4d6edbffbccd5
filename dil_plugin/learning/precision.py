"""The method under automatic mixed precision: what autocast and float16 would spoil is kept right here."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from dil_plugin.learning.distributed import average_over_ranks
from dil_plugin.learning.hessian import global_norm
from dil_plugin.learning.objective import NetworkLoss
from dil_plugin.learning.types import Grads, Pair, Params

T = TypeVar('T')

LEAST_SCALE = 1.0
"""A scale of the loss at or below which an overflow of float16 is not the scale's fault any more."""


def is_half(device: torch.device) -> bool:
    """Whether autocast computes in float16, whose small gradients vanish, at the moment."""
    return torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) is torch.float16


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Autocast off: confounders are computed in float32."""
    with torch.autocast(device.type, enabled=False):
        yield


class AutocastLoss:
    """A ``NetworkLoss`` that may be evaluated at several parameters within one autocast context.

    Autocast keeps the low-precision copy of a parameter until its context ends. A walk of inner steps overwrites its
    fast weights in place and would go on with the copy of the first step, so the cache is off here.

    Args:
        loss: The loss in full precision.
        scale: float16: a scalar on the device by which the gradients are larger inside of the network than outside, as
            a ``GradScaler`` has it; they come out unscaled. None: no scaling.
    """

    def __init__(self, loss: NetworkLoss, scale: Tensor | None = None) -> None:
        self.loss = loss
        self.scale = scale
        self.micro_batch = loss.micro_batch

    def __call__(self, params: Params, pair: Pair) -> Tensor:
        """The loss of a batch at ``params``, a scalar."""
        device = pair.lq.device.type
        if not torch.is_autocast_enabled(device):
            return self.loss(params, pair)
        with torch.autocast(device, dtype=torch.get_autocast_dtype(device), cache_enabled=False):
            if self.scale is None:
                return self.loss(params, pair)
            inside = {name: _GradientTimes.apply(p, 1 / self.scale) for name, p in params.items()}
            value: Tensor = _GradientTimes.apply(self.loss(inside, pair), self.scale)
            return value

    def at(self, params: Params, run: Callable[[], T]) -> T:
        """See ``NetworkLoss``."""
        return self.loss.at(params, run)

    def require_second_derivative(self, grads: Grads) -> None:
        """See ``NetworkLoss``."""
        self.loss.require_second_derivative(grads)

    def on_copies(self) -> 'AutocastLoss':
        """See ``NetworkLoss``."""
        return AutocastLoss(self.loss.on_copies(), self.scale)


class _GradientTimes(torch.autograd.Function):
    """The identity, whose gradient is multiplied."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor.to(grad.dtype), None


class OverflowGuard:
    """Averages over the images of all processes; in float16 it also keeps an overflow out of the inner optimiser.

    Adam's moments persist, so one infinite gradient would spoil all later walks. It is replaced by zeros there, and the
    meta-gradient of that step becomes infinite instead: the GradScaler sees it, skips the step and lowers its scale.
    """

    def __init__(self) -> None:
        self.active = False
        self.images = 1
        self.overflown: Tensor | None = None

    def start(self, active: bool, images: int = 1) -> None:
        """A meta-step begins.

        Args:
            active: Whether to look for overflows.
            images: Of this process in the step; its share in the averages.
        """
        self.active, self.images, self.overflown = active, images, None

    def __call__(self, grads: Grads) -> Grads:
        """An ``Average``."""
        averaged = average_over_ranks(grads, self.images)
        if not self.active:
            return averaged
        finite = torch.isfinite(global_norm(averaged))
        self.overflown = ~finite if self.overflown is None else self.overflown | ~finite
        return [torch.where(finite, grad, 0) for grad in averaged]

    def marked(self, grads: Grads) -> Grads:
        """The meta-gradient, infinite where there was an overflow."""
        if self.overflown is None:
            return grads
        return [torch.where(self.overflown, torch.inf, grad) for grad in grads]
