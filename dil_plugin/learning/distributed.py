"""Averages over the processes of a distributed run."""

import torch
from torch import distributed

from dil_plugin.learning.types import Grads


def average_over_ranks(grads: Grads) -> Grads:
    """Averages each tensor over all processes, in one flat all-reduce.

    Every rank must call it with tensors of the same shapes. With B/2 images on each of two ranks the average is the
    gradient of the mean loss on all B.

    Returns:
        New tensors in the order given; the input itself where no process group of several ranks is set up.
    """
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return grads
    flat = torch.cat([grad.reshape(-1) for grad in grads])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    parts = flat.split([grad.numel() for grad in grads])
    return [part.view_as(grad) for part, grad in zip(parts, grads, strict=True)]
