"""How long the parts of a training step take."""

import time
from collections import defaultdict, deque
from collections.abc import Sequence

import torch

_Moment = float | torch.cuda.Event
_WAITING = 256  # intervals whose end the GPU may not have reached yet


class Stopwatch:
    """Wall-clock of the parts of a step, without waiting for the device.

    On a GPU the moments are events in its stream, read when they have passed; elsewhere the host's clock.

    Args:
        device: Where the step runs.
        parts: Names of all parts; those that never came are reported as 0.
    """

    def __init__(self, device: torch.device, parts: Sequence[str]) -> None:
        self.parts = list(parts)
        self._cuda = device.type == 'cuda'
        self._last: _Moment = 0.0
        self._waiting: deque[tuple[str, _Moment, _Moment]] = deque()
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._steps = 0

    def start(self) -> None:
        """A step begins."""
        self._steps += 1
        self._last = self._now()

    def mark(self, part: str) -> None:
        """What was done since the last mark, or since the start, was ``part``."""
        now = self._now()
        self._waiting.append((part, self._last, now))
        self._last = now
        while len(self._waiting) > _WAITING and _passed(self._waiting[0][2]):
            self._add(*self._waiting.popleft())

    def means(self) -> dict[str, float]:
        """Seconds per step by part since the last call; waits for the device."""
        if self._cuda and self._waiting:
            torch.cuda.current_stream().synchronize()
        while self._waiting:
            self._add(*self._waiting.popleft())
        means = {part: self._sums[part] / max(1, self._steps) for part in self.parts}
        self._reset()
        return means

    def _now(self) -> _Moment:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _add(self, part: str, start: _Moment, end: _Moment) -> None:
        if isinstance(start, float) and isinstance(end, float):
            self._sums[part] += end - start
        elif isinstance(start, torch.cuda.Event):
            self._sums[part] += start.elapsed_time(end) / 1000  # it is in milliseconds


def _passed(moment: _Moment) -> bool:
    return isinstance(moment, float) or bool(moment.query())
