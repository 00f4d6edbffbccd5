"""Blur: Gaussian, generalised Gaussian, plateau and sinc kernels, and random mixtures of them."""

import math
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from dil_plugin.distortions.base import DISTORTION_REGISTRY, Distortion
from dil_plugin.distortions.degrees import Uniform, as_batch, draw, highest
from dil_plugin.distortions.filtering import filter2d, filter_separable
from dil_plugin.distortions.kernels import (
    gaussian_kernels,
    gaussian_profiles,
    generalized_gaussian_kernels,
    plateau_kernels,
    sinc_kernels,
)
from dil_plugin.distortions.opencv_path import can_blur, gaussian_blur

Width = Annotated[float, Meta(gt=0, description='Standard deviation in pixels.')]
Angle = Annotated[float, Meta(ge=-math.pi - 1e-6, le=math.pi + 1e-6, description='Angle in radians, -pi to pi.')]
Shape = Annotated[float, Meta(gt=0, description='Shape of the kernel; a Gaussian has 1.')]
Cutoff = Annotated[float, Meta(gt=0, le=math.pi + 1e-6, description='Frequency in radians per pixel, up to pi.')]
KernelSize = Annotated[int, Meta(ge=3, le=101, description='Side of the kernel in pixels, odd.')]


@DISTORTION_REGISTRY.register
class GaussianBlur(Distortion, frozen=True):
    """Isotropic Gaussian blur, ``g(x) = k * x`` with ``k(u, v) ~ exp(-(u^2 + v^2) / (2 sigma^2))``, sum 1.

    The kernel reaches ``ceil(3 sigma)`` pixels to each side; borders are reflected (the border pixel itself is not
    repeated), as OpenCV's ``BORDER_REFLECT_101``. On a CPU it is OpenCV that blurs, where it is installed.

    Attributes:
        sigma: Standard deviation in pixels; 0 is the identity.
    """

    sigma: Annotated[float, Meta(ge=0, description='Standard deviation in pixels.')] | Uniform

    @property
    def radius(self) -> int:
        """Pixels that the widest kernel reaches to each side."""
        return math.ceil(3 * highest(self.sigma))

    @property
    def min_size(self) -> int:
        """Reflection needs one pixel more than the kernel's radius."""
        return self.radius + 1

    def apply(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
        """See the class."""
        if self.sigma == 0:
            return clean.clone()
        sigma = draw(self.sigma, clean, generator)
        if can_blur(clean):
            blurred = gaussian_blur(clean, sigma.tolist() if isinstance(sigma, Tensor) else [sigma] * len(clean))
        else:
            each = as_batch(sigma, clean if isinstance(sigma, Tensor) else clean[:1])
            blurred = filter_separable(clean, gaussian_profiles(each, self.radius))
        return blurred.clamp_(0, 1)  # rounding can leave [0, 1] by one unit in the last place


class KernelBlur(Distortion, frozen=True):
    """Blur by kernels of a fixed size, ``g(x) = k * x``; borders are reflected. Subclasses make the kernels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size % 2 == 0:
            field = next(name for name in self.__struct_fields__ if name.endswith('kernel_size'))
            raise ValueError(f'.{field}: expected an odd number, got {self.size}')

    @property
    def size(self) -> int:
        """Side of the kernels in pixels."""
        raise TypeError(f'{type(self).__name__} does not define size')

    def kernels(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """``(B, size, size)``, one kernel per sample, in float64 on the images' device."""
        raise TypeError(f'{type(self).__name__} does not define kernels')

    @property
    def min_size(self) -> int:
        """Reflection needs one pixel more than half the kernel."""
        return self.size // 2 + 1

    def apply(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
        """See the class."""
        return filter2d(clean, self.kernels(clean, generator).to(clean.dtype)).clamp_(0, 1)


@DISTORTION_REGISTRY.register
class AnisotropicGaussianBlur(KernelBlur, frozen=True):
    """Gaussian blur of two widths, ``k ~ exp(-q / 2)`` (``kernels.py``), as BasicSR's ``bivariate_Gaussian``.

    Attributes:
        sigma_x: Standard deviation along ``rotation``, in pixels.
        sigma_y: Standard deviation across it, in pixels.
        rotation: Angle in radians.
        kernel_size: Side of the kernel in pixels, odd.
    """

    sigma_x: Width | Uniform
    sigma_y: Width | Uniform
    rotation: Angle | Uniform = Uniform((-math.pi, math.pi))
    kernel_size: KernelSize = 21

    @property
    def size(self) -> int:
        """See ``kernel_size``."""
        return self.kernel_size

    def kernels(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """See the class."""
        sigma_x, sigma_y = _draw(self.sigma_x, images, generator), _draw(self.sigma_y, images, generator)
        return gaussian_kernels(sigma_x, sigma_y, _draw(self.rotation, images, generator), self.kernel_size)


@DISTORTION_REGISTRY.register
class GeneralizedGaussianBlur(KernelBlur, frozen=True):
    """Blur by ``k ~ exp(-q^beta / 2)`` (``kernels.py``), as BasicSR's ``bivariate_generalized_Gaussian``.

    Attributes:
        sigma_x: Width along ``rotation``, in pixels.
        sigma_y: Width across it, in pixels; equal to ``sigma_x`` where it is not given.
        beta: Shape: 1 is a Gaussian, above it flatter with steeper flanks, below it peaked with heavy tails.
        rotation: Angle in radians.
        kernel_size: Side of the kernel in pixels, odd.
    """

    sigma_x: Width | Uniform
    beta: Shape | Uniform
    sigma_y: Width | Uniform | None = None
    rotation: Angle | Uniform = 0.0
    kernel_size: KernelSize = 21

    @property
    def size(self) -> int:
        """See ``kernel_size``."""
        return self.kernel_size

    def kernels(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """See the class."""
        return generalized_gaussian_kernels(*self._parameters(images, generator), self.kernel_size)

    def _parameters(self, images: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sigma_x = _draw(self.sigma_x, images, generator)
        sigma_y = sigma_x if self.sigma_y is None else _draw(self.sigma_y, images, generator)
        return sigma_x, sigma_y, _draw(self.rotation, images, generator), _draw(self.beta, images, generator)


@DISTORTION_REGISTRY.register
class PlateauBlur(GeneralizedGaussianBlur, frozen=True):
    """Blur by ``k ~ 1 / (1 + q^beta)`` (``kernels.py``), as BasicSR's ``bivariate_plateau``.

    Attributes:
        sigma_x: Width along ``rotation``, in pixels.
        sigma_y: Width across it, in pixels; equal to ``sigma_x`` where it is not given.
        beta: Steepness of the flanks.
        rotation: Angle in radians.
        kernel_size: Side of the kernel in pixels, odd.
    """

    def kernels(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """See the class."""
        return plateau_kernels(*self._parameters(images, generator), self.kernel_size)


@DISTORTION_REGISTRY.register
class SincBlur(KernelBlur, frozen=True):
    """Ideal circular low-pass, which rings, ``k ~ w J_1(w r) / (2 pi r)``, as BasicSR's ``circular_lowpass_kernel``.

    Attributes:
        cutoff: Frequency w in radians per pixel, in (0, pi].
        kernel_size: Side of the kernel in pixels, odd.
    """

    cutoff: Cutoff | Uniform
    kernel_size: KernelSize = 21

    @property
    def size(self) -> int:
        """See ``kernel_size``."""
        return self.kernel_size

    def kernels(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """See the class."""
        return sinc_kernels(_draw(self.cutoff, images, generator), self.kernel_size)


def _draw(degree: float | Uniform, images: Tensor, generator: torch.Generator | None) -> Tensor:
    return as_batch(draw(degree, images, generator), images).double()
