"""Hessian-vector products of the inner loss: exact by double backward, or by finite differences.

Each function evaluates one inner loss and returns its gradient together with a way to multiply its Hessian ``H`` at
``theta`` with a vector. They differ in what they hold in memory until then.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dil_plugin.learning.objective import without_buffer_updates
from dil_plugin.learning.types import Grads, LossFunction, Pair, Params
from dil_plugin.learning.virtual_update import gradient


@dataclass(frozen=True)
class InnerGradient:
    """An inner loss at ``theta``: value and gradient, both detached, and ``product(v) = H v``, to be called once."""

    value: Tensor
    grads: Grads
    product: Callable[[Grads], Grads]


class InnerGradientFunction(Protocol):
    """Signature of the functions below."""

    def __call__(self, loss: LossFunction, params: Params, pair: Pair) -> InnerGradient:
        """The inner loss of ``pair`` at ``params``."""


def exact(loss: LossFunction, params: Params, pair: Pair) -> InnerGradient:
    """``H v = d(g . v)/d theta`` by double backward; holds the graph of the gradient until the product is taken."""
    value = loss(params, pair)
    grads = gradient(value, params, create_graph=True)

    def product(vector: Grads) -> Grads:
        return _vector_product(grads, params, vector)

    return InnerGradient(value.detach(), [grad.detach() for grad in grads], product)


def exact_recomputed(loss: LossFunction, params: Params, pair: Pair) -> InnerGradient:
    """As ``exact``, but holds no graph: the product evaluates the loss and its gradient anew."""
    replayed = _remember_random_state(params)
    value = loss(params, pair)
    grads = gradient(value, params)

    def product(vector: Grads) -> Grads:
        with replayed():
            again = without_buffer_updates(loss)(params, pair)
        return _vector_product(gradient(again, params, create_graph=True), params, vector)

    return InnerGradient(value.detach(), grads, product)


def finite_difference(loss: LossFunction, params: Params, pair: Pair) -> InnerGradient:
    """``H v ~ (g(theta + e v) - g(theta - e v)) / (2 e)``, central differences in first-order memory.

    The displacement ``e ||v||`` is ``cbrt(machine epsilon) * (1 + ||theta||)``, which balances truncation and
    rounding of a central difference (0.5 % of ``||theta||`` in float32). With a loss that has kinks (L1) or a
    piecewise linear network (ReLU) the difference also sees the kinks that lie between the two points, which double
    backward does not; the relative error of the product is then of order 1 in float32, that of the meta-gradient of
    order ``alpha`` times the Hessian's norm (below 1e-3 at alpha = 1e-4 on RRDB and SwinIR under L1).
    """
    replayed = _remember_random_state(params)
    value = loss(params, pair)
    grads = gradient(value, params)

    def product(vector: Grads) -> Grads:
        theta = list(params.values())
        probe = without_buffer_updates(loss)
        with torch.no_grad():
            tiny = torch.finfo(theta[0].dtype)
            radius = tiny.eps**(1 / 3) * (1 + global_norm(theta))
            step = radius / global_norm(vector).clamp_min(tiny.tiny)
            offset = list(torch._foreach_mul(vector, step))

        def gradient_at(points: tuple[Tensor, ...] | list[Tensor]) -> Grads:
            shifted = {name: p.requires_grad_() for name, p in zip(params, points, strict=True)}
            with replayed():
                return gradient(probe(shifted, pair), shifted)

        with torch.no_grad():
            ahead, behind = torch._foreach_add(theta, offset), torch._foreach_sub(theta, offset)
        difference = list(torch._foreach_sub(gradient_at(ahead), gradient_at(behind)))
        torch._foreach_div_(difference, 2 * step)
        return difference

    return InnerGradient(value.detach(), grads, product)


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
    return list(
        torch.autograd.grad(
            outputs, list(params.values()), grad_outputs=weights, allow_unused=True, materialize_grads=True))
