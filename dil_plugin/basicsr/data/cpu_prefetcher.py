"""Collects the next batches in a thread, and says so when that fails."""

from typing import Any

from basicsr.data.prefetch_dataloader import PrefetchGenerator


class RaisingPrefetchGenerator(PrefetchGenerator):
    """BasicSR's PrefetchGenerator, which raises in the training what was raised while it loaded.

    BasicSR's own ends with its error, and the training waits for its next batch for ever.
    """

    failure: BaseException | None = None

    def run(self) -> None:
        """Fills the queue; at its end, or at an error, with None."""
        try:
            super().run()
        except BaseException as error:
            self.failure = error
            self.queue.put(None)

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except StopIteration:
            if self.failure is not None:
                raise self.failure from None
            raise
