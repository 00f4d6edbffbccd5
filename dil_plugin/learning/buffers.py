"""The buffers of a network and of its copy: running statistics, the vectors of a spectral norm, counters."""

import torch
from torch import nn


def copy_buffers(copy: nn.Module, network: nn.Module) -> None:
    """Gives a copy of a network, such as its moving average, the buffers that the network has now, to the bit.

    A forward pass in training mode changes them. The copy has no forward passes of its own to learn them from: an
    average of parameters with the statistics of an untrained BatchNorm is no network of use. ``AveragedModel`` of
    PyTorch does the same (``use_buffers=False``). Buffers that no state dict has (``persistent=False``) are among them.

    Args:
        copy: A module of the same structure.
        network: The module.
    """
    old: list[torch.Tensor] = []
    new: list[torch.Tensor] = []
    for mine, theirs in zip(copy.modules(), network.modules(), strict=True):
        for name, buffer in theirs._buffers.items():
            if buffer is None:
                continue
            own = mine._buffers.get(name)
            if own is None or own.shape != buffer.shape or own.dtype != buffer.dtype:
                mine._buffers[name] = buffer.detach().clone()  # one that the forward pass has made
            elif own is not buffer:
                old.append(own)
                new.append(buffer)
    if old:
        with torch.no_grad():
            torch._foreach_copy_(old, new)
