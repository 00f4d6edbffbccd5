"""Change of resolution: down for super-resolution, and there and back again as a degradation of its own."""

from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor
from torch.nn import functional

from dil_plugin.distortions.base import DISTORTION_REGISTRY, Distortion
from dil_plugin.distortions.degrees import Uniform, as_batch, draw, draw_indices, highest, host_generator
from dil_plugin.distortions.opencv_path import can_interpolate, interpolate
from dil_plugin.distortions.resize_matrices import MODES, area_matrix, resize_matrices

_SMALL = 128  # pixels; products with matrices beat PyTorch's pooling by up to two at 64, and no longer beyond 128

Mode = Literal['area', 'bilinear', 'bicubic', 'random']


@DISTORTION_REGISTRY.register
class Downsample(Distortion, frozen=True):
    """Division of the resolution by an integer, ``g(x) = D_s(x)``: the degradation of classical super-resolution.

    Attributes:
        scale: By how much, s.
        mode: Interpolation as ``torch.nn.functional.interpolate``; random: one of the three for each batch.
        antialias: Whether bilinear and bicubic kernels widen with s, as Pillow's (and for bicubic, MATLAB's) do.
            Real-ESRGAN has it off.
    """

    scale: Annotated[int, Meta(ge=2, description='By how much the resolution is divided.')]
    mode: Annotated[Mode, Meta(description='area, bilinear, bicubic; random: one of them per batch.')] = 'bicubic'
    antialias: Annotated[bool, Meta(description='Widen bilinear and bicubic kernels with the scale.')] = False

    def apply(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
        """See the class."""
        mode = draw_mode(generator) if self.mode == 'random' else self.mode
        size = (clean.shape[-2] // self.scale, clean.shape[-1] // self.scale)
        widened = self.antialias and mode != 'area'  # area covers every pixel as it is
        return functional.interpolate(clean, size=size, mode=mode, antialias=widened).clamp_(0, 1)


@DISTORTION_REGISTRY.register
class Resize(Distortion, frozen=True):
    """To another resolution and back, ``g(x) = R_{H x W}(R_{fH x fW}(x))``, sizes rounded down, at least 1 pixel.

    Every sample has its own factor. Real-ESRGAN's random resize, up, down or not at all, is::

        - type: OneOf
          probabilities: [0.2, 0.7, 0.1]
          distortions:
            - {type: Resize, factor: {uniform: [1, 1.5]}}
            - {type: Resize, factor: {uniform: [0.15, 1]}}
            - {type: Resize, factor: 1}

    Attributes:
        factor: f: below 1 down and up again, above 1 up and down again, 1 changes nothing.
        mode: Interpolation both ways, as ``torch.nn.functional.interpolate(size=…)`` without antialiasing; random:
            each way and each sample one of the three.
    """

    factor: Annotated[float, Meta(gt=0, le=8, description='Intermediate size divided by the image size.')] | Uniform
    mode: Annotated[Mode, Meta(description='area, bilinear, bicubic; random: drawn per sample and way.')] = 'random'

    def apply(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
        """See the class."""
        if self.factor == 1:
            return clean.clone()
        if self.mode != 'random' and not isinstance(self.factor, Uniform):
            size = (max(1, int(clean.shape[-2] * self.factor)), max(1, int(clean.shape[-1] * self.factor)))
            there = _interpolate(clean, size, self.mode)
            return _interpolate(there, (clean.shape[-2], clean.shape[-1]), self.mode).clamp_(0, 1)
        like = clean[:, 0, 0, 0].double()  # in single precision a size might be rounded up beyond the largest
        factors = as_batch(draw(self.factor, like, generator), like)
        there, back = (self._modes(clean, generator) for _ in range(2))
        resize = resize_each if clean.device.type == 'cpu' else resize_by_matrices
        return resize(clean, factors, highest(self.factor), there, back).clamp_(0, 1)

    def _modes(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """``(B,)``, for each sample the index of its mode in ``MODES``."""
        if self.mode == 'random':
            return draw_indices([1.0] * len(MODES), images, generator)
        return torch.full((images.shape[0], ), MODES.index(self.mode), device=images.device)


def draw_mode(generator: torch.Generator | None) -> str:
    """One of ``MODES``, all equally likely, known to the host."""
    return MODES[int(torch.randint(len(MODES), (), generator=host_generator(generator)))]


def resize_each(images: Tensor, factors: Tensor, largest: float, there: Tensor, back: Tensor) -> Tensor:
    """Resizes each sample by its own factor and back, one after the other: on a CPU faster than matrices.

    Args:
        images: ``(B, C, H, W)`` on the CPU.
        factors: ``(B,)``, float64.
        largest: An upper bound of ``factors``.
        there: ``(B,)`` indices into ``MODES``.
        back: Likewise, for the way back.
    """
    height, width = images.shape[-2:]
    resized = []
    for image, factor, first, second in zip(images.split(1), factors.tolist(), there.tolist(), back.tolist(),
                                            strict=True):
        size = (max(1, int(height * factor)), max(1, int(width * factor)))
        resized.append(_interpolate(_interpolate(image, size, MODES[first]), (height, width), MODES[second]))
    return torch.cat(resized)


def _interpolate(images: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    if can_interpolate(images, mode):
        return interpolate(images, size, mode)
    if mode == 'area' and images.device.type == 'cpu' and max(*images.shape[-2:], *size) <= _SMALL:
        rows, columns = (area_matrix(*sides).to(images.dtype) for sides in zip(images.shape[-2:], size, strict=True))
        return rows @ images @ columns.mT
    return functional.interpolate(images, size=size, mode=mode)


def resize_by_matrices(images: Tensor, factors: Tensor, largest: float, there: Tensor, back: Tensor) -> Tensor:
    """The same for all samples at once and on any device, ``y = M_H x M_W^T`` with matrices that go there and back."""
    rows, columns = (_there_and_back(side, factors, largest, there, back).to(images.dtype)
                     for side in images.shape[-2:])
    return rows[:, None] @ images @ columns[:, None].mT


def _there_and_back(side: int, factors: Tensor, largest: float, there: Tensor, back: Tensor) -> Tensor:
    """``(B, side, side)`` matrices that resize a line of ``side`` pixels to ``floor(factor side)`` and back."""
    between = (factors * side).floor().clamp_min(1)
    room = max(1, int(side * largest))
    whole = torch.full_like(between, side)
    return resize_matrices(between, whole, (side, room), back) @ resize_matrices(whole, between, (room, side), there)
