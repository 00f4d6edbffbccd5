"""From patches to the batches of a meta-step: counterfactual distortion augmentation, or the pairs of several sets."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dil_plugin.distortions import DistortionSet
from dil_plugin.errors import OptionError
from dil_plugin.learning import MetaBatch, Pair


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
    that it sees the same patches, the same distortions and as many image gradients.

    With ``patches: same`` all of them are made from the whole batch; with ``fresh`` the batch is divided evenly and
    each inner step (and the query) has patches of its own.

    Args:
        distortions: The confounders; ``PairedSets`` for ``sample_pairs``.
        uses_confounders: Whether the variant takes inner steps.
        uses_query: Whether it has an outer loss.
        patches: ``same`` or ``fresh``.
        erm_steps: Plain steps per iteration where there are no inner steps; None: one per confounder.
        seed: Seeds the draws; differs between ranks.
        device: Where the patches are.
    """

    def __init__(self,
                 distortions: DistortionSet | PairedSets,
                 uses_confounders: bool,
                 uses_query: bool,
                 patches: str = 'same',
                 erm_steps: int | None = None,
                 seed: int = 0,
                 device: torch.device | str = 'cpu') -> None:
        self.distortions = distortions
        self.uses_confounders = uses_confounders
        self.uses_query = uses_query
        self.patches = patches
        self.erm_steps = erm_steps or len(distortions)
        self.choices = torch.Generator().manual_seed(seed)
        self.noise = torch.Generator(device).manual_seed(seed + 1)

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

    def sample(self, gt: Tensor, lq: Tensor | None = None, counterfactuals: Tensor | None = None) -> list[MetaBatch]:
        """The meta-batches of one iteration.

        Args:
            gt: Clean patches ``(B, C, H, W)`` in [0, 1].
            lq: Distorted versions ``(B, C, h, w)`` that the data set gives (real pairs); they become the query.
            counterfactuals: ``(B, n, C, h, w)``, each patch under every confounder, where the data set's workers made
                them; otherwise they are made here.
        """
        self.check_batch_size(gt.shape[0])
        if not self.uses_confounders:
            return self._erm_batches(gt, lq, counterfactuals)
        n = len(self.distortions)
        slots = [slice(None)] * (n + 1) if self.patches == 'same' else self._slots(gt.shape[0])
        confounders = []
        for i, distortion in enumerate(self.distortions):
            clean = gt[slots[i]]
            made = distortion(clean, self.noise) if counterfactuals is None else counterfactuals[slots[i], i]
            confounders.append(Pair(made, clean))
        query = self._query(gt, lq, counterfactuals, slots[n]) if self.uses_query else None
        return [MetaBatch(confounders, query)]

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
        steps = n + 1 if self.uses_confounders else self.erm_steps
        slots = [slice(None)] * steps if self.patches == 'same' else self._slots(batch_size)
        if not self.uses_confounders:
            return [MetaBatch((), self._one_set_each(lq[slot], gt[slot])) for slot in slots[:steps]]
        confounders = [Pair(lq[slots[i], i], gt[slots[i], i]) for i in range(n)]
        query = self._one_set_each(lq[slots[n]], gt[slots[n]]) if self.uses_query else None
        return [MetaBatch(confounders, query)]

    def _one_set_each(self, lq: Tensor, gt: Tensor) -> Pair:
        batch_size, n = gt.shape[:2]
        sets = torch.randint(n, (batch_size, ), generator=self.choices).to(gt.device, non_blocking=True)
        rows = torch.arange(batch_size, device=gt.device)
        return Pair(lq[rows, sets], gt[rows, sets])

    def _erm_batches(self, gt: Tensor, lq: Tensor | None, counterfactuals: Tensor | None) -> list[MetaBatch]:
        steps = self.erm_steps
        slots = [slice(None)] * steps if self.patches == 'same' else self._slots(gt.shape[0])
        paired = lq if counterfactuals is None else None  # worker mode's lq is one draw of many, not a real pair
        return [MetaBatch((), self._query(gt, paired, counterfactuals, slots[k])) for k in range(steps)]

    def _query(self, gt: Tensor, lq: Tensor | None, counterfactuals: Tensor | None, slot: slice) -> Pair:
        clean = gt[slot]
        if lq is not None:
            return Pair(lq[slot], clean)
        indices = self.distortions.draw(clean.shape[0], self.choices)
        if counterfactuals is None:
            return Pair(self.distortions.assign(clean, indices, self.noise), clean)
        rows = torch.arange(clean.shape[0], device=clean.device)
        return Pair(counterfactuals[slot][rows, indices.to(clean.device, non_blocking=True)], clean)

    def _slots(self, batch_size: int) -> list[slice]:
        size = batch_size // self.parts
        return [slice(k * size, (k + 1) * size) for k in range(self.parts)] + [slice(0, 0)]

    def state_dict(self) -> dict[str, Any]:
        """The generators' states."""
        return {'device': self.noise.device.type, 'choices': self.choices.get_state(), 'noise': self.noise.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores ``state_dict``. Raises ValueError if it is of another kind of device, whose generators differ."""
        if state['device'] != self.noise.device.type:
            raise ValueError(f'the generator state is of device {state["device"]}, this is {self.noise.device.type}')
        self.choices.set_state(state['choices'].cpu())
        self.noise.set_state(state['noise'].cpu())
