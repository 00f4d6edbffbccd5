"""From clean patches to the batches of a meta-step: counterfactual distortion augmentation."""

from typing import Any

import torch
from torch import Tensor

from dil_plugin.distortions import DistortionSet
from dil_plugin.errors import OptionError
from dil_plugin.learning import MetaBatch, Pair


class MetaBatchSampler:
    """Makes the meta-batches of one training iteration from clean patches.

    A variant with confounders gets one meta-batch: confounder i is ``(g(I_c, d_i), I_c)``, the query has one distortion
    per sample, drawn from the same set. ERM gets ``erm_steps`` meta-batches of a query alone, one plain step each, so
    that it sees the same patches, the same distortions and as many image gradients.

    With ``patches: same`` all of them are made from the whole batch; with ``fresh`` the batch is divided evenly and
    each inner step (and the query) has patches of its own.

    Args:
        distortions: The confounders.
        uses_confounders: Whether the variant takes inner steps.
        uses_query: Whether it has an outer loss.
        patches: ``same`` or ``fresh``.
        erm_steps: Plain steps per iteration where there are no inner steps; None: one per confounder.
        seed: Seeds the draws; differs between ranks.
        device: Where the patches are.
    """

    def __init__(self,
                 distortions: DistortionSet,
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
