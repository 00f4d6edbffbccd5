"""What is compared: every distortion, and beside it the code that does the same in BasicSR, OpenCV and kornia.

Each contender starts from the images in its own layout and ends with distorted images in that layout: arrays
``(H, W, 3)`` one after the other as in a data worker, or a batch ``(B, 3, H, W)`` on the device.
"""

import math
import random
from collections.abc import Callable
from typing import Any

import dil_plugin.basicsr  # noqa: F401  BasicSR needs its shims

# isort: split
import cv2
import kornia
import torch
from basicsr.data import degradations
from basicsr.utils.img_process_util import filter2D
from basicsr.utils.matlab_functions import imresize
from case import KORNIA, NUMPY, TORCH, Array, Batch, Case, each, rand, uniform, whole
from realesrgan_baseline import (
    INTERPOLATIONS,
    branches,
    compress,
    compress_array,
    degrade_array,
    filter_array,
    first_order,
    mixed_kernel,
    resize_array,
    second_order,
    stack,
)
from torch import Tensor
from torch.nn.functional import interpolate

from dil_plugin.distortions import (
    JPEG,
    AnisotropicGaussianBlur,
    CameraNoise,
    Compose,
    Distortion,
    Downsample,
    GaussianBlur,
    GaussianNoise,
    GeneralizedGaussianBlur,
    HeavyRain,
    MixedBlur,
    OneOf,
    PlateauBlur,
    PoissonNoise,
    RainStreaks,
    RealESRGAN,
    Resize,
    SincBlur,
    Uniform,
    parse_distortions,
)

ROTATIONS, WIDTHS, ARRAY_SIZE = (-math.pi, math.pi), (0.5, 3.0), 21


# ---- Noise ----------------------------------------------------------------------------------------------------------


def noise_cases() -> list[Case]:
    """Gaussian and Poisson noise."""
    kornia_noise = kornia.augmentation.RandomGaussianNoise(std=20 / 255, p=1.0)

    def gaussian(**options: Any) -> dict[str, Any]:
        return {NUMPY: each(lambda x: degradations.random_add_gaussian_noise(x, **options)),
                TORCH: whole(lambda x: degradations.random_add_gaussian_noise_pt(x, **options))}

    def poisson(**options: Any) -> dict[str, Any]:
        return {NUMPY: each(lambda x: degradations.random_add_poisson_noise(x, **options)),
                TORCH: whole(lambda x: degradations.random_add_poisson_noise_pt(x, **options))}

    return [
        Case('GaussianNoise', GaussianNoise(20), {
            NUMPY: each(lambda x: degradations.add_gaussian_noise(x, 20)),
            TORCH: whole(lambda x: degradations.add_gaussian_noise_pt(x, 20)),
            KORNIA: whole(lambda x: kornia_noise(x).clamp_(0, 1))}),
        Case('GaussianNoise, range', GaussianNoise(Uniform((5, 50))), gaussian(sigma_range=(5, 50))),
        Case('GaussianNoise, grey', GaussianNoise(Uniform((5, 50)), gray_prob=0.4),
             gaussian(sigma_range=(5, 50), gray_prob=0.4), seeds=4),
        Case('PoissonNoise', PoissonNoise(1), {
            NUMPY: each(lambda x: degradations.add_poisson_noise(x, 1.0)),
            TORCH: whole(lambda x: degradations.add_poisson_noise_pt(x, 1.0))}),
        Case('PoissonNoise, grey', PoissonNoise(Uniform((0.05, 3)), gray_prob=0.4),
             poisson(scale_range=(0.05, 3), gray_prob=0.4), seeds=4),
    ]


# ---- Blur -----------------------------------------------------------------------------------------------------------


def blur_array(image: Array, sigma: float) -> Array:
    """Gaussian blur by OpenCV, with our radius."""
    size = 2 * math.ceil(3 * sigma) + 1
    return cv2.GaussianBlur(image, (size, size), sigma, borderType=cv2.BORDER_REFLECT_101)


def blur_basicsr(images: Tensor, low: float, high: float) -> Tensor:
    """Gaussian blur by BasicSR's functions, each sample with its own width."""
    size = 2 * math.ceil(3 * high) + 1
    kernels = [degradations.bivariate_Gaussian(size, uniform(low, high), 0, 0) for _ in range(len(images))]
    return filter2D(images, stack(kernels, images, size))


def blur_kornia(images: Tensor, low: float, high: float) -> Tensor:
    """Gaussian blur by kornia, each sample with its own width."""
    sigma = rand(images, low, high)[:, None].expand(-1, 2)
    return kornia.filters.gaussian_blur2d(images, 2 * math.ceil(3 * high) + 1, sigma)


def blur_cases() -> list[Case]:
    """Gaussian blur, and blur by kernels; kornia can only apply those, so BasicSR's functions make them for it too."""
    widths, turned = Uniform(WIDTHS), Uniform(ROTATIONS)

    def by_kernel(name: str, distortion: Distortion, kernel: Callable[[], Array]) -> Case:
        def draw(images: Tensor) -> Tensor:
            return stack([kernel() for _ in range(len(images))], images)
        return Case(name, distortion, {
            NUMPY: each(lambda x: filter_array(x, kernel())),
            TORCH: whole(lambda x: filter2D(x, draw(x))),
            KORNIA: whole(lambda x: kornia.filters.filter2d(x, draw(x)))}, seeds=4)

    def generalized(function: Callable[..., Array]) -> Array:
        return function(ARRAY_SIZE, uniform(*WIDTHS), uniform(*WIDTHS), uniform(*ROTATIONS), uniform(0.5, 4),
                        isotropic=False)

    one_kernel = degradations.bivariate_Gaussian(13, 2, 2, 0)
    return [
        Case('GaussianBlur', GaussianBlur(2), {
            NUMPY: each(lambda x: blur_array(x, 2)),
            TORCH: whole(lambda x: filter2D(x, stack([one_kernel], x, 13))),
            KORNIA: whole(lambda x: kornia.filters.gaussian_blur2d(x, 13, (2.0, 2.0)))}),
        Case('GaussianBlur, range', GaussianBlur(Uniform((0.2, 3))), {
            NUMPY: each(lambda x: blur_array(x, uniform(0.2, 3))),
            TORCH: whole(lambda x: blur_basicsr(x, 0.2, 3)),
            KORNIA: whole(lambda x: blur_kornia(x, 0.2, 3))}, seeds=4),
        by_kernel('AnisotropicGaussianBlur', AnisotropicGaussianBlur(widths, widths),
                  lambda: degradations.random_bivariate_Gaussian(ARRAY_SIZE, WIDTHS, WIDTHS, ROTATIONS,
                                                                 isotropic=False)),
        by_kernel('GeneralizedGaussianBlur', GeneralizedGaussianBlur(widths, Uniform((0.5, 4)), widths, turned),
                  lambda: generalized(degradations.bivariate_generalized_Gaussian)),
        by_kernel('PlateauBlur', PlateauBlur(widths, Uniform((0.5, 4)), widths, turned),
                  lambda: generalized(degradations.bivariate_plateau)),
        by_kernel('SincBlur', SincBlur(Uniform((math.pi / 3, math.pi))),
                  lambda: degradations.circular_lowpass_kernel(uniform(math.pi / 3, math.pi), ARRAY_SIZE)),
        by_kernel('MixedBlur', MixedBlur(), lambda: mixed_kernel(MixedBlur())),
    ]


# ---- JPEG and resolution --------------------------------------------------------------------------------------------


def jpeg_cases() -> list[Case]:
    """JPEG at one quality and at a range; the codecs of tensors leave libjpeg's roundings out."""
    codec = kornia.enhance.jpeg_codec_differentiable
    return [
        Case('JPEG', JPEG(30), {
            NUMPY: each(lambda x: degradations.add_jpg_compression(x, 30)),
            TORCH: whole(lambda x: compress(x, 30)),
            KORNIA: whole(lambda x: codec(x, torch.full((1, ), 30.0, device=x.device)))}),
        Case('JPEG, range', JPEG(Uniform((30, 95))), {
            NUMPY: each(lambda x: compress_array(x, (30, 95))),
            TORCH: whole(lambda x: compress(x, rand(x, 30, 95))),
            KORNIA: whole(lambda x: codec(x, rand(x, 30, 95)))}, seeds=4),
    ]


def there_and_back(image: Any, resize: Callable[..., Any], factor: float, modes: list[str]) -> Any:
    """Resizes by the factor and to the old size again; channels come last in arrays and first in tensors."""
    size = image.shape[-2:] if isinstance(image, Tensor) else image.shape[:2]
    middle = (int(size[0] * factor), int(size[1] * factor))
    return resize(resize(image, middle, mode=modes[0]), tuple(size), mode=modes[1])


def random_factor(image: Any, resize: Callable[..., Any]) -> Any:
    """The same with random factor and modes: one each for what is given, an array or a whole batch, as in BasicSR."""
    return there_and_back(image, resize, uniform(0.25, 1.5), random.choices(list(INTERPOLATIONS), k=2))


def resize_kornia(images: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """``kornia.geometry.resize``."""
    return kornia.geometry.resize(images, size, interpolation=mode)


def resize_cases() -> list[Case]:
    """Resolution down, and there and back."""
    def quarter(image: Any) -> tuple[int, int]:
        height, width = image.shape[-2:] if isinstance(image, Tensor) else image.shape[:2]
        return height // 4, width // 4

    half = {'factor': 0.5, 'modes': ['bicubic', 'bicubic']}
    return [
        Case('Resize', Resize(0.5, 'bicubic'), {
            NUMPY: each(lambda x: there_and_back(x, resize_array, **half)),
            TORCH: whole(lambda x: there_and_back(x, interpolate, **half)),
            KORNIA: whole(lambda x: there_and_back(x, resize_kornia, **half))}),
        Case('Resize, range', Resize(Uniform((0.25, 1.5))), {
            NUMPY: each(lambda x: random_factor(x, resize_array)),
            TORCH: whole(lambda x: random_factor(x, interpolate))}, seeds=12),
        Case('Downsample', Downsample(4), {
            NUMPY: each(lambda x: resize_array(x, quarter(x), 'bicubic')),
            TORCH: whole(lambda x: interpolate(x, quarter(x), mode='bicubic')),
            KORNIA: whole(lambda x: resize_kornia(x, quarter(x), 'bicubic'))}),
        Case('Downsample, antialias', Downsample(4, antialias=True), {
            NUMPY: each(lambda x: imresize(x, 0.25)),
            TORCH: whole(lambda x: interpolate(x, quarter(x), mode='bicubic', antialias=True))}),
    ]


# ---- Several at once ------------------------------------------------------------------------------------------------


def composed_cases() -> list[Case]:
    """Chains and choices; kornia's noise has no range, so there it has the middle of ours."""
    blur, noise, quality = (2.5, 5), (25, 50), (10, 50)  # of Hybrid's level severe
    middle = kornia.augmentation.RandomGaussianNoise(std=37.5 / 255, p=1.0)
    weak = kornia.augmentation.RandomGaussianNoise(std=10 / 255, p=1.0)

    def hybrid_array(x: Array) -> Array:
        noisy = degradations.random_add_gaussian_noise(blur_array(x, uniform(*blur)), noise)
        return compress_array(noisy, quality)

    def hybrid_torch(x: Tensor) -> Tensor:
        return compress(degradations.random_add_gaussian_noise_pt(blur_basicsr(x, *blur), noise), rand(x, *quality))

    def hybrid_kornia(x: Tensor) -> Tensor:
        noisy = middle(blur_kornia(x, *blur)).clamp_(0, 1)
        return kornia.enhance.jpeg_codec_differentiable(noisy, rand(x, *quality))

    def chain_array(x: Array) -> Array:
        small = resize_array(blur_array(x, 2), (x.shape[0] // 4, x.shape[1] // 4), 'bicubic')
        return degradations.add_gaussian_noise(small, 10)

    def chain_torch(x: Tensor) -> Tensor:
        small = interpolate(blur_basicsr(x, 2, 2), scale_factor=0.25, mode='bicubic')
        return degradations.add_gaussian_noise_pt(small, 10)

    def chain_kornia(x: Tensor) -> Tensor:
        blurred = kornia.filters.gaussian_blur2d(x, 13, (2.0, 2.0))
        return weak(resize_kornia(blurred, (x.shape[-2] // 4, x.shape[-1] // 4), 'bicubic')).clamp_(0, 1)

    members = [lambda x: degradations.add_gaussian_noise(x, 20), lambda x: blur_array(x, 2),
               lambda x: degradations.add_jpg_compression(x, 30)]
    return [
        Case('Hybrid, severe', parse_distortions([{'type': 'Hybrid', 'level': 'severe'}])[0],
             {NUMPY: each(hybrid_array), TORCH: whole(hybrid_torch), KORNIA: whole(hybrid_kornia)}, seeds=4),
        Case('Compose: blur, Downsample, noise', Compose((GaussianBlur(2), Downsample(4), GaussianNoise(10))),
             {NUMPY: each(chain_array), TORCH: whole(chain_torch), KORNIA: whole(chain_kornia)}),
        Case('OneOf: noise, blur, JPEG', OneOf((GaussianNoise(20), GaussianBlur(2), JPEG(30))),
             {NUMPY: each(lambda x: random.choice(members)(x))}, seeds=8),
    ]


def real_esrgan_cases() -> list[Case]:
    """First and second order; arrays and first order by BasicSR's functions, as it has neither itself."""
    def case(order: Any, torch_path: Callable[[Tensor, RealESRGAN, int], Tensor]) -> Case:
        distortion = RealESRGAN(order)

        def arrays(batch: Batch, seed: int) -> list[Array]:
            draws = branches(distortion, batch.images.shape, batch.images.device, seed)
            return [degrade_array(array, distortion, draws) for array in batch.arrays]

        return Case(f'RealESRGAN, order {order}', distortion, {
            NUMPY: arrays, TORCH: lambda batch, seed: torch_path(batch.images, distortion, seed)}, seeds=12, large=True)

    return [case(1, first_order), case(2, second_order)]


def neighbourless_cases(size: int) -> list[Case]:
    """Camera noise and rain. kornia's rain has lines of one grey, without thickness and blending."""
    def drops(low: float, high: float) -> Callable[[Batch, int], Tensor]:
        number = (int(low * size**2 / 1000), int(high * size**2 / 1000))
        return whole(kornia.augmentation.RandomRain(number, (12, 32), (-8, 8), p=1.0))

    return [
        *(Case(f'CameraNoise, {space}', CameraNoise(space), {})
          for space in ('raw', 'linear', 'srgb', 'srgb_jpeg')),
        Case('RainStreaks', RainStreaks(), {KORNIA: drops(2, 8)}, alike=False),
        Case('HeavyRain', HeavyRain(), {KORNIA: drops(10, 25)}, alike=False),
    ]


def all_cases(size: int) -> list[Case]:
    """All cases for images of that height and width."""
    return [*noise_cases(), *blur_cases(), *jpeg_cases(), *resize_cases(), *composed_cases(), *real_esrgan_cases(),
            *neighbourless_cases(size)]
