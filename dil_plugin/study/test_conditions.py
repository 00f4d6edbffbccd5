"""The images that all checkpoints of a study are tested on."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dil_plugin.data_preparation import find_images, read_image
from dil_plugin.data_preparation.decoding import eight_bit_colour
from dil_plugin.distortions import Distortion
from dil_plugin.distortions.fixed import fixed_generator
from dil_plugin.errors import DataError
from dil_plugin.evaluation.inputs import to_tensor
from dil_plugin.evaluation.preview import centre_crop
from dil_plugin.study.options import PairFolders, TestOptions, parse_condition

Image = npt.NDArray[np.uint8]
IMAGES = 'test.images (or --test-data)'
"""How messages name the folder of clean test images."""


class Condition(NamedTuple):
    """What a network is tested on.

    Attributes:
        name: In the table.
        seen: Whether it is among the training distortions.
        inputs: ``(K, 3, h, w)`` in [0, 1], RGB.
        clean: K images, uint8 BGR.
    """

    name: str
    seen: bool
    inputs: Tensor
    clean: list[Image]


def load_conditions(options: TestOptions, scale: int) -> list[Condition]:
    """Reads, crops and distorts the test images; the same on every machine.

    Args:
        options: The block ``test`` of a study.
        scale: Clean size divided by distorted size.

    Raises:
        DataError: Images are missing or smaller than the crop.
        OptionError: A condition is wrong.
    """
    clean = clean_crops(options, scale) if options.images is not None else {}
    conditions = []
    for name, raw in options.conditions.items():
        kind = parse_condition(raw, f'test.{name}')
        if isinstance(kind, PairFolders):
            inputs, targets = _pairs(kind, options, scale, f'test.{name}')
        else:
            inputs, targets = _distorted(clean, kind, options.seed), list(clean.values())
        conditions.append(Condition(name, name in options.seen, inputs, targets))
    return conditions


def clean_crops(options: TestOptions, scale: int) -> dict[str, Image]:
    """The clean test images by name."""
    assert options.images is not None
    return {path.stem: _crop(path, options.crop - options.crop % scale, IMAGES)
            for path in spread_images(options.images, options.count, IMAGES)}


def spread_images(folder: str, count: int, key: str) -> list[Path]:
    """At most so many images of a folder, spread evenly over it.

    Raises:
        DataError: There are none; the message names the option ``key``.
    """
    paths = _images(folder, key)
    count = min(count, len(paths))
    return [paths[k * len(paths) // count] for k in range(count)]


def _images(folder: str, key: str) -> list[Path]:
    try:
        return find_images(Path(folder))
    except DataError as error:
        raise DataError(f'{key}: {error}') from None


def _distorted(clean: dict[str, Image], distortion: Distortion, seed: int) -> Tensor:
    made = [distortion(to_tensor(image)[None], fixed_generator(seed, 'study', name, distortion.label))
            for name, image in clean.items()]
    return torch.cat(made)


def _pairs(folders: PairFolders, options: TestOptions, scale: int, key: str) -> tuple[Tensor, list[Image]]:
    inputs, targets = [], []
    side = options.crop // scale
    names = {path.stem: path for path in _images(folders.lq, f'{key}.lq')}
    for path in spread_images(folders.gt, options.count, f'{key}.gt'):
        if path.stem not in names:
            raise DataError(f'{key}.lq: {folders.lq} has no image {path.stem}, as {folders.gt} has')
        lq, gt = _read(names[path.stem]), _read(path)
        if gt.shape[:2] != tuple(scale * length for length in lq.shape[:2]):
            raise DataError(f'{key}: {path.name} is not {scale} times as large as its distorted image')
        if min(lq.shape[:2]) < side:
            raise DataError(f'{key}: {path.name} is smaller than test.crop, {options.crop} pixels; allowed: a smaller '
                            'crop')
        top, left = ((length - side) // 2 for length in lq.shape[:2])
        inputs.append(to_tensor(lq[top:top + side, left:left + side]))
        rows, columns = (slice(scale * start, scale * (start + side)) for start in (top, left))
        targets.append(np.ascontiguousarray(gt[rows, columns]))
    return torch.stack(inputs), targets


def _crop(path: Path, side: int, key: str) -> Image:
    image = centre_crop(_read(path), side)
    if min(image.shape[:2]) < side:
        raise DataError(f'{key}: {path} is smaller than test.crop, {side} pixels; allowed: a smaller crop')
    return np.ascontiguousarray(image)


def _read(path: Path) -> Image:
    return eight_bit_colour(read_image(path)[0])
