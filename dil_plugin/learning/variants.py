"""The four meta-gradients of DIL, and ERM, side by side under one signature.

Each is called with a loss, the parameters ``theta`` and a ``MetaBatch``, changes neither the parameters nor their
``.grad``, and returns a ``MetaGradient`` for the outer optimiser. ``n`` is the number of confounders, ``L_i`` the loss
on the batch of confounder i, ``L`` the loss on the query batch ``(I_d, I_c)``.
"""

from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from dil_plugin.learning.gradients import accumulated, mean_gradient
from dil_plugin.learning.hessian import InnerGradientFunction, exact, exact_recomputed
from dil_plugin.learning.types import Average, Grads, LossFunction, Mark, MetaBatch, MetaGradient, Pair, Params
from dil_plugin.learning.virtual_update import ReptileWalk, identity, unmarked, virtual_update


class Variant(Protocol):
    """What the training loop knows of a variant."""

    uses_confounders: ClassVar[bool]
    uses_query: ClassVar[bool]

    def __call__(self, loss: LossFunction, params: Params, batch: MetaBatch) -> MetaGradient:
        """The meta-gradient at ``params``."""

    def state_dict(self) -> dict[str, Any]:
        """What persists from one meta-step to the next."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores ``state_dict``."""


class _Stateless:

    def state_dict(self) -> dict[str, Any]:
        """Nothing persists."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


class ERM(_Stateless):
    """Empirical risk minimisation, the baseline: ``grad L`` at ``theta``."""

    uses_confounders: ClassVar[bool] = False
    uses_query: ClassVar[bool] = True

    def __init__(self, average: Average = identity) -> None:
        self.average = average

    def __call__(self, loss: LossFunction, params: Params, batch: MetaBatch) -> MetaGradient:
        """See ``Variant``."""
        grads, values = mean_gradient(loss, params, [_query(batch)])
        return MetaGradient(self.average(grads), outer_loss=values[0])


class SerialFirstOrder:
    """``sf``: ``theta - phi_n`` of the walk ``theta -> phi_1 -> … -> phi_n``, one inner step per confounder.

    The first-order (Reptile) approximation of Eq. 4; with Adam as the inner optimiser the authors' released training.

    Args:
        walk: The inner optimiser and its fast weights.
        generator: Shuffles the order of the confounders in every meta-step (a CPU generator; the same seed on all
            ranks); None keeps the order of the batch.
    """

    uses_confounders: ClassVar[bool] = True
    uses_query: ClassVar[bool] = False

    def __init__(self, walk: ReptileWalk, generator: torch.Generator | None = None, mark: Mark = unmarked) -> None:
        self.walk = walk
        self.generator = generator
        self.mark = mark

    def __call__(self, loss: LossFunction, params: Params, batch: MetaBatch) -> MetaGradient:
        """See ``Variant``."""
        n = len(batch.confounders)
        order = range(n) if self.generator is None else torch.randperm(n, generator=self.generator).tolist()
        values: list[Tensor] = [torch.empty(0)] * n
        self.walk.start(params)
        for i in order:
            values[i] = self.walk.step(loss, [batch.confounders[i]])
        self.mark('inner')
        return MetaGradient(self.walk.displacement(params), inner_losses=torch.cat(values))

    def state_dict(self) -> dict[str, Any]:
        """The inner optimiser's moments and the order generator's state."""
        state: dict[str, Any] = {'walk': self.walk.state_dict()}
        if self.generator is not None:
            state['order'] = self.generator.get_state()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores ``state_dict``."""
        self.walk.load_state_dict(state['walk'])
        if self.generator is not None and 'order' in state:
            self.generator.set_state(state['order'].cpu())


class ParallelFirstOrder:
    """``pf``: ``theta - phi_2`` after one step on ``(1/n) sum_i L_i`` and one on ``L``.

    The first-order (Reptile) approximation of Eq. 5.
    """

    uses_confounders: ClassVar[bool] = True
    uses_query: ClassVar[bool] = True

    def __init__(self, walk: ReptileWalk, mark: Mark = unmarked) -> None:
        self.walk = walk
        self.mark = mark

    def __call__(self, loss: LossFunction, params: Params, batch: MetaBatch) -> MetaGradient:
        """See ``Variant``."""
        self.walk.start(params)
        inner = self.walk.step(loss, batch.confounders)
        self.mark('inner')
        outer = self.walk.step(loss, [_query(batch)])
        return MetaGradient(self.walk.displacement(params), inner, outer.squeeze(0))

    def state_dict(self) -> dict[str, Any]:
        """The inner optimiser's moments."""
        return {'walk': self.walk.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores ``state_dict``."""
        self.walk.load_state_dict(state['walk'])


class SerialSecondOrder(_Stateless):
    """``ss``: the gradient of Eq. 4, ``(1/n) sum_i (I - alpha H_i) v_i``.

    ``phi_i = theta - alpha grad L_i(theta)``, ``v_i = grad L(phi_i)``, ``H_i`` the Hessian of ``L_i`` at ``theta``.
    Holds the graph of one confounder at a time.

    Args:
        alpha: The inner learning rate.
        inner: How the Hessian is multiplied.
        average: Averages over processes.
        mark: Told when inner and outer parts are done.
    """

    uses_confounders: ClassVar[bool] = True
    uses_query: ClassVar[bool] = True

    def __init__(self,
                 alpha: float,
                 inner: InnerGradientFunction = exact,
                 average: Average = identity,
                 mark: Mark = unmarked) -> None:
        self.alpha = alpha
        self.inner = inner
        self.average = average
        self.mark = mark

    def __call__(self, loss: LossFunction, params: Params, batch: MetaBatch) -> MetaGradient:
        """See ``Variant``."""
        total: Grads = []
        inner_losses, outer_losses = [], []
        for pair in batch.confounders:
            inner = self.inner(loss, params, [pair])
            phi = virtual_update(params, self.average(inner.grads), self.alpha)
            self.mark('inner')
            v, outer = mean_gradient(loss, phi, [_query(batch)])
            v = self.average(v)
            torch._foreach_add_(v, self.average(inner.product(v)), alpha=-self.alpha)
            total = accumulated(total, v)
            inner_losses.append(inner.values)
            outer_losses.append(outer)
            self.mark('outer')
            del inner, phi, v  # parameter-sized, and not to live on beside the next confounder's
        torch._foreach_div_(total, len(batch.confounders))
        return MetaGradient(total, torch.cat(inner_losses), torch.cat(outer_losses).mean())


class ParallelSecondOrder(_Stateless):
    """``ps``: the gradient of Eq. 5, ``(I - alpha H) v``.

    ``phi = theta - alpha grad (1/n) sum_i L_i(theta)``, ``v = grad L(phi)``, ``H = (1/n) sum_i H_i`` at ``theta``.

    Args:
        alpha: The inner learning rate.
        inner: How the Hessian is multiplied; the default holds no graph between the inner and the outer loss.
        average: Averages over processes.
        mark: Told when inner and outer parts are done.
    """

    uses_confounders: ClassVar[bool] = True
    uses_query: ClassVar[bool] = True

    def __init__(self,
                 alpha: float,
                 inner: InnerGradientFunction = exact_recomputed,
                 average: Average = identity,
                 mark: Mark = unmarked) -> None:
        self.alpha = alpha
        self.inner = inner
        self.average = average
        self.mark = mark

    def __call__(self, loss: LossFunction, params: Params, batch: MetaBatch) -> MetaGradient:
        """See ``Variant``."""
        inner = self.inner(loss, params, batch.confounders)
        phi = virtual_update(params, self.average(inner.grads), self.alpha)
        self.mark('inner')
        v, outer = mean_gradient(loss, phi, [_query(batch)])
        del phi
        v = self.average(v)
        torch._foreach_add_(v, self.average(inner.product(v)), alpha=-self.alpha)
        return MetaGradient(v, inner.values, outer[0])


def _query(batch: MetaBatch) -> Pair:
    if batch.query is None:
        raise ValueError('this variant has an outer loss: MetaBatch.query is missing')
    return batch.query
