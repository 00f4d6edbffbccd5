"""Convolution of every sample with a kernel of its own, and unsharp masking."""

import math

import torch
from torch import Tensor
from torch.nn import functional

_USM_SIZE = 51  # Real-ESRGAN's radius of 50, made odd
_FEW_PLANES = 16  # up to here oneDNN convolves with narrow kernels up to five times as fast in channels-last layout
USM_MIN_SIZE = _USM_SIZE // 2 + 1  # pixels that usm_sharpen needs for its reflected borders


def filter2d(images: Tensor, kernels: Tensor) -> Tensor:
    """Filters each sample with its own kernel: ``y(p) = sum_q k(q) x(p + q)``, as ``cv2.filter2D``.

    Args:
        images: ``(B, C, H, W)``; H and W above half the kernel's size, since borders are reflected (the border pixel
            itself is not repeated).
        kernels: ``(B, k, k)``, or ``(1, k, k)`` for all; k odd.

    Returns:
        ``(B, C, H, W)``.
    """
    height, width = kernels.shape[-2:]
    planes = images.reshape(1, -1, *images.shape[-2:])
    padded = functional.pad(planes, (width // 2, width // 2, height // 2, height // 2), mode='reflect')
    return _convolve(padded, kernels, len(images)).view(images.shape)


def filter_separable(images: Tensor, profiles: Tensor) -> Tensor:
    """Filters each sample with the outer product of its own profile with itself.

    Args:
        images: ``(B, C, H, W)``; H and W above half the profile's length (reflected borders).
        profiles: ``(B, k)``, or ``(1, k)`` for all; k odd.

    Returns:
        ``(B, C, H, W)``.
    """
    half = profiles.shape[-1] // 2
    planes = images.reshape(1, -1, *images.shape[-2:])
    if images.device.type == 'cpu' and images.dtype == torch.float32 and planes.shape[1] <= _FEW_PLANES:
        planes = planes.contiguous(memory_format=torch.channels_last)
    padded = functional.pad(planes, (half, half, half, half), mode='reflect')
    rows = _convolve(padded, profiles[:, None, :], len(images))
    return _convolve(rows, profiles[:, :, None], len(images)).contiguous().view(images.shape)


def usm_sharpen(images: Tensor, weight: float = 0.5, threshold: float = 10) -> Tensor:
    """Unsharp masking, ``m s + (1 - m) x`` with ``s = clip(x + weight (x - b))``, as Real-ESRGAN sharpens its targets.

    ``b`` is x blurred by a Gaussian of 51x51 pixels and sigma 8 (what OpenCV takes for that size), ``m`` the mask
    ``255 |x - b| > threshold`` under the same blur.

    Args:
        images: ``(B, C, H, W)`` in [0, 1], at least 26 pixels high and wide.
        weight: How much of the residual is added.
        threshold: Least residual that is sharpened, on the 0-255 scale.

    Returns:
        ``(B, C, H, W)`` in [0, 1].

    Raises:
        ValueError: The images are too small for the blur's reflected borders.
    """
    if min(images.shape[-2:]) < USM_MIN_SIZE:
        raise ValueError(f'usm_sharpen: needs images of at least {USM_MIN_SIZE}x{USM_MIN_SIZE} pixels, got '
                         f'{images.shape[-2]}x{images.shape[-1]}')
    sigma = 0.3 * ((_USM_SIZE - 1) * 0.5 - 1) + 0.8  # cv2.getGaussianKernel's rule for a size alone
    offsets = torch.arange(_USM_SIZE, dtype=images.dtype, device=images.device) - _USM_SIZE // 2
    profile = (offsets / (math.sqrt(2) * sigma)).square_().neg_().exp_()
    profile = (profile / profile.sum()).view(1, -1)
    residual = images - filter_separable(images, profile)
    mask = filter_separable((residual.abs() * 255 > threshold).to(images.dtype), profile)
    sharp = torch.add(images, residual, alpha=weight).clamp_(0, 1)
    return torch.lerp(images, sharp, mask)


def _convolve(padded: Tensor, kernels: Tensor, batch: int) -> Tensor:
    """Valid correlation of the planes ``(1, B C, H, W)`` with their sample's kernel, ``(B, k, l)`` or ``(1, k, l)``.

    A group for every plane even where the kernel is shared: one kernel on B C images of one channel is a path of oneDNN
    that takes twenty times as long.
    """
    planes = padded.shape[1]
    weights = kernels.expand(batch, -1, -1)[:, None].repeat_interleave(planes // batch, 0)
    return functional.conv2d(padded, weights, groups=planes)
