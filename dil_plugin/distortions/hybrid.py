"""Hybrid distortion: blur, noise and JPEG one after the other, at three levels of severity."""

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import torch
from msgspec import Meta
from torch import Tensor
from typing_extensions import Self

from dil_plugin.distortions.base import DISTORTION_REGISTRY, Distortion
from dil_plugin.distortions.blur import GaussianBlur
from dil_plugin.distortions.degrees import Uniform
from dil_plugin.distortions.jpeg import JPEG, Quality
from dil_plugin.distortions.noise import GaussianNoise
from dil_plugin.errors import OptionError
from dil_plugin.options import convert, did_you_mean


class Box(NamedTuple):
    """The degrees of one level, each from the weakest to the strongest."""

    blur_sigma: tuple[float, float]
    noise_sigma: tuple[float, float]
    jpeg_quality: tuple[float, float]


# Ranges as in RL-Restore (Yu et al., 2018), blur [0, 5], noise [0, 50], JPEG [100, 10], and a part of each per level.
LEVELS = {
    'mild': Box((0, 2), (0, 20), (100, 60)),
    'moderate': Box((1, 3.5), (10, 35), (80, 35)),
    'severe': Box((2.5, 5), (25, 50), (50, 10)),
}

# Four corners of a box of three degrees: the strongest, and the three where only one degree is strong. Every degree is
# weak in two of them and strong in two, and so is every pair of degrees in all four ways (a half fraction of 2^3).
FOUR_CORNERS = ((1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1))


@DISTORTION_REGISTRY.register
class Hybrid(Distortion, frozen=True):
    """Gaussian blur, then Gaussian noise, then JPEG: ``g(x) = J_q(clip(k_b * x + (sigma / 255) e))``.

    The order and the ranges are those of RL-Restore (Yu et al., CVPR 2018). In YAML a ``level`` can stand in place of
    the three degrees (METHOD: mild, moderate, severe are parts of the whole ranges), and a ``grid`` makes a set of
    confounders inside it::

        - {type: Hybrid, level: severe}                      # one confounder, degrees drawn for every sample
        - {type: Hybrid, level: severe, grid: four_corners}  # four confounders of fixed degrees (corners: all eight)
        - {type: Hybrid, level: severe, grid: [2, 3, 1]}     # blur x noise x JPEG, evenly spaced from end to end

    A grid's single value per degree is the middle of its range.

    Attributes:
        blur_sigma: Standard deviation of the blur in pixels.
        noise_sigma: Standard deviation of the noise on the 0-255 scale.
        jpeg_quality: Quality of the encoder, 1 to 100.
    """

    blur_sigma: Annotated[float, Meta(ge=0, description='Blur, standard deviation in pixels.')] | Uniform
    noise_sigma: Annotated[float, Meta(ge=0, description='Noise, standard deviation on the 0-255 scale.')] | Uniform
    jpeg_quality: Quality | Uniform

    @property
    def min_size(self) -> int:
        """That of the blur."""
        return GaussianBlur(self.blur_sigma).min_size

    def apply(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
        """See the class."""
        for step in (GaussianBlur(self.blur_sigma), GaussianNoise(self.noise_sigma), JPEG(self.jpeg_quality)):
            clean = step.apply(clean, generator)
        return clean

    @classmethod
    def expand(cls, options: Mapping[str, Any], key: str) -> list[Self]:
        """The confounders of one YAML block, by degrees or by levels."""
        allowed = [*(field.encode_name for field in msgspec.structs.fields(cls)), 'level', 'grid']
        for name in options:
            if name not in allowed:
                raise OptionError(f"{key}: unknown option '{name}'; {did_you_mean(str(name), allowed)}")
        degrees = [name for name in options if name not in ('level', 'grid')]
        if 'level' not in options:
            if 'grid' in options or not degrees:
                raise OptionError(f'{key}.level: missing; allowed: {", ".join(LEVELS)}, or in its place blur_sigma, '
                                  'noise_sigma and jpeg_quality (no grid)')
            return super().expand(options, key)
        if degrees:
            raise OptionError(f'{key}.{degrees[0]}: the level says the degrees; give one or the other')
        levels = options['level'] if isinstance(options['level'], list) else [options['level']]
        if not levels:
            raise OptionError(f'{key}.level: the list is empty; give at least one of {", ".join(LEVELS)}')
        given = [convert({**options, 'level': level}, _Level, key) for level in levels]
        return [cls(*degrees) for one in given for degrees in _degrees(LEVELS[one.level], one.grid)]


class _Level(msgspec.Struct, forbid_unknown_fields=True):
    """The options of Hybrid in YAML where a level is named."""

    level: Literal['mild', 'moderate', 'severe']
    grid: (Literal['four_corners', 'corners']
           | tuple[Annotated[int, Meta(ge=1)], Annotated[int, Meta(ge=1)], Annotated[int, Meta(ge=1)]] | None) = None


def _degrees(box: Box, grid: str | tuple[int, int, int] | None) -> list[tuple[float | Uniform, ...]]:
    """Blur, noise and quality of each confounder inside a level."""
    if grid is None:
        return [tuple(Uniform((min(ends), max(ends))) for ends in box)]
    if grid == 'four_corners':
        return [tuple(ends[strong] for ends, strong in zip(box, corner, strict=True)) for corner in FOUR_CORNERS]
    counts = (2, 2, 2) if isinstance(grid, str) else grid
    return list(itertools.product(*(_spread(ends, count) for ends, count in zip(box, counts, strict=True))))


def _spread(ends: tuple[float, float], count: int) -> list[float]:
    if count == 1:
        return [(ends[0] + ends[1]) / 2]
    return [ends[0] + (ends[1] - ends[0]) * k / (count - 1) for k in range(count)]
