"""Real-ESRGAN's degradations by BasicSR: ``RealESRNetModel.feed_data``, and its functions in the same order.

Sizes, interpolation and kind of noise, on which the time depends, are those that our distortion draws with the same
seed; the rest BasicSR draws itself.
"""

import functools
import random
from types import SimpleNamespace
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch
from basicsr.data import degradations
from basicsr.models import realesrnet_model
from basicsr.utils import DiffJPEG
from basicsr.utils.img_process_util import filter2D
from torch import Tensor
from torch.nn import functional

from dil_plugin.distortions import RealESRGAN
from dil_plugin.distortions.degradation import Draws, Process

INTERPOLATIONS = {'area': cv2.INTER_AREA, 'bilinear': cv2.INTER_LINEAR, 'bicubic': cv2.INTER_CUBIC}
LARGEST_KERNEL = 21


@functools.cache
def branches(distortion: RealESRGAN, shape: torch.Size, device: torch.device, seed: int) -> Draws:
    """What our distortion draws with a seed."""
    return distortion.draw([torch.empty(shape, device=device)], torch.Generator(device).manual_seed(seed))[0]


# ---- What the data workers draw -------------------------------------------------------------------------------------


def mixed_kernel(options: Any, suffix: str = '') -> np.ndarray:
    """A blur kernel as ``RealESRGANDataset`` draws it, 7x7 to 21x21; options are attributes of MixedBlur's names."""
    size = random.choice(range(7, LARGEST_KERNEL + 1, 2))
    get = functools.partial(_option, options, suffix)
    if np.random.uniform() < get('sinc_prob'):  # noqa: NPY002
        return sinc_kernel(np.pi / 3 if size < 13 else np.pi / 5, size)
    return degradations.random_mixed_kernels(
        get('kernel_list'), get('kernel_prob'), size, get('blur_sigma'), get('blur_sigma'), [-np.pi, np.pi],
        get('betag_range'), get('betap_range'))


def sinc_kernel(lowest: float, size: int) -> np.ndarray:
    """A sinc whose cut-off is uniform in [lowest, pi]."""
    return degradations.circular_lowpass_kernel(np.random.uniform(lowest, np.pi), size)  # noqa: NPY002


def final_kernel(probability: float) -> np.ndarray:
    """The last sinc, or with the rest of the probability the pulse."""
    if np.random.uniform() < probability:  # noqa: NPY002
        return sinc_kernel(np.pi / 3, random.choice(range(7, LARGEST_KERNEL + 1, 2)))
    return np.ones((1, 1))


def stack(kernels: list[np.ndarray], images: Tensor, size: int = LARGEST_KERNEL) -> Tensor:
    """Kernels, padded with 0 to ``(B, size, size)``, beside the images."""
    return torch.stack([torch.FloatTensor(np.pad(kernel, (size - len(kernel)) // 2)) for kernel in kernels]).to(
        images.device)


def _option(options: Any, suffix: str, name: str) -> Any:
    return getattr(options, name + suffix)


# ---- Batches of tensors ---------------------------------------------------------------------------------------------


@functools.cache
def diffjpeg(device: torch.device) -> DiffJPEG:
    """BasicSR's codec."""
    return DiffJPEG(differentiable=False).to(device)


def compress(images: Tensor, quality: float | Tensor) -> Tensor:
    """Compresses by it; contiguous, since ``filter2D`` cannot view what the codec returns. Overwrites the quality."""
    return diffjpeg(images.device)(images, quality=quality).contiguous()


class FeedData(realesrnet_model.RealESRNetModel):
    """BasicSR's model without a network, a GPU and its pool of training pairs: its second-order degradation alone."""

    def __init__(self, distortion: RealESRGAN, device: torch.device) -> None:
        self.is_train, self.device, self.jpeger = True, device, compress
        self.opt = {name: getattr(distortion, name) for name in distortion.__struct_fields__}
        self.opt.update(gt_usm=False, gt_size=0)

    def _dequeue_and_enqueue(self) -> None:
        """Leaves the pairs as they are."""


def second_order(images: Tensor, distortion: RealESRGAN, seed: int) -> Tensor:
    """``lq`` of ``feed_data``, and before it the kernels that ``RealESRGANDataset`` makes."""
    draws = branches(distortion, images.shape, images.device, seed)
    count = range(len(images))
    data = {
        'gt': images,
        'kernel1': stack([mixed_kernel(distortion) for _ in count], images),
        'kernel2': stack([mixed_kernel(distortion, '2') for _ in count], images),
        'sinc_kernel': stack([final_kernel(distortion.final_sinc_prob) for _ in count], images),
    }
    model = FeedData(distortion, images.device)
    with mock.patch.multiple(realesrnet_model, paired_random_crop=lambda gt, lq, *_: (gt, lq), **_script(draws)):
        model.feed_data(data)
    return model.lq


def _script(draws: Draws) -> dict[str, Any]:
    """Stand-ins for ``random`` and ``numpy`` that answer as drawn, in the order in which ``feed_data`` asks."""
    first, second = draws.first, draws.second
    assert second is not None
    uniforms = [*_answers(first), 1.0 if second.kernels is None else 0.0, *_answers(second), 1 - draws.jpeg_last]
    kinds = ['up' if one.resize > 1 else 'down' if one.resize < 1 else 'keep' for one in (first, second)]
    modes = [first.mode, second.mode, draws.final_mode]
    return {
        'random': SimpleNamespace(choices=_in_order([[kind] for kind in kinds]), choice=_in_order(modes)),
        'np': SimpleNamespace(random=SimpleNamespace(uniform=_in_order(uniforms))),
    }


def _answers(process: Process) -> list[float]:
    return [process.resize] * (process.resize != 1) + [0.0 if process.gaussian else 1.0]


def _in_order(values: list[Any]) -> Any:
    answers = iter(values)
    return lambda *_, **__: next(answers)


def first_order(images: Tensor, distortion: RealESRGAN, seed: int) -> Tensor:
    """The first pass by the functions of ``feed_data``, then resize and sinc: BasicSR has no such switch."""
    draws = branches(distortion, images.shape, images.device, seed)
    first, count = draws.first, range(len(images))
    kernels = stack([mixed_kernel(distortion) for _ in count], images)
    final = stack([final_kernel(distortion.final_sinc_prob) for _ in count], images)
    out = functional.interpolate(filter2D(images, kernels), scale_factor=first.resize, mode=first.mode)
    options = {'gray_prob': distortion.gray_noise_prob, 'clip': True, 'rounds': False}
    if first.gaussian:
        out = degradations.random_add_gaussian_noise_pt(out, distortion.noise_range, **options)
    else:
        out = degradations.random_add_poisson_noise_pt(out, distortion.poisson_scale_range, **options)
    out = compress(out.clamp(0, 1), out.new_zeros(len(images)).uniform_(*distortion.jpeg_range))
    size = [side // distortion.scale for side in images.shape[-2:]]
    out = filter2D(functional.interpolate(out, size=size, mode=draws.final_mode), final)
    return (out * 255).round().clamp(0, 255) / 255


# ---- One array after the other --------------------------------------------------------------------------------------


def filter_array(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """``cv2.filter2D`` with the borders of BasicSR's."""
    return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101)


def resize_array(image: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    """``cv2.resize`` to ``(height, width)``."""
    return cv2.resize(image, size[::-1], interpolation=INTERPOLATIONS[mode])


def compress_array(image: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """libjpeg at a random quality, an integer, since OpenCV takes no other."""
    return degradations.add_jpg_compression(image, int(np.random.uniform(*limits)))  # noqa: NPY002


def degrade_array(image: np.ndarray, distortion: RealESRGAN, draws: Draws) -> np.ndarray:
    """First or second order by BasicSR's functions for arrays, in the order of ``feed_data``."""
    size = (image.shape[0] // distortion.scale, image.shape[1] // distortion.scale)

    def finish(out: np.ndarray) -> np.ndarray:
        return filter_array(resize_array(out, size, draws.final_mode), final_kernel(distortion.final_sinc_prob))

    out = filter_array(image, mixed_kernel(distortion))
    out = _resize_and_noise(out, image.shape[:2], distortion, draws.first, '')
    out = compress_array(out, distortion.jpeg_range)
    if draws.second is None:
        out = finish(out)
    else:
        if draws.second.kernels is not None:
            out = filter_array(out, mixed_kernel(distortion, '2'))
        out = _resize_and_noise(out, size, distortion, draws.second, '2')
        if draws.jpeg_last:
            out = compress_array(finish(out), distortion.jpeg_range2)
        else:
            out = finish(compress_array(out, distortion.jpeg_range2))
    return np.clip((out * 255).round(), 0, 255) / 255


def _resize_and_noise(image: np.ndarray, size: tuple[int, int], distortion: RealESRGAN, process: Process,
                      suffix: str) -> np.ndarray:
    height, width = size
    out = resize_array(image, (int(height * process.resize), int(width * process.resize)), process.mode)
    add, name = ((degradations.random_add_gaussian_noise, 'noise_range') if process.gaussian else
                 (degradations.random_add_poisson_noise, 'poisson_scale_range'))
    return add(out, _option(distortion, suffix, name), gray_prob=_option(distortion, suffix, 'gray_noise_prob'))
