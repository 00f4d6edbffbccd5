"""What becomes of a meta-gradient: it is accumulated, clipped, and the optimiser takes a step with it."""

from typing import Any

import torch
from torch import Tensor

from dil_plugin.basicsr.models.mixed_precision import MixedPrecision
from dil_plugin.learning import Params
from dil_plugin.learning.finite import all_finite
from dil_plugin.learning.gradients import accumulated
from dil_plugin.learning.hessian import global_norm
from dil_plugin.learning.types import Grads


class OuterStep:
    """Steps of the (outer) optimiser.

    Args:
        params: ``theta``.
        precision: Takes the step, in float16 by the GradScaler.
        accum_iter: Meta-gradients whose mean one step takes.
        clip_grad_norm: The largest 2-norm of a step's gradient, all parameters together; None: any.
    """

    def __init__(self, params: Params, precision: MixedPrecision, accum_iter: int = 1,
                 clip_grad_norm: float | None = None) -> None:
        self.params, self.precision = params, precision
        self.accum_iter = accum_iter
        self.clip_grad_norm = clip_grad_norm
        self.norm: Tensor | None = None
        """Of the gradient that the last step was taken with, before it was clipped: a scalar on the device."""
        self._total: Grads = []
        self._count = 0

    def take(self, optimizer: torch.optim.Optimizer, grads: Grads) -> tuple[Tensor, Tensor | None]:
        """Takes in a meta-gradient, whose tensors are changed in place.

        Returns:
            Of the step that it led to, whether it was taken and whether its numbers are at fault where it was skipped,
            boolean scalars on the device. Where it led to no step yet, whether it is finite itself, and None.
        """
        finite = all_finite(grads) if self._count + 1 < self.accum_iter else None
        self._total = accumulated(self._total, grads)
        self._count += 1
        if finite is not None:
            return finite, None
        mean, self._total = self._total, []
        if self._count > 1:
            torch._foreach_div_(mean, self._count)
        self._count = 0
        self.norm = global_norm(mean)
        if self.clip_grad_norm is not None:
            torch._foreach_mul_(mean, _shrinking(self.norm, self.clip_grad_norm))
        outcome = self.precision.step(optimizer, self.params, mean, self.norm.isfinite())
        optimizer.zero_grad(set_to_none=True)
        return outcome

    def state_dict(self) -> dict[str, Any]:
        """What was accumulated since the last step, and the norm of that one."""
        return {'count': self._count, 'total': list(self._total), 'norm': self.norm}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores ``state_dict``; empty: nothing was accumulated."""
        self._count = state.get('count', 0)
        self.norm = state.get('norm')
        self._total = [total.to(param.device, param.dtype, copy=True)
                       for total, param in zip(state.get('total', []), self.params.values(), strict=False)]


def _shrinking(norm: Tensor, largest: float) -> Tensor:
    """The factor of ``torch.nn.utils.clip_grad_norm_``; not finite gradients stay not finite, and are seen."""
    return torch.where(norm.isfinite(), (largest / (norm + 1e-6)).clamp(max=1.0), 1.0)
