"""Distortions made of distortions."""

import itertools
import math
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import torch
from msgspec import Meta
from torch import Tensor
from typing_extensions import Self

from dil_plugin.distortions.base import DISTORTION_REGISTRY, Distortion
from dil_plugin.distortions.degrees import host_generator
from dil_plugin.distortions.distortion_set import DistortionSet
from dil_plugin.errors import OptionError
from dil_plugin.mistakes import Mistakes
from dil_plugin.options import convert


@DISTORTION_REGISTRY.register
class Compose(Distortion, frozen=True):
    """One distortion after the other, ``g = g_k o … o g_1``.

    In YAML a list of values makes one confounder per value here too, so that a grid of degrees is one block::

        - type: Compose
          distortions:
            - {type: GaussianBlur, sigma: [1, 3]}
            - {type: GaussianNoise, sigma: [10, 30]}      # 2 x 2 confounders

    Attributes:
        distortions: The steps, in the order in which they are applied; at least one.
    """

    distortions: tuple[Distortion, ...]

    def __post_init__(self) -> None:
        _check_some(self.distortions)

    def apply(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
        """See the class."""
        for step in self.distortions:
            clean = step(clean, generator)
        return clean

    @property
    def scale(self) -> int:
        """The product of the steps' scales."""
        scale = 1
        for step in self.distortions:
            scale *= step.scale
        return scale

    @property
    def min_size(self) -> int:
        """What the steps need, in pixels of the clean image."""
        least, scale = 1, 1
        for step in self.distortions:
            least = max(least, step.min_size * scale)
            scale *= step.scale
        return least

    @property
    def label(self) -> str:
        """The steps' labels, joined by ``>``."""
        return ' > '.join(step.label for step in self.distortions)

    @classmethod
    def expand(cls, options: Mapping[str, Any], key: str) -> list[Self]:
        """The product of the steps' values; see ``Distortion.expand``."""
        steps = _parse_all(convert(options, _Steps, key).distortions, key)
        return [cls(chosen) for chosen in itertools.product(*steps)]


@DISTORTION_REGISTRY.register
class OneOf(Distortion, frozen=True):
    """For every sample one distortion out of several, ``g = g_K``, ``P(K = k) = p_k``.

    In YAML a list of values makes several members here, equally likely among themselves::

        - type: OneOf
          probabilities: [0.7, 0.3]
          distortions:
            - {type: GaussianNoise, sigma: {uniform: [5, 50]}}
            - {type: PoissonNoise, poisson_scale: [0.5, 1, 2]}      # 0.1 each

    Attributes:
        distortions: The members; at least one, all of the same scale.
        probabilities: One number >= 0 per member, in any unit; None: all alike.
    """

    distortions: tuple[Distortion, ...]
    probabilities: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _check_some(self.distortions)
        _check_probabilities(self.probabilities, len(self.distortions))
        if len({member.scale for member in self.distortions}) > 1:
            raise ValueError('.distortions: all members must change the resolution alike, got '
                             f'{ {m.label: m.scale for m in self.distortions} }')

    def apply(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
        """See the class."""
        weights = torch.tensor(self.probabilities or [1.0] * len(self.distortions), dtype=torch.float64)
        indices = torch.multinomial(weights, clean.shape[0], replacement=True, generator=host_generator(generator))
        return DistortionSet(self.distortions).assign(clean, indices, generator)

    @property
    def scale(self) -> int:
        """That of all members."""
        return self.distortions[0].scale

    @property
    def min_size(self) -> int:
        """What the most demanding member needs."""
        return max(member.min_size for member in self.distortions)

    @property
    def label(self) -> str:
        """``OneOf(…)`` with the members' labels, and their probabilities where they are given."""
        chances = [f'{p:g} ' for p in self.probabilities] if self.probabilities else [''] * len(self.distortions)
        return f'OneOf({" | ".join(p + member.label for p, member in zip(chances, self.distortions, strict=True))})'

    @classmethod
    def expand(cls, options: Mapping[str, Any], key: str) -> list[Self]:
        """One confounder; lists of values within it make members."""
        given = convert(options, _Members, key)
        groups = _parse_all(given.distortions, key)
        members = tuple(member for group in groups for member in group)
        chances = given.probabilities
        try:
            _check_probabilities(chances, len(groups))
            if chances is not None:
                chances = tuple(p / len(group) for p, group in zip(chances, groups, strict=True) for _ in group)
            return [cls(members, chances)]
        except ValueError as error:
            raise OptionError(f'{key}{error}') from None


class _Steps(msgspec.Struct, forbid_unknown_fields=True):
    """The options of Compose as they stand in YAML."""

    distortions: Annotated[list[Any], Meta(min_length=1)]


class _Members(msgspec.Struct, forbid_unknown_fields=True):
    """The options of OneOf as they stand in YAML."""

    distortions: Annotated[list[Any], Meta(min_length=1)]
    probabilities: tuple[float, ...] | None = None


def _parse_all(raw: list[Any], key: str) -> list[list[Distortion]]:
    for i, entry in enumerate(raw):
        if isinstance(entry, dict) and 'draws' in entry:
            raise OptionError(f'{key}.distortions[{i}].draws: {entry["draws"]!r}; allowed only in the outermost entry, '
                              'which it multiplies')
    mistakes, parsed = Mistakes(), []
    for i, entry in enumerate(raw):
        with mistakes:
            parsed.append(DISTORTION_REGISTRY.parse(entry, f'{key}.distortions[{i}]'))
    mistakes.end()
    return parsed


def _check_some(distortions: tuple[Distortion, ...]) -> None:
    if not distortions:
        raise ValueError('.distortions: give at least one')


def _check_probabilities(probabilities: tuple[float, ...] | None, members: int) -> None:
    if probabilities is None:
        return
    if len(probabilities) != members or min(probabilities) < 0 or not 0 < sum(probabilities) < math.inf:
        raise ValueError(f'.probabilities: expected one number >= 0 for each of the {members} distortions, not all 0; '
                         f'got {list(probabilities)}')
