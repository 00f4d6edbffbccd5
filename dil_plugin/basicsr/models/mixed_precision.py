"""``train.amp``: the meta-gradient in bfloat16 or float16, and the optimiser's step with it."""

from typing import Any

import torch
from torch import Tensor

from dil_plugin.errors import OptionError
from dil_plugin.learning import MetaBatch, MetaGradient, NetworkLoss, Params, Variant
from dil_plugin.learning.finite import step_where
from dil_plugin.learning.gradients import laid_out_like
from dil_plugin.learning.options import SECOND_ORDER
from dil_plugin.learning.precision import LEAST_SCALE, AutocastLoss, OverflowGuard

DTYPES = {None: None, 'bf16': torch.bfloat16, 'fp16': torch.float16}


def check_precision(name: str | None, variant: str) -> None:
    """Raises OptionError for float16 with a variant whose Hessian-vector products vanish in it."""
    if name == 'fp16' and variant in SECOND_ORDER:
        raise OptionError(f'train.amp: fp16, in which the Hessian-vector products of variant {variant} vanish; '
                          'allowed: bf16, ~')


class MixedPrecision:
    """Computes a variant's meta-gradient under autocast; parameters, virtual ones too, stay in float32.

    With float16 the gradients inside of the network are enlarged by the scale of a ``GradScaler`` and leave it
    unscaled; an overflow anywhere in the step makes the optimiser skip it and lowers the scale. Without mixed precision
    nothing is changed.

    Args:
        name: ``train.amp``: ``bf16``, ``fp16`` or None.
        variant: The name of the variant.
        device: Of the network.

    Raises:
        OptionError: float16 for a variant with Hessian-vector products, which vanish in it.
    """

    def __init__(self, name: str | None, variant: str, device: torch.device) -> None:
        check_precision(name, variant)
        self.dtype = DTYPES[name]
        self.device = device
        self.guard = OverflowGuard()
        self.scaler = torch.amp.GradScaler(device.type) if name == 'fp16' else None

    def gradient(self, variant: Variant, loss: NetworkLoss, params: Params, batch: MetaBatch) -> MetaGradient:
        """``variant(loss, params, batch)``; the variant must average its gradients by ``guard``."""
        scale = self._scale()
        self.guard.start(scale is not None, batch.images)
        if self.dtype is None:
            return variant(loss, params, batch)
        with torch.autocast(self.device.type, self.dtype):
            step = variant(AutocastLoss(loss, scale), params, batch)
        return MetaGradient(self.guard.marked(step.grads), step.inner_losses, step.outer_loss)

    def step(self, optimizer: torch.optim.Optimizer, params: Params, grads: list[Tensor],
             finite: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the optimiser with these gradients, skipped where they are not ``finite`` (a boolean scalar).

        Returns:
            Two boolean scalars on the device: whether the step was taken, and whether it was skipped for another reason
            than a scale of float16 that can still be lowered.
        """
        scale = self._scale()
        if scale is not None:
            grads = list(torch._foreach_mul(grads, scale))  # step() takes the scale out again
        for param, grad in zip(params.values(), laid_out_like(list(params.values()), grads), strict=True):
            param.grad = grad
        if self.scaler is None or scale is None:
            step_where(optimizer, finite)
            return finite, ~finite
        self.scaler.step(optimizer)
        self.scaler.update()
        return finite, ~finite & (scale <= LEAST_SCALE)

    def _scale(self) -> Tensor | None:
        """The scale on the device, so that nobody waits for it."""
        return None if self.scaler is None else self.scaler.scale(torch.ones((), device=self.device))

    def state_dict(self) -> dict[str, Any]:
        """The scale and its history; empty without float16."""
        return {} if self.scaler is None else self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores ``state_dict``, where there is something to restore."""
        if self.scaler is not None and state:
            self.scaler.load_state_dict(state)
