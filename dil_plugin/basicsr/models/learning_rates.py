"""The learning rate of an iteration: the schedule's, times the warm-up."""

from collections.abc import Sequence
from typing import Any

from basicsr.models.lr_scheduler import MultiStepRestartLR


def update_rates(schedulers: Sequence[Any], iteration: int, warmup_iter: int = -1) -> None:
    """Sets the rate of iteration k = 1, 2, …: ``min(1, k / N) s(k - 1)``.

    ``N`` is the warm-up and ``s`` the schedule, by the number of iterations before. BasicSR's ``MultiStepRestartLR``
    goes on from the optimiser's rate, which the warm-up has changed: it stays at ``(N - 1) / N`` of the schedule's for
    the rest of the training, and forgets milestones within the warm-up.

    Args:
        schedulers: BasicSR's; each has taken ``k - 2`` steps, or none if k is 1.
        iteration: k.
        warmup_iter: N; -1: none.
    """
    for scheduler in schedulers:
        groups = scheduler.optimizer.param_groups
        _set(groups, scheduled_rates(scheduler))
        if iteration > 1:
            scheduler.step()
        if iteration < warmup_iter:
            _set(groups, [group['lr'] / warmup_iter * iteration for group in groups])


def scheduled_rates(scheduler: Any) -> list[float]:
    """What the schedule says after the steps that it has taken, without a warm-up; one rate for each parameter group.

    That of ``MultiStepRestartLR`` is multiplied up from the start, as its own steps do it, to the last bit.
    """
    if not isinstance(scheduler, MultiStepRestartLR):
        rates: list[float] = scheduler.get_lr()
        return rates
    initial = [group['initial_lr'] for group in scheduler.optimizer.param_groups]
    rates = initial
    for step in sorted({*scheduler.milestones, *scheduler.restarts}):
        if step > scheduler.last_epoch:
            break
        if step in scheduler.restarts:
            rates = [rate * scheduler.restart_weights[scheduler.restarts.index(step)] for rate in initial]
        else:
            rates = [rate * scheduler.gamma**scheduler.milestones[step] for rate in rates]
    return rates


def _set(groups: Sequence[dict[str, Any]], rates: Sequence[float]) -> None:
    for group, rate in zip(groups, rates, strict=True):
        group['lr'] = rate
