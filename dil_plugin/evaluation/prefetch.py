"""Reads ahead while the network computes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar('Item')
Value = TypeVar('Value')


def prefetched(function: Callable[[Item], Value],
               items: Iterable[Item],
               pool: ThreadPoolExecutor,
               ahead: int = 8) -> Iterator[tuple[Item, 'Future[Value]']]:
    """Calls a function in threads, and gives items and results in order, with at most ``ahead`` of them waiting."""
    waiting: deque[tuple[Item, Future[Value]]] = deque()
    for item in items:
        waiting.append((item, pool.submit(function, item)))
        if len(waiting) >= ahead:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()
