"""The confounder set ``D = {d_1 … d_n}`` and its YAML form."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dil_plugin.distortions.base import DISTORTION_REGISTRY, Distortion
from dil_plugin.errors import OptionError
from dil_plugin.mistakes import Mistakes

_MOST_DRAWS = 1000
"""Each is a confounder of its own, of which every step takes a batch."""


class DistortionSet(Sequence[Distortion]):
    """The n confounders of a training run, all equally likely.

    Args:
        confounders: At least one; all of the same ``scale``.

    Raises:
        OptionError: The set is empty, or the scales differ.
    """

    def __init__(self, confounders: Sequence[Distortion]) -> None:
        self.confounders = tuple(confounders)
        if not self.confounders:
            raise OptionError('distortions: the set is empty; give at least one, as in '
                              '- {type: GaussianNoise, sigma: [5, 10, 15, 20]}')
        scales = {d.label: d.scale for d in self.confounders}
        if len(set(scales.values())) > 1:
            raise OptionError(f'distortions: all confounders must change the resolution alike, got {scales}')

    def __len__(self) -> int:
        return len(self.confounders)

    def __getitem__(self, index: Any) -> Any:
        return self.confounders[index]

    def __iter__(self) -> Iterator[Distortion]:
        return iter(self.confounders)

    @property
    def labels(self) -> list[str]:
        """The confounders' names, in order; of equal ones the second is marked ``#2`` and so on."""
        names = [d.label for d in self.confounders]
        counts = [names[:k].count(name) + 1 for k, name in enumerate(names)]
        return [name if count == 1 else f'{name}#{count}' for name, count in zip(names, counts, strict=True)]

    @property
    def scale(self) -> int:
        """Clean size divided by distorted size."""
        return self.confounders[0].scale

    @property
    def min_size(self) -> int:
        """The least clean patch that every confounder can be applied to, in pixels."""
        return max(d.min_size for d in self.confounders)

    def together(self, batches: Sequence[tuple[int, Tensor]], generator: torch.Generator | None = None) -> list[Tensor]:
        """``[self[i](clean, generator) for i, clean in batches]``, each with draws of its own.

        Batches of equal confounders (``draws: k``) share the work that does not depend on what is drawn, where the
        confounder knows how to (``Distortion.apply_together``); all others are distorted one after the other.

        Args:
            batches: The index of a confounder and the clean batch ``(B, C, H, W)`` that it is to distort; B may differ.
            generator: Source of randomness on the device of the batches.
        """
        out: dict[int, Tensor] = {}
        for k, (i, clean) in enumerate(batches):
            if k in out:
                continue
            equal = [k]
            if type(self[i]).apply_together is not Distortion.apply_together:
                equal = [m for m, (j, other) in enumerate(batches)
                         if m not in out and self[j] == self[i] and other.shape[1:] == clean.shape[1:]]
            out.update(zip(equal, self[i].together([batches[m][1] for m in equal], generator), strict=True))
        return [out[k] for k in range(len(batches))]

    def counterfactuals(self, clean: Tensor, generator: torch.Generator | None = None) -> list[Tensor]:
        """The same clean batch under each confounder: ``[g(I_c, d_1), …, g(I_c, d_n)]``.

        Args:
            clean: ``(B, C, H, W)`` in [0, 1].
            generator: Source of randomness on the device of ``clean``.
        """
        return self.together([(i, clean) for i in range(len(self))], generator)

    def draw(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Indices of confounders for ``batch`` samples, uniform: ``(batch,)`` int64 on the CPU."""
        return torch.randint(len(self), (batch, ), generator=generator)

    def assign(self, clean: Tensor, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One confounder per sample, ``I_d`` of the outer loss.

        Args:
            clean: ``(B, C, H, W)`` in [0, 1].
            indices: ``(B,)``, as from ``draw``; on the CPU, so that no device has to be waited for.
            generator: Source of randomness on the device of ``clean``.

        Returns:
            ``(B, C, H / scale, W / scale)``; sample b is distorted by confounder ``indices[b]``.
        """
        members = members_of(indices, clean.device)
        if not members:
            raise ValueError('assign: the batch is empty')
        batches = [(i, clean.index_select(0, rows)) for i, rows in members.items()]
        return gather(members, self.together(batches, generator))


def members_of(indices: Tensor, device: torch.device) -> dict[int, Tensor]:
    """The rows of the samples that each confounder is assigned to by ``indices`` ``(B,)``, which are on the CPU."""
    return {i: (indices == i).nonzero().squeeze(1).to(device, non_blocking=True) for i in indices.unique().tolist()}


def gather(members: Mapping[int, Tensor], distorted: Sequence[Tensor]) -> Tensor:
    """Puts the samples of ``members_of``, distorted group by group, back into their rows."""
    out = distorted[0].new_empty((sum(map(len, members.values())), *distorted[0].shape[1:]))
    for rows, images in zip(members.values(), distorted, strict=True):
        out.index_copy_(0, rows, images)
    return out


def parse_distortions(raw: Any, key: str = 'distortions') -> DistortionSet:
    """The confounder set of a YAML block: a list of ``{type: NAME, DEGREE: VALUE or [VALUES]}``.

    A list where a single value is expected makes one confounder per value; several lists make their product, the last
    running fastest. ``draws: k`` in an entry takes each of its confounders k times, with independent draws.

    Raises:
        OptionError: The block is no list or empty, a type or option is unknown, a degree is out of range.
    """
    if isinstance(raw, str | Mapping) or not isinstance(raw, Sequence):
        raise OptionError(f'{key}: expected a list of distortions, as in - {{type: GaussianNoise, sigma: 5}}; '
                          f'got {raw!r}')
    mistakes, confounders = Mistakes(), []
    for i, entry in enumerate(raw):
        with mistakes:
            confounders += _parse_entry(entry, f'{key}[{i}]')
    mistakes.end()
    return DistortionSet(confounders)


def _parse_entry(raw: Any, key: str) -> list[Distortion]:
    draws = raw.get('draws', 1) if isinstance(raw, Mapping) else 1
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise OptionError(f'{key}.draws: expected an integer >= 1, got {draws!r}')
    if draws > _MOST_DRAWS:
        raise OptionError(f'{key}.draws: expected an integer of at most {_MOST_DRAWS}, got {draws!r}')
    for name in raw if isinstance(raw, Mapping) else ():
        if name in ('draw', 'n_draws', 'num_draws'):  # the types know their own options alone
            raise OptionError(f"{key}: unknown option '{name}'; did you mean 'draws'?")
    entry = {name: value for name, value in raw.items() if name != 'draws'} if isinstance(raw, Mapping) else raw
    return DISTORTION_REGISTRY.parse(entry, key) * draws
