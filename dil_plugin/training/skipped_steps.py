"""Counts the steps that were skipped because a loss or the gradient was not finite, without waiting for the device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dil_plugin.learning import MetaGradient
from dil_plugin.learning.distributed import in_several_processes

_TOTAL, _IN_A_ROW, _REASONS = 0, 1, 2


class SkippedSteps:
    """Counters on the device; on a GPU the host reads them when they have arrived, which may be some steps later.

    Args:
        labels: Of the confounders.
        allowed: After so many skipped steps in a row the run is to end.
        device: Of the losses.
    """

    def __init__(self, labels: Sequence[str], allowed: int, device: torch.device) -> None:
        self.allowed = allowed
        self._what = [*(f'inner loss of {label}' for label in labels), 'outer loss', 'gradient alone']
        self._counts = torch.zeros(_REASONS + len(self._what), dtype=torch.long, device=device)
        self._at_fault = torch.zeros(len(self._what) - 1, dtype=torch.bool, device=device)
        self._reported = [0] * len(self._counts)
        self._arriving: tuple[Tensor, torch.cuda.Event] | None = None
        self._cuda = device.type == 'cuda'

    def count(self, step: MetaGradient, faulty: Tensor | None) -> None:
        """Takes in a meta-gradient, and counts the step of the optimiser that it and those since the last led to.

        Args:
            step: The meta-gradient.
            faulty: A boolean scalar on the device: the step was skipped, and its numbers are at fault. None: there was
                none yet, as it accumulates.
        """
        at_fault = self._at_fault | faults(step, len(self._what) - 2)
        self._at_fault = at_fault if faulty is None else torch.zeros_like(at_fault)
        if faulty is None:
            return
        reasons = torch.cat([at_fault, ~at_fault.any().reshape(1)]) & faulty
        self._counts[_TOTAL:_TOTAL + 1] += faulty
        self._counts[_IN_A_ROW:_IN_A_ROW + 1] += 1
        self._counts[_IN_A_ROW:_IN_A_ROW + 1] *= faulty
        self._counts[_REASONS:] += reasons

    def too_many(self) -> bool:
        """Whether the run is to end; True only while the last step that was counted is one of those skipped."""
        return self._in_a_row_lately() >= self.allowed and int(self._counts[_IN_A_ROW]) >= self.allowed

    def _in_a_row_lately(self) -> int:
        """As the host knows it; asks for news where none are on their way."""
        if not self._cuda:
            return int(self._counts[_IN_A_ROW])
        known = 0
        if self._arriving is not None and in_several_processes():
            self._arriving[1].synchronize()  # of the iteration before: all ranks must come to the same end
        if self._arriving is not None and self._arriving[1].query():
            known = int(self._arriving[0])
            self._arriving = None
        if self._arriving is None:
            host = torch.empty((), dtype=torch.long, pin_memory=True)
            host.copy_(self._counts[_IN_A_ROW], non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            self._arriving = host, event
        return known

    def in_a_row(self) -> int:
        """So many of the last steps were skipped, without a step between them. Waits for the device."""
        return int(self._counts[_IN_A_ROW])

    def read(self) -> tuple[int, str]:
        """The number of skipped steps of the run, and what there is to say of those since the last call, or ''.

        Waits for the device.
        """
        counts = self._counts.tolist()
        new = [now - before for now, before in zip(counts, self._reported, strict=True)]
        self._reported = counts
        if not new[_TOTAL]:
            return counts[_TOTAL], ''
        reasons = [f'{what} ({times})' for what, times in zip(self._what, new[_REASONS:], strict=True) if times]
        return counts[_TOTAL], (f'{new[_TOTAL]} steps were skipped since the last line of the log; not finite: '
                                f'{", ".join(reasons)}.')

    def state_dict(self) -> dict[str, list[int]]:
        """What was counted, and what of it was said."""
        return {'counts': self._counts.tolist(), 'reported': list(self._reported)}

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        """Restores ``state_dict``; that of a run with other confounders says nothing about this one and is left."""
        if len(state.get('counts', ())) == len(self._counts):
            self._counts.copy_(torch.tensor(state['counts']))
            self._reported = list(state['reported'])


def faults(step: MetaGradient, confounders: int) -> Tensor:
    """Which inner losses are not finite, and whether the outer loss is not: ``(confounders + 1,)``, booleans."""
    inner, outer = step.inner_losses, step.outer_loss
    device = inner.device if inner is not None else outer.device if outer is not None else None
    none = torch.zeros(confounders, dtype=torch.bool, device=device)
    return torch.cat([none if inner is None else ~inner.isfinite(),
                      none.new_zeros(1) if outer is None else ~outer.isfinite().reshape(1)])
