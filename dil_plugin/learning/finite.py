"""Steps of an optimiser that are left out where the gradient is not finite, decided where the gradient is.

No host waits for a GPU: fused optimisers take the decision as a tensor (``found_inf``), as they do for a GradScaler.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dil_plugin.learning.hessian import global_norm
from dil_plugin.learning.types import Grads


def all_finite(grads: Grads) -> Tensor:
    """Whether the 2-norm of all tensors together is finite, a boolean scalar on their device.

    A norm beyond the range of the dtype counts as not finite too: no step of use can be taken with it.
    """
    return torch.isfinite(global_norm(grads))


def step_where(optimizer: torch.optim.Optimizer, finite: Tensor) -> None:
    """``optimizer.step()`` where ``finite``; else parameters, moments and step counts stay as they are.

    A fused optimiser decides on the device. For any other the host reads ``finite``, and so waits for a GPU.

    Args:
        optimizer: With gradients in ``.grad``.
        finite: A boolean scalar.
    """
    if not _is_fused(optimizer):
        if bool(finite):
            optimizer.step()
        return
    _decide_on_device(optimizer, finite)
    try:
        optimizer.step()
    finally:
        _forget_decision(optimizer)


@torch.no_grad()
def average_where(averages: list[Tensor], current: list[Tensor], decay: float,
                  where: Tensor | None = None) -> None:
    """``decay * average + (1 - decay) * current``, in place, where a step was taken; else the averages stay.

    Args:
        averages: A moving average of parameters.
        current: The parameters.
        decay: Weight of the old.
        where: A boolean scalar on their device; None: true.
    """
    if where is not None and where.is_cuda:
        average_on_device(averages, current, decay, where)
    elif where is None or bool(where):
        torch._foreach_mul_(averages, decay)
        torch._foreach_add_(averages, current, alpha=1 - decay)


@torch.no_grad()
def average_on_device(averages: list[Tensor], current: list[Tensor], decay: float, where: Tensor) -> None:
    """``average_where`` of which no host learns the decision; equal up to the rounding of one product.

    The parameters are finite: a step whose gradient is not finite has left them as they were.
    """
    keep, take = (torch.where(where, share, other) for share, other in ((decay, 1.0), (1 - decay, 0.0)))
    torch._foreach_mul_(averages, keep)
    torch._foreach_add_(averages, torch._foreach_mul(current, take))


def leave_out_where(optimizer: torch.optim.Optimizer, finite: Callable[[], Tensor]) -> None:
    """Has the steps that somebody else takes left out as ``step_where`` leaves them out, by hooks around ``step``.

    Where a GradScaler has decided already nothing is added. The host decides for an optimiser that is not fused, and
    the first step of any, before which the moments are not there; then the gradients are taken away, without which
    PyTorch's optimisers do nothing.

    Args:
        optimizer: Any whose ``step`` leaves parameters without a gradient alone.
        finite: Asked before each step, a boolean scalar.
    """

    def before(optimizer: Any, args: Any, kwargs: Any) -> None:
        decided = finite()
        if hasattr(optimizer, 'found_inf'):
            return
        if _is_fused(optimizer) and (optimizer.state or _has_no_state(optimizer)):
            _decide_on_device(optimizer, decided)
            optimizer.decided_by_us = True
        elif not bool(decided):
            for group in optimizer.param_groups:
                for param in group['params']:
                    param.grad = None

    def after(optimizer: Any, args: Any, kwargs: Any) -> None:
        if optimizer.__dict__.pop('decided_by_us', False):
            _forget_decision(optimizer)

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)


def _has_no_state(optimizer: torch.optim.Optimizer) -> bool:
    return isinstance(optimizer, torch.optim.SGD) and not any(group['momentum'] for group in optimizer.param_groups)


def _is_fused(optimizer: torch.optim.Optimizer) -> bool:
    return all(group.get('fused') for group in optimizer.param_groups)


def _decide_on_device(optimizer: Any, finite: Tensor) -> None:
    optimizer.grad_scale, optimizer.found_inf = None, (~finite).float()


def _forget_decision(optimizer: Any) -> None:
    del optimizer.grad_scale, optimizer.found_inf


def fused_on_gpus(params: Iterable[Tensor]) -> dict[str, Any]:
    """The option ``fused`` of an optimiser of these parameters, where all are on GPUs; else nothing."""
    return {'fused': True} if all(p.is_cuda and p.is_floating_point() for p in params) else {}


def begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Makes the momentum buffers of a fused SGD, which torch leaves unwritten where its first step is left out.

    A buffer of zeros becomes the gradient in the first step, as torch's own does without dampening; with dampening
    torch's first step is another, so such a group is not fused any more.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        if group['momentum'] and group.get('fused'):
            if group['dampening']:
                group['fused'] = None
                continue
            for param in group['params']:
                optimizer.state[param]['momentum_buffer'] = torch.zeros_like(param)


def keep_fused(optimizer: torch.optim.Optimizer) -> None:
    """Has the optimiser stay fused, or not, when it loads a state: that of another device says otherwise."""

    def own(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        groups = [{**saved, **{name: group[name] for name in ('fused', 'foreach') if name in group}}
                  for saved, group in zip(state['param_groups'], optimizer.param_groups, strict=True)]
        return {**state, 'param_groups': groups}

    optimizer.register_load_state_dict_pre_hook(own)


class KeptBuffers:
    """A network's buffers as they were, to go back to: running statistics would remember a batch that is not finite.

    Args:
        network: The module.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._before: Mapping[str, Tensor] = {}

    def keep(self) -> None:
        """Remembers the buffers as they are, unless some are remembered already."""
        if not self._before:
            self._before = {name: buffer.clone() for name, buffer in self._network.named_buffers()}

    def restore_unless(self, finite: Tensor) -> None:
        """Puts back what is remembered, unless ``finite`` (a boolean scalar), and forgets it."""
        if finite.is_cuda or not bool(finite):
            for name, buffer in self._network.named_buffers():  # the network may have put other tensors there
                before = self._before.get(name)
                if before is not None and before.shape == buffer.shape:
                    buffer.copy_(torch.where(finite, buffer, before))
        self._before = {}
