"""MLDG of domain generalisation, a baseline under the signature of DIL's variants."""

from typing import Any, ClassVar

import torch

from dil_plugin.errors import OptionError
from dil_plugin.learning.gradients import mean_gradient
from dil_plugin.learning.hessian import InnerGradientFunction, exact_recomputed
from dil_plugin.learning.types import Average, LossFunction, Mark, MetaBatch, MetaGradient, Params
from dil_plugin.learning.virtual_update import identity, unmarked, virtual_update


class MLDG:
    """``mldg``: Meta-Learning Domain Generalization, with the confounders as its domains.

    Li, Yang, Song, Hospedales, *Learning to Generalize: Meta-Learning for Domain Generalization*, AAAI 2018,
    Algorithm 1. Each meta-step splits the confounders anew into meta-train and meta-test (held-out) ones and takes the
    gradient of

        ``F(theta) + beta G(theta - alpha grad F(theta))``,

    ``F`` the mean loss of the former, ``G`` that of the latter. It is ``u + beta (I - alpha H) v`` with ``u = grad F``
    and the Hessian ``H`` of ``F`` at ``theta``, and ``v = grad G`` at ``phi = theta - alpha u``.

    Its inner losses are those of all confounders, of the held-out ones at ``phi``; their mean is the outer loss.

    Args:
        alpha: The inner learning rate.
        held_out: Meta-test confounders in each meta-step.
        beta: The weight of ``G``.
        generator: Draws the split (a CPU generator; the same seed on all ranks).
        inner: How the Hessian is multiplied.
        average: Averages over processes.
        mark: Told when inner and outer parts are done.

    Raises:
        OptionError: No confounder is left for ``F`` (raised by the call).
    """

    uses_confounders: ClassVar[bool] = True
    uses_query: ClassVar[bool] = False

    def __init__(self,
                 alpha: float,
                 held_out: int,
                 beta: float,
                 generator: torch.Generator,
                 inner: InnerGradientFunction = exact_recomputed,
                 average: Average = identity,
                 mark: Mark = unmarked) -> None:
        self.alpha, self.held_out, self.beta = alpha, held_out, beta
        self.generator = generator
        self.inner = inner
        self.average = average
        self.mark = mark

    def __call__(self, loss: LossFunction, params: Params, batch: MetaBatch) -> MetaGradient:
        """See ``Variant``."""
        n = len(batch.confounders)
        check_held_out(self.held_out, n)
        order = torch.randperm(n, generator=self.generator).tolist()
        test, train = order[:self.held_out], order[self.held_out:]
        inner = self.inner(loss, params, [batch.confounders[i] for i in train])
        u = self.average(inner.grads)
        phi = virtual_update(params, u, self.alpha)
        self.mark('inner')
        v, outer = mean_gradient(loss, phi, [batch.confounders[i] for i in test])
        del phi
        v = self.average(v)
        torch._foreach_add_(v, self.average(inner.product(v)), alpha=-self.alpha)
        values = dict(zip(train + test, torch.cat([inner.values, outer]).unbind(), strict=True))
        return MetaGradient(list(torch._foreach_add(u, v, alpha=self.beta)),
                            torch.stack([values[i] for i in range(n)]), outer.mean())

    def state_dict(self) -> dict[str, Any]:
        """The generator's state."""
        return {'order': self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores ``state_dict``."""
        self.generator.set_state(state['order'].cpu())


def check_held_out(held_out: int, confounders: int, key: str = 'train.dil.held_out') -> None:
    """Raises OptionError unless ``mldg`` has confounders left to train on."""
    if held_out >= confounders:
        allowed = f'at most {confounders - 1}' if confounders > 1 else 'another variant, or more confounders'
        raise OptionError(f'{key}: {held_out} of {confounders} confounders, which leaves none for the meta-train loss '
                          f'of mldg; allowed: {allowed}')
