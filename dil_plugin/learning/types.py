"""What the variants take and give."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

Params = dict[str, Tensor]
"""Trainable parameters by name, in the network's own order, as ``torch.func.functional_call`` takes them."""

Grads = list[Tensor]
"""One tensor per parameter, in the order of ``Params``."""


class Pair(NamedTuple):
    """A distorted batch ``lq`` ``(B, C, H, W)`` and its clean target ``gt`` ``(B, C, s*H, s*W)``, both in [0, 1]."""

    lq: Tensor
    gt: Tensor


LossFunction = Callable[[Params, Pair], Tensor]
"""``L(f_params(lq), gt)``, a scalar that is differentiable in the parameters."""

Average = Callable[[Grads], Grads]
"""Averages gradients over the processes of a distributed run, each counting by its images; the identity in a single
process."""

Mark = Callable[[str], None]
"""Told what a step has just done, ``inner`` or ``outer``, by whoever measures its time."""


@dataclass(frozen=True)
class MetaBatch:
    """The data of one meta-step.

    Attributes:
        confounders: The batches of the inner steps, one per confounder ``d_1 … d_n``.
        query: The batch ``(I_d, I_c)`` of the outer loss. Not needed by ``sf``, which has no outer loss.
    """

    confounders: Sequence[Pair] = field(default_factory=tuple)
    query: Pair | None = None

    @property
    def images(self) -> int:
        """Images in one of its batches: the share of this process among several.

        A process that has twice the images of another is taken to have twice the images in every batch of the step.
        """
        pairs = [*self.confounders] if self.query is None else [self.query]
        return pairs[0].gt.shape[0]


@dataclass(frozen=True)
class MetaGradient:
    """What one meta-step computes; all tensors are detached and on the parameters' device.

    Attributes:
        grads: The gradient for the outer optimiser, one tensor per parameter.
        inner_losses: ``(n,)``, the inner loss of each confounder in the order of ``MetaBatch.confounders``, or None.
        outer_loss: Scalar, the loss on the query batch (for ``ss`` the mean over its n evaluations), or None.
    """

    grads: Grads
    inner_losses: Tensor | None = None
    outer_loss: Tensor | None = None
