"""SIGTERM and SIGINT end a training run at the end of its step, with everything saved."""

import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, ClassVar

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_ONE_PRESS = 1.0  # seconds: Ctrl-C under torchrun arrives twice, from the terminal and from torchrun


class StopSignals:
    """Notes a signal instead of ending the process, while BasicSR's training pipeline runs.

    A second SIGINT ends the process at once. Signals are noted from the moment on that a model listens; models that
    do not are ended by them as ever.
    """

    current: ClassVar['StopSignals | None'] = None

    def __init__(self) -> None:
        self.received = 0
        self._first = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> 'StopSignals':
        StopSignals.current = self
        return self

    def __exit__(self, *_: object) -> None:
        StopSignals.current = None
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def listen(self) -> None:
        """From now on signals are noted. Only the main thread of a process can do so; others are left alone."""
        if threading.current_thread() is threading.main_thread() and not self._before:
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}

    def _note(self, number: int, _: FrameType | None) -> None:
        if not self.received:
            self.received, self._first = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._first > _ONE_PRESS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def received_signal() -> int:
    """The number of the signal that was noted, or 0."""
    return 0 if StopSignals.current is None else StopSignals.current.received


def noting_signals(train_pipeline: Callable[[str], Any]) -> Callable[[str], Any]:
    """BasicSR's ``train_pipeline``, during which a model may listen to signals."""
    if getattr(train_pipeline, 'notes_signals', False):
        return train_pipeline

    @functools.wraps(train_pipeline)
    def train(root_path: str) -> Any:
        with StopSignals():
            return train_pipeline(root_path)

    train.notes_signals = True  # type: ignore[attr-defined]
    return train


def stop_message(number: int, iteration: int) -> str:
    """What a run that ends on a signal says last."""
    name = signal.Signals(number).name
    if iteration == 0:
        return f'{name}: the run ends before its first iteration; nothing was saved.'
    return f'{name}: the run ends after iteration {iteration}, which is saved; it goes on with --auto_resume.'
