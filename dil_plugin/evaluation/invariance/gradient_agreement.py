"""How far the loss gradients of confounders point the same way."""

from collections.abc import Sequence

import msgspec
import torch
from torch import Tensor
from torch.nn import functional

from dil_plugin.evaluation.networks import RestorationNetwork
from dil_plugin.learning.gradients import loss_and_gradient
from dil_plugin.learning.objective import NetworkLoss
from dil_plugin.learning.types import Grads, Pair


class GradientAgreement(msgspec.Struct, frozen=True, kw_only=True):
    """The loss gradients ``g_i = grad_theta L_i(theta)`` of n confounders on the same patches.

    ``L_i(theta) = mean |f_theta(x_i) - x|``, the L1 loss on images in [0, 1], over all patches x with their
    counterfactuals ``x_i = g(x, d_i)``. A step against ``g_i`` lowers the loss of another confounder j, to first order,
    by its inner product with ``g_j``; training by Reptile or first-order MAML raises these products (Nichol, Achiam and
    Schulman, *On First-Order Meta-Learning Algorithms*, 2018, arXiv 1803.02999, section 5.1).

    Attributes:
        cosines: ``cos(g_i, g_j)``, n x n, in [-1, 1]; None where a gradient is zero.
        norms: ``|g_i|``, Euclidean, over all parameters together.
        losses: ``L_i``.
    """

    cosines: list[list[float | None]]
    norms: list[float]
    losses: list[float]

    @property
    def mean_cosine(self) -> float | None:
        """Mean over pairs i < j; None where no pair has a cosine."""
        found = [row[j] for i, row in enumerate(self.cosines) for j in range(i + 1, len(row))]
        there = [value for value in found if value is not None]
        return sum(there) / len(there) if there else None


class GradientSum:
    """Adds up the gradients of batches of equal size, of n confounders each."""

    def __init__(self) -> None:
        self._gradients: list[Grads] = []
        self._losses: list[Tensor] = []
        self._batches = 0

    def add(self, network: RestorationNetwork, pairs: Sequence[Pair]) -> GradientAgreement:
        """The agreement of one batch.

        Args:
            network: All its parameters count, also those that were frozen in training. It stays in evaluation mode:
                statistics of a BatchNorm are those of the checkpoint.
            pairs: The batch under each confounder.
        """
        losses, gradients = zip(*(loss_gradient(network, pair) for pair in pairs), strict=True)
        if self._batches:
            for total, gradient in zip(self._gradients, gradients, strict=True):
                torch._foreach_add_(total, gradient)
            self._losses = [total + loss for total, loss in zip(self._losses, losses, strict=True)]
        else:
            self._gradients = [[g.clone() for g in gradient] for gradient in gradients]
            self._losses = list(losses)
        self._batches += 1
        return compare_gradients(gradients, losses)

    def mean(self) -> GradientAgreement:
        """The agreement of the gradients over all batches together."""
        gradients = [[g / self._batches for g in gradient] for gradient in self._gradients]
        return compare_gradients(gradients, [loss / self._batches for loss in self._losses])


def loss_gradient(network: RestorationNetwork, pair: Pair) -> tuple[Tensor, Grads]:
    """The L1 loss of a batch and its gradient with respect to all parameters.

    Of a network with several outputs the loss takes those that the training took (``network.outputs``).

    Args:
        network: Its parameters may be frozen; their ``requires_grad`` stays as it is.
        pair: ``lq`` ``(B, C, H, W)``, with sides that are multiples of ``network.multiple``, and ``gt``.

    Raises:
        OptionError: The network returns another size than that of ``gt``.
    """
    loss_of = NetworkLoss(network.module, functional.l1_loss, network.outputs)
    params = {name: p.detach().requires_grad_() for name, p in network.module.named_parameters()}
    with torch.enable_grad():
        return loss_and_gradient(loss_of, params, pair)


def compare_gradients(gradients: Sequence[Grads], losses: Sequence[Tensor]) -> GradientAgreement:
    """Cosines and norms of n gradients.

    Inner products are summed in float64, since those of millions of small numbers lose digits in float32.

    Args:
        gradients: One list of tensors, one per parameter, for each confounder.
        losses: Scalars.
    """
    products = torch.zeros(len(gradients), len(gradients), dtype=torch.float64, device=losses[0].device)
    for parts in zip(*gradients, strict=True):
        rows = torch.stack([part.flatten() for part in parts]).double()
        products += rows @ rows.T
    values: list[list[float]] = products.tolist()
    norms = [values[i][i]**0.5 for i in range(len(values))]
    cosines = [[_cosine(values[i][j], norms[i] * norms[j]) for j in range(len(norms))] for i in range(len(norms))]
    return GradientAgreement(cosines=cosines, norms=norms, losses=torch.stack(list(losses)).tolist())


def _cosine(product: float, norms: float) -> float | None:
    return max(-1.0, min(1.0, product / norms)) if norms > 0 else None
