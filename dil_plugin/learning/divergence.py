"""Whether virtual updates diverge: an inner step that is too long multiplies the loss that it should lower."""

import math
from typing import NamedTuple

import torch

from dil_plugin.learning.gradients import micro_batches
from dil_plugin.learning.objective import NetworkLoss, without_buffer_updates
from dil_plugin.learning.types import MetaBatch, MetaGradient, Params

LARGEST_GROWTH = 2.0
"""By more than so much no virtual update of use multiplies the loss."""


class Growth(NamedTuple):
    """The mean loss of the same batches before and after virtual updates."""

    before: float
    after: float

    @property
    def diverges(self) -> bool:
        """Whether the loss at the virtual parameters is more than ``LARGEST_GROWTH`` times that at ``theta``."""
        return self.before < float('inf') and not self.after <= LARGEST_GROWTH * self.before

    @property
    def remedy(self) -> float:
        """By this much a virtual update that diverges should be shorter, at least.

        The loss grows with the square of a step that is far too long, so its square root, and a margin; in powers of
        ten.
        """
        if not math.isfinite(self.after) or self.before <= 0:
            return 10.0
        return 10.0 ** max(1, math.ceil(math.log10(self.after / self.before) / 2 + 0.5))


def growth(loss: NetworkLoss, params: Params, batch: MetaBatch, step: MetaGradient) -> Growth | None:
    """What virtual updates did to the loss of the batches that were evaluated after them.

    These are the query batch of ``pf``, ``ss`` and ``ps``, and the confounders of ``sf`` (of whose walk all but the
    first step start at a ``phi``) and of ``mldg`` (whose held-out ones are evaluated at ``phi``). The losses at
    ``theta`` are evaluated here, without gradients: losses of different batches, or of different confounders, say
    nothing by their ratio.

    Args:
        loss: Of the network.
        params: ``theta``, or what one outer step made of it.
        batch: Of the meta-step.
        step: What it computed.

    Returns:
        None where there was no virtual update. Waits for the device.
    """
    if step.inner_losses is None:
        return None
    query = None if step.outer_loss is None else batch.query
    pairs = list(batch.confounders) if query is None else [query]
    after = step.inner_losses.mean() if query is None or step.outer_loss is None else step.outer_loss
    probe = without_buffer_updates(
        NetworkLoss(loss.network, loss.criterion, loss.outputs, loss.micro_batch, None, loss.memory_format))
    devices = sorted({p.device.index for p in params.values() if p.is_cuda})
    with torch.no_grad(), torch.random.fork_rng(devices):
        before = torch.stack([probe(params, part) * fraction / len(pairs)
                              for pair in pairs for fraction, part in micro_batches(probe, pair)]).sum()
    return Growth(float(before), float(after))
