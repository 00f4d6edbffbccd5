"""The degradations of Real-ESRGAN, first and second order."""

import math
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import torch
from msgspec import Meta
from torch import Tensor
from torch.nn import functional

from dil_plugin.distortions.base import DISTORTION_REGISTRY, Distortion
from dil_plugin.distortions.degrees import Uniform, draw, host_generator
from dil_plugin.distortions.filtering import filter2d
from dil_plugin.distortions.jpeg_codec import DIFFJPEG, compress
from dil_plugin.distortions.kernels import pulse, sinc_kernels
from dil_plugin.distortions.mixed_blur import (
    FAMILIES,
    FAMILY_PROBABILITIES,
    SMALLEST,
    Family,
    MixedBlur,
    Range,
    check_range,
    check_weights,
    draw_extents,
)
from dil_plugin.distortions.noise import Probability, draw_flags, gaussian_noise, poisson_noise
from dil_plugin.distortions.resize_matrices import MODES

KernelSize = Annotated[int, Meta(ge=SMALLEST, le=101, description='Largest blur kernel in pixels, odd.')]
UpDownKeep = tuple[float, float, float]


class Process(NamedTuple):
    """What one pass of blur, resize, noise and JPEG draws.

    Attributes:
        kernels: ``(B, k, k)``, or None: no blur.
        resize: Factor of the resolution; in the second pass relative to the output's.
        mode: Interpolation of the resize.
        gaussian: Whether the noise is Gaussian; otherwise it is Poisson.
        level: ``(B,)``, standard deviation on the 0-255 scale, or the factor on the Poisson noise.
        gray: ``(B,)`` of 0 and 1, whose noise is grey; None: nobody's.
        quality: ``(B,)``, JPEG quality.
    """

    kernels: Tensor | None
    resize: float
    mode: str
    gaussian: bool
    level: Tensor
    gray: Tensor | None
    quality: Tensor


class Draws(NamedTuple):
    """What a degradation draws before it is applied; only the noise itself is left to the generator.

    Attributes:
        first: The first pass.
        second: The second pass; None in first order.
        final_mode: Interpolation of the last resize, to the output's size.
        final_kernels: ``(B, k, k)``, the sinc after it; None: none.
        jpeg_last: Whether the second JPEG comes after that resize and sinc, or before.
    """

    first: Process
    second: Process | None
    final_mode: str
    final_kernels: Tensor | None
    jpeg_last: bool


@DISTORTION_REGISTRY.register
class RealESRGAN(Distortion, frozen=True):
    """The degradations that Real-ESRNet is trained on (Wang et al., ICCVW 2021), with its published ranges.

    Second order (``order: 2``), D2, is ``g(x) = round(S J_2(D_2(x)))``, one pass after the other as
    ``RealESRNetModel.feed_data`` of BasicSR does it: blur, random resize, noise, JPEG; again with the second ranges,
    where the last JPEG changes places with [resize to the output's size, sinc] with equal chance; rounded to 8 bits.
    First order (``order: 1``), D1, leaves the second blur, resize, noise and JPEG out: the first pass, then [resize,
    sinc].

    Options have the names of ``RealESRGANDataset`` and ``RealESRNetModel``. As there, kernels, noise levels, grey noise
    and JPEG quality are drawn for each sample; sizes, interpolation and the kind of noise for each call, so
    ``draws: 4`` makes four confounders that differ in all of them.

    Attributes:
        order: 1 or 2.
        scale: The clean image's size divided by the output's.
        blur_kernel_size: Largest blur kernel in pixels; sizes are 7, 9, … up to it.
        kernel_list: Families of blur kernels; see ``MixedBlur``, also for the next five.
        kernel_prob: Their weights.
        sinc_prob: Probability of a sinc as blur kernel.
        blur_sigma: Widths in pixels.
        betag_range: Shapes of generalised Gaussians.
        betap_range: Shapes of plateaus.
        resize_prob: Weights of making the image larger, smaller, or keeping its size.
        resize_range: Factors: smaller ones are uniform in [low, 1], larger ones in [1, high].
        gaussian_noise_prob: Probability of Gaussian noise; otherwise it is Poisson.
        noise_range: Standard deviations of Gaussian noise on the 0-255 scale.
        poisson_scale_range: Factors on Poisson noise.
        gray_noise_prob: Probability that a sample's noise is grey.
        jpeg_range: JPEG qualities; not rounded, as BasicSR's codec takes them.
        second_blur_prob: Probability of a second blur; this and all that follows but the last are of second order.
        blur_kernel_size2: As above, for the second pass; so are all names that end in 2.
        final_sinc_prob: Probability of a sinc after the last resize, for each sample.
    """

    order: Literal[1, 2]
    scale: Annotated[int, Meta(ge=1, description='Clean size divided by distorted size.')] = 4
    blur_kernel_size: KernelSize = 21
    kernel_list: tuple[Family, ...] = FAMILIES
    kernel_prob: tuple[float, ...] = FAMILY_PROBABILITIES
    sinc_prob: Probability = 0.1
    blur_sigma: Range = (0.2, 3)
    betag_range: Range = (0.5, 4)
    betap_range: Range = (1, 2)
    resize_prob: UpDownKeep = (0.2, 0.7, 0.1)
    resize_range: Range = (0.15, 1.5)
    gaussian_noise_prob: Probability = 0.5
    noise_range: Range = (1, 30)
    poisson_scale_range: Range = (0.05, 3)
    gray_noise_prob: Probability = 0.4
    jpeg_range: Range = (30, 95)
    second_blur_prob: Probability = 0.8
    blur_kernel_size2: KernelSize = 21
    kernel_list2: tuple[Family, ...] = FAMILIES
    kernel_prob2: tuple[float, ...] = FAMILY_PROBABILITIES
    sinc_prob2: Probability = 0.1
    blur_sigma2: Range = (0.2, 1.5)
    betag_range2: Range = (0.5, 4)
    betap_range2: Range = (1, 2)
    resize_prob2: UpDownKeep = (0.3, 0.4, 0.3)
    resize_range2: Range = (0.3, 1.2)
    gaussian_noise_prob2: Probability = 0.5
    noise_range2: Range = (1, 25)
    poisson_scale_range2: Range = (0.05, 2.5)
    gray_noise_prob2: Probability = 0.4
    jpeg_range2: Range = (30, 95)
    final_sinc_prob: Probability = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        for suffix in ('', '2'):
            self._blur(suffix)
            check_weights(f'resize_prob{suffix}', self._get('resize_prob', suffix), 3, 'of up, down, keep')
            low, high = self._get('resize_range', suffix)
            if not 0 < low <= 1 <= high:
                raise ValueError(f'.resize_range{suffix}: expected [low, high] with 0 < low <= 1 <= high, got '
                                 f'{[low, high]}')
            check_range(f'noise_range{suffix}', self._get('noise_range', suffix), low=0)
            check_range(f'poisson_scale_range{suffix}', self._get('poisson_scale_range', suffix), low=0)
            check_range(f'jpeg_range{suffix}', self._get('jpeg_range', suffix), low=1, high=100)
        for field in msgspec.structs.fields(self) if self.order == 1 else ():
            if (field.name.endswith('2') or field.name == 'second_blur_prob') and getattr(
                    self, field.name) != field.default:
                raise ValueError(f'.{field.name}: is of the second pass and has no effect with order 1')

    @property
    def min_size(self) -> int:
        """What the blurs' reflected borders need, also after the first resize at its smallest, and the final sinc."""
        least = self.blur_kernel_size // 2 + 1
        sizes = [least, math.ceil(1 / self.resize_range[0])]
        if self.order == 2:
            if self.second_blur_prob > 0:
                smallest = self.resize_range[0] if self.resize_prob[1] > 0 else 1
                sizes.append(math.ceil((self.blur_kernel_size2 // 2 + 1) / smallest))
            sizes.append(math.ceil(self.scale / self.resize_range2[0]))
        if self.final_sinc_prob > 0:
            sizes.append(least * self.scale)
        return max(sizes)

    def apply(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
        """See the class."""
        return degrade(clean, self.scale, self.draw(clean, generator), generator)

    def draw(self, images: Tensor, generator: torch.Generator | None) -> Draws:
        """All that one application draws, save the noise.

        Args:
            images: ``(B, C, H, W)``, of which only shape, dtype and device matter.
            generator: Source of randomness on their device.
        """
        host = host_generator(generator)
        first = self._draw_process('', True, images, host, generator)
        second = None
        if self.order == 2:
            second = self._draw_process('2', _chance(self.second_blur_prob, host), images, host, generator)
        final_kernels = self._draw_final_sinc(images, generator) if self.final_sinc_prob > 0 else None
        return Draws(first, second, _mode(host), final_kernels, _chance(0.5, host))

    def _draw_process(self, suffix: str, blurred: bool, images: Tensor, host: torch.Generator | None,
                      generator: torch.Generator | None) -> Process:
        kernels = self._blur(suffix).kernels(images, generator).to(images.dtype) if blurred else None
        resize = _resize(self._get('resize_prob', suffix), self._get('resize_range', suffix), host)
        mode, gaussian = _mode(host), _chance(self._get('gaussian_noise_prob', suffix), host)
        levels = self._get('noise_range' if gaussian else 'poisson_scale_range', suffix)
        return Process(kernels, resize, mode, gaussian, self._between(levels, images, generator),
                       draw_flags(self._get('gray_noise_prob', suffix), images, generator),
                       self._between(self._get('jpeg_range', suffix), images, generator))

    def _draw_final_sinc(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        size = self.blur_kernel_size
        like = images[:, 0, 0, 0].double()
        cutoff = self._between((math.pi / 3, math.pi), like, generator)
        kernels = sinc_kernels(cutoff, size, draw_extents(size, images, generator))
        chosen = self._between((0, 1), like, generator) < self.final_sinc_prob
        return torch.where(chosen.view(-1, 1, 1), kernels, pulse(size, kernels)).to(images.dtype)

    def _blur(self, suffix: str) -> MixedBlur:
        names = ('kernel_list', 'kernel_prob', 'blur_kernel_size', 'blur_sigma', 'betag_range', 'betap_range',
                 'sinc_prob')
        try:
            return MixedBlur(*(self._get(name, suffix) for name in names))
        except ValueError as error:
            raise ValueError(str(error).replace(':', f'{suffix}:', 1)) from None

    def _get(self, name: str, suffix: str) -> Any:
        return getattr(self, name + suffix)

    @staticmethod
    def _between(limits: Range, images: Tensor, generator: torch.Generator | None) -> Tensor:
        drawn = draw(Uniform(limits), images, generator)
        assert isinstance(drawn, Tensor)
        return drawn


def degrade(clean: Tensor, scale: int, draws: Draws, generator: torch.Generator | None = None) -> Tensor:
    """Applies what was drawn.

    Args:
        clean: ``(B, C, H, W)`` in [0, 1]; H and W multiples of ``scale``.
        scale: The clean image's size divided by the output's.
        draws: From ``RealESRGAN.draw``.
        generator: Source of the noise, on the device of ``clean``.

    Returns:
        ``(B, C, H / scale, W / scale)``, multiples of 1/255 in [0, 1].
    """
    height, width = clean.shape[-2] // scale, clean.shape[-1] // scale
    first, second = draws.first, draws.second
    images = clean if first.kernels is None else filter2d(clean, first.kernels)
    images = functional.interpolate(images, scale_factor=first.resize, mode=first.mode)
    images = _jpeg(_noise(images, first, generator), first)
    if second is None:
        images = _finish(images, (height, width), draws)
    else:
        if second.kernels is not None:
            images = filter2d(images, second.kernels)
        size = (int(clean.shape[-2] / scale * second.resize), int(clean.shape[-1] / scale * second.resize))
        images = _noise(functional.interpolate(images, size=size, mode=second.mode), second, generator)
        if draws.jpeg_last:
            images = _jpeg(_finish(images, (height, width), draws), second)
        else:
            images = _finish(_jpeg(images, second), (height, width), draws)
    return (images * 255).round_().clamp_(0, 255).div_(255)


def _noise(images: Tensor, process: Process, generator: torch.Generator | None) -> Tensor:
    noise = gaussian_noise if process.gaussian else poisson_noise
    return noise(images, process.level, process.gray, generator).add_(images).clamp_(0, 1)


def _jpeg(images: Tensor, process: Process) -> Tensor:
    return compress(images.clamp(0, 1), process.quality, DIFFJPEG)


def _finish(images: Tensor, size: tuple[int, int], draws: Draws) -> Tensor:
    images = functional.interpolate(images, size=size, mode=draws.final_mode)
    return images if draws.final_kernels is None else filter2d(images, draws.final_kernels)


def _unit(host: torch.Generator | None) -> float:
    return float(torch.rand((), dtype=torch.float64, generator=host))


def _chance(probability: float, host: torch.Generator | None) -> bool:
    return _unit(host) < probability


def _mode(host: torch.Generator | None) -> str:
    return MODES[int(_unit(host) * len(MODES))]


def _resize(weights: UpDownKeep, limits: Range, host: torch.Generator | None) -> float:
    kind, position = _unit(host) * sum(weights), _unit(host)
    if kind < weights[0]:
        return 1 + (limits[1] - 1) * position
    if kind < weights[0] + weights[1]:
        return limits[0] + (1 - limits[0]) * position
    return 1.0
