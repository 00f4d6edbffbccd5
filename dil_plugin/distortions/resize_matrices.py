"""Interpolation as matrices, so that every sample of a batch can be resized by a factor of its own."""

import functools

import torch
from torch import Tensor

MODES = ('area', 'bilinear', 'bicubic')
_A = -0.75  # of the cubic kernel, as in torch and OpenCV


def resize_matrices(size_in: Tensor, size_out: Tensor, shape: tuple[int, int], mode: Tensor) -> Tensor:
    """For each sample the matrix that resizes a line of pixels as ``torch.nn.functional.interpolate(size=…)`` does.

    Args:
        size_in: ``(B,)``, pixels of the line, whole numbers in a floating point dtype.
        size_out: ``(B,)``, pixels of the resized line.
        shape: ``(rows, columns)`` of the matrices, at least ``(max(size_out), max(size_in))``; what lies beyond a
            sample's own sizes is 0.
        mode: ``(B,)`` indices into ``MODES``.

    Returns:
        ``(B, rows, columns)``, each row of sum 1 or 0, in the dtype of ``size_in``.
    """
    n, m = size_in.view(-1, 1, 1), size_out.view(-1, 1, 1)
    i = torch.arange(shape[0], dtype=size_in.dtype, device=size_in.device).view(1, -1, 1)
    j = torch.arange(shape[1], dtype=size_in.dtype, device=size_in.device).view(1, 1, -1)
    kind = mode.view(-1, 1, 1)
    weights = torch.where(kind == 0, _area(i, j, n, m), torch.where(kind == 1, _bilinear(i, j, n, m),
                                                                    _bicubic(i, j, n, m)))
    return torch.where((i < m) & (j < n), weights, 0)


@functools.lru_cache(maxsize=256)
def area_matrix(size_in: int, size_out: int) -> Tensor:
    """``(size_out, size_in)``, float64 on the CPU: the matrix of mode area for one pair of sizes; not to be changed."""
    i, j = torch.arange(size_out, dtype=torch.float64)[:, None], torch.arange(size_in, dtype=torch.float64)
    return _area(i, j, torch.tensor(size_in, dtype=torch.float64), torch.tensor(size_out, dtype=torch.float64))


def _area(i: Tensor, j: Tensor, n: Tensor, m: Tensor) -> Tensor:
    """The mean of the pixels that output pixel i covers, in part or whole, as adaptive average pooling."""
    first, end = (i * n / m).floor(), ((i + 1) * n / m).ceil()
    return ((j >= first) & (j < end)) / (end - first)


def _bilinear(i: Tensor, j: Tensor, n: Tensor, m: Tensor) -> Tensor:
    centre = torch.minimum(((i + 0.5) * n / m - 0.5).clamp_min(0), n - 1)
    return (1 - (centre - j).abs()).clamp_min(0)


def _bicubic(i: Tensor, j: Tensor, n: Tensor, m: Tensor) -> Tensor:
    centre = (i + 0.5) * n / m - 0.5
    base = centre.floor()
    weights = torch.zeros_like(centre * j)
    for tap in (-1, 0, 1, 2):  # pixels beyond the border are those at the border
        pixel = torch.minimum((base + tap).clamp_min(0), n - 1)
        weights = weights + torch.where(j == pixel, _cubic((centre - base - tap).abs()), 0)
    return weights


def _cubic(x: Tensor) -> Tensor:
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = ((_A * x - 5 * _A) * x + 8 * _A) * x - 4 * _A
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0))
