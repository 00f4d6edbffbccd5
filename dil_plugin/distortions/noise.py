"""Noise."""

from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from dil_plugin.distortions.base import DISTORTION_REGISTRY, Distortion


@DISTORTION_REGISTRY.register
class GaussianNoise(Distortion, frozen=True):
    """Additive white Gaussian noise, ``g(x) = clip(x + (sigma / 255) * e, 0, 1)``, ``e ~ N(0, 1)`` for every value.

    As in the authors' released training, noise is added to images in [0, 1], which are then clipped, not rounded.

    Attributes:
        sigma: Standard deviation on the 0-255 scale.
    """

    sigma: Annotated[float, Meta(ge=0, description='Standard deviation on the 0-255 scale.')]

    def apply(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
        """See the class."""
        noise = torch.randn(clean.shape, dtype=clean.dtype, device=clean.device, generator=generator)
        return noise.mul_(self.sigma / 255).add_(clean).clamp_(0, 1)
