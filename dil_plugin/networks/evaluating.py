"""A network in evaluation mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode; afterwards each of its modules is in the mode that it was in.

    ``train()`` is called for it, and not the flag set alone: some modules (LoRA, re-parametrised convolutions) merge
    their weights in ``eval()`` and take them apart in ``train()``.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        network.train(modes[0][1])
        for module, training in modes:
            if module.training != training:
                module.train(training)
