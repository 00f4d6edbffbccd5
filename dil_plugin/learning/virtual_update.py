"""Virtual updates of the parameters: the intervention on a confounder, without copies of the network.

Lists of tensors are updated by ``torch._foreach_*`` (one fused call, as torch.optim itself does), not one by one.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dil_plugin.learning.finite import all_finite, step_where
from dil_plugin.learning.gradients import laid_out_like, mean_gradient
from dil_plugin.learning.types import Average, Grads, LossFunction, Pair, Params


def identity(grads: Grads) -> Grads:
    """The average over one process."""
    return grads


def unmarked(part: str) -> None:
    """The mark where nobody measures."""


def virtual_update(params: Params, grads: Grads, alpha: float) -> Params:
    """``phi = theta - alpha * grad`` (Eq. 3).

    Args:
        params: ``theta``.
        grads: The gradient of the inner loss at ``theta``; used as a constant.
        alpha: The inner learning rate.

    Returns:
        ``phi``, new leaf tensors that require gradients; ``theta`` is untouched.
    """
    with torch.no_grad():
        values = torch._foreach_add(list(params.values()), grads, alpha=-alpha)
    return {name: value.requires_grad_() for name, value in zip(params, values, strict=True)}


class ReptileWalk:
    """A walk ``theta -> phi_1 -> phi_2 …`` of an inner optimiser on one set of fast weights.

    The fast weights are allocated once and overwritten at the start of every walk; the optimiser's state (Adam's
    moments) persists from one walk to the next, as in the authors' released training, or starts anew with each walk.
    A step whose gradient is not finite is left out, so that the moments stay finite; the displacement of that walk is
    not a number.

    Args:
        params: ``theta``, for names, shapes, dtype and device.
        optimizer: Makes a torch optimiser for a list of tensors, for example
            ``functools.partial(torch.optim.Adam, lr=1e-4, betas=(0.0, 0.999))``.
        average: Averages each inner gradient over processes.
        persistent: Whether the optimiser's state outlives a walk.
    """

    def __init__(self,
                 params: Params,
                 optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
                 average: Average = identity,
                 persistent: bool = True) -> None:
        self.weights: Params = {name: p.detach().clone().requires_grad_() for name, p in params.items()}
        self.optimizer = optimizer(list(self.weights.values()))
        self.average = average
        self.persistent = persistent
        self._finite: Tensor | None = None

    def start(self, params: Params) -> None:
        """Puts the fast weights back to ``theta``."""
        with torch.no_grad():
            torch._foreach_copy_(list(self.weights.values()), list(params.values()))
        if not self.persistent:
            self.optimizer.state.clear()
        self._finite = None

    def step(self, loss: LossFunction, pairs: Sequence[Pair]) -> Tensor:
        """One inner step on the mean loss over ``pairs``.

        Returns:
            The loss of each pair before the step, ``(len(pairs),)``, detached.
        """
        grads, values = mean_gradient(loss, self.weights, pairs)
        grads = self.average(grads)
        finite = all_finite(grads)
        weights = list(self.weights.values())
        for weight, grad in zip(weights, laid_out_like(weights, grads), strict=True):
            weight.grad = grad
        step_where(self.optimizer, finite)
        self._finite = finite if self._finite is None else self._finite & finite
        self.optimizer.zero_grad(set_to_none=True)
        return values

    def displacement(self, params: Params) -> Grads:
        """``theta - phi``, Reptile's meta-gradient; not a number where a step of the walk was left out."""
        with torch.no_grad():
            moved = list(torch._foreach_sub(list(params.values()), list(self.weights.values())))
            if self._finite is not None:
                torch._foreach_mul_(moved, torch.where(self._finite, 1.0, torch.nan))
        return moved

    def state_dict(self) -> dict[str, Any]:
        """The inner optimiser's state, as far as it outlives a walk."""
        state = self.optimizer.state_dict()
        return state if self.persistent else {**state, 'state': {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the inner optimiser's moments; its hyperparameters stay those it was built with.

        Moments of another optimiser, Adam's for SGD, are left: they start anew.
        """
        groups = self.optimizer.state_dict()['param_groups']
        if ('betas' in groups[0]) != ('betas' in state['param_groups'][0]):
            return
        self.optimizer.load_state_dict({'state': state['state'], 'param_groups': groups})
