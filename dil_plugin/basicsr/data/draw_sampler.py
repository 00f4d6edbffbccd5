"""Gives every draw of a training sample a number, so that its randomness depends on nothing else."""

from collections.abc import Iterator
from itertools import islice
from typing import ClassVar, NamedTuple

from basicsr.data.data_sampler import EnlargedSampler


class Draw(int):
    """An index into a data set that also carries the number of the draw since the start of training.

    To a data set that knows nothing of it, it is the index.
    """

    draw: int

    def __new__(cls, index: int, draw: int) -> 'Draw':
        """``index`` into the data set, drawn as number ``draw``."""
        self = super().__new__(cls, index)
        self.draw = draw
        return self

    def __getnewargs__(self) -> tuple[int, int]:  # how it reaches the data workers
        """For pickle."""
        return int(self), self.draw


class Position(NamedTuple):
    """Where a run was interrupted: in which epoch, after how many iterations in all, and the batch size per process."""

    epoch: int
    iteration: int
    batch_size: int


class DrawSampler(EnlargedSampler):
    """BasicSR's EnlargedSampler, the same order, with numbered draws.

    No two draws of a run, of any epoch and rank, have the same number, and which worker loads a draw does not matter.
    A resumed run goes on with the draw after the last one that was used.
    """

    resumed_at: ClassVar[Position | None] = None
    latest_epoch: ClassVar[int] = 0

    def set_epoch(self, epoch: int) -> None:
        """As BasicSR's; the epoch is noted for a training state that is written out of turn."""
        super().set_epoch(epoch)
        DrawSampler.latest_epoch = epoch

    def __iter__(self) -> Iterator[Draw]:
        """The draws of this rank in the current epoch."""
        first = self.epoch * self.num_samples
        for position, index in islice(enumerate(super().__iter__()), self._used(), None):
            yield Draw(index, (first + position) * self.num_replicas + self.rank)

    def _used(self) -> int:
        """How many draws of the current epoch were used before the run was interrupted."""
        at = self.resumed_at
        if at is None or at.epoch != self.epoch:
            return 0
        batches = self.num_samples // at.batch_size
        return max(0, at.iteration - at.epoch * batches) * at.batch_size
