"""Tells in BasicSR's training, of any model, what ``on_bad_image: skip`` left out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from basicsr.data.prefetch_dataloader import CPUPrefetcher
from basicsr.utils import get_root_logger

from dil_plugin.basicsr.data.bad_images import SkippedImages

_taken = SkippedImages()


def note_skipped(batch: dict[str, Any] | None) -> None:
    """Counts what was skipped for a batch that training takes, and names each image in the log once."""
    for line in _taken.take(batch or {}):
        get_root_logger().warning(line)


def drop_unused() -> None:
    """Says that a new epoch begins: a batch that was taken and not followed by another one was not used."""
    _taken.drop()


class NotingCPUPrefetcher(CPUPrefetcher):
    """BasicSR's CPUPrefetcher, which all trainings without ``prefetch_mode: cuda`` take their batches from."""

    def next(self) -> dict[str, Any] | None:
        """The next batch; None at the end of an epoch."""
        batch: dict[str, Any] | None = super().next()
        note_skipped(batch)
        return batch

    def reset(self) -> None:
        """Begins an epoch."""
        drop_unused()
        super().reset()


def reporting_skipped(train_pipeline: Callable[[str], None]) -> Callable[[str], None]:
    """BasicSR's ``train_pipeline``; at its end, also that by an error, the log says what was skipped and how often."""
    if getattr(train_pipeline, 'reports_skipped', False):
        return train_pipeline

    @functools.wraps(train_pipeline)
    def run(root_path: str) -> None:
        _taken.clear()
        ended = False
        try:
            train_pipeline(root_path)
            ended = True
        finally:
            if _taken.asked:
                if ended and torch.distributed.is_available() and torch.distributed.is_initialized():
                    _taken.join_ranks()
                get_root_logger().info(_taken.report())

    run.reports_skipped = True  # type: ignore[attr-defined]
    return run
