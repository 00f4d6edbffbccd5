"""The distorted images that networks are tested on: the same for every method, in any order, on every machine."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dil_plugin.atomic import whole_file
from dil_plugin.distortions import Distortion
from dil_plugin.distortions.fixed import fixed_generator
from dil_plugin.errors import DataError
from dil_plugin.evaluation.benchmark_sets import BenchmarkSet

Image = npt.NDArray[np.uint8]


class DistortedImage(NamedTuple):
    """One test image.

    Attributes:
        name: Its name in the set.
        lq: ``(3, h, w)`` float32 in [0, 1], RGB, on the CPU; synthetic ones are not rounded to 8 bits.
        gt: ``(H, W, 3)`` uint8, BGR, cropped to a multiple of the scale; None where clean images are not public.
    """

    name: str
    lq: Tensor
    gt: Image | None


class DistortedSet:
    """The images of one set under one condition.

    Args:
        benchmark: The set.
        distortion: What is done to its clean images, on the CPU; None takes its own distorted images.
        scale: Clean size divided by distorted size.
        seed: Of the evaluation; see ``fixed_generator``.
    """

    def __init__(self, benchmark: BenchmarkSet, distortion: Distortion | None, scale: int = 1, seed: int = 0) -> None:
        self.benchmark = benchmark
        self.distortion = distortion
        self.scale = scale
        self.seed = seed

    def load(self, name: str) -> DistortedImage:
        """One image.

        Raises:
            DataError: The image, or its partner, is missing or unusable, or too small for the distortion.
        """
        gt, lq = self.benchmark.read(name)
        if self.distortion is None:
            if lq is None:
                raise DataError(f'{self.benchmark.name}: {name} has no distorted image')
            return DistortedImage(name, to_tensor(lq), gt)
        assert gt is not None
        height, width = (side - side % self.scale for side in gt.shape[:2])
        gt = np.ascontiguousarray(gt[:height, :width])
        generator = fixed_generator(self.seed, self.benchmark.name, name, self.distortion.label)
        try:
            distorted = self.distortion(to_tensor(gt)[None], generator)[0]
        except ValueError as error:
            raise DataError(f'{self.benchmark.name}: {name}: {error}') from None
        return DistortedImage(name, distorted, gt)


def to_tensor(image: Image) -> Tensor:
    """``(H, W, 3)`` uint8 BGR to ``(3, H, W)`` float32 RGB in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))).float() / 255


def to_image(tensor: Tensor) -> Image:
    """``(3, H, W)`` RGB to ``(H, W, 3)`` uint8 BGR: clipped to [0, 1] and rounded as BasicSR's ``tensor2img`` does."""
    eight = (tensor.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(eight.cpu().numpy().transpose(1, 2, 0)[:, :, ::-1])


def enlarged(lq: Tensor, scale: int) -> Tensor:
    """A distorted image at its clean image's size: itself, or enlarged by MATLAB's bicubic (BasicSR's ``imresize``).

    Args:
        lq: ``(3, h, w)`` on the CPU.
        scale: Clean size divided by distorted size.
    """
    if scale == 1:
        return lq
    import dil_plugin.basicsr  # noqa: F401
    # isort: split
    from basicsr.utils.matlab_functions import imresize
    result: Tensor = imresize(lq, scale)
    return result


def write_input(lq: Tensor, path: Path) -> None:
    """Writes a distorted image as a 16-bit PNG, whose steps are 257 times as fine as those of 8 bits.

    Raises:
        DataError: It cannot be written.
    """
    sixteen = (lq.double().clamp(0, 1) * 65535).round().numpy().astype(np.uint16)
    write_png(np.ascontiguousarray(sixteen.transpose(1, 2, 0)[:, :, ::-1]), path)


def write_png(image: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], path: Path) -> None:
    """Writes a PNG, which takes its name only when it is whole.

    Raises:
        DataError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write(cv2.imencode('.png', image)[1].tobytes())
    except OSError as error:
        raise DataError(f'--output: {path} cannot be written ({error.strerror})') from None
