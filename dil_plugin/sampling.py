"""From patches to the batches of a meta-step: counterfactual distortion augmentation, or the pairs of several sets."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from msgspec import UNSET
from torch import Tensor

from dil_plugin.distortions import DistortionSet
from dil_plugin.distortions.distortion_set import gather, members_of
from dil_plugin.errors import OptionError
from dil_plugin.learning import MetaBatch, Pair
from dil_plugin.learning.mldg import check_held_out
from dil_plugin.learning.options import VARIANTS, DILOptions
from dil_plugin.pair_pool import PairPool, cropped, replaced

_RANK_STRIDE = 1_000_003  # keeps the draws of the ranks, and those of the network's initialisation, apart
_ITERATION_STRIDE = 7919


@dataclass(frozen=True)
class PairedSets:
    """The confounders of paired data, where each set of pairs is one and nothing is left to distort.

    Attributes:
        labels: The sets' names, which name the confounders in logs.
    """

    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


class MetaBatchSampler:
    """Makes the meta-batches of one training iteration from clean patches (``sample``) or pairs (``sample_pairs``).

    A variant with confounders gets one meta-batch: confounder i is ``(g(I_c, d_i), I_c)``, the query has one distortion
    per sample, drawn from the same set. ERM gets ``erm_steps`` meta-batches of a query alone, one plain step each, so
    that it sees the same patches, the same distortions and as many image gradients. With ``erm_sampling: serial`` each
    of them is of one confounder, all in turn in an order that is drawn anew, as the inner steps of ``sf`` are.

    With ``patches: same`` all of them are made from the whole batch; with ``fresh`` the batch is divided evenly and
    each inner step (and the query) has patches of its own.

    Args:
        distortions: The confounders; ``PairedSets`` for ``sample_pairs``.
        uses_confounders: Whether the variant takes inner steps.
        uses_query: Whether it has an outer loss.
        patches: ``same`` or ``fresh``.
        erm_steps: Plain steps per iteration without inner steps; None: one per confounder.
        seed: Seeds the draws; differs between ranks.
        device: Where the patches are.
        crop: Side of the patches that are cut from distorted ones (``gt_size``), at the same random place from all
            versions of a meta-batch, as Real-ESRNet does it; what is smaller already stays. None: nothing is cut.
        queue_size: Rows of the training pair pool (``PairPool``); None: none.
        order_seed: Seeds the order of serial sampling (ERM), on all ranks the same. None: mixed.
    """

    def __init__(self,
                 distortions: DistortionSet | PairedSets,
                 uses_confounders: bool,
                 uses_query: bool,
                 patches: str = 'same',
                 erm_steps: int | None = None,
                 seed: int = 0,
                 device: torch.device | str = 'cpu',
                 crop: int | None = None,
                 queue_size: int | None = None,
                 order_seed: int | None = None) -> None:
        self.distortions = distortions
        self.uses_confounders = uses_confounders
        self.uses_query = uses_query
        self.patches = patches
        self.erm_steps = erm_steps or len(distortions)
        self.choices = torch.Generator().manual_seed(seed)
        self.noise = torch.Generator(device).manual_seed(seed + 1)
        self.order = None if order_seed is None else torch.Generator().manual_seed(order_seed)
        self._turns: list[int] = []
        self.crop = crop
        self.pool = None if queue_size is None else PairPool(queue_size)

    @property
    def parts(self) -> int:
        """Into how many equal parts the batch of an iteration is divided."""
        if self.patches == 'same':
            return 1
        return len(self.distortions) + int(self.uses_query) if self.uses_confounders else self.erm_steps

    def check_batch_size(self, batch_size: int, key: str = 'datasets.train.batch_size_per_gpu') -> None:
        """Raises OptionError unless the batch can be divided as ``patches`` asks."""
        if batch_size % self.parts:
            n = len(self.distortions)
            query = ' and a query batch' if self.uses_query else ''
            needs = f'{n} confounders{query}' if self.uses_confounders else f'{self.erm_steps} plain steps of erm'
            raise OptionError(f'{key}: {batch_size} cannot be divided into {self.parts} equal parts, which '
                              f'train.dil.patches: fresh needs for {needs}; allowed: multiples of {self.parts}')
        rows = batch_size // self.parts
        if self.pool is not None and (self.pool.size < rows or self.pool.size % rows):
            raise OptionError(f'queue_size: {self.pool.size} is no multiple of {rows}, the groups that an iteration '
                              f'makes of {key} {batch_size}; allowed: {rows}, {2 * rows}, {3 * rows}, …')
        if self.pool is not None and self.order is not None and self.erm_steps % len(self.distortions):
            raise OptionError(f'train.dil.erm_steps: {self.erm_steps}; allowed with queue_size and erm_sampling: '
                              f'serial: multiples of {len(self.distortions)}, so that the pool can keep each apart')

    def sample(self, gt: Tensor, lq: Tensor | None = None, counterfactuals: Tensor | None = None) -> list[MetaBatch]:
        """The meta-batches of one iteration.

        Args:
            gt: Clean patches ``(B, C, H, W)`` in [0, 1].
            lq: Distorted versions ``(B, C, h, w)`` that the data set gives (real pairs); they become the query.
            counterfactuals: ``(B, n, C, h, w)``, each patch under every confounder, where the data set's workers made
                them; otherwise they are made here.
        """
        self.check_batch_size(gt.shape[0])
        if self.order is not None:
            return self._in_turn(self.order, partial(self._serial_queries, gt, lq, counterfactuals))
        if not self.uses_confounders:
            batches = self._erm_batches(gt, lq, counterfactuals)
        elif counterfactuals is None:
            batches = [self._synthesised(gt, lq)]
        else:
            batches = [self._made_by_workers(gt, lq, counterfactuals)]
        return self._pooled(batches)

    def _synthesised(self, gt: Tensor, lq: Tensor | None) -> MetaBatch:
        """All confounders and the query are distorted in one go; what ``lq`` gives is the query."""
        n = len(self.distortions)
        slots = [slice(None)] * (n + 1) if self.patches == 'same' else self._slots(gt.shape[0])
        cleans = [_rows(gt, slot) for slot in slots]
        groups = list(zip(range(n), cleans, strict=False))
        members: dict[int, Tensor] = {}
        if self.uses_query and lq is None:
            members = members_of(self.distortions.draw(len(cleans[n]), self.choices), gt.device)
            groups += [(i, cleans[n].index_select(0, rows)) for i, rows in members.items()]
        made = self.distortions.together(groups, self.noise)
        confounders = [Pair(*pair) for pair in zip(made[:n], cleans[:n], strict=True)]
        if not self.uses_query:
            return MetaBatch(confounders)
        query = gather(members, made[n:]) if lq is None else lq[slots[n]]
        return MetaBatch(confounders, Pair(query, cleans[n]))

    def _made_by_workers(self, gt: Tensor, lq: Tensor | None, counterfactuals: Tensor) -> MetaBatch:
        n = len(self.distortions)
        slots = [slice(None)] * (n + 1) if self.patches == 'same' else self._slots(gt.shape[0])
        confounders = [Pair(counterfactuals[slots[i], i], _rows(gt, slots[i])) for i in range(n)]
        if not self.uses_query:
            return MetaBatch(confounders)
        return MetaBatch(confounders, self._drawn(gt, counterfactuals, slots[n]) if lq is None else
                         Pair(lq[slots[n]], _rows(gt, slots[n])))

    def _pooled(self, batches: list[MetaBatch]) -> list[MetaBatch]:
        """Cuts the patches, and exchanges them for others of the pool."""
        if self.crop is not None:
            batches = cropped(batches, self.crop, self.choices)
        return batches if self.pool is None else replaced(batches, partial(self.pool.exchange, generator=self.choices))

    def sample_pairs(self, lq: Tensor, gt: Tensor) -> list[MetaBatch]:
        """The meta-batches of one iteration on paired data.

        Confounder i has the pairs of set i, ``(lq[:, i], gt[:, i])``. The query, and each plain step of ERM, takes one
        set per sample, drawn uniformly. With ``patches: same`` every step gets the whole batch, so that the inner steps
        have different pairs already, but a query sample is also the inner sample of its set; with ``fresh`` it is not.

        Args:
            lq: Inputs ``(B, n, C, h, w)`` in [0, 1], one of every set per sample.
            gt: Their targets ``(B, n, C, H, W)``.

        Raises:
            ValueError: The batch is not of n sets.
        """
        n, batch_size = len(self.distortions), gt.shape[0]
        if lq.shape[:2] != (batch_size, n) or gt.shape[1] != n:
            raise ValueError(f'expected pairs of {n} sets, got lq {tuple(lq.shape)} and gt {tuple(gt.shape)}')
        self.check_batch_size(batch_size)
        if not self.uses_confounders:
            slots = self._erm_slots(batch_size)
            if self.order is not None:
                return self._in_turn(self.order, lambda turns: [Pair(lq[slot, i], gt[slot, i])
                                                                for slot, i in zip(slots, turns, strict=True)])
            return self._pooled([MetaBatch((), self._one_set_each(lq[slot], gt[slot])) for slot in slots])
        slots = [slice(None)] * (n + 1) if self.patches == 'same' else self._slots(batch_size)
        confounders = [Pair(lq[slots[i], i], gt[slots[i], i]) for i in range(n)]
        query = self._one_set_each(lq[slots[n]], gt[slots[n]]) if self.uses_query else None
        return self._pooled([MetaBatch(confounders, query)])

    def _one_set_each(self, lq: Tensor, gt: Tensor) -> Pair:
        batch_size, n = gt.shape[:2]
        sets = torch.randint(n, (batch_size, ), generator=self.choices).to(gt.device, non_blocking=True)
        rows = torch.arange(batch_size, device=gt.device)
        return Pair(lq[rows, sets], gt[rows, sets])

    def _erm_batches(self, gt: Tensor, lq: Tensor | None, counterfactuals: Tensor | None) -> list[MetaBatch]:
        slots = self._erm_slots(gt.shape[0])
        if counterfactuals is not None:  # worker mode's lq is one draw of many, not a real pair
            return [MetaBatch((), self._drawn(gt, counterfactuals, slot)) for slot in slots]
        if lq is not None:
            return [MetaBatch((), Pair(lq[slot], _rows(gt, slot))) for slot in slots]
        cleans = [_rows(gt, slot) for slot in slots]
        members = [members_of(self.distortions.draw(len(clean), self.choices), gt.device) for clean in cleans]
        groups = [(i, clean.index_select(0, rows)) for clean, one in zip(cleans, members, strict=True)
                  for i, rows in one.items()]
        made = iter(self.distortions.together(groups, self.noise))
        return [MetaBatch((), Pair(gather(one, list(islice(made, len(one)))), clean))
                for clean, one in zip(cleans, members, strict=True)]

    def _serial_queries(self, gt: Tensor, lq: Tensor | None, counterfactuals: Tensor | None,
                        turns: list[int]) -> list[Pair]:
        """Batches of one confounder each."""
        slots = self._erm_slots(gt.shape[0])
        cleans = [_rows(gt, slot) for slot in slots]
        if counterfactuals is not None:
            lqs = [counterfactuals[slot, i] for i, slot in zip(turns, slots, strict=True)]
        elif lq is None:
            lqs = self.distortions.together(list(zip(turns, cleans, strict=True)), self.noise)
        else:
            raise OptionError('train.dil.erm_sampling: serial, but the data set gives pairs, of which nobody knows the '
                              'confounders; allowed: mixed')
        return [Pair(*pair) for pair in zip(lqs, cleans, strict=True)]

    def _in_turn(self, order: torch.Generator, make: Callable[[list[int]], list[Pair]]) -> list[MetaBatch]:
        """Plain steps, made by ascending confounder, which the pool keeps apart by their places."""
        while len(self._turns) < self.erm_steps:
            self._turns += torch.randperm(len(self.distortions), generator=order).tolist()
        turns, self._turns = self._turns[:self.erm_steps], self._turns[self.erm_steps:]
        steps = sorted(range(self.erm_steps), key=turns.__getitem__)
        made = dict(zip(steps, self._pooled([MetaBatch((), query) for query in make(sorted(turns))]), strict=True))
        return [made[step] for step in range(self.erm_steps)]

    def _drawn(self, gt: Tensor, counterfactuals: Tensor, slot: slice) -> Pair:
        """One of the versions that the workers made for each sample."""
        clean = _rows(gt, slot)
        indices = self.distortions.draw(clean.shape[0], self.choices).to(clean.device, non_blocking=True)
        rows = torch.arange(clean.shape[0], device=clean.device)
        return Pair(counterfactuals[slot][rows, indices], clean)

    def _erm_slots(self, batch_size: int) -> list[slice]:
        return [slice(None)] * self.erm_steps if self.patches == 'same' else self._slots(batch_size)[:self.erm_steps]

    def _slots(self, batch_size: int) -> list[slice]:
        size = batch_size // self.parts
        return [slice(k * size, (k + 1) * size) for k in range(self.parts)] + [slice(0, 0)]

    def state_dict(self) -> dict[str, Any]:
        """The generators' states, and what the pool holds."""
        state = {'device': self.noise.device.type, 'choices': self.choices.get_state(), 'noise': self.noise.get_state()}
        if self.order is not None:
            state |= {'order': self.order.get_state(), 'turns': list(self._turns)}
        return state if self.pool is None else {**state, 'pool': self.pool.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores ``state_dict``. Raises ValueError if it is of another kind of device, whose generators differ."""
        if state['device'] != self.noise.device.type:
            raise ValueError(f'the generator state is of device {state["device"]}, this is {self.noise.device.type}')
        self.choices.set_state(state['choices'].cpu())
        self.noise.set_state(state['noise'].cpu())
        if self.order is not None and 'order' in state:
            self.order.set_state(state['order'].cpu())
            self._turns = [turn for turn in state['turns'] if turn < len(self.distortions)]  # there may be fewer now
        if self.pool is not None and 'pool' in state:
            self.pool.load_state_dict(state['pool'], self.noise.device)


def _rows(tensor: Tensor, slot: slice) -> Tensor:
    """The rows of the slot; all of them are the tensor itself, so that those who share it can be seen to do so."""
    return tensor if slot == slice(None) else tensor[slot]


def build_sampler(options: DILOptions,
                  distortions: DistortionSet | PairedSets,
                  seed: int = 0,
                  device: torch.device | str = 'cpu',
                  crop: int | None = None,
                  queue_size: int | None = None,
                  order_seed: int = 0) -> MetaBatchSampler:
    """The sampler that the variant of ``options`` needs.

    Args:
        options: The block ``train.dil``.
        distortions: The confounders.
        seed: Must differ between ranks.
        device: Where the patches are.
        crop: Side of the patches that are cut after the distortion.
        queue_size: Groups in the training pair pool; None: no pool.
        order_seed: Of serial sampling in ERM; must be the same on all ranks.
    """
    variant = VARIANTS[options.variant]
    if options.variant == 'mldg':
        check_held_out(options.held_out_or_default, len(distortions))
    erm_steps = None if options.erm_steps is UNSET else options.erm_steps
    return MetaBatchSampler(distortions, variant.uses_confounders, variant.uses_query, options.patches, erm_steps, seed,
                            device, crop, queue_size, order_seed if options.erm_sampling == 'serial' else None)


def sampler_seed(seed: int, rank: int, iteration: int = 0) -> int:
    """The seed of a rank's draws, for a run that starts or goes on with new draws at ``iteration``."""
    return (seed + (rank + 1) * _RANK_STRIDE + _ITERATION_STRIDE * iteration) % 2**62
