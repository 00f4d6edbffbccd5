"""Finding and reading source images, and what is noted of them."""

from __future__ import annotations

import os
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np

from dil_plugin.data_preparation.decoding import Image, decode, decode_upright, has_alpha
from dil_plugin.errors import DataError, OptionError, UnusableImage
from dil_plugin.missing_files import looked_in

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')

_PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_JPEG_SIGNATURE = b'\xff\xd8\xff'
# A zero byte after FF is an escaped FF, another FF is padding, D0 to D7 are restart markers inside the coded data.
_JPEG_MARKER = re.compile(rb'\xff[^\x00\xff\xd0-\xd7]')


@dataclass(frozen=True)
class CutSettings:
    """How each image is cut and stored.

    Attributes:
        size: Side of the square sub-images in pixels; None stores whole images.
        step: Distance between neighbouring windows in pixels; None means half of ``size``.
        thresh: A remainder at the right or lower border of more than this many pixels gets one more window.
        small: What happens to an image smaller than ``size``: "keep" stores it whole, "skip" leaves it out and
            "error" stops; None means "keep", with ``multiscale`` "skip", since a version is no image of its own.
        compress_level: PNG compression, 0 (fast) to 9 (small).
        multiscale: Smaller versions of each image are cut as well (``multiscale.py``). ``small`` "error" is of the
            images themselves; of their versions those that are too small are left out then.

    Raises:
        OptionError: A value is outside its range.
    """

    size: int | None = None
    step: int | None = None
    thresh: int = 0
    small: Literal['keep', 'skip', 'error'] | None = None
    compress_level: int = 1
    multiscale: bool = False

    def __post_init__(self) -> None:
        if self.size is None and (self.step is not None or self.thresh != 0):
            raise OptionError('step and thresh need a size: without one, whole images are stored')
        if self.size is not None and self.size < 1:
            raise OptionError(f'size: must be at least 1 pixel, not {self.size}')
        if self.size is not None and self.step is None:
            object.__setattr__(self, 'step', max(self.size // 2, 1))
        if self.step is not None and self.step < 1:
            raise OptionError(f'step: must be at least 1 pixel, not {self.step}')
        if self.thresh < 0:
            raise OptionError(f'thresh: must be at least 0 pixels, not {self.thresh}')
        if self.small is None:
            object.__setattr__(self, 'small', 'skip' if self.multiscale else 'keep')
        if self.small not in ('keep', 'skip', 'error'):
            raise OptionError(f'small: must be keep, skip or error, not {self.small!r}')
        if not 0 <= self.compress_level <= 9:
            raise OptionError(f'compress_level: must be from 0 to 9, not {self.compress_level}')


class Record(NamedTuple):
    """One stored image: its key, its shape in pixels, and the CRC-32 of its pixels (None: not known)."""

    key: str
    height: int
    width: int
    channels: int
    crc: int | None


class Entry(NamedTuple):
    """What one source image became.

    Attributes:
        source: Its name below the folder.
        n_bytes: The size of its file.
        small: Whether it is smaller than the size.
        alpha: Whether it had an alpha channel.
        records: What is stored of it.
        problem: Why it was left out (``on_bad_image`` "skip"), or None.
        mtime_ns: When its file was changed last, in nanoseconds; None in journals of earlier versions.
        crc: CRC-32 of its file's bytes; None there.
    """

    source: str
    n_bytes: int
    small: bool
    alpha: bool
    records: list[Record]
    problem: str | None = None
    mtime_ns: int | None = None
    crc: int | None = None


def find_images(folder: Path, recursive: bool = False) -> list[Path]:
    """Lists the images in ``folder``, sorted by name; hidden files are left out.

    Args:
        folder: Where to look.
        recursive: Also look in all folders below.

    Raises:
        DataError: The folder does not exist or holds no image.
    """
    if not folder.is_dir():
        raise DataError(f'{folder}: there is no such folder{looked_in(folder)}')
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if recursive and not name.startswith('.')]
        found += [Path(parent, name) for name in names if not name.startswith('.')]
    images = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        hint = '' if recursive else ' (folders below it are only searched with --recursive)'
        raise DataError(f'{folder}: no image with one of the endings {" ".join(IMAGE_SUFFIXES)}{hint}')
    return sorted(images, key=lambda path: path.relative_to(folder).as_posix())


class Source(NamedTuple):
    """An image to pack.

    Attributes:
        path: Its file.
        name: Its name in the journal and in messages.
        stem: What its keys start with.
        kept: Height and width in pixels of the upper left part that is taken; None takes all of it.
    """

    path: Path
    name: str
    stem: str
    kept: tuple[int, int] | None = None


def incomplete_reason(content: bytes) -> str | None:
    """Says why the bytes of an image file are not a whole file, or returns None.

    Some OpenCV versions decode a truncated file all the same and fill the rest with grey. PNG, JPEG, BMP and WebP
    are checked by their structure, without decoding; damage inside a file of full length is not looked for. For
    other formats (TIFF: the decoder itself refuses truncated files) only emptiness is noticed.
    """
    if not content:
        return 'the file is empty'
    if content.startswith(_PNG_SIGNATURE):
        return _png_incomplete(content)
    if content.startswith(_JPEG_SIGNATURE):
        return _jpeg_incomplete(content)
    if content.startswith(b'BM'):
        return _bmp_incomplete(content)
    if content.startswith(b'RIFF') and content[8:12] == b'WEBP':
        expected = 8 + int.from_bytes(content[4:8], 'little')
        if len(content) < expected:
            return f'the WebP file is truncated: {len(content)} of {expected} bytes are there'
    return None


def _png_incomplete(content: bytes) -> str | None:
    position = len(_PNG_SIGNATURE)
    while position + 12 <= len(content):
        length, kind = struct.unpack_from('>I4s', content, position)
        position += 12 + length
        if kind == b'IEND' and position <= len(content):
            return None
    return 'the PNG file is truncated: it ends before its IEND chunk'


def _jpeg_incomplete(content: bytes) -> str | None:
    # Going from segment to segment steps over the end marker of a thumbnail inside the EXIF segment, and the first
    # end marker found is the image's own, whatever a camera or phone appended after it.
    position = 2
    while marker := _JPEG_MARKER.search(content, position):
        position = marker.end()
        if content[position - 1] == 0xD9:
            return None
        position += int.from_bytes(content[position : position + 2], 'big')
    return 'the JPEG file is truncated: it ends before its end-of-image marker (FFD9)'


def _bmp_incomplete(content: bytes) -> str | None:
    if len(content) < 34:
        return 'the BMP file is truncated: it ends inside its header'
    # The file size in the header is often wrong, so what the pixels need is computed; compressed pixels have no
    # known size and are left to the decoder, as is the old 12-byte header.
    offset, header, width, height, _, depth, compression = struct.unpack_from('<IIiiHHI', content, 10)
    if header < 40 or compression not in (0, 3):
        return None
    expected = offset + (width * depth + 31) // 32 * 4 * abs(height)
    if len(content) < expected:
        return f'the BMP file is truncated: {len(content)} of {expected} bytes are there'
    return None


def read_image(path: Path) -> tuple[Image, bool]:
    """Reads an image upright (EXIF orientation applied), without alpha.

    Returns:
        The pixels, uint8 or uint16 as in the file, of shape (h, w) for grey or (h, w, 3) in BGR order; and whether
        an alpha channel was dropped.

    Raises:
        UnusableImage: The file cannot be read, is truncated or corrupt, or has another pixel type.
    """
    try:
        content = path.read_bytes()
        reason = incomplete_reason(content)
        if reason is None:
            return decode_upright(content), has_alpha(content)
    except OSError as error:
        reason = f'cannot be read: {error.strerror}'
    except ValueError as error:
        reason = str(error)
    raise UnusableImage(f'{path}: {reason}', str(path), reason)


def pixel_crc(image: Image) -> int:
    """CRC-32 of the pixels in row order."""
    return zlib.crc32(np.ascontiguousarray(image).data)


def record_problem(content: bytes | None, record: Record) -> str | None:
    """Says how the stored PNG bytes (None: missing) differ from ``record``, or returns None."""
    if content is None:
        return 'is missing'
    if reason := incomplete_reason(content):
        return reason
    image = decode(content, cv2.IMREAD_UNCHANGED)
    if image is None:
        return 'cannot be decoded'
    shape = (*image.shape[:2], 1 if image.ndim == 2 else image.shape[2])
    if shape != (record.height, record.width, record.channels):
        return f'has shape {shape}, expected {(record.height, record.width, record.channels)}'
    if record.crc is not None and pixel_crc(image) != record.crc:
        return 'has other pixels than the image it was cut from'
    return None
