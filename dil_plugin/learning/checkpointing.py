"""Activation checkpointing of a network whose parameters are an argument."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dil_plugin.errors import OptionError
from dil_plugin.learning.convolution import recorded_now
from dil_plugin.learning.double_backward import differentiable_twice
from dil_plugin.learning.substitution import call_with


def repeated_blocks(network: nn.Module) -> dict[str, nn.Module]:
    """The network's blocks by name: composite members of its outermost ``nn.Sequential`` and ``nn.ModuleList``.

    The 23 RRDBs of RRDBNet, the residual Swin blocks of SwinIR, the residual blocks of MSRResNet. Single layers are not
    blocks: one that works in place, as an activation does, has no input left to compute it from again.
    """
    found: dict[str, nn.Module] = {}
    if isinstance(network, nn.Sequential | nn.ModuleList):
        return {name: block for name, block in network.named_children() if any(True for _ in block.children())}
    for name, child in network.named_children():
        found.update({f'{name}.{inner}': block for inner, block in repeated_blocks(child).items()})
    return found


@contextlib.contextmanager
def checkpointed(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Within it, blocks that are called keep their inputs alone, and are computed again in each backward pass.

    A block is computed again with the parameters that it had in the first place, which those of a virtual update are
    not any more by then, and without touching its buffers (``torch.utils.checkpoint`` without re-entry, which double
    backward can follow).

    Args:
        blocks: None of them within another.

    Raises:
        OptionError: A block changes its input in place (raised by the call).
    """
    for block in blocks:
        block.forward = _checkpointed_forward(block, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _checkpointed_forward(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:

    def call(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(_once_and_again(block, forward), *args, use_reentrant=False, **kwargs)

    return call


def _once_and_again(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    """``forward`` at the first call; from then on the same computation from outside of the network's own."""
    params: dict[str, Tensor] = dict(block.named_parameters())
    buffers = dict(block.named_buffers())
    recorded = recorded_now()
    done = False

    def run(*args: Any, **kwargs: Any) -> Any:
        nonlocal done
        if done:
            own = {name: buffer.clone() for name, buffer in buffers.items()}
            with differentiable_twice() if recorded else contextlib.nullcontext():
                return call_with(block, {**params, **own}, args, kwargs)
        done = True
        tensors = [arg for arg in (*args, *kwargs.values()) if isinstance(arg, Tensor)]
        versions = [tensor._version for tensor in tensors]
        result = forward(*args, **kwargs)
        if versions != [tensor._version for tensor in tensors]:
            raise OptionError(f'train.dil.checkpointing: true, but a {type(block).__name__} of network_g changes its '
                              'input in place and cannot be computed again from it; allowed: false')
        return result

    return run
