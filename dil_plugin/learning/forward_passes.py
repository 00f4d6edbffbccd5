"""Ways to evaluate a network at parameters that are an argument; all give the same output."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dil_plugin.errors import OptionError
from dil_plugin.learning.checkpointing import checkpointed, repeated_blocks
from dil_plugin.learning.types import Params


class ForwardPass(Protocol):
    """Signature of the classes below."""

    def __call__(self, tensors: Params, lq: Tensor) -> Any:
        """What the network returns for ``lq`` with these parameters and buffers; the others are its own."""


class Plain:
    """``f_theta(lq)``, nothing else."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, tensors: Params, lq: Tensor) -> Any:
        """See ``ForwardPass``."""
        return functional_call(self.network, tensors, (lq, ))


class Checkpointed:
    """Keeps the inputs of the network's repeated blocks alone, and computes the blocks anew in each backward pass.

    Args:
        network: With blocks in an ``nn.Sequential`` or ``nn.ModuleList``.

    Raises:
        OptionError: There are no such blocks; or one changes its input in place (raised by the call).
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.blocks = list(repeated_blocks(network).values())
        if not self.blocks:
            raise OptionError(f'train.dil.checkpointing: true, but network_g ({type(network).__name__}) has no blocks '
                              'in an nn.Sequential or nn.ModuleList to compute anew; allowed: false')

    def __call__(self, tensors: Params, lq: Tensor) -> Any:
        """See ``ForwardPass``."""
        with checkpointed(self.blocks):
            return functional_call(self.network, tensors, (lq, ))


class Compiled:
    """The network compiled by ``torch.compile``, once for all parameters; it can be differentiated once.

    The network itself stays as it is, for validation at other sizes.

    Args:
        network: Any that ``torch.compile`` takes.
        backend: Of ``torch.compile``.
    """

    def __init__(self, network: nn.Module, backend: str = 'inductor') -> None:
        self.compiled: Any = torch.compile(network, backend=backend)

    def __call__(self, tensors: Params, lq: Tensor) -> Any:
        """See ``ForwardPass``."""
        return functional_call(self.compiled, {f'_orig_mod.{name}': tensor for name, tensor in tensors.items()}, (lq, ))
