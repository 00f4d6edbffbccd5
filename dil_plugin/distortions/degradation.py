"""Applies the passes of Real-ESRGAN's degradation, of which ``real_esrgan.py`` has drawn the degrees."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from dil_plugin.distortions.filtering import filter2d
from dil_plugin.distortions.jpeg_codec import DIFFJPEG, compress
from dil_plugin.distortions.noise import gaussian_noise, poisson_noise

Parts = Sequence[Tensor | None]
"""Of every batch what was drawn for it, or None."""


class Process(NamedTuple):
    """What one pass of blur, resize, noise and JPEG draws.

    Attributes:
        kernels: ``(B, k, k)``, or None: no blur.
        resize: Factor of the resolution; in the second pass relative to the output's.
        mode: Interpolation of the resize.
        gaussian: Whether the noise is Gaussian; otherwise it is Poisson.
        level: ``(B,)``, standard deviation on the 0-255 scale, or the factor on the Poisson noise.
        gray: ``(B,)`` of 0 and 1, whose noise is grey; None: nobody's.
        quality: ``(B,)``, JPEG quality.
    """

    kernels: Tensor | None
    resize: float
    mode: str
    gaussian: bool
    level: Tensor
    gray: Tensor | None
    quality: Tensor


class Draws(NamedTuple):
    """What a degradation draws before it is applied; only the noise itself is left to the generator.

    Attributes:
        first: The first pass.
        second: The second pass; None in first order.
        final_mode: Interpolation of the last resize, to the output's size.
        final_kernels: ``(B, k, k)``, the sinc after it; None: none.
        jpeg_last: Whether the second JPEG comes after that resize and sinc, or before.
    """

    first: Process
    second: Process | None
    final_mode: str
    final_kernels: Tensor | None
    jpeg_last: bool


def degrade(cleans: Sequence[Tensor], scale: int, draws: Sequence[Draws],
            generator: torch.Generator | None = None) -> list[Tensor]:
    """Applies what was drawn to several batches, together where their images are of one size.

    These are the first blur and all that comes after the last resize; between them each batch has its own sizes.

    Args:
        cleans: ``(B, C, H, W)`` each, in [0, 1]; B may differ, H and W are multiples of ``scale``.
        scale: The clean image's size divided by the output's.
        draws: From ``RealESRGAN.draw``, one for each batch.
        generator: Source of the noise, on the device of the images.

    Returns:
        For each batch ``(B, C, H / scale, W / scale)``, multiples of 1/255 in [0, 1].
    """
    height, width = cleans[0].shape[-2] // scale, cleans[0].shape[-1] // scale
    blurred = _together(filter2d, cleans, [one.first.kernels for one in draws])
    small = []
    for images, one in zip(blurred, draws, strict=True):
        images = _passes(images, (height, width), one, generator)
        small.append(functional.interpolate(images, size=(height, width), mode=one.final_mode))
    small = _together(filter2d, small, [one.final_kernels for one in draws])
    last = [one.second.quality if one.second is not None and one.jpeg_last else None for one in draws]
    small = _together(_jpeg, small, last)
    return [(images * 255).round_().clamp_(0, 255).div_(255) for images in small]


def _passes(images: Tensor, size: tuple[int, int], draws: Draws, generator: torch.Generator | None) -> Tensor:
    """What stands between the first blur and the last resize."""
    first, second = draws.first, draws.second
    images = functional.interpolate(images, scale_factor=first.resize, mode=first.mode)
    images = _jpeg(_noise(images, first, generator), first.quality)
    if second is None:
        return images
    if second.kernels is not None:
        images = filter2d(images, second.kernels)
    resized = (int(size[0] * second.resize), int(size[1] * second.resize))
    images = _noise(functional.interpolate(images, size=resized, mode=second.mode), second, generator)
    return images if draws.jpeg_last else _jpeg(images, second.quality)


def _together(function: Callable[[Tensor, Tensor], Tensor], batches: Sequence[Tensor],
              parameters: Parts) -> list[Tensor]:
    """``function(batch, parameter)`` of all batches in one call; a batch whose parameter is None stays as it is."""
    chosen = [k for k, parameter in enumerate(parameters) if parameter is not None]
    out = list(batches)
    if len(chosen) == 1:
        k = chosen[0]
        out[k] = function(batches[k], given(parameters[k]))
    elif chosen:
        done = function(torch.cat([batches[k] for k in chosen]), torch.cat([given(parameters[k]) for k in chosen]))
        for k, part in zip(chosen, done.split([len(batches[k]) for k in chosen]), strict=True):
            out[k] = part
    return out


def given(parameter: Tensor | None) -> Tensor:
    """The parameter, which is known to be there."""
    assert parameter is not None
    return parameter


def _noise(images: Tensor, process: Process, generator: torch.Generator | None) -> Tensor:
    noise = gaussian_noise if process.gaussian else poisson_noise
    return noise(images, process.level, process.gray, generator).add_(images).clamp_(0, 1)


def _jpeg(images: Tensor, quality: Tensor) -> Tensor:
    return compress(images.clamp(0, 1), quality, DIFFJPEG)
