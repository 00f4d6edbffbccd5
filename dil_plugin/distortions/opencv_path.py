"""Blur and interpolation by OpenCV: up to ten times as fast as PyTorch on a CPU, the same up to rounding.

OpenCV is not needed. It is taken where it is installed, and only for batches on the CPU, whose planes it reads and
writes in place; ``benchmarks/distortions.py`` has the figures.
"""

import functools
import importlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_INTERPOLATIONS = {'bilinear': 'INTER_LINEAR', 'bicubic': 'INTER_CUBIC'}  # its area is not PyTorch's


@functools.cache
def opencv() -> Any | None:
    """The module, or None where it is not installed."""
    try:
        return importlib.import_module('cv2')
    except ImportError:
        return None


def can_blur(images: Tensor) -> bool:
    """Whether ``gaussian_blur`` can take these images."""
    return images.device.type == 'cpu' and images.dtype in (torch.float32, torch.float64) and opencv() is not None


def can_interpolate(images: Tensor, mode: str) -> bool:
    """Whether ``interpolate`` can take these images and that mode; in double precision its weights are too coarse."""
    return (images.device.type == 'cpu' and images.dtype == torch.float32 and mode in _INTERPOLATIONS
            and opencv() is not None)


def gaussian_blur(images: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Blurs each sample by its own Gaussian, cut at ``ceil(3 sigma)`` pixels, with reflected borders.

    Args:
        images: ``(B, C, H, W)``, see ``can_blur``.
        sigmas: B numbers >= 0, in pixels.
    """
    cv2: Any = opencv()
    blurred = torch.empty_like(images, memory_format=torch.contiguous_format)
    for sample, target, sigma in zip(images.contiguous().numpy(), blurred.numpy(), sigmas, strict=True):
        size = 2 * math.ceil(3 * sigma) + 1
        for plane, out in zip(sample, target, strict=True):
            cv2.GaussianBlur(plane, (size, size), sigma, dst=out, borderType=cv2.BORDER_REFLECT_101)
    return blurred


def interpolate(images: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """As ``torch.nn.functional.interpolate(images, size=size, mode=mode)``.

    Args:
        images: ``(B, C, H, W)``, see ``can_interpolate``.
        size: Height and width of the result.
        mode: bilinear or bicubic.
    """
    cv2: Any = opencv()
    resized = images.new_empty(*images.shape[:2], *size)
    kind = getattr(cv2, _INTERPOLATIONS[mode])
    for sample, out in zip(images.contiguous().numpy(), resized.numpy(), strict=True):
        if len(sample) in (2, 3, 4):  # interleaved, as OpenCV is fastest
            cv2.split(cv2.resize(cv2.merge(list(sample)), size[::-1], interpolation=kind), list(out))
        else:
            for plane, target in zip(sample, out, strict=True):
                cv2.resize(plane, size[::-1], dst=target, interpolation=kind)
    return resized
