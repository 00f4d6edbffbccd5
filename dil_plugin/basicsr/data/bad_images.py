"""``on_bad_image: skip``: another image takes the place of one that cannot be used, and what was skipped is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from dil_plugin.errors import DataError, UnusableImage

Loaded = TypeVar('Loaded')

MARKER = 'skipped'
"""What a sample says of the images that were skipped for it: a line for each, NAME tab REASON; '' where none was."""


def first_usable(load: Callable[[int], Loaded], index: int, count: int, key: str) -> tuple[Loaded, list[str]]:
    """Loads number ``index``, or else the first after it (from the last on to the first) that can be used.

    What is given depends on the index and the files alone, so it is the same in every worker.

    Args:
        load: Raises UnusableImage where a number cannot be used.
        index: In 0 … ``count`` - 1.
        count: So many there are.
        key: Where the data set stands in the YAML, for the message.

    Returns:
        What was loaded, and what was skipped for it, as lines of the marker.

    Raises:
        DataError: None of them can be used.
    """
    skipped: list[str] = []
    first: UnusableImage | None = None
    for step in range(count):
        try:
            return load((index + step) % count), skipped
        except UnusableImage as error:
            first = first or error
            skipped.append(f'{error.name}\t{error.reason}')
    raise DataError(f'{key}: none of its {count} images can be used (on_bad_image: skip); the first that was tried: '
                    f'{first}')


class SkippedImages:
    """What was skipped for the batches that training took; data workers tell it by their samples."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begins anew."""
        self.asked = False
        self._counts: Counter[str] = Counter()
        self._reasons: dict[str, str] = {}
        self._samples = 0
        self._pending: list[str] = []

    def take(self, batch: Mapping[str, Any]) -> list[str]:
        """Counts what the batch before said, which training has used by now.

        Args:
            batch: The next one; nothing at the end of an epoch.

        Returns:
            A line on each image of the next batch that is skipped for the first time.
        """
        self._samples += sum(bool(text) for text in self._pending)
        self._counts.update(line.partition('\t')[0] for text in self._pending for line in text.splitlines())
        self._pending = list(batch.get(MARKER, ()))
        self.asked |= MARKER in batch
        fresh = []
        for line in (line for text in self._pending for line in text.splitlines()):
            name, _, reason = line.partition('\t')
            if name not in self._reasons:
                self._reasons[name] = reason
                fresh.append(f'{name}: {reason}; the next good image takes its place (on_bad_image: skip).')
        return fresh

    def drop(self) -> None:
        """Forgets the batch before: BasicSR takes one more than it uses when it ends, and begins an epoch then."""
        self._pending = []

    def join_ranks(self) -> None:
        """Adds up what the processes of a distributed run took; all of them have to call it."""
        counts: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(counts, (self._counts, self._reasons, self._samples))
        self._counts = sum((count for count, _, _ in counts), Counter())
        self._samples = sum(samples for _, _, samples in counts)
        for _, reasons, _ in counts:
            self._reasons |= reasons

    def report(self) -> str:
        """How many images were skipped and how often, with names and reasons, a line for each."""
        if not self._samples:
            return 'on_bad_image: skip: no image was skipped.'
        lines = [f'  {name}: {self._reasons[name]} ({times} times)' for name, times in sorted(self._counts.items())]
        return '\n'.join([f'on_bad_image: skip: {len(lines)} images could not be used, in {self._samples} samples '
                          'another took their place:', *lines])
