"""Image files in and out of restoration: bit depth, grey, alpha, orientation and colour profile survive it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from torch import Tensor

from dil_plugin.atomic import whole_file
from dil_plugin.data_preparation import incomplete_reason
from dil_plugin.data_preparation.tiff_files import decode_stored, is_tiff, read_tiff
from dil_plugin.errors import DataError

Pixels = npt.NDArray[Any]

WITH_16_BITS = ('.png', '.ppm', '.tif', '.tiff')
WITH_ALPHA = ('.bmp', '.png', '.tif', '.tiff', '.webp')
_BY_OPENCV = ('.bmp', '.ppm')  # OpenCV does not see the alpha of BMP files that Pillow writes
_PILLOW_OPTIONS: dict[str, dict[str, Any]] = {
    '.png': {'compress_level': 3},
    '.tif': {'compression': 'tiff_lzw'},
    '.webp': {'lossless': True, 'exact': True},  # exact: colours below alpha 0 stay too
    '.jpg': {'quality': 95, 'subsampling': 0},
}
_ALIASES = {'.jpeg': '.jpg', '.tiff': '.tif'}

_PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_ORIENTATION = 274
_TRANSPOSE = {5, 6, 7, 8}
_FLIPS: dict[int, tuple[int, ...]] = {2: (1, ), 3: (0, 1), 4: (0, ), 6: (1, ), 7: (0, 1), 8: (0, )}


@dataclass(frozen=True, eq=False)
class RestorableImage:
    """An image, and what its file should keep.

    Attributes:
        rgb: ``(1, 3, H, W)`` float32, in [0, 1] where it was read; a grey image has three equal planes.
        alpha: ``(H, W)`` float32 in [0, 1], or None.
        bits: 8 or 16 per sample.
        grey: Whether the file has one colour plane.
        profile: The ICC profile, as bytes, or None.
    """

    rgb: Tensor
    alpha: npt.NDArray[np.float32] | None = None
    bits: int = 8
    grey: bool = False
    profile: bytes | None = None

    def with_restored(self, rgb: Tensor) -> RestorableImage:
        """The same image with other colours ``(1, 3, sH, sW)``; alpha is resized (OpenCV's INTER_CUBIC, clipped)."""
        height, width = rgb.shape[-2:]
        alpha = self.alpha
        if alpha is not None and alpha.shape != (height, width):
            alpha = cv2.resize(alpha, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)
        return replace(self, rgb=rgb, alpha=alpha)


class _Content(NamedTuple):
    pixels: Pixels  # (H, W) grey, (H, W, 2) grey and alpha, (H, W, 3) RGB or (H, W, 4) RGBA, upright
    profile: bytes | None


def read_restorable(path: Path) -> RestorableImage:
    """Reads PNG, JPEG, TIFF, BMP, WebP or PPM, 8 or 16 bits, grey or colour, with or without alpha.

    The EXIF orientation is applied. Palettes become RGB, fewer than 8 bits become 8. Of several pages or frames the
    first is taken.

    Raises:
        DataError: The file cannot be read, is truncated or corrupt, or of a kind that cannot be read rightly: floats,
            CMYK and Lab TIFF, 16-bit TIFF of grey with alpha.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f'{path}: cannot be read ({error.strerror})') from None
    if reason := incomplete_reason(content):
        raise DataError(f'{path}: {reason}')
    pixels, profile = _read_tiff(content, path) if is_tiff(content) else _read_other(content, path)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DataError(f'{path}: pixels are {pixels.dtype}; allowed: uint8, uint16')
    planes = pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1).astype(np.float32) / np.iinfo(pixels.dtype).max
    colours, alpha = (planes[:-1], planes[-1]) if len(planes) in (2, 4) else (planes, None)
    rgb = torch.from_numpy(np.ascontiguousarray(colours)).expand(3, -1, -1).contiguous()
    return RestorableImage(rgb[None], alpha, 8 * pixels.itemsize, len(colours) == 1, profile)


def write_image(path: Path, image: RestorableImage) -> None:
    """Writes an image in the format of the path's ending; the file is whole or absent.

    Colours are clamped to [0, 1] and rounded. Grey is the mean of the three planes: the network was given the same in
    each, so none counts more. PNG, TIFF, BMP, PPM and WebP are lossless, JPEG has quality 95 and full chroma. What
    ``losses`` names is left out.

    Raises:
        DataError: The file cannot be written, or the format cannot hold so large an image.
    """
    suffix = _ALIASES.get(path.suffix.lower(), path.suffix.lower())
    pixels = _quantised(image, 16 if image.bits == 16 and suffix in WITH_16_BITS else 8, suffix in WITH_ALPHA)
    try:
        if pixels.dtype == np.uint8 and suffix not in _BY_OPENCV:
            content = _encode_pillow(suffix, pixels, _fitting_profile(image.profile, pixels))
        else:
            content = _encode_opencv(suffix, pixels, image.profile)
    except (OSError, ValueError, cv2.error) as error:
        height, width = pixels.shape[:2]
        raise DataError(f'{path}: {height}x{width} pixels (height x width) cannot be written as {suffix} '
                        f'({" ".join(str(error).split())[:200]})') from None
    _write_whole(path, content)


def losses(image: RestorableImage, suffix: str) -> list[str]:
    """What a file of that ending cannot keep: of ``16 bits``, ``alpha``."""
    lost = ['16 bits'] if image.bits == 16 and suffix.lower() not in WITH_16_BITS else []
    return lost + (['alpha'] if image.alpha is not None and suffix.lower() not in WITH_ALPHA else [])


def _read_other(content: bytes, path: Path) -> _Content:
    pixels = _decode(content, path)
    orientation, profile = _metadata(content)
    if content.startswith(_PNG_SIGNATURE) and content[25] == 4:  # grey with alpha, which OpenCV expands
        pixels = pixels[:, :, 2:]
    return _Content(_upright(pixels, orientation), _fitting_profile(profile, pixels))


def _read_tiff(content: bytes, path: Path) -> _Content:
    try:
        with _large_images():
            pixels, profile = read_tiff(content)
    except ValueError as error:
        raise DataError(f'{path}: {error}') from None
    return _Content(pixels, _fitting_profile(profile, pixels))


def _decode(content: bytes, path: Path) -> Pixels:
    try:
        return decode_stored(content)
    except ValueError as error:
        raise DataError(f'{path}: {error}') from None


def _metadata(content: bytes) -> tuple[int, bytes | None]:
    """EXIF orientation (1 where there is none) and ICC profile, from the header alone."""
    try:
        with _large_images(), PIL.Image.open(io.BytesIO(content)) as picture:
            info = picture.info
            exif = PIL.Image.Exif()
            exif.load(info.get('exif', b''))  # Image.getexif would decode a whole PNG
            return exif.get(_ORIENTATION, 1), info.get('icc_profile')
    except (OSError, ValueError, SyntaxError, struct.error):  # OpenCV decoded it: pixels without their metadata
        return 1, None


@contextmanager
def _large_images() -> Iterator[None]:
    """Lifts Pillow's limit on pixels; OpenCV has its own, and tiles are there for large images."""
    limit, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        PIL.Image.MAX_IMAGE_PIXELS = limit


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Applies an EXIF orientation (1 to 8, others do nothing)."""
    if orientation in _TRANSPOSE:
        pixels = pixels.swapaxes(0, 1)
    return np.flip(pixels, _FLIPS.get(orientation, ()))


def _fitting_profile(profile: Any, pixels: Pixels) -> bytes | None:
    """The profile if it is of the pixels' colour space; that of a CMYK file is not, after conversion to RGB."""
    space = b'GRAY' if pixels.ndim == 2 or pixels.shape[2] == 2 else b'RGB '
    return profile if isinstance(profile, bytes) and profile[16:20] == space else None


def _quantised(image: RestorableImage, bits: int, with_alpha: bool) -> Pixels:
    """Whole numbers, ``(H, W)``, or ``(H, W, 2 to 4)``: grey or RGB, alpha last."""
    colours = image.rgb[0].mean(0, keepdim=True) if image.grey else image.rgb[0]
    planes = colours.float().cpu().numpy()
    if image.alpha is not None and with_alpha:
        planes = np.concatenate((planes, image.alpha[None]))
    dtype = np.uint16 if bits == 16 else np.uint8
    whole = (planes.clip(0, 1) * np.float32(np.iinfo(dtype).max)).round().astype(dtype)
    return whole[0] if len(whole) == 1 else np.ascontiguousarray(whole.transpose(1, 2, 0))


def _encode_pillow(suffix: str, pixels: Pixels, profile: bytes | None) -> bytes:
    file = io.BytesIO()
    options = dict(_PILLOW_OPTIONS[suffix])
    if profile is not None:
        options['icc_profile'] = profile
    PIL.Image.fromarray(pixels).save(file, PIL.Image.registered_extensions()[suffix], **options)
    return file.getvalue()


def _encode_opencv(suffix: str, pixels: Pixels, profile: bytes | None) -> bytes:
    """16 bits, and what Pillow writes less well; grey with alpha becomes three equal planes with alpha."""
    if pixels.ndim == 2:
        planes = pixels if suffix != '.ppm' else np.dstack([pixels] * 3)
    else:
        planes = np.ascontiguousarray(pixels[:, :, {2: [0, 0, 0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[pixels.shape[2]]])
    done, content = cv2.imencode(suffix, planes)
    if not done:
        raise OSError('OpenCV does not say why')
    fitting = _fitting_profile(profile, planes)
    return _with_profile(content.tobytes(), fitting) if suffix == '.png' and fitting else content.tobytes()


def _with_profile(png: bytes, profile: bytes) -> bytes:
    """Puts an iCCP chunk (PNG specification, 11.3.2.3) behind the header."""
    chunk = b'iCCP' + b'ICC profile\0\0' + zlib.compress(profile)
    header = len(_PNG_SIGNATURE) + 25
    return b''.join((png[:header], struct.pack('>I', len(chunk) - 4), chunk, struct.pack('>I', zlib.crc32(chunk)),
                     png[header:]))


def _write_whole(path: Path, content: bytes) -> None:
    try:
        with whole_file(path) as file:
            file.write(content)
    except OSError as error:
        raise DataError(f'{path}: cannot be written ({error.strerror})') from None
