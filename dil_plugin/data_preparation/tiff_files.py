"""TIFF files, of which OpenCV alone reads some kinds wrongly."""

from __future__ import annotations

import io
import struct
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps
from PIL.TiffImagePlugin import ImageFileDirectory_v2

Pixels = npt.NDArray[Any]

_SIGNATURES = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
# TIFF tags, by their names in TIFF 6.0
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLES_PER_PIXEL, _EXTRA_SAMPLES, _ICC_PROFILE = 258, 262, 277, 338, 34675
_PHOTOMETRICS = (0, 1, 2, 3, 6)  # grey (white is 0, black is 0), RGB, palette, YCbCr
_WHITE_IS_ZERO = 0
_UNASSOCIATED_ALPHA = 2


def is_tiff(content: bytes) -> bool:
    """Whether the bytes begin as a TIFF or BigTIFF file does."""
    return content.startswith(_SIGNATURES)


def has_tiff_alpha(content: bytes) -> bool:
    """Whether a TIFF file has grey or RGB and one sample more. Raises ValueError where its tags cannot be read."""
    return _tags(content).get(_SAMPLES_PER_PIXEL, 1) in (2, 4)


def read_tiff(content: bytes) -> tuple[Pixels, Any]:
    """Reads a TIFF file's first page.

    OpenCV turns the pixels upright itself, but multiplies them by alpha that is not associated, and drops that of grey
    images.

    Returns:
        The pixels as they are stored, upright, ``(H, W)`` grey, ``(H, W, 2)`` grey and alpha, ``(H, W, 3)`` RGB or
        ``(H, W, 4)`` RGBA; and the ICC profile, or None.

    Raises:
        ValueError: It is corrupt, or of a kind that cannot be read rightly; the message is the reason alone.
    """
    tags = _tags(content)
    kind, samples = tags.get(_PHOTOMETRIC), tags.get(_SAMPLES_PER_PIXEL, 1)
    if kind not in _PHOTOMETRICS:
        raise ValueError(f'a TIFF file of photometric interpretation {kind}; allowed: {_PHOTOMETRICS} (grey, RGB, '
                         'palette, YCbCr); convert it first')
    eight_bits = set(tags.get(_BITS_PER_SAMPLE, (1, ))) == {8}
    if eight_bits and samples in (2, 4) and tags.get(_EXTRA_SAMPLES) == (_UNASSOCIATED_ALPHA, ):
        pixels = _by_pillow(content)
    elif samples == 2:
        raise ValueError('grey with alpha is read from TIFF files of 8 bits with unassociated alpha only; convert it '
                         'to PNG')
    else:
        pixels = decode_stored(content)
        if kind == _WHITE_IS_ZERO and pixels.dtype == np.uint16:  # OpenCV inverts 8 bits only
            pixels = ~pixels
    return pixels, tags.get(_ICC_PROFILE)


def decode_stored(content: bytes) -> Pixels:
    """The pixels by OpenCV's IMREAD_UNCHANGED, as they lie in the file, grey or RGB(A); raises ValueError."""
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise ValueError('not an image that OpenCV can decode, or a corrupt one')
    return pixels if pixels.ndim == 2 else pixels[:, :, [2, 1, 0, 3][:pixels.shape[2]]]


def _by_pillow(content: bytes) -> Pixels:
    try:
        with PIL.Image.open(io.BytesIO(content)) as picture:
            return np.array(PIL.ImageOps.exif_transpose(picture))
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise ValueError(f'a corrupt TIFF file ({error})') from None


def _tags(content: bytes) -> Any:
    """The first page's tags; read so, because Pillow opens few of the kinds that OpenCV reads."""
    try:
        tags = ImageFileDirectory_v2(content[:16] if content[2] == 43 else content[:8])
        file = io.BytesIO(content)
        file.seek(tags.next)
        tags.load(file)
        tags.get(_PHOTOMETRIC)
    except (OSError, ValueError, SyntaxError, TypeError, OverflowError, struct.error) as error:
        raise ValueError(f'its TIFF tags cannot be read ({error})') from None
    return tags
