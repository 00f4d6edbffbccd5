"""Steps that mmengine's optimiser wrapper takes with meta-gradients, left out where one is not finite."""

import logging
import weakref
from collections.abc import Callable
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor

from dil_plugin.learning.finite import all_finite, leave_out_where
from dil_plugin.learning.precision import LEAST_SCALE
from dil_plugin.learning.types import Grads
from dil_plugin.mmagic.wording import say


class OuterStep:
    """Whether the step that is next is of finite meta-gradients; as the ``OuterStep`` of the BasicSR half.

    The wrapper accumulates, clips, scales and steps; what it makes of a gradient that is not finite must not matter
    (clipping by value makes numbers of infinities), so the meta-gradients themselves decide.

    Args:
        device: Of the gradients.
    """

    def __init__(self, device: torch.device) -> None:
        self._all = torch.ones((), dtype=torch.bool, device=device)
        self._finite = self._all
        self._attached: Callable[[], Any] = lambda: None
        self._scale: Tensor | None = None

    def attach(self, optim_wrapper: OptimWrapper) -> None:
        """Has the optimiser's step left out where it is to be; once for each optimiser."""
        if self._attached() is not optim_wrapper.optimizer:
            self._attached = weakref.ref(optim_wrapper.optimizer)  # not to be copied with the model
            leave_out_where(optim_wrapper.optimizer, lambda: self._finite)
            if (getattr(optim_wrapper, 'clip_grad_kwargs', None) or {}).get('error_if_nonfinite'):
                say('optim_wrapper.clip_grad.error_if_nonfinite: True ends the run at the first gradient that is not '
                    'finite, and not after model.dil.max_skipped of them, and keeps no batch; without it such a step '
                    'is left out and counted.', logging.WARNING)

    def saw(self, grads: Grads, scale: Tensor | None = None) -> None:
        """A meta-gradient goes to the wrapper.

        Args:
            grads: The meta-gradient, unscaled.
            scale: The scale of float16, by which an overflow is excused; None: there is none, or it cannot be lowered.
        """
        self._finite = self._finite & all_finite(grads)
        self._scale = scale

    def outcome(self, stepped: bool) -> tuple[Tensor, Tensor | None]:
        """Of the meta-gradient that was seen last, after the wrapper had it.

        Args:
            stepped: Whether the wrapper's step was due with it.

        Returns:
            Whether all that the step was made of, or will be, is finite; and whether the step was skipped and its
            numbers are at fault, None where it was not due.
        """
        finite = self._finite
        if not stepped:
            return finite, None
        self._finite = self._all
        return finite, ~finite if self._scale is None else ~finite & (self._scale <= LEAST_SCALE)
