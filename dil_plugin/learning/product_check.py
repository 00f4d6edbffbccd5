"""Whether the exact Hessian-vector product of a network is the derivative of its gradient."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dil_plugin.learning.double_backward import differentiable_twice
from dil_plugin.learning.gradients import mean_gradient
from dil_plugin.learning.hessian import exact_recomputed, global_norm
from dil_plugin.learning.objective import NetworkLoss
from dil_plugin.learning.substitution import call_with
from dil_plugin.learning.types import Grads, Pair

TOLERANCE = 1e-5
"""Relative; right products are within 1e-8, of networks with kinks (L1, ReLU) too."""

_AT_FAULT = (1e-9, 1e-10)
_RADII = (1e-6, 1e-8, *_AT_FAULT)  # of a displacement, relative; the smaller, the fewer kinks lie in between
_Field = Callable[[list[Tensor]], Grads]


class ProductCheck(NamedTuple):
    """How far an exact product is from a central difference.

    Attributes:
        error: ``|H v - d| / |d|`` with ``d = (g(theta + e v) - g(theta - e v)) / 2e``, all parameters together.
        layers: Modules whose own second derivatives are at fault, the innermost ones, one of each kind.
    """

    error: float
    layers: list[str]


def check_product(network: nn.Module, criterion: Callable[[Tensor, Tensor], Tensor], pair: Pair,
                  outputs: str = 'all') -> ProductCheck:
    """Compares ``H v`` by double backward with a central difference, in float64, for ``v = g(theta)``, the gradient.

    They differ where a layer's backward pass hides from autograd what it computes with: a function of the network's own
    that saves results of its forward pass, or a normalisation by buffers that the forward pass changes. Where they do,
    each kind of module is tried alone, at the input that it had.

    Args:
        network: It stays as it is; so do torch's generators.
        criterion: ``criterion(output, gt)``, a scalar, in float64 too.
        pair: Few small images: it takes some six gradients of them.
        outputs: See ``NetworkLoss``.

    Raises:
        Exception: What the network raises, which may not do with float64.
    """
    loss = NetworkLoss(network, criterion, outputs)
    pair = Pair(pair.lq.double(), pair.gt.double())
    params = {name: p.detach().double().requires_grad_() for name, p in loss.parameters().items()}
    devices = sorted({p.device.index for p in params.values() if p.is_cuda})
    theta = list(params.values())

    def field(values: list[Tensor]) -> Grads:
        torch.manual_seed(0)
        at = {name: value.detach().requires_grad_() for name, value in zip(params, values, strict=True)}
        return mean_gradient(loss.on_copies(torch.float64), at, [pair])[0]

    with torch.random.fork_rng(devices):
        vector = field(theta)
        torch.manual_seed(0)
        exact = exact_recomputed(loss.on_copies(torch.float64), params, [pair]).product(vector)
        error = _error(exact, field, theta, vector)
        if error <= TOLERANCE:
            return ProductCheck(error, [])
        copies = loss.on_copies(torch.float64)
        return ProductCheck(error, copies.at(params, lambda: _faulty(network, pair.lq)))


def _error(exact: Grads, field: _Field, point: list[Tensor], vector: Grads) -> float:
    """The relative distance of a product from the central difference of the field.

    A kink (of L1, of a ReLU) between the two points of the difference spoils it, so smaller radii are tried where
    the product seems to be wrong; the least distance counts. Rounding is at most some 1e-7 at the smallest one.
    """
    least = float('inf')
    for radius in _RADII:
        if radius in _AT_FAULT and least <= TOLERANCE:
            break
        least = min(least, _distance(exact, _central(field, point, vector, radius)))
    return least


def _central(field: _Field, point: list[Tensor], vector: Grads, radius: float) -> Grads:
    with torch.no_grad():
        step = radius * global_norm(point) / global_norm(vector).clamp_min(torch.finfo(torch.float64).tiny)
        ahead, behind = (torch._foreach_add(point, torch._foreach_mul(vector, sign * step)) for sign in (1, -1))
    difference = list(torch._foreach_sub(field(list(ahead)), field(list(behind))))
    torch._foreach_div_(difference, 2 * step)
    return difference


def _distance(found: Grads, expected: Grads) -> float:
    apart, size = (float(global_norm(tensors)) for tensors in (list(torch._foreach_sub(found, expected)), expected))
    return apart / size if size > 0 else float(apart > 0)


def _faulty(network: nn.Module, image: Tensor) -> list[str]:
    """The innermost modules whose product is wrong at the input that they have for the image, one of each kind."""
    kinds: dict[Any, tuple[str, nn.Module]] = {}
    for name, module in network.named_modules():
        kinds.setdefault(_kind(module), (name, module))
    inputs = _inputs(network, [module for _, module in kinds.values() if module is not network], image)
    wrong = {kind for kind, (_, module) in kinds.items() if module in inputs and _is_wrong(module, *inputs[module])}
    return [f'{kinds[kind][0]} ({type(kinds[kind][1]).__name__})' for kind in kinds if kind in wrong
            and not any(_kind(inner) in wrong for inner in list(kinds[kind][1].modules())[1:])]


def _kind(module: nn.Module) -> Any:
    return type(module), tuple(name for name, _ in module.named_parameters(recurse=False)), len(list(module.children()))


def _inputs(network: nn.Module, modules: Sequence[nn.Module], image: Tensor) -> dict[nn.Module, Any]:
    """The arguments of the first call of each module."""
    found: dict[nn.Module, Any] = {}

    def keep(module: nn.Module, args: Any, kwargs: Any) -> None:
        found.setdefault(module, (copied(args), kwargs))

    def copied(args: Any) -> Any:
        return tuple(arg.detach().clone() if isinstance(arg, Tensor) else arg for arg in args)

    hooks = [module.register_forward_pre_hook(keep, with_kwargs=True) for module in modules]
    try:
        with torch.no_grad():
            network(image.clone())
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _is_wrong(module: nn.Module, args: Any, kwargs: Any) -> bool:
    """Whether the product of a random combination of the module's outputs is wrong, its inputs being parameters too."""
    own = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
    names = list(own)
    places = [i for i, arg in enumerate(args) if isinstance(arg, Tensor) and arg.is_floating_point()]
    point = [*own.values(), *(args[i] for i in places)]
    generator = torch.Generator().manual_seed(0)
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}

    def value(values: list[Tensor]) -> Tensor:
        torch.manual_seed(0)
        generator.manual_seed(1)
        given = list(args)
        for i, tensor in zip(places, values[len(names):], strict=True):
            given[i] = tensor.clone()  # for what works in place
        tensors = dict(zip(names, values, strict=False)) | {name: buffer.clone() for name, buffer in before.items()}
        result = call_with(module, tensors, tuple(given), kwargs)
        outputs = [result] if isinstance(result, Tensor) else [one for one in result if isinstance(one, Tensor)]
        return torch.stack([(one * random_like(one)).sum() for one in outputs]).sum()

    def random_like(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype).to(tensor.device)

    def gradient(values: list[Tensor], create_graph: bool = False) -> tuple[list[Tensor], Grads]:
        leaves = [tensor.detach().requires_grad_() for tensor in values]
        return leaves, list(torch.autograd.grad(value(leaves), leaves, create_graph=create_graph, allow_unused=True,
                                                materialize_grads=True))

    try:
        vector = [random_like(tensor) * tensor.std(correction=0) for tensor in point]
        with differentiable_twice():
            leaves, grads = gradient(point, create_graph=True)
            reached = [(grad, v) for grad, v in zip(grads, vector, strict=True) if grad.requires_grad]
            exact = list(torch.autograd.grad([grad for grad, _ in reached], leaves, [v for _, v in reached],
                                             allow_unused=True, materialize_grads=True)) if reached else \
                [torch.zeros_like(tensor) for tensor in point]
        return _error(exact, lambda values: gradient(values)[1], point, vector) > TOLERANCE
    except Exception:  # of any module, which may not be one that can be tried alone
        return False
