"""Gives every draw of a training sample a number, so that its randomness depends on nothing else."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, ClassVar

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


class DrawSampler(EnlargedSampler):
    """BasicSR's EnlargedSampler, the same order, with numbered draws.

    No two draws of a run, of any epoch and rank, have the same number, and which worker loads a draw does not matter.
    A resumed run goes on with the draw after the last one that was used. The last epoch ends with the last iteration.
    """

    resumed: ClassVar[dict[str, Any] | None] = None
    """The training state that the run goes on from; its ``epoch`` is counted anew by ``begin``."""
    latest_epoch: ClassVar[int] = 0
    images: ClassVar[int | None] = None
    """Of the training set."""

    batch_size: int | None = None
    total_iter = 0

    def begin(self, batch_size: int, total_iter: int) -> int:
        """Counts epochs in whole batches: iteration k, from 1, is of epoch ``(k - 1) // batches``.

        BasicSR takes the epoch of a resumed run from its training state, and the last one from the number of images,
        the batch size and the number of processes of today. If these have changed both are of different lengths, and
        the run would end early. So the state's epoch is counted by today's, too.

        Args:
            batch_size: Of a process.
            total_iter: The last iteration.

        Returns:
            The number of epochs until it.
        """
        self.batch_size, self.total_iter = batch_size, total_iter
        batches = self.num_samples // batch_size
        DrawSampler.images = len(self.dataset)
        if self.resumed is not None:
            self.resumed['epoch'] = max(0, self.resumed['iter'] - 1) // batches
        return -(-total_iter // batches)

    def set_epoch(self, epoch: int) -> None:
        """As BasicSR's; the epoch is noted for a training state that is written out of turn."""
        super().set_epoch(epoch)
        DrawSampler.latest_epoch = epoch

    def __iter__(self) -> Iterator[Draw]:
        """The draws of this rank in the current epoch that are left, up to those of the last iteration."""
        first = self.epoch * self.num_samples
        for position, index in islice(enumerate(super().__iter__()), *self._left()):
            yield Draw(index, (first + position) * self.num_replicas + self.rank)

    def _left(self) -> tuple[int, int | None]:
        """Where in the current epoch the run goes on, and where it ends."""
        if self.batch_size is None:
            return 0, None
        done = self.epoch * (self.num_samples // self.batch_size)
        used = self.resumed['iter'] if self.resumed is not None else 0
        begin, end = (max(0, iteration - done) * self.batch_size for iteration in (used, self.total_iter))
        return begin, max(begin, end)
