"""The degradations of Real-ESRGAN, first and second order."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import msgspec
import torch
from msgspec import Meta
from torch import Tensor

from dil_plugin.distortions.base import DISTORTION_REGISTRY, Distortion
from dil_plugin.distortions.degradation import Draws, Parts, Process, degrade, given
from dil_plugin.distortions.degrees import Uniform, draw, host_generator
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
from dil_plugin.distortions.noise import Probability, draw_flags
from dil_plugin.distortions.resize_matrices import MODES

KernelSize = Annotated[int, Meta(ge=SMALLEST, le=101, description='Largest blur kernel in pixels, odd.')]
UpDownKeep = tuple[float, float, float]


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
        return self.apply_together([clean], generator)[0]

    def apply_together(self, cleans: Sequence[Tensor], generator: torch.Generator | None) -> list[Tensor]:
        """See ``Distortion``: one draw of sizes, interpolations and kinds of noise for each batch."""
        return degrade(cleans, self.scale, self.draw(cleans, generator), generator)

    def draw(self, batches: Sequence[Tensor], generator: torch.Generator | None) -> list[Draws]:
        """All that one application to each batch draws, save the noise.

        Args:
            batches: ``(B, C, H, W)`` each, of which only shape, dtype and device matter.
            generator: Source of randomness on their device.
        """
        host = host_generator(generator)
        everyone = [True] * len(batches)
        first = self._draw_processes('', everyone, batches, host, generator)
        second: list[Process] | list[None] = [None] * len(batches)
        if self.order == 2:
            blurred = [_chance(self.second_blur_prob, host) for _ in batches]
            second = self._draw_processes('2', blurred, batches, host, generator)
        sincs: Parts = [None] * len(batches)
        if self.final_sinc_prob > 0:
            sincs = _shared(lambda like: self._draw_final_sinc(like, generator), batches, everyone)
        return [Draws(one, two, _mode(host), sinc, _chance(0.5, host))
                for one, two, sinc in zip(first, second, sincs, strict=True)]

    def _draw_processes(self, suffix: str, blurred: Sequence[bool], batches: Sequence[Tensor],
                        host: torch.Generator | None, generator: torch.Generator | None) -> list[Process]:
        blur, everyone = self._blur(suffix), [True] * len(batches)
        kernels = _shared(lambda like: blur.kernels(like, generator).to(like.dtype), batches, blurred)
        chosen = []
        for images in batches:
            resize = _resize(self._get('resize_prob', suffix), self._get('resize_range', suffix), host)
            mode, gaussian = _mode(host), _chance(self._get('gaussian_noise_prob', suffix), host)
            levels = self._get('noise_range' if gaussian else 'poisson_scale_range', suffix)
            chosen.append((resize, mode, gaussian, self._between(levels, images, generator)))
        gray_prob, jpeg_range = self._get('gray_noise_prob', suffix), self._get('jpeg_range', suffix)
        gray = _shared(lambda like: draw_flags(gray_prob, like, generator), batches, everyone)
        quality = _shared(lambda like: self._between(jpeg_range, like, generator), batches, everyone)
        return [Process(kernel, *one, flags, given(values))
                for kernel, one, flags, values in zip(kernels, chosen, gray, quality, strict=True)]

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


def _shared(function: Callable[[Tensor], Tensor | None], batches: Sequence[Tensor], wanted: Sequence[bool]) -> Parts:
    """What ``function`` draws for the samples of the wanted batches in one call, by batch; None for the others."""
    sizes = [len(images) for images, want in zip(batches, wanted, strict=True) if want]
    if not sizes:
        return [None] * len(batches)
    like = batches[0][:1].expand(sum(sizes), *batches[0].shape[1:])  # a view: only its shape, dtype and device count
    drawn = function(like)
    parts = iter(drawn.split(sizes) if drawn is not None else [None] * len(sizes))
    return [next(parts) if want else None for want in wanted]


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
