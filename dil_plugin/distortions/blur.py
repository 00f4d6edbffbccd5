"""Blur."""

import math
from typing import Annotated

import torch
from kornia.filters import gaussian_blur2d
from msgspec import Meta
from torch import Tensor

from dil_plugin.distortions.base import DISTORTION_REGISTRY, Distortion


@DISTORTION_REGISTRY.register
class GaussianBlur(Distortion, frozen=True):
    """Isotropic Gaussian blur, ``g(x) = k * x`` with ``k(u, v) ~ exp(-(u^2 + v^2) / (2 sigma^2))``, sum 1.

    The kernel reaches ``ceil(3 sigma)`` pixels to each side; borders are reflected (the border pixel itself is not
    repeated), as OpenCV's ``BORDER_REFLECT_101``. The convolution is kornia's, separable.

    Attributes:
        sigma: Standard deviation in pixels; 0 is the identity.
    """

    sigma: Annotated[float, Meta(ge=0, description='Standard deviation in pixels.')]

    @property
    def radius(self) -> int:
        """Pixels that the kernel reaches to each side."""
        return math.ceil(3 * self.sigma)

    @property
    def min_size(self) -> int:
        """Reflection needs one pixel more than the kernel's radius."""
        return self.radius + 1

    def apply(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
        """See the class."""
        if self.sigma == 0:
            return clean.clone()
        size = 2 * self.radius + 1
        blurred = gaussian_blur2d(clean, (size, size), (self.sigma, self.sigma), border_type='reflect')
        return blurred.clamp_(0, 1)  # rounding can leave [0, 1] by one unit in the last place
