"""The same trainings as plain loops: copies of the network, ``backward``, ``torch.optim``, and nothing of the plugin.

They replay the batches that a training saw, and the draws of its dropout.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

ALPHA = 0.01  # inner learning rate of ps
EPS = 1e-3  # of the Charbonnier loss, which BasicSR adds without squaring it


class Iteration(NamedTuple):
    """What an iteration saw.

    Attributes:
        steps: For each step of the optimiser its batches by confounder and its query, pairs ``(lq, gt)``.
        random: The state of torch's generator when it began.
    """

    steps: list[tuple[list[tuple[Tensor, Tensor]], tuple[Tensor, Tensor] | None]]
    random: Tensor


def loss(network: Callable[[Tensor], Any], pair: tuple[Tensor, Tensor]) -> Tensor:
    """The Charbonnier loss, summed over several outputs, of which those that are no images do not count.

    A network that writes into its input gets one of its own.
    """
    outputs = network(pair[0].clone())
    images = [one for one in (outputs if isinstance(outputs, list | tuple) else [outputs]) if one.ndim == 4]
    return sum(((image - pair[1])**2 + EPS).sqrt().mean() for image in images)


def serial_first_order(network: nn.Module, walker: tuple[nn.Module, Any], confounders: Any, query: Any) -> None:
    """``theta - phi_n``: Adam walks on a copy of the network, one step for each confounder."""
    fast, adam = walker
    with torch.no_grad():
        for own, theta in zip(trained(fast), trained(network), strict=True):
            own.copy_(theta)
    for pair in confounders:
        adam.zero_grad()
        loss(fast, pair).backward()
        adam.step()
    for own, theta in zip(trained(fast), trained(network), strict=True):
        theta.grad = (theta - own).detach()


def parallel_second_order(network: nn.Module, walker: Any, confounders: Any, query: Any) -> None:
    """The derivative of the query's loss at ``phi``, through one gradient step on the mean of the inner losses."""
    theta = {name: p for name, p in network.named_parameters() if p.requires_grad}
    inner = sum(loss(network, pair) for pair in confounders) / len(confounders)
    grads = torch.autograd.grad(inner, list(theta.values()), create_graph=True, allow_unused=True,
                                materialize_grads=True)
    phi = {name: p - ALPHA * grad for (name, p), grad in zip(theta.items(), grads, strict=True)}
    own = [(module, name, p) for module in network.modules() for name, p in module.named_parameters(recurse=False)]
    loss(lambda lq: functional_call(network, phi, (lq, )), query).backward()
    for module, name, p in own:  # functional_call leaves phi in a module that the network holds twice
        setattr(module, name, p)


def risk(network: nn.Module, walker: Any, confounders: Any, query: Any) -> None:
    """The gradient of the query's loss."""
    loss(network, query).backward()


GRADIENTS = {'sf': serial_first_order, 'ps': parallel_second_order, 'erm': risk}


def trained(network: nn.Module) -> list[nn.Parameter]:
    """Its parameters that are not frozen."""
    return [p for p in network.parameters() if p.requires_grad]


def train(variant: str, make: Callable[[], nn.Module], iterations: list[Iteration]) -> dict[str, dict[str, Tensor]]:
    """``params`` and ``params_ema`` after the training of ``training_options``.

    Args:
        variant: ``sf``, ``ps`` or ``erm``.
        make: Gives the network as the training began, another one every time.
        iterations: What the training saw.
    """
    network, average, fast = (make().train() for _ in range(3))
    optimizer = torch.optim.Adam(trained(network), lr=1e-3, betas=(0.9, 0.99), eps=1e-5)
    walker = fast, torch.optim.Adam(trained(fast), lr=1e-4, betas=(0.0, 0.999), eps=1e-3)
    for number, iteration in enumerate(iterations):
        optimizer.param_groups[0]['lr'] = 1e-3 if number < 3 else 5e-4
        torch.set_rng_state(iteration.random)
        for confounders, query in iteration.steps:
            optimizer.zero_grad()
            with sdpa_kernel(SDPBackend.MATH):  # the one that can be differentiated twice
                GRADIENTS[variant](network, walker, confounders, query)
            optimizer.step()
        if variant == 'sf':  # whose running statistics are of the walks
            copy_buffers(network, fast)
        with torch.no_grad():
            for mean, own in zip(average.parameters(), network.parameters(), strict=True):
                mean.copy_(0.5 * mean + 0.5 * own)
        copy_buffers(average, network)
    return {'params': network.state_dict(), 'params_ema': average.state_dict()}


def copy_buffers(to: nn.Module, source: nn.Module) -> None:
    """By their names in the modules, for a network may have put another tensor there."""
    for into, module in zip(to.modules(), source.modules(), strict=True):
        for name, buffer in module.named_buffers(recurse=False):
            into.register_buffer(name, buffer.clone(), persistent=name not in module._non_persistent_buffers_set)
