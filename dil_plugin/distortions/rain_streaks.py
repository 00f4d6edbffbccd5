"""Layers of synthetic rain streaks: random seeds, each drawn out into an anti-aliased line.

With ``t`` the distance of a pixel from the seed along the streak and ``a`` the one across it, in pixels, the line
kernel is the product of two windows that are 1 at the seed::

    k(t, a) = tukey(t / length) * hann(a / width)
    hann(x)  = cos^2(pi x / 2)                                           |x| < 1
    tukey(x) = 1 for |x| <= 1/4, cos^2(pi (|x| - 1/4)) up to             |x| < 3/4

Both fall to one half at ``x = 1/2`` and have the integral 1, so a streak is ``length`` long and ``width`` wide at half
its height and its kernel sums to nearly ``length * width``. Such a window is a box softened by half a cosine: streaks
have soft ends, as motion blur of falling drops leaves them, and are band-limited enough to be sampled at any angle.
"""

import math

import torch
from torch import Tensor

from dil_plugin.distortions.degrees import as_batch

FAINTEST = 0.2
"""Least brightness of a streak at its middle; the greatest is 1."""


def rain_streaks(images: Tensor,
                 length: float | Tensor,
                 angle: float | Tensor,
                 width: float | Tensor,
                 density: float | Tensor,
                 reach: tuple[int, int],
                 generator: torch.Generator | None = None) -> Tensor:
    """A layer of streaks, ``S(p) = min(1, sum_j b_j k(p - p_j))``.

    Every pixel is a seed ``p_j`` with the probability ``density / 1000``. Its brightness ``b_j = 0.2 + 0.8 u^2``,
    ``u ~ U(0, 1)``, is that of a lone streak's middle: most are faint, few are bright. Seeds also lie outside of the
    image, so that streaks enter across the borders and there are as many there as elsewhere. The mean of S is
    ``(7 / 15) (density / 1000) length width``, less what overlaps lose to the clipping at 1.

    Args:
        images: ``(B, C, H, W)``; gives B, H, W, dtype and device.
        length: Length at half height in pixels, > 0, a number or ``(B,)``, as are the next three.
        angle: Degrees from the vertical, -90 to 90; above 0 rain falls towards the right.
        width: Width at half height in pixels, >= 1; below, the lines of slanted streaks would break up.
        density: Streaks per 1000 pixels, 0 to 1000.
        reach: Rows and columns that streaks reach from their seeds; see ``streak_reach``. Beyond it they are cut.
        generator: Source of randomness on the images' device.

    Returns:
        ``(B, 1, H, W)`` in [0, 1], in the images' dtype.
    """
    batch, _, height, columns = images.shape
    kernels = streak_kernels(as_batch(length, images), as_batch(angle, images), as_batch(width, images), reach)
    canvas = (batch, height + 2 * reach[0], columns + 2 * reach[1])
    seeds = streak_seeds(canvas, as_batch(density, images), generator)
    return _convolve(seeds, kernels)[:, None].clamp_(0, 1)


def streak_seeds(shape: tuple[int, int, int], density: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Where streaks are, and how bright: ``0.2 + 0.8 u^2`` with the probability ``density / 1000``, else 0.

    Args:
        shape: ``(B, H, W)``.
        density: ``(B,)``, streaks per 1000 pixels, 0 to 1000; gives dtype and device.
        generator: Source of randomness on that device.

    Returns:
        ``(B, H, W)``.
    """
    chance = density.view(-1, 1, 1) / 1000
    unit = torch.rand(shape, dtype=density.dtype, device=density.device, generator=generator)
    again = unit / chance  # where the unit is below the chance, this is uniform in [0, 1) again
    return torch.where(unit < chance, FAINTEST + (1 - FAINTEST) * again.square_(), 0)


def streak_kernels(length: Tensor, angle: Tensor, width: Tensor, reach: tuple[int, int]) -> Tensor:
    """The lines of the module's formula, one per sample, 1 at the middle.

    Args:
        length: ``(B,)``, in pixels, > 0.
        angle: ``(B,)``, degrees from the vertical; above 0 the line runs from top left to bottom right.
        width: ``(B,)``, in pixels, >= 1.
        reach: Rows and columns to each side of the middle.

    Returns:
        ``(B, 2 reach[0] + 1, 2 reach[1] + 1)``, in the parameters' dtype and on their device.
    """
    v, u = (torch.arange(-r, r + 1, dtype=length.dtype, device=length.device) for r in reach)
    v, u = v.view(1, -1, 1), u.view(1, 1, -1)
    radians = torch.deg2rad(angle).view(-1, 1, 1)
    sin, cos = radians.sin(), radians.cos()
    along = (u * sin + v * cos).abs_() / length.view(-1, 1, 1)
    across = (u * cos - v * sin).abs_() / width.view(-1, 1, 1)
    ends = _hann((along - 0.25).clamp_(0, 0.5).mul_(2))
    return _hann(across.clamp_max_(1)).mul_(ends)


def _hann(positions: Tensor) -> Tensor:
    """``cos^2(pi x / 2)`` in place, in the form that is exactly 0 at 1."""
    return positions.mul_(math.pi).cos_().add_(1).div_(2)


def streak_reach(length: float, angle: float, width: float) -> tuple[int, int]:
    """Rows and columns from its middle within which every streak up to these degrees is wholly contained.

    Args:
        length: The greatest length in pixels.
        angle: The greatest slant in degrees from the vertical; its sign does not matter, above 90 counts as 90.
        width: The greatest width in pixels.
    """
    slant = math.sin(math.radians(min(abs(angle), 90)))
    return math.ceil(0.75 * length + width * slant), math.ceil(0.75 * length * slant + width)


def _convolve(seeds: Tensor, kernels: Tensor) -> Tensor:
    """Convolves each sample with its own kernel, where the kernel lies within the canvas.

    Kernels are so large that the Fourier domain pays: for 8 kernels of 49x37 on images of 256x256 it is 7 times as
    fast as a grouped convolution in float32, 300 times in float64, on one CPU thread.

    Args:
        seeds: ``(B, H, W)``.
        kernels: ``(B, h, w)``, no larger.

    Returns:
        ``(B, H - h + 1, W - w + 1)``, correct to the rounding of its greatest value.
    """
    (height, width), (rows, columns) = seeds.shape[-2:], kernels.shape[-2:]
    size = [side + -side % 16 for side in (height, width)]  # of small prime factors, which transforms like
    spectrum = torch.fft.rfft2(seeds, s=size).mul_(torch.fft.rfft2(kernels, s=size))
    return torch.fft.irfft2(spectrum, s=size)[:, rows - 1:height, columns - 1:width]
