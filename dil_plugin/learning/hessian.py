"""Hessian-vector products of the inner loss: exact by double backward, or by finite differences.

Each function evaluates the mean inner loss of some confounders once and returns its gradient together with a way to
multiply its Hessian ``H`` at ``theta`` with a vector. They differ in what they hold in memory until then.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from dil_plugin.learning.double_backward import differentiable_twice, plain_attention, refusing_in_one_line
from dil_plugin.learning.gradients import (
    accumulated,
    mean_gradient,
    micro_batches,
    network_at,
    recorded_gradient,
    unshared,
)
from dil_plugin.learning.objective import without_buffer_updates
from dil_plugin.learning.types import Grads, LossFunction, Pair, Params


@dataclass(frozen=True)
class InnerGradient:
    """The mean inner loss ``(1/n) sum_i L_i`` at ``theta``.

    Attributes:
        values: ``(n,)``, the losses ``L_i``, detached.
        grads: The gradient of their mean, detached; not to be changed before the product is taken.
        product: ``product(v) = H v`` with the Hessian of their mean; to be called once.
    """

    values: Tensor
    grads: Grads
    product: Callable[[Grads], Grads]


class InnerGradientFunction(Protocol):
    """Signature of the functions below."""

    def __call__(self, loss: LossFunction, params: Params, pairs: Sequence[Pair]) -> InnerGradient:
        """The mean inner loss of ``pairs`` at ``params``."""


def exact(loss: LossFunction, params: Params, pairs: Sequence[Pair]) -> InnerGradient:
    """``H v = d(g . v)/d theta`` by double backward; holds the graphs of all gradients until the product is taken.

    The fastest exact way: nothing is computed twice.
    """
    held: list[Grads] = []
    values = []
    with differentiable_twice():
        for pair in pairs:
            shares = []
            for fraction, part in micro_batches(loss, pair):
                value, grads = recorded_gradient(loss, params, part, fraction, len(pairs))
                held.append(grads)
                shares.append(value)
            values.append(torch.stack(shares).sum())
    total: Grads = [torch.stack(same).sum(0) if len(same) > 1 else same[0].clone()
             for same in zip(*([grad.detach() for grad in grads] for grads in held), strict=True)]

    def product(vector: Grads) -> Grads:
        curvature: Grads = []
        with differentiable_twice():
            while held:  # each graph is freed before the next is walked through
                of_part = partial(_vector_product, held.pop(), params, vector)
                curvature = accumulated(curvature, network_at(loss, params, of_part))
                del of_part
        return curvature

    return InnerGradient(torch.stack(values), total, product)


def exact_recomputed(loss: LossFunction, params: Params, pairs: Sequence[Pair]) -> InnerGradient:
    """As ``exact``, but holds no graph: the product evaluates each loss and its gradient anew, one at a time.

    The product is linear in the confounders, so the memory is that of one confounder (or micro-batch), however many
    there are; the time is that of ``exact`` and one more gradient.
    """
    replayed, again = _remember_random_state(params), without_buffer_updates(loss)
    with plain_attention():  # as in the product, so that the same weights of it are dropped out
        grads, values = mean_gradient(loss, params, pairs)

    def product(vector: Grads) -> Grads:
        curvature: Grads = []
        with replayed(), differentiable_twice():
            for pair in pairs:
                for fraction, part in micro_batches(again, pair):
                    of_part = partial(_product_anew, again, params, part, fraction / len(pairs), vector)
                    curvature = accumulated(curvature, network_at(again, params, of_part))
        return curvature

    return InnerGradient(values, grads, product)


def _product_anew(loss: LossFunction, params: Params, pair: Pair, weight: float, vector: Grads) -> Grads:
    return _vector_product(recorded_gradient(loss, params, pair, weight)[1], params, vector)


def finite_difference(loss: LossFunction, params: Params, pairs: Sequence[Pair]) -> InnerGradient:
    """``H v ~ (g(theta + e v) - g(theta)) / e``, a forward difference in first-order memory.

    ``g(theta)`` is there already, so the product costs one gradient, half of a central difference. The displacement
    ``e ||v||`` is ``sqrt(machine epsilon) * (1 + ||theta||)``, which balances truncation and rounding. With a loss that
    has kinks (L1) or a piecewise linear network (ReLU) the difference also sees the kinks that lie between the two
    points, which double backward does not; the relative error of the product is then of order 1 in float32, that of the
    meta-gradient of order ``alpha`` times the Hessian's norm (below 2e-3 at alpha = 1e-4 on RRDB and SwinIR under L1).
    """
    replayed, again = _remember_random_state(params), without_buffer_updates(loss)
    grads, values = mean_gradient(loss, params, pairs)

    def product(vector: Grads) -> Grads:
        theta = list(params.values())
        with torch.no_grad():
            tiny = torch.finfo(theta[0].dtype)
            radius = tiny.eps**0.5 * (1 + global_norm(theta))
            step = radius / global_norm(vector).clamp_min(tiny.tiny)
            ahead = torch._foreach_mul(vector, step)
            torch._foreach_add_(ahead, theta)
        shifted = {name: p.requires_grad_() for name, p in zip(params, ahead, strict=True)}
        with replayed():
            difference, _ = mean_gradient(again, shifted, pairs)
        torch._foreach_sub_(difference, grads)
        torch._foreach_div_(difference, step)
        return difference

    return InnerGradient(values, grads, product)


def _remember_random_state(params: Params) -> Callable[[], AbstractContextManager[None]]:
    """A context in which torch draws as it will from now on: dropout and stochastic depth fall as they will fall next.

    The random state outside of the context is left as it was.
    """
    devices = sorted({p.device.index for p in params.values() if p.device.type == 'cuda'})
    cpu, cuda = torch.get_rng_state(), [torch.cuda.get_rng_state(device) for device in devices]

    @contextmanager
    def replayed() -> Iterator[None]:
        with torch.random.fork_rng(devices):
            torch.set_rng_state(cpu)
            for device, state in zip(devices, cuda, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield

    return replayed


def global_norm(tensors: Grads) -> Tensor:
    """The 2-norm of all tensors together, a scalar on their device."""
    return torch.stack(torch._foreach_norm(tensors)).norm()


def _vector_product(grads: Grads, params: Params, vector: Grads) -> Grads:
    reached = [(grad, v) for grad, v in zip(grads, vector, strict=True) if grad.requires_grad]
    if not reached:  # the gradient does not depend on the parameters: a linear model under L1
        return [torch.zeros_like(p) for p in params.values()]
    outputs, weights = zip(*reached, strict=True)
    with refusing_in_one_line():
        return unshared(
            torch.autograd.grad(
                outputs, list(params.values()), grad_outputs=weights, allow_unused=True, materialize_grads=True))
