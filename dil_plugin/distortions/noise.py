"""Noise: Gaussian and Poisson, per channel or grey."""

from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from dil_plugin.distortions.base import DISTORTION_REGISTRY, Distortion
from dil_plugin.distortions.degrees import Uniform, draw, per_sample

Probability = Annotated[float, Meta(ge=0, le=1)]


@DISTORTION_REGISTRY.register
class GaussianNoise(Distortion, frozen=True):
    """Additive white Gaussian noise, ``g(x) = clip(x + (sigma / 255) * e, 0, 1)``, ``e ~ N(0, 1)`` for every value.

    As in the authors' released training, noise is added to images in [0, 1], which are then clipped, not rounded. With
    probability ``gray_prob`` a sample's noise is grey: one ``e`` per pixel, the same in all channels (BasicSR's
    ``random_add_gaussian_noise_pt``; unlike there, every sample of a batch gets a grey noise of its own).

    Attributes:
        sigma: Standard deviation on the 0-255 scale.
        gray_prob: Probability of grey noise.
    """

    sigma: Annotated[float, Meta(ge=0, description='Standard deviation on the 0-255 scale.')] | Uniform
    gray_prob: Annotated[Probability, Meta(description='Probability of grey noise.')] = 0.0

    def apply(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
        """See the class."""
        sigma = draw(self.sigma, clean, generator)
        gray = draw_flags(self.gray_prob, clean, generator)
        return gaussian_noise(clean, sigma, gray, generator).add_(clean).clamp_(0, 1)


@DISTORTION_REGISTRY.register
class PoissonNoise(Distortion, frozen=True):
    """Shot noise, ``g(x) = clip(x + s (P(v q) / v - q), 0, 1)``, ``q`` is x rounded to 8 bits, ``P`` Poisson.

    ``v`` is the number of distinct values in the sample, rounded up to a power of two, as in scikit-image and in
    BasicSR's ``random_add_poisson_noise_pt``: at most 256, so the noise has the variance ``s^2 q / v``. Grey noise
    is that of the luma, the same in all channels.

    Attributes:
        poisson_scale: Factor on the noise.
        gray_prob: Probability of grey noise.
    """

    poisson_scale: Annotated[float, Meta(ge=0, description='Factor on the noise.')] | Uniform
    gray_prob: Annotated[Probability, Meta(description='Probability of grey noise.')] = 0.0

    def apply(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
        """See the class."""
        scale = draw(self.poisson_scale, clean, generator)
        gray = draw_flags(self.gray_prob, clean, generator)
        return poisson_noise(clean, scale, gray, generator).add_(clean).clamp_(0, 1)


def draw_flags(probability: float, images: Tensor, generator: torch.Generator | None) -> Tensor | None:
    """Which samples get a treatment: ``(B,)`` of 0 and 1 in the images' dtype, each 1 with ``probability``.

    None says that none does; so no draw is made where the probability is 0.
    """
    if probability == 0:
        return None
    unit = torch.rand(images.shape[0], dtype=images.dtype, device=images.device, generator=generator)
    return (unit < probability).to(images.dtype)


def gaussian_noise(images: Tensor,
                   sigma: float | Tensor,
                   gray: Tensor | None = None,
                   generator: torch.Generator | None = None) -> Tensor:
    """The noise alone, ``(sigma / 255) e``.

    Args:
        images: ``(B, C, H, W)``; gives shape, dtype and device.
        sigma: Standard deviation on the 0-255 scale, a number or ``(B,)``.
        gray: ``(B,)`` of 0 and 1: 1 makes the sample's noise the same in all channels. None: no sample.
        generator: Source of randomness on the images' device.

    Returns:
        ``(B, C, H, W)``.
    """
    noise = torch.randn(images.shape, dtype=images.dtype, device=images.device, generator=generator)
    if gray is not None and images.shape[1] > 1:
        shared = torch.randn(images[:, :1].shape, dtype=images.dtype, device=images.device, generator=generator)
        noise = torch.lerp(noise, shared, gray.view(-1, 1, 1, 1))
    return noise.mul_(per_sample(sigma / 255))


def poisson_noise(images: Tensor,
                  scale: float | Tensor,
                  gray: Tensor | None = None,
                  generator: torch.Generator | None = None) -> Tensor:
    """The noise alone, ``scale (P(v q) / v - q)``; see ``PoissonNoise``.

    Args:
        images: ``(B, C, H, W)`` in [0, 1]; grey noise is defined for C = 3 and, trivially, C = 1.
        scale: Factor on the noise, a number or ``(B,)``.
        gray: ``(B,)`` of 0 and 1: 1 makes the sample's noise the same in all channels. None: no sample.
        generator: Source of randomness on the images' device.

    Returns:
        ``(B, C, H, W)``.
    """
    noise = _shot_noise(images, generator)
    if gray is not None and images.shape[1] > 1:
        shared = _shot_noise(luma(images), generator)
        noise = torch.lerp(noise, shared, gray.view(-1, 1, 1, 1))
    return noise.mul_(per_sample(scale))


def _shot_noise(images: Tensor, generator: torch.Generator | None) -> Tensor:
    levels = (images * 255).round_().clamp_(0, 255)
    vals = _bits(_count_levels(levels.to(torch.int64))).exp2().to(images.dtype).view(-1, 1, 1, 1)
    rounded = levels.div_(255)
    return torch.poisson(rounded * vals, generator=generator).div_(vals).sub_(rounded)


def luma(images: Tensor) -> Tensor:
    """``0.2989 R + 0.587 G + 0.114 B``, ``(B, 1, H, W)``, with the weights of torchvision, which BasicSR takes."""
    if images.shape[1] != 3:
        raise ValueError(f'grey noise: expected 3 channels, or 1, got {images.shape[1]}')
    red, green, blue = images.split(1, dim=1)
    return red * 0.2989 + green * 0.587 + blue * 0.114


def _bits(count: Tensor) -> Tensor:
    return (count.log2() - 1e-4).ceil()  # a logarithm that is off in its last place must not make 8 bits 9


def _count_levels(levels: Tensor) -> Tensor:
    """How many of the values 0 … 255 each sample holds; a mark per value instead of a sort, whose size is not fixed."""
    present = torch.zeros(levels.shape[0], 256, dtype=torch.float32, device=levels.device)
    return present.scatter_(1, levels.flatten(1), 1.0).sum(1)
