"""Rain: streaks added to the image, and heavy rain with its veil."""

import math
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from dil_plugin.distortions.base import DISTORTION_REGISTRY, Distortion
from dil_plugin.distortions.degrees import Uniform, as_batch, draw, highest, lowest, per_sample
from dil_plugin.distortions.rain_streaks import rain_streaks, streak_reach

Length = Annotated[float, Meta(gt=0, description='Length at half height in pixels.')]
Slant = Annotated[float, Meta(ge=-90, le=90, description='Degrees from the vertical.')]
Thickness = Annotated[float, Meta(ge=1, description='Width at half height in pixels.')]
Density = Annotated[float, Meta(ge=0, le=1000, description='Streaks per 1000 pixels.')]
Intensity = Annotated[float, Meta(ge=0, le=1, description='Factor on the streaks.')]
Share = Annotated[float, Meta(ge=0, le=1)]

_LAYER_LENGTHS = Uniform((0.5, 1.5))  # of a layer's streaks, relative to the given length
_LAYER_ANGLES = Uniform((-8.0, 8.0))  # degrees, added to the given angle
_WAVES = 3  # in the synthetic depth
_SLOPE = 0.7  # the part of its relief that rises to the top; the rest are the waves


class Rain(Distortion, frozen=True):
    """What all rain has; see ``rain_streaks.py`` for the streaks. The ranges are chosen by eye.

    Attributes:
        length: Length of the streaks in pixels.
        angle: Degrees from the vertical; above 0 rain falls towards the right.
        width: Width of the streaks in pixels.
        density: Streaks per 1000 pixels; 0: none.
        intensity: Factor on the streaks; 0: none.
    """

    length: Length | Uniform = Uniform((12.0, 32.0))
    angle: Slant | Uniform = Uniform((-30.0, 30.0))
    width: Thickness | Uniform = Uniform((1.0, 2.0))
    density: Density | Uniform = Uniform((2.0, 8.0))
    intensity: Intensity | Uniform = Uniform((0.4, 0.8))

    @property
    def steepest(self) -> float:
        """The greatest slant that is drawn, in degrees from the vertical."""
        return max(abs(lowest(self.angle)), abs(highest(self.angle)))


@DISTORTION_REGISTRY.register
class RainStreaks(Rain, frozen=True):
    """Streaks added to the image, the same in all channels, ``g(x) = clip(x + intensity * S, 0, 1)``.

    The additive composite of Luo et al. (ICCV 2015) and Yang et al. (CVPR 2017), as in Rain100L; S in [0, 1] is a
    layer of streaks of one length, angle and width per sample.

    Attributes:
        length: Length of the streaks in pixels.
        angle: Degrees from the vertical; above 0 rain falls towards the right.
        width: Width of the streaks in pixels.
        density: Streaks per 1000 pixels; 0 is the identity.
        intensity: Factor on the streaks; 0 is the identity.
    """

    def apply(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
        """See the class."""
        length, angle = draw(self.length, clean, generator), draw(self.angle, clean, generator)
        width, density = draw(self.width, clean, generator), draw(self.density, clean, generator)
        intensity = draw(self.intensity, clean, generator)
        reach = streak_reach(highest(self.length), self.steepest, highest(self.width))
        layer = rain_streaks(clean, length, angle, width, density, reach, generator)
        return (clean + layer.mul_(per_sample(intensity))).clamp_(0, 1)


@DISTORTION_REGISTRY.register
class HeavyRain(Rain, frozen=True):
    """Streaks in several layers behind a veil, ``g(x) = clip(T (x + intensity sum_i S_i) + (1 - T) A, 0, 1)``.

    The model of Li, Cheong and Tan (CVPR 2019). Each layer ``S_i`` has a length and an angle of its own: ``length``
    times U(0.5, 1.5), ``angle`` plus U(-8, 8) degrees. The veil thickens with a depth d, ``T(p) = transmission^d(p)``
    like exp(-beta d); for want of a measured depth it is synthetic, see ``synthetic_depth``.

    Attributes:
        length: Length of the streaks in pixels.
        angle: Degrees from the vertical; above 0 rain falls towards the right.
        width: Width of the streaks in pixels.
        density: Streaks per 1000 pixels, of all layers together; 0: none.
        intensity: Factor on the streaks; 0: none.
        layers: How many layers.
        transmission: What passes the veil at the mean depth; 1: no veil.
        atmosphere: Brightness of the veil, A, the same in all channels.
        relief: How far the depth departs from its mean; 0: T is the same everywhere.
    """

    density: Density | Uniform = Uniform((10.0, 25.0))
    layers: Annotated[int, Meta(ge=1, description='How many layers of streaks.')] = 4
    transmission: Annotated[float, Meta(gt=0, le=1, description='What passes the veil.')] | Uniform = \
        Uniform((0.4, 0.8))
    atmosphere: Annotated[Share, Meta(description='Brightness of the veil.')] | Uniform = Uniform((0.5, 0.9))
    relief: Annotated[Share, Meta(description='Relative range of the depth.')] | Uniform = 0.5

    def apply(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
        """See the class."""
        rainy = self._streaks(clean, generator).add(clean)
        depth = synthetic_depth(clean, draw(self.relief, clean, generator), generator)
        passed = as_batch(draw(self.transmission, clean, generator), clean).view(-1, 1, 1, 1) ** depth
        veil = (1 - passed) * per_sample(draw(self.atmosphere, clean, generator))
        return (rainy * passed).add_(veil).clamp_(0, 1)

    def _streaks(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
        """``intensity * sum_i S_i``, ``(B, 1, H, W)``."""
        length, angle = draw(self.length, clean, generator), draw(self.angle, clean, generator)
        width, density = draw(self.width, clean, generator), draw(self.density, clean, generator)
        intensity = draw(self.intensity, clean, generator)
        reach = streak_reach(highest(self.length) * highest(_LAYER_LENGTHS),
                             self.steepest + highest(_LAYER_ANGLES), highest(self.width))
        total = torch.zeros_like(clean[:, :1])
        for _ in range(self.layers):
            lengths = length * draw(_LAYER_LENGTHS, clean, generator)
            angles = angle + draw(_LAYER_ANGLES, clean, generator)
            total += rain_streaks(clean, lengths, angles, width, density / self.layers, reach, generator)
        return total.mul_(per_sample(intensity))


def synthetic_depth(images: Tensor, relief: float | Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A smooth relative depth, ``d = 1 + relief (0.7 r + 0.3 w)``; on average over the draws its mean is 1.

    ``r`` rises linearly from -1 at the lower edge of the image to 1 at the upper one, as outdoors the horizon does
    over the ground; ``w`` in [-1, 1] is the mean of three plane waves of random phase, with up to one period over the
    image's height and width.

    Args:
        images: ``(B, C, H, W)``; gives B, H, W, dtype and device.
        relief: 0 to 1, a number or ``(B,)``.
        generator: Source of randomness on the images' device.

    Returns:
        ``(B, 1, H, W)`` in ``[1 - relief, 1 + relief]``.
    """
    batch, _, height, width = images.shape
    down, right = _positions(height, images).view(-1, 1), _positions(width, images)
    unit = torch.rand(3, batch, _WAVES, 1, 1, dtype=images.dtype, device=images.device, generator=generator)
    rows, columns, phase = unit.mul_(2).sub_(1).mul_(math.pi)
    waves = (rows * down + columns * right + phase).cos_().mean(1, keepdim=True)
    return torch.lerp(waves, -down, _SLOPE).mul_(per_sample(relief)).add_(1)


def _positions(size: int, like: Tensor) -> Tensor:
    """Pixel centres on a side that runs from -1 to 1."""
    return (torch.arange(size, dtype=like.dtype, device=like.device) * 2 + 1) / size - 1
