"""Blur by kernels of random family, size and shape: the first and second blur of Real-ESRGAN."""

import math
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor

from dil_plugin.distortions.base import DISTORTION_REGISTRY
from dil_plugin.distortions.blur import KernelBlur
from dil_plugin.distortions.degrees import constant, draw_indices
from dil_plugin.distortions.kernels import gaussian_kernels, generalized_gaussian_kernels, plateau_kernels, sinc_kernels
from dil_plugin.distortions.noise import Probability

Family = Literal['iso', 'aniso', 'generalized_iso', 'generalized_aniso', 'plateau_iso', 'plateau_aniso']
Range = tuple[float, float]

FAMILIES: tuple[Family, ...] = ('iso', 'aniso', 'generalized_iso', 'generalized_aniso', 'plateau_iso', 'plateau_aniso')
FAMILY_PROBABILITIES = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
SMALLEST = 7  # pixels; Real-ESRGAN draws kernel sizes 7, 9, …, 21


@DISTORTION_REGISTRY.register
class MixedBlur(KernelBlur, frozen=True):
    """Blur whose kernel is drawn anew for every sample, as ``RealESRGANDataset`` and ``random_mixed_kernels`` do.

    A sample's kernel has an odd size, uniform in {7, 9, …, blur_kernel_size}. With probability ``sinc_prob`` it is a
    sinc with a cut-off uniform in [pi / 3, pi] (sizes below 13) or [pi / 5, pi]; otherwise its family is drawn by
    ``kernel_prob``, its widths uniform in ``blur_sigma``, its angle in [-pi, pi], its shape beta with equal chance in
    [low, 1] or [1, high]. The defaults are those of Real-ESRNet's first blur (Wang et al., 2021).

    Attributes:
        kernel_list: The families (``kernels.py``), isotropic or not.
        kernel_prob: Their weights, one per family.
        blur_kernel_size: Largest size in pixels, odd.
        blur_sigma: Range of the widths in pixels.
        betag_range: Range of the generalised Gaussians' shape, around 1.
        betap_range: Range of the plateaus' shape, around 1.
        sinc_prob: Probability of a sinc.
        noise_range: Range of a factor on every value of the Gaussians' kernels (BasicSR's kernel noise), or none.
    """

    kernel_list: tuple[Family, ...] = FAMILIES
    kernel_prob: tuple[float, ...] = FAMILY_PROBABILITIES
    blur_kernel_size: Annotated[int, Meta(ge=SMALLEST, le=101, description='Largest kernel in pixels, odd.')] = 21
    blur_sigma: Range = (0.2, 3)
    betag_range: Range = (0.5, 4)
    betap_range: Range = (1, 2)
    sinc_prob: Annotated[Probability, Meta(description='Probability of a sinc kernel.')] = 0.1
    noise_range: Range | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weights('kernel_prob', self.kernel_prob, len(self.kernel_list), 'kernel of kernel_list')
        check_range('blur_sigma', self.blur_sigma, above=0)
        for name, limits in (('betag_range', self.betag_range), ('betap_range', self.betap_range)):
            check_range(name, limits, above=0)
            if not limits[0] <= 1 <= limits[1]:
                raise ValueError(f'.{name}: expected [low, high] with low <= 1 <= high, got {list(limits)}')
        if self.noise_range is not None:
            check_range('noise_range', self.noise_range, above=0)

    @property
    def size(self) -> int:
        """See ``blur_kernel_size``."""
        return self.blur_kernel_size

    def kernels(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """``(B, size, size)``, one kernel per sample, padded with 0, in float64 on the images' device."""
        size, like = self.blur_kernel_size, images[:, 0, 0, 0].double()
        extents = draw_extents(size, images, generator)
        family = draw_indices(self.kernel_prob, images, generator)
        theta = _between((-math.pi, math.pi), like, generator)
        sigma_x = _between(self.blur_sigma, like, generator)
        sigma_y = _between(self.blur_sigma, like, generator)
        sigma_y = torch.where(self._flags('iso', images)[family], sigma_x, sigma_y)
        smooth = gaussian_kernels(sigma_x, sigma_y, theta, size, extents)
        if any(name.startswith('generalized') for name in self.kernel_list):
            made = generalized_gaussian_kernels(sigma_x, sigma_y, theta, _beta(self.betag_range, like, generator), size,
                                                extents)
            smooth = torch.where(self._flags('generalized', images)[family].view(-1, 1, 1), made, smooth)
        if self.noise_range is not None:
            noisy = smooth * _between(self.noise_range, smooth, generator)
            smooth = noisy / noisy.sum((1, 2), keepdim=True)
        if any(name.startswith('plateau') for name in self.kernel_list):
            made = plateau_kernels(sigma_x, sigma_y, theta, _beta(self.betap_range, like, generator), size, extents)
            smooth = torch.where(self._flags('plateau', images)[family].view(-1, 1, 1), made, smooth)
        if self.sinc_prob == 0:
            return smooth
        low = torch.where(extents < 13, math.pi / 3, math.pi / 5).double()
        cutoff = torch.lerp(low, torch.full_like(low, math.pi), _between((0, 1), like, generator))
        chosen = _between((0, 1), like, generator) < self.sinc_prob
        return torch.where(chosen.view(-1, 1, 1), sinc_kernels(cutoff, size, extents), smooth)

    def _flags(self, word: str, images: Tensor) -> Tensor:
        """For each family of ``kernel_list`` whether its name has the word in it."""
        return constant([word in name.split('_') for name in self.kernel_list], images, torch.bool)


def draw_extents(largest: int, images: Tensor, generator: torch.Generator | None) -> Tensor:
    """``(B,)`` odd kernel sizes, uniform in {7, 9, …, largest}."""
    count = (largest - SMALLEST) // 2 + 1
    return torch.randint(count, (images.shape[0], ), device=images.device, generator=generator) * 2 + SMALLEST


def check_range(name: str, limits: Range, above: float = -math.inf, low: float = -math.inf,
                high: float = math.inf) -> None:
    """Raises ValueError, naming the field, unless ``above < limits[0] <= limits[1]`` and both are in [low, high]."""
    if not (above < limits[0] and low <= limits[0] <= limits[1] <= high):
        least = f'> {above:g}' if math.isfinite(above) else f'>= {low:g}'
        most = f', <= {high:g}' if math.isfinite(high) else ''
        raise ValueError(f'.{name}: expected [low, high] with low <= high, numbers {least}{most}; got {list(limits)}')


def check_weights(name: str, weights: tuple[float, ...], count: int, of: str) -> None:
    """Raises ValueError, naming the field, unless there is one weight >= 0 for each, and not all are 0."""
    if len(weights) != count or min(weights, default=-1) < 0 or not sum(weights) > 0:
        raise ValueError(f'.{name}: expected one number >= 0 for each {of} ({count}), not all 0; got {list(weights)}')


def _between(limits: Range, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform draws in the shape of ``like``."""
    unit = torch.rand(like.shape, dtype=like.dtype, device=like.device, generator=generator)
    return unit.mul_(limits[1] - limits[0]).add_(limits[0])


def _beta(limits: Range, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Half of the draws uniform in [low, 1], half in [1, high]."""
    below, above = _between((limits[0], 1), like, generator), _between((1, limits[1]), like, generator)
    return torch.where(_between((0, 1), like, generator) < 0.5, below, above)
