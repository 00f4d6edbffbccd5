"""What the bytes of an image file become: one reading for training, packing and benchmarks."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dil_plugin.data_preparation.tiff_files import has_tiff_alpha, is_tiff, read_tiff

Image = npt.NDArray[Any]

_PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_JPEG_SIGNATURE = b'\xff\xd8\xff'
# These two flags keep 16 bits and grey as they are; IMREAD_UNCHANGED would too, but ignores the orientation.
_AS_STORED = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR


def decode(content: bytes, flags: int) -> Image | None:
    """The pixels, or None where OpenCV cannot decode them."""
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        return None


def decode_upright(content: bytes) -> Image:
    """Decodes an image file: upright (EXIF orientation applied), colours as they are stored, alpha dropped.

    Alpha is left away, not composited, in every format: what stands below a transparent pixel is taken as it is.
    OpenCV alone would multiply the colours of a TIFF file of 8 bits by it. Palettes become RGB, CMYK in a JPEG file RGB
    without a profile, fewer than 8 bits become 8. Of several pages or frames the first is taken.

    Args:
        content: The file. That it is whole is for ``incomplete_reason`` to say.

    Returns:
        uint8 or uint16 as in the file, of shape ``(H, W)`` for grey or ``(H, W, 3)`` in BGR order.

    Raises:
        ValueError: It cannot be decoded, or is of a kind that cannot be read rightly: floats, CMYK and Lab TIFF, 16-bit
            TIFF of grey with alpha. The message is the reason alone.
    """
    if is_tiff(content):
        stored = read_tiff(content)[0]
        image = stored if stored.ndim == 2 else stored[..., 0] if stored.shape[2] == 2 else stored[..., 2::-1]
        image = np.ascontiguousarray(image)
    else:
        decoded = decode(content, _AS_STORED)
        if decoded is None:
            raise ValueError('not an image that OpenCV can decode, or a corrupt one')
        image = decoded
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f'pixels are {image.dtype}, only uint8 and uint16 can be stored')
    return image


def eight_bit_colour(image: Image) -> Image:
    """An image of ``decode_upright`` as uint8 ``(H, W, 3)``: grey in three equal planes, 16 bits rounded to 8.

    65535 becomes 255, and v the nearest of v / 257, as MATLAB's im2uint8 has it. (OpenCV's IMREAD_COLOR takes the upper
    byte of PNG and PPM, and rounds TIFF.)
    """
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image


def has_alpha(content: bytes) -> bool:
    """Whether the file has an alpha channel, which ``decode_upright`` drops."""
    if content.startswith(_JPEG_SIGNATURE):
        return False
    if content.startswith(_PNG_SIGNATURE):
        # The header tells, which saves decoding most images twice.
        return content[25] in (4, 6) or b'tRNS' in content[: content.find(b'IDAT')]
    if is_tiff(content):
        return has_tiff_alpha(content)
    image = decode(content, cv2.IMREAD_UNCHANGED)
    return image is not None and image.ndim == 3 and image.shape[2] == 4
