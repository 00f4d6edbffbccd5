"""Blur kernels of a whole batch at once, as BasicSR's ``basicsr.data.degradations`` defines them one by one.

All functions take one parameter per sample, ``(B,)``, and return ``(B, size, size)`` of sum 1 in the parameters' dtype
and on their device. ``extents``, ``(B,)`` of odd integers up to ``size``, are the sizes that BasicSR calls
``kernel_size``: a kernel is cut to its extent before it is normalised, and 0 outside of it. None: all are ``size``.
Lengths are pixels, angles radians. With ``q(u, v) = [u v] S^-1 [u v]^T`` the kernels are, up to their sums,

* Gaussian: ``exp(-q / 2)``;
* generalised Gaussian (Pascal et al., 2013): ``exp(-q^beta / 2)``;
* plateau: ``1 / (1 + q^beta)``;

where ``S = R diag(sigma_x^2, sigma_y^2) R^T`` and R turns by theta; and

* sinc, the ideal circular low-pass: ``w J_1(w r) / (2 pi r)``, ``r = |(u, v)|``, w the cut-off frequency.
"""

import math

import torch
from torch import Tensor


def gaussian_kernels(sigma_x: Tensor, sigma_y: Tensor, theta: Tensor, size: int,
                     extents: Tensor | None = None) -> Tensor:
    """Bivariate Gaussian kernels.

    Args:
        sigma_x: ``(B,)``, standard deviation along the axis at angle theta, > 0.
        sigma_y: ``(B,)``, across it; the same values make it isotropic.
        theta: ``(B,)``, angle in radians.
        size: Side of the kernels, odd.
        extents: See the module.
    """
    return _normalise((_quadratic_form(sigma_x, sigma_y, theta, size) / -2).exp_(), extents)


def generalized_gaussian_kernels(sigma_x: Tensor, sigma_y: Tensor, theta: Tensor, beta: Tensor, size: int,
                                 extents: Tensor | None = None) -> Tensor:
    """Generalised Gaussian kernels; ``beta`` ``(B,)`` > 0 is the shape, 1 the Gaussian's. Else as gaussian_kernels."""
    powers = _quadratic_form(sigma_x, sigma_y, theta, size).pow_(beta.view(-1, 1, 1))
    return _normalise((powers / -2).exp_(), extents)


def plateau_kernels(sigma_x: Tensor, sigma_y: Tensor, theta: Tensor, beta: Tensor, size: int,
                    extents: Tensor | None = None) -> Tensor:
    """Plateau-shaped kernels; ``beta`` ``(B,)`` > 0 is the steepness. The rest as gaussian_kernels."""
    powers = _quadratic_form(sigma_x, sigma_y, theta, size).pow_(beta.view(-1, 1, 1))
    return _normalise(powers.add_(1).reciprocal_(), extents)


def sinc_kernels(cutoff: Tensor, size: int, extents: Tensor | None = None) -> Tensor:
    """Circular low-pass kernels, which ring as over-sharpened and compressed pictures do.

    torch's ``J_1`` is off by up to 5e-7 in double precision, and so are these, by up to 1e-7.

    Args:
        cutoff: ``(B,)``, frequency in radians per pixel, in (0, pi].
        size: Side of the kernels, odd.
        extents: See the module.
    """
    u, v = _grid(size, cutoff)
    radius = (u**2 + v**2).sqrt()
    centre = radius == 0
    w = cutoff.view(-1, 1, 1)
    ring = w * torch.special.bessel_j1(w * radius) / (2 * math.pi * radius.masked_fill(centre, 1))
    return _normalise(torch.where(centre, w**2 / (4 * math.pi), ring), extents)


def pulse(size: int, like: Tensor) -> Tensor:
    """``(size, size)``, the kernel that changes nothing, in the dtype and on the device of ``like``."""
    u, v = _grid(size, like)
    return ((u == 0) & (v == 0)).to(like.dtype)


def gaussian_profiles(sigma: Tensor, radius: int) -> Tensor:
    """One-dimensional Gaussians of sum 1, ``(B, 2 radius + 1)``, each cut to ``ceil(3 sigma)`` pixels to each side.

    Args:
        sigma: ``(B,)`` in pixels; 0 gives the pulse.
        radius: At least ``ceil(3 max(sigma))``.
    """
    offsets = _offsets(2 * radius + 1, sigma).view(1, -1)
    spread = sigma.view(-1, 1)
    weights = (offsets**2 / (-2 * spread.clamp_min(1e-4)**2)).exp_()
    weights = torch.where(offsets.abs() <= (3 * spread).ceil(), weights, 0)
    return weights / weights.sum(1, keepdim=True)


def _offsets(size: int, like: Tensor) -> Tensor:
    return torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2


def _grid(size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Column and row offsets from the centre, ``(1, size)`` and ``(size, 1)``."""
    offsets = _offsets(size, like)
    return offsets.view(1, -1), offsets.view(-1, 1)


def _quadratic_form(sigma_x: Tensor, sigma_y: Tensor, theta: Tensor, size: int) -> Tensor:
    u, v = _grid(size, sigma_x)
    cos, sin = theta.cos().view(-1, 1, 1), theta.sin().view(-1, 1, 1)
    along, across = u * cos + v * sin, v * cos - u * sin
    return (along / sigma_x.view(-1, 1, 1))**2 + (across / sigma_y.view(-1, 1, 1))**2


def _normalise(kernels: Tensor, extents: Tensor | None) -> Tensor:
    if extents is not None:
        u, v = _grid(kernels.shape[-1], kernels)
        reach = (extents.view(-1, 1, 1) - 1) / 2
        kernels = torch.where((u.abs() <= reach) & (v.abs() <= reach), kernels, 0)
    return kernels / kernels.sum((1, 2), keepdim=True)
