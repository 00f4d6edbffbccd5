"""The images that are laid over one another: read, cut to one region and embedded losslessly."""

import base64
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from dil_plugin.data_preparation import read_image
from dil_plugin.errors import DataError
from dil_plugin.evaluation.html_report.wording import CLEAN, run_label, write_number
from dil_plugin.evaluation.results import Picture, Results, Score
from dil_plugin.evaluation.windows import most_detailed_window
from dil_plugin.evaluation.written_tables.layout import metric_decimals

LARGEST = 320
"""Longest side of what is embedded, in pixels."""

Image = npt.NDArray[np.uint8]


class Version(NamedTuple):
    """One version of an image.

    Attributes:
        name: The run's label.
        score: PSNR and SSIM of the whole image; empty where there are none.
        uri: The PNG as a data URI.
    """

    name: str
    score: str
    uri: str


class View(NamedTuple):
    """One image with all its versions, cut to the same region.

    Attributes:
        title: Set, image and condition.
        region: What is shown of it, in words.
        height: Of the region, in pixels.
        width: Of the region, in pixels.
        versions: The input first, the clean image last.
    """

    title: str
    region: str
    height: int
    width: int
    versions: list[Version]


def views(results: Results, folder: Path) -> list[View]:
    """All kept images.

    Args:
        results: Names the files.
        folder: That they are relative to.

    Raises:
        DataError: A file is missing or no image, or the versions of an image differ in size.
    """
    scores = {(score.run, score.dataset, score.condition, score.image): score for score in results.scores}
    return [_view(results, picture, folder, scores) for picture in results.pictures]


def _view(results: Results, picture: Picture, folder: Path, scores: dict[tuple[str, str, str, str], Score]) -> View:
    images = {name: _read(folder / file) for name, file in picture.files.items()}
    reference = list(images)[-1]
    shape = images[reference].shape
    for name, image in images.items():
        if image.shape != shape:
            raise DataError(f'{folder / picture.files[name]}: {_size(image)} pixels, but '
                            f'{folder / picture.files[reference]} has {_size(images[reference])}')
    height, width = (min(LARGEST, side) for side in shape[:2])
    top, left = most_detailed_window(images[reference], LARGEST)
    region = f'{width} × {height} pixels'
    if (height, width) != shape[:2]:
        region += f' at ({left}, {top}) of {_size(images[reference])}, where the clean image has most detail'
    digits = metric_decimals(results)
    versions = []
    for name, image in images.items():
        score = scores.get((name, picture.dataset, picture.condition, picture.image))
        versions.append(Version(run_label(name), '' if name == CLEAN else _score(score, digits),
                                _png(image[top:top + height, left:left + width])))
    condition = f', condition {picture.condition}' if len(results.protocol.conditions) > 1 else ''
    return View(f'{picture.dataset}, {picture.image}{condition}', region, height, width, versions)


def _read(path: Path) -> Image:
    image, _ = read_image(path)
    if image.dtype != np.uint8:
        raise DataError(f'{path}: expected 8-bit pixels, not {image.dtype}')
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image


def _size(image: npt.NDArray[Any]) -> str:
    return f'{image.shape[1]} × {image.shape[0]}'


def _score(score: Score | None, digits: dict[str, int]) -> str:
    if score is None or not score.metrics:
        return ''
    texts = []
    for metric, unit in (('psnr', ' dB'), ('ssim', '')):
        if metric in score.metrics:
            value = score.metrics[metric]
            infinite = value is None and metric == 'psnr'
            texts.append(('∞' if infinite else write_number(value, digits.get(metric, 3))) + unit)
    return ' / '.join(texts)


def _png(image: Image) -> str:
    content = cv2.imencode('.png', image, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    return f'data:image/png;base64,{base64.b64encode(content.tobytes()).decode("ascii")}'
