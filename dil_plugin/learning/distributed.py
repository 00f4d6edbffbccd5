"""Averages over the processes of a distributed run, and what the processes must have in common."""

import torch
from torch import Tensor, distributed, nn

from dil_plugin.learning.types import Grads


def in_several_processes() -> bool:
    """Whether a process group of more than one rank is set up."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def average_over_ranks(grads: Grads, weight: float = 1) -> Grads:
    """``sum_r w_r g_r / sum_r w_r`` of each tensor over all ranks r, in one flat all-reduce.

    With the number of images of this rank's batch as its weight, the average is the gradient of the mean loss on the
    images of all ranks, however they are shared out. The weight travels at the end of the flat tensor, so unequal
    batches need no second all-reduce, and nobody waits for the device.

    Every rank must call it with tensors of the same shapes. Tensors of several devices or dtypes take one all-reduce
    for each; half precision is summed in float32.

    Args:
        grads: One tensor per parameter; they are left as they are.
        weight: Of this rank, at least 0. With 0 its tensors count nothing, even where they are not finite.

    Returns:
        New tensors in the order given, in their dtypes; the input itself where there is only one process.
    """
    if not in_several_processes():
        return grads
    averaged = list(grads)
    for (device, dtype), members in _buckets(grads).items():
        sizes = [grads[i].numel() for i in members]
        flat = torch.empty(sum(sizes) + 1, dtype=dtype, device=device)
        parts = [part.view(grads[i].shape) for part, i in zip(flat[:-1].split(sizes), members, strict=True)]
        with torch.no_grad():
            torch._foreach_copy_(parts, [grads[i] for i in members])
        if weight == 0:
            flat.zero_()
        elif weight != 1:
            flat[:-1].mul_(weight)
        flat[-1:].fill_(weight)
        distributed.all_reduce(flat)
        flat[:-1].div_(flat[-1:])
        for i, part in zip(members, parts, strict=True):
            averaged[i] = part.to(grads[i].dtype)
    return averaged


def _buckets(tensors: Grads) -> dict[tuple[torch.device, torch.dtype], list[int]]:
    """Which tensors travel together, by the device and the dtype of their sum."""
    buckets: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for i, tensor in enumerate(tensors):
        buckets.setdefault((tensor.device, torch.promote_types(tensor.dtype, torch.float32)), []).append(i)
    return buckets


def take_from_first_rank(tensors: list[Tensor]) -> None:
    """Overwrites the tensors by those of rank 0, in one flat broadcast per device and dtype."""
    buckets: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        buckets.setdefault((tensor.device, tensor.dtype), []).append(tensor.detach())
    for members in buckets.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in members])
        distributed.broadcast(flat, src=0)
        parts = flat.split([tensor.numel() for tensor in members])
        torch._foreach_copy_(members, [part.view(tensor.shape) for part, tensor in zip(parts, members, strict=True)])


class CommonBuffers:
    """Keeps the buffers of a network equal on all ranks: after each step all have those of rank 0.

    Running statistics of a BatchNorm follow the images of their own rank. As with DistributedDataParallel, those of
    rank 0, which the checkpoint holds, become everybody's. Buffers that training does not change (the indices and masks
    of a full SwinIR, 20 MB) do not travel: the first call finds out which do, once, by comparing.

    Args:
        network: Before its first step, with equal buffers on all ranks.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._names: list[str] = []
        self._before: dict[str, Tensor] | None = None
        if in_several_processes():
            self._before = {name: buffer.clone() for name, buffer in network.named_buffers()}

    def notice(self) -> None:
        """After a gradient, before anything is put back. The first call waits for the device, the others do nothing."""
        if self._before:
            self._names = self._changed(self._before)
        self._before = None

    def __call__(self) -> None:
        """After a step."""
        self.notice()
        if self._names:
            buffers = dict(self.network.named_buffers())
            take_from_first_rank([buffers[name] for name in self._names])

    def _changed(self, before: dict[str, Tensor]) -> list[str]:
        """Names of the buffers that the first gradient changed on any rank."""
        now = dict(self.network.named_buffers())
        flags = torch.stack([(old != now[name]).any() for name, old in before.items()]).int()
        distributed.all_reduce(flags, distributed.ReduceOp.MAX)
        return [name for name, flag in zip(before, flags.tolist(), strict=True) if flag]
