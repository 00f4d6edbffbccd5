"""Copies the next batch to the GPU while the present one is computed."""

from typing import Any

import torch
from basicsr.data.prefetch_dataloader import CUDAPrefetcher

from dil_plugin.basicsr.data.skipping import drop_unused, note_skipped


class SafeCUDAPrefetcher(CUDAPrefetcher):
    """BasicSR's CUDAPrefetcher, whose batches keep their memory until the computation has read them.

    Batches are allocated on the stream that copies. As soon as Python drops one, that stream may fill its memory with
    the batch after the next, while the computation, queued on another stream, still reads it: BasicSR does not tell the
    allocator of the other stream. Copies overlap only from page-locked memory (``pin_memory: true``).
    """

    def next(self) -> dict[str, Any] | None:
        """The next batch, its tensors on the GPU; None at the end of an epoch."""
        batch: dict[str, Any] | None = super().next()
        note_skipped(batch)
        for value in (batch or {}).values():
            if torch.is_tensor(value):
                value.record_stream(torch.cuda.current_stream())
        return batch

    def reset(self) -> None:
        """Begins an epoch."""
        drop_unused()
        super().reset()
