"""Watches the numbers of a training: steps that are not finite, virtual updates that diverge."""

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from dil_plugin.learning import MetaBatch, MetaGradient, NetworkLoss, Params
from dil_plugin.learning.divergence import growth
from dil_plugin.learning.finite import KeptBuffers
from dil_plugin.learning.options import DILOptions
from dil_plugin.training.skipped_batch import SkippedBatch
from dil_plugin.training.skipped_steps import SkippedSteps


class NumericalWatch:
    """What a model asks before, in and after a step; none of it waits for a GPU before the log is read.

    Args:
        loss: Of the network.
        params: ``theta``.
        options: The block ``train.dil``.
        labels: The confounders, by name.
        folder: Of the experiment, for batches that a run ended on.
        rank: Of this process.
        warn: Writes a line into the log.
    """

    def __init__(self, loss: NetworkLoss, params: Params, options: DILOptions, labels: Sequence[str], folder: str,
                 rank: int = 0, warn: Callable[[str], None] = warnings.warn) -> None:
        self.loss, self.params, self.options, self.labels = loss, params, options, labels
        self.folder, self.rank, self.warn = os.path.join(folder, 'skipped'), rank, warn
        self.skipped = SkippedSteps(labels, options.max_skipped, next(iter(params.values())).device)
        self._buffers = KeptBuffers(loss.network)
        self._last: tuple[MetaBatch, MetaGradient] | None = None
        self._parts: list[tuple[SkippedBatch, list[Tensor]]] = []  # iterations that accumulate for the next step
        self._finite: list[Tensor] = []  # of the present iteration's part in it
        self._step_ended = True
        self._warned = False

    def start(self) -> None:
        """An iteration begins; the images of the last one need not lie beside the new ones."""
        self._last = None
        self._finite = []

    def prepare(self) -> None:
        """A meta-gradient is about to be computed."""
        self._buffers.keep()

    def took(self, outcome: tuple[Tensor, Tensor | None], step: MetaGradient) -> bool:
        """What ``OuterStep.take`` said of a meta-gradient; returns whether it led to a step of the optimiser."""
        finite, faulty = outcome
        self._buffers.restore_unless(finite)
        self.skipped.count(step, faulty)
        if self._step_ended:
            self._parts, self._finite = [], []
        self._finite.append(finite)
        self._step_ended = faulty is not None
        return self._step_ended

    def finish(self, iteration: int, batches: Sequence[MetaBatch], steps: Sequence[MetaGradient],
               files: Sequence[str], to_unit: Callable[[Tensor], Tensor] = Tensor.float) -> None:
        """An iteration has ended; for the arguments see ``SkippedBatch``.

        Raises:
            NumericalError: ``train.dil.max_skipped`` steps in a row were skipped; of the iterations that the last of
                them accumulated the first that was not finite was written down.
        """
        self._parts.append((SkippedBatch(iteration, self.labels, batches, steps, files, self.rank, to_unit),
                            self._finite))
        if self._step_ended:
            if self.skipped.too_many():
                at_fault = [part for part, finite in self._parts if not all(map(bool, finite))]
                raise [*at_fault, self._parts[-1][0]][0].error(self.folder, self.options.max_skipped)
            self._parts = []
        self._last = batches[-1], steps[-1]

    def read(self) -> int:
        """The number of skipped steps of the run; logs why, and warns once of diverging virtual updates."""
        total, message = self.skipped.read()
        if message:
            self.warn(message)
        self._warn_of_divergence()
        return total

    def state_dict(self) -> dict[str, Any]:
        """The counts, and whether the run was warned."""
        return {'skipped': self.skipped.state_dict(), 'warned': self._warned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores ``state_dict``; an empty one, of a run that has none, changes nothing."""
        self.skipped.load_state_dict(state.get('skipped', {}))
        self._warned = state.get('warned', self._warned)

    def _warn_of_divergence(self) -> None:
        if self._warned or self._last is None:
            return
        found = growth(self.loss, self.params, *self._last)
        if found is not None and found.diverges:
            self._warned = True
            rate = self.options.inner_or_default.lr
            self.warn(
                f'The virtual update multiplies the loss: {found.before:.4g} at theta, {found.after:.4g} at the '
                f'virtual parameters, of the same images. train.dil.inner.lr (alpha) is {rate:g}; try '
                f'{rate / found.remedy:g} or less. (Said once.)')
