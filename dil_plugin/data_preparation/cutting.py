"""Cutting an image into the pieces that are stored."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dil_plugin.data_preparation.images import CutSettings, Entry, Image, Record, pixel_crc, read_image
from dil_plugin.data_preparation.multiscale import smaller_versions
from dil_plugin.data_preparation.source_files import stamp_of
from dil_plugin.errors import DataError, UnusableImage


def subimage_boxes(height: int, width: int, size: int, step: int, thresh: int = 0) -> list[tuple[int, int, int, int]]:
    """Windows of a sliding square over an image, row by row.

    Along each axis windows start at 0, step, 2 * step and so on while they fit; where more than ``thresh`` pixels
    remain beyond the last one, one more window ends at the border.

    Returns:
        Boxes (top, bottom, left, right) in pixels, so that ``image[top:bottom, left:right]`` is the sub-image.

    Raises:
        DataError: The image is smaller than the window.
    """
    if min(height, width) < size:
        raise DataError(f'an image of {height}x{width} pixels (height x width) is smaller than the size {size}')
    tops, lefts = (_window_starts(length, size, step, thresh) for length in (height, width))
    return [(top, top + size, left, left + size) for top in tops for left in lefts]


def _window_starts(length: int, size: int, step: int, thresh: int) -> list[int]:
    starts = list(range(0, length - size + 1, step))
    if length - size - starts[-1] > thresh:
        starts.append(length - size)
    return starts


def cut_image(path: Path, source: str, stem: str, kept: tuple[int, int] | None,
              settings: CutSettings) -> tuple[Entry, list[bytes]]:
    """Reads one image, cuts it and its smaller versions, and encodes the pieces; runs in a worker process.

    Args:
        path: The image file.
        source: Its name, for the entry.
        stem: Start of the keys; sub-images are ``{stem}_s001`` and on, a whole image without cutting is ``stem``;
            versions have their ending after the stem, as in ``{stem}T0_s001``.
        kept: Height and width of the upper left part that is taken, or None.
        settings: How to cut.

    Returns:
        The entry, and the PNG bytes of each of its records.

    Raises:
        DataError: The image is unusable, or smaller than the size where ``settings.small`` is "error".
    """
    image, alpha = read_image(path)
    stamp = stamp_of(path)
    if kept is not None:
        image = image[:kept[0], :kept[1]]
    height, width = image.shape[:2]
    small = settings.size is not None and min(height, width) < settings.size
    if small and settings.small == 'error':
        raise DataError(
            f'{path}: its {height}x{width} pixels (height x width) are smaller than the size {settings.size}; '
            'take a smaller --size, or --small keep or skip'
        )
    pieces = _pieces(stem, image, settings)
    if settings.multiscale:
        try:
            for ending, version in smaller_versions(image):
                pieces += _pieces(stem + ending, version, settings)
        except DataError as error:
            raise DataError(f'{path}: {error}') from None
    records, encoded = [], []
    for key, piece in pieces:
        channels = 1 if piece.ndim == 2 else piece.shape[2]
        records.append(Record(key, piece.shape[0], piece.shape[1], channels, pixel_crc(piece)))
        encoded.append(cv2.imencode('.png', piece, [cv2.IMWRITE_PNG_COMPRESSION, settings.compress_level])[1].tobytes())
    return Entry(source, stamp.n_bytes, small, alpha, records, None, stamp.mtime_ns, stamp.crc), encoded


def cut_good_image(path: Path, source: str, stem: str, kept: tuple[int, int] | None,
                   settings: CutSettings) -> tuple[Entry, list[bytes]]:
    """As ``cut_image``; of an image that cannot be read or decoded the entry says why, and nothing is stored."""
    try:
        return cut_image(path, source, stem, kept, settings)
    except UnusableImage as error:
        try:
            n_bytes, mtime_ns, crc = stamp_of(path)
        except OSError:
            return Entry(source, 0, False, False, [], error.reason), []
        return Entry(source, n_bytes, False, False, [], error.reason, mtime_ns, crc), []


def _pieces(stem: str, image: Image, settings: CutSettings) -> list[tuple[str, Image]]:
    """What is stored of one image, by key."""
    height, width = image.shape[:2]
    size, step = settings.size, settings.step
    if size is None or step is None:
        return [(stem, np.ascontiguousarray(image))]
    # Small images get a number too: two different stems can then never lead to the same key.
    if min(height, width) < size:
        return [(f'{stem}_s001', np.ascontiguousarray(image))] if settings.small == 'keep' else []
    boxes = subimage_boxes(height, width, size, step, settings.thresh)
    return [(f'{stem}_s{number:03d}', np.ascontiguousarray(image[top:bottom, left:right]))
            for number, (top, bottom, left, right) in enumerate(boxes, 1)]
