"""Crops side by side, as in a paper: the input, every method, the clean image, and below them where they err."""

import math
import textwrap
from collections.abc import Mapping
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from dil_plugin.errors import DataError
from dil_plugin.evaluation.output_files import file_stem, write_figure
from dil_plugin.evaluation.plots import Panel, side_by_side
from dil_plugin.evaluation.results import CLEAN, INPUT, Picture, Results, Score
from dil_plugin.evaluation.windows import most_detailed_window

__all__ = ['crop_figure', 'most_detailed_window', 'write_crops']

Image = npt.NDArray[np.uint8]

CROP = 128
SHOWN = 256
COLUMNS = 6
_SCALES = np.array([4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 255])
_BAR = 16


def write_crops(results: Results, folder: Path) -> list[Path]:
    """Draws every picture of the results as ``crops/DATASET_CONDITION_IMAGE.png``.

    Args:
        results: What was measured; ``Picture.files`` are relative to ``folder``.
        folder: The folder of the results.

    Returns:
        The paths.

    Raises:
        DataError: A picture cannot be read, its versions differ in size, or a file cannot be written.
    """
    scores: dict[tuple[str, str, str], dict[str, Score]] = {}
    for score in results.scores:
        scores.setdefault((score.dataset, score.condition, score.image), {})[score.run] = score
    paths: list[Path] = []
    for picture in results.pictures:
        key = (picture.dataset, picture.condition, picture.image)
        path = folder / 'crops' / f'{file_stem(*key)}.png'
        if path in paths:  # names that differ only in what a file name cannot have
            path = path.with_name(f'{path.stem}_{len(paths)}.png')
        write_figure(crop_figure(picture, _read(picture, folder), scores.get(key, {})), path)
        paths.append(path)
    return paths


def crop_figure(picture: Picture, versions: Mapping[str, Image], scores: Mapping[str, Score]) -> Figure:
    """The most detailed window of a picture in all its versions, with error maps below.

    An error map is ``|version - clean|``, the maximum over the channels, on one scale for the whole figure (colour map
    inferno): from 0 to the 99th percentile of all methods' errors in the window, rounded up to 4, 8, 12, 16, 24 … 192
    or 255 grey levels. What exceeds it, as the input may, is drawn as the end of the scale. More than six
    panels go into several rows.

    Args:
        picture: Its names stand in the title.
        versions: uint8, ``(h, w, 3)`` in RGB order, all of one size: ``input``, the runs', ``clean``.
        scores: By run, of the whole image.

    Returns:
        The figure, for ``save_png``.
    """
    top, left = most_detailed_window(versions[CLEAN], CROP)
    crops = {name: image[top:top + CROP, left:left + CROP] for name, image in versions.items()}
    height, width = crops[CLEAN].shape[:2]
    zoom = max(1, SHOWN // max(height, width))
    errors = {name: _error(crop, crops[CLEAN]) for name, crop in crops.items() if name != CLEAN}
    limit = _limit(errors)
    images = [Panel(crop, _caption(name, scores.get(name), width * zoom)) for name, crop in crops.items()]
    maps = [Panel(_coloured(error, limit), _wrapped(f'|{name} - {CLEAN}|', width * zoom))
            for name, error in errors.items()]
    maps.append(Panel(_bar(width), f'0 to {limit} of 255'))
    columns = math.ceil(len(images) / math.ceil(len(images) / COLUMNS))  # 4 and 4, not 6 and 2
    rows = [part for start in range(0, len(images), columns)
            for part in (images[start:start + columns], maps[start:start + columns])]
    title = (f'{picture.dataset}, {picture.condition}, {picture.image}: {width}x{height} pixels at '
             f'({left}, {top}), PSNR (dB) and SSIM of the whole image')
    room = columns * (width * zoom + 8) * 7 // 8 - 16  # bold letters are wider
    return side_by_side(rows, zoom=zoom, title=_wrapped(title, room))


def _read(picture: Picture, folder: Path) -> dict[str, Image]:
    if CLEAN not in picture.files:
        raise DataError(f'{picture.dataset}, {picture.image}: the picture has no clean version')
    names = [name for name in picture.files if name != CLEAN]
    versions = {name: _read_rgb(folder / picture.files[name]) for name in [*names, CLEAN]}
    for name, image in versions.items():
        if image.shape != versions[CLEAN].shape:
            raise DataError(f'{folder / picture.files[name]}: {image.shape[1]}x{image.shape[0]} pixels, but the clean '
                            f'image has {versions[CLEAN].shape[1]}x{versions[CLEAN].shape[0]}')
    return versions


def _read_rgb(path: Path) -> Image:
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise DataError(f'{path}: cannot be read ({error.strerror})') from None
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if image is None:
        raise DataError(f'{path}: is not an image that can be decoded')
    return np.ascontiguousarray(image[:, :, ::-1])


def _error(version: Image, clean: Image) -> Image:
    return cv2.absdiff(version, clean).max(2)


def _limit(errors: Mapping[str, Image]) -> int:
    methods = [error for name, error in errors.items() if name != INPUT] or list(errors.values())
    if not methods:
        return int(_SCALES[0])
    top = np.percentile(np.stack(methods), 99)
    return int(_SCALES[np.searchsorted(_SCALES, top)])


def _coloured(error: Image, limit: int) -> Image:
    colours = matplotlib.colormaps['inferno'](np.minimum(error / limit, 1.0), bytes=True)
    return np.ascontiguousarray(colours[..., :3])


def _bar(width: int) -> Image:
    return _coloured(np.tile(np.linspace(0, 255, width).round().astype(np.uint8), (_BAR, 1)), 255)


def _caption(name: str, score: Score | None, pixels: int) -> str:
    lines = [_wrapped(name, pixels)]
    if score is not None and score.error is None and score.metrics:
        psnr, ssim = score.metrics.get('psnr'), score.metrics.get('ssim')
        lines.append(f'{"infinite" if psnr is None else f"{psnr:.2f}"} / {"–" if ssim is None else f"{ssim:.3f}"}')
    return '\n'.join(lines)



def _wrapped(text: str, pixels: int) -> str:
    return '\n'.join(textwrap.wrap(text, max(8, pixels // 8)))
