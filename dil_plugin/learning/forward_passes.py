"""Ways to evaluate a network, beside calling it; all give the same output."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dil_plugin.errors import OptionError
from dil_plugin.learning.checkpointing import checkpointed, repeated_blocks


class ForwardPass(Protocol):
    """Signature of the classes below, and of the network itself."""

    def __call__(self, lq: Tensor) -> Any:
        """What the network returns for ``lq`` with the parameters and buffers that it holds."""


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

    def __call__(self, lq: Tensor) -> Any:
        """See ``ForwardPass``."""
        with checkpointed(self.blocks):
            return self.network(lq)


class Compiled:
    """The network compiled by ``torch.compile``, once for all parameters; it can be differentiated once.

    The network itself stays as it is, for validation at other sizes.

    Args:
        network: Any that ``torch.compile`` takes.
        backend: Of ``torch.compile``.
    """

    def __init__(self, network: nn.Module, backend: str = 'inductor') -> None:
        self.compiled: Any = torch.compile(network, backend=backend)

    def __call__(self, lq: Tensor) -> Any:
        """See ``ForwardPass``."""
        return self.compiled(lq)
