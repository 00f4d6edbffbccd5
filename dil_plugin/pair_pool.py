"""What is done to a synthesised meta-batch before the network sees it: patches are cut, and exchanged with a pool."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from dil_plugin.learning import MetaBatch, Pair

Exchange = Callable[[list[Tensor]], list[Tensor]]


class PairPool:
    """Real-ESRGAN's training pair pool, for counterfactual groups.

    What is drawn for a whole batch (factors of the resizes, interpolations, kinds of noise) is the same for all of its
    samples; a batch from the pool has samples of many such draws. A row of the pool is a group: what row j of every
    tensor of a meta-batch holds, which are a clean patch, its n versions and its query version (``patches: fresh``: the
    patches of the n inner steps). A group stays together.

    Until the pool is full, groups are stored and used at once. From then on each iteration takes as many groups, drawn
    uniformly without replacement, as it brings, and leaves its own in their places, as ``RealESRNetModel`` does it.

    Args:
        size: Groups that the pool holds; a multiple of those of an iteration.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.filled = 0
        self.rows: list[Tensor] = []

    def exchange(self, tensors: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
        """Gives groups of the pool for new ones.

        Args:
            tensors: ``(b, …)`` each, row j of all of them being group j; always of the same shapes.
            generator: Draws the groups; on the CPU, so that no device has to be waited for.

        Returns:
            Tensors of the same shapes.

        Raises:
            ValueError: The size is no multiple of b.
        """
        count = len(tensors[0])
        if self.size % count:
            raise ValueError(f'a pool of {self.size} groups cannot be exchanged by {count}')
        if [row.shape[1:] for row in self.rows] != [tensor.shape[1:] for tensor in tensors]:
            self.filled = 0
            self.rows = [tensor.new_empty((self.size, *tensor.shape[1:])) for tensor in tensors]
        self.filled -= self.filled % count  # of another batch size, before a run was interrupted
        if self.filled < self.size:
            for row, tensor in zip(self.rows, tensors, strict=True):
                row[self.filled:self.filled + count] = tensor
            self.filled += count
            return list(tensors)
        taken = torch.randperm(self.size, generator=generator)[:count].to(tensors[0].device, non_blocking=True)
        out = [row.index_select(0, taken) for row in self.rows]
        for row, tensor in zip(self.rows, tensors, strict=True):
            row.index_copy_(0, taken, tensor)
        return out

    def state_dict(self) -> dict[str, Any]:
        """What the pool holds."""
        return {'size': self.size, 'filled': self.filled, 'rows': [row.to('cpu', copy=True) for row in self.rows]}

    def load_state_dict(self, state: dict[str, Any], device: torch.device | str) -> None:
        """Restores ``state_dict``; a pool of another size starts empty."""
        same = state['size'] == self.size
        self.filled = state['filled'] if same else 0
        self.rows = [row.to(device, copy=True) for row in state['rows']] if same else []


def replaced(batches: Sequence[MetaBatch], exchange: Exchange) -> list[MetaBatch]:
    """The meta-batches with the tensors that ``exchange`` gives for theirs; a tensor of several pairs goes once."""
    tensors = {id(tensor): tensor for pair in _pairs(batches) for tensor in pair}
    new = dict(zip(tensors, exchange(list(tensors.values())), strict=True))
    return _rebuilt(batches, lambda pair: Pair(new[id(pair.lq)], new[id(pair.gt)]))


def cropped(batches: Sequence[MetaBatch], size: int, generator: torch.Generator) -> list[MetaBatch]:
    """Cuts patches of ``size`` pixels from the targets, and what belongs to them from the inputs.

    The place is drawn once and is the same for all samples and versions, on a whole pixel of the inputs.

    Args:
        batches: Meta-batches whose targets have one size, s times that of the inputs.
        size: Side of the cut targets, a multiple of s; where they are no larger, nothing is cut.
        generator: Draws the place; on the CPU.
    """
    lq, gt = next(_pairs(batches))
    if min(gt.shape[-2:]) <= size:
        return list(batches)
    scale = gt.shape[-1] // lq.shape[-1]
    top, left = (int(torch.randint(side - size // scale + 1, (), generator=generator)) for side in lq.shape[-2:])
    cut: dict[int, Tensor] = {}

    def cut_target(target: Tensor) -> Tensor:
        if id(target) not in cut:  # shared targets stay shared
            cut[id(target)] = target[..., top * scale:top * scale + size, left * scale:left * scale + size]
        return cut[id(target)]

    side = size // scale
    return _rebuilt(batches, lambda pair: Pair(pair.lq[..., top:top + side, left:left + side].contiguous(),
                                               cut_target(pair.gt)))


def _pairs(batches: Sequence[MetaBatch]) -> Iterator[Pair]:
    for batch in batches:
        yield from batch.confounders
        if batch.query is not None:
            yield batch.query


def _rebuilt(batches: Sequence[MetaBatch], change: Callable[[Pair], Pair]) -> list[MetaBatch]:
    return [MetaBatch([change(pair) for pair in batch.confounders],
                      None if batch.query is None else change(batch.query)) for batch in batches]
