"""A pool of worker processes whose results come in order, with few of them waiting."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import cv2

from dil_plugin.errors import DataError, OptionError


def worker_count(workers: int | None) -> int:
    """The number given, or that of the processors, 8 at most. Raises OptionError below 1."""
    if workers is None:
        return min(os.cpu_count() or 1, 8)
    if workers < 1:
        raise OptionError(f'workers: must be at least 1, not {workers}')
    return workers


def start_worker() -> None:
    """Sets a worker up: one thread, Ctrl-C left to the parent, an end when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=exit_with_parent, daemon=True).start()


def exit_with_parent() -> None:
    """Ends this worker with its parent, which cannot tell its workers when it is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Lets processes started inside inherit a blocked Ctrl-C: only the parent reports it, even during start-up."""
    if not hasattr(signal, 'pthread_sigmask'):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def in_order(
    function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]], workers: int
) -> Generator[Any, None, None]:
    """Yields ``function(*task)`` of each task in order, with few results waiting so that memory stays bounded."""
    with interrupts_held():
        context = multiprocessing.get_context('spawn')
        executor = ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker)
    pending: deque[tuple[Any, Future[Any]]] = deque()
    try:
        for task in tasks:
            with interrupts_held():
                pending.append((task[0], executor.submit(function, *task)))
            if len(pending) >= workers + 2:
                yield pending[0][1].result()
                pending.popleft()
        while pending:
            yield pending[0][1].result()
            pending.popleft()
    except BrokenProcessPool as error:
        where = f'{pending[0][0]} or soon after it: ' if pending else ''
        raise DataError(
            f'{where}a worker process died, for lack of memory (try fewer than {workers} --workers) '
            'or because a file it reads is damaged'
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)
