"""JPEG compression and decompression of a batch of images, without the lossless entropy coding in between.

A codec has four stages: quality to quantisation tables, images to colour planes (chroma at half the resolution), each
plane through DCT, quantisation and back, planes to images. `LIBJPEG` and `DIFFJPEG` differ in all four.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Planes = list[Tensor]  # luminance (B, 1, H, W), then for colour images Cr and Cb as one tensor (B, 2, H / 2, W / 2)

# Rec. ITU-T T.81, annex K.1; a row is one vertical frequency.
LUMINANCE = torch.tensor([
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
])
CHROMINANCE = F.pad(torch.tensor([[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]),
                    (0, 4, 0, 4), value=99)


class Codec(NamedTuple):
    """Conventions of a JPEG encoder and decoder: one function for each stage.

    Planes hold values around 0 (-128 to 127 for 8 bits) and have whole 8x8 blocks.

    Attributes:
        tables: Quality ``(n,)`` float64, 1 to 100, to the tables of luminance and of chrominance, ``(n, 8, 8)``.
        to_planes: Images ``(B, C, H, W)`` in [0, 1] to planes; the second argument, of the images' shape, is scratch.
        requantise: A plane and its table to the plane that the quantised DCT coefficients stand for. May overwrite
            the plane.
        to_images: Planes to images in [0, 1], written to the second argument. May overwrite the planes.
    """

    tables: Callable[[Tensor], tuple[Tensor, Tensor]]
    to_planes: Callable[[Tensor, Tensor], Planes]
    requantise: Callable[[Tensor, Tensor], Tensor]
    to_images: Callable[[Planes, Tensor], Tensor]


# ---- The separable transform of all 8x8 blocks of a plane -----------------------------------------------------------


def _side_by_side(matrix: Tensor) -> Tensor:
    """Transform two neighbouring blocks in one product: BLAS is slow on matrices of eight columns."""
    return torch.block_diag(matrix, matrix)


def _rows_times(plane: Tensor, matrix: Tensor, out: Tensor) -> Tensor:
    """``block @ matrix`` for each 8x8 block of the plane, with the matrix laid `_side_by_side`."""
    torch.mm(plane.view(-1, 16), matrix.to(plane, non_blocking=True), out=out.view(-1, 16))
    return out


def _times_columns(matrix: Tensor, plane: Tensor, out: Tensor) -> Tensor:
    """``matrix @ block`` for each 8x8 block of the plane."""
    strips = plane.view(-1, 8, plane.shape[-1])
    torch.bmm(matrix.to(plane, non_blocking=True).expand(len(strips), 8, 8), strips, out=out.view_as(strips))
    return out


def _tile(table: Tensor, plane: Tensor) -> Tensor:
    """Tables ``(n, 8, 8)`` repeated along the plane's width, ``(n, 1, 1, 8, W)``: broadcasts with its `_strips`."""
    return table.to(plane, non_blocking=True).repeat(1, 1, plane.shape[-1] // 8)[:, None, None]


def _strips(plane: Tensor) -> Tensor:
    """View ``(B, C, H, W)`` as rows of blocks ``(B, C, H / 8, 8, W)``."""
    return plane.unflatten(2, (-1, 8))


def _pad(planes: Tensor, rows: int, columns: int, mode: str) -> Tensor:
    """Pad below and at the right until height and width are multiples of the two numbers."""
    bottom, right = -planes.shape[-2] % rows, -planes.shape[-1] % columns
    return F.pad(planes, (0, right, 0, bottom), mode=mode).contiguous() if bottom or right else planes


# ---- libjpeg: integer arithmetic, here in floating point ------------------------------------------------------------

UNIT = 2**-16  # libjpeg's colour coefficients are multiples of it; with pixels of 8 bits, float32 sums them exactly

# The 13-bit transform that libjpeg calls "islow" (Loeffler, Ligtenberg & Moschytz, ICASSP 1989) as a matrix: the DCT
# times 8192 sqrt(8), off by up to one where it sums rounded constants. This is the left half; the right mirrors it.
_LEFT = torch.tensor([
    [8192, 8192, 8192, 8192],
    [11363, 9633, 6437, 2260],
    [10703, 4433, -4433, -10703],
    [9633, -2259, -11362, -6436],
    [8192, -8192, -8192, 8192],
    [6437, -11362, 2261, 9633],
    [4433, -10704, 10704, -4433],
    [2260, -6436, 9633, -11363],
], dtype=torch.float64)
_ISLOW = torch.cat((_LEFT, _LEFT.flip(1) * torch.tensor([[1], [-1]]).repeat(4, 1)), dim=1)

# Between the two passes libjpeg keeps two fractional bits; coefficients come out, and are quantised, times 8.
_ISLOW_ROWS, _ISLOW_COLUMNS = _side_by_side(_ISLOW.T) / 2**11, _ISLOW / 2**15
_INVERSE_COLUMNS, _INVERSE_ROWS = _ISLOW.T / 2**11, _side_by_side(_ISLOW) / 2**18

_AWAY_FROM_ZERO = 1 + 2**-20  # turns round-half-to-even into libjpeg's rounding of coefficients; no other value changes


def _libjpeg_tables(quality: Tensor) -> tuple[Tensor, Tensor]:
    quality = quality.round()
    scale = torch.where(quality < 50, torch.floor(5000 / quality), 200 - 2 * quality)[:, None, None]
    luminance, chrominance = LUMINANCE.to(quality, non_blocking=True), CHROMINANCE.to(quality, non_blocking=True)
    return (((luminance * scale + 50) / 100).floor_().clamp_(1, 255),
            ((chrominance * scale + 50) / 100).floor_().clamp_(1, 255))


def _libjpeg_planes(images: Tensor, scratch: Tensor) -> Planes:
    levels = torch.mul(images, 255, out=scratch).round_()
    if levels.shape[1] == 1:
        return [_pad(levels.sub_(128), 8, 8, 'replicate')]
    red, green, blue = _pad(levels, 2, 16, 'replicate').unbind(1)
    luma = (red * (19595 * UNIT)).add_(green, alpha=38470 * UNIT).add_(blue, alpha=7471 * UNIT).sub_(127.5).floor_()
    blueness = (blue * 0.5).sub_(red, alpha=11059 * UNIT).sub_(green, alpha=21709 * UNIT)
    redness = red.mul_(0.5).sub_(green, alpha=27439 * UNIT).sub_(blue, alpha=5329 * UNIT)
    chroma = _mean_of_2x2(redness.add_(0.5 - UNIT).floor_(), blueness.add_(0.5 - UNIT).floor_())
    return [_pad(luma[:, None], 8, 8, 'replicate'), _pad(chroma, 8, 8, 'replicate')]


def _mean_of_2x2(*planes: Tensor) -> Tensor:
    """Half-resolution planes ``(B, n, H / 2, W / 2)``; halves are rounded down in even columns and up in odd ones."""
    batch, height, width = planes[0].shape
    means = planes[0].new_empty(batch, len(planes), height // 2, width // 2)
    for plane, mean in zip(planes, means.unbind(1), strict=True):
        pairs = plane[:, ::2].add_(plane[:, 1::2])
        torch.add(pairs[..., ::2], pairs[..., 1::2], out=mean)
    means[..., ::2] += 1
    means[..., 1::2] += 2
    return means.mul_(0.25).floor_()


def _round_half_up(values: Tensor) -> Tensor:
    return values.add_(0.5).floor_()


def _libjpeg_requantise(plane: Tensor, table: Tensor) -> Tensor:
    steps = _tile(table, plane)
    other = torch.empty_like(plane)
    _round_half_up(_rows_times(plane, _ISLOW_ROWS, out=other))
    _round_half_up(_times_columns(_ISLOW_COLUMNS, other, out=plane))
    _strips(plane).mul_(_AWAY_FROM_ZERO / 8 / steps).round_().mul_(steps)
    _round_half_up(_times_columns(_INVERSE_COLUMNS, plane, out=other))
    return _round_half_up(_rows_times(other, _INVERSE_ROWS, out=plane)).clamp_(-128, 127)


def _libjpeg_images(planes: Planes, out: Tensor) -> Tensor:
    height, width = out.shape[-2:]
    luma = planes[0][..., :height, :width]
    if len(planes) == 1:
        return torch.add(luma, 128, out=out).div_(255)
    red, green, blue = out.unbind(1)
    _upsample(planes[1][..., :(height + 1) // 2, :(width + 1) // 2], out=out[:, ::2])
    luma = luma[:, 0].add_(128.5)  # the half rounds the sums
    torch.sub(luma, red, alpha=46802 * UNIT, out=green).sub_(blue, alpha=22554 * UNIT)
    red.mul_(91881 * UNIT).add_(luma)
    blue.mul_(116130 * UNIT).add_(luma)
    return out.floor_().clamp_(0, 255).div_(255)


def _upsample(chroma: Tensor, out: Tensor) -> None:
    """Twice the height and width: 3/4 of the nearest and 1/4 of the next, first vertically, then horizontally.

    libjpeg calls it "fancy" and repeats the pixels of planes up to two pixels wide instead.
    """
    height, width = chroma.shape[-2:]
    if width <= 2:
        out.copy_(_repeat_2x2(chroma, out))
        return
    padded = F.pad(chroma, (1, 1, 1, 1), mode='replicate')
    rows = padded.new_empty(*chroma.shape[:2], height, 2, width + 2)
    for side in (0, 1):
        torch.lerp(padded[:, :, 1:-1], padded[:, :, 2 * side:][:, :, :height], 0.25, out=rows[:, :, :, side])
    rows = rows.flatten(2, 3)[:, :, :out.shape[2]]
    columns = rows.new_empty(*rows.shape[:3], width)
    for side, half in enumerate((8 / 16, 7 / 16)):
        torch.lerp(rows[..., 1:-1], rows[..., 2 * side:][..., :width], 0.25, out=columns).add_(half).floor_()
        target = out[..., side::2]
        target.copy_(columns[..., :target.shape[-1]])


def _repeat_2x2(chroma: Tensor, image: Tensor) -> Tensor:
    """Each pixel as 2x2 pixels, cropped to the height and width of the image."""
    return F.interpolate(chroma, scale_factor=2, mode='nearest')[..., :image.shape[-2], :image.shape[-1]]


# ---- DiffJPEG: real numbers, of which only the coefficients are rounded ---------------------------------------------

_INDEX = torch.arange(8, dtype=torch.float64)
_DCT = torch.cos(_INDEX[:, None] * (2 * _INDEX + 1) * (math.pi / 16)) / 2
_DCT[0] *= math.sqrt(0.5)
_DCT_ROWS, _IDCT_ROWS = _side_by_side(_DCT.T), _side_by_side(_DCT)


def _diffjpeg_tables(quality: Tensor) -> tuple[Tensor, Tensor]:
    factor = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
    factor = factor.clamp(min=1e-6)[:, None, None]  # DiffJPEG divides 0 by 0 at quality 100
    # DiffJPEG stores its tables as columns and uses them as rows, which transposes the frequencies.
    return LUMINANCE.T.to(factor, non_blocking=True) * factor, CHROMINANCE.to(factor, non_blocking=True) * factor


def _diffjpeg_planes(images: Tensor, scratch: Tensor) -> Planes:
    levels = _pad(torch.mul(images, 255, out=scratch), 16, 16, 'constant')
    if levels.shape[1] == 1:
        return [levels.sub_(128)]
    red, green, blue = levels.unbind(1)
    luma = (red * 0.299).add_(green, alpha=0.587).add_(blue, alpha=0.114).sub_(128)
    blueness = (blue * 0.5).sub_(red, alpha=0.168736).sub_(green, alpha=0.331264)
    redness = red.mul_(0.5).sub_(green, alpha=0.418688).sub_(blue, alpha=0.081312)
    chroma = [plane[:, ::2].add_(plane[:, 1::2]) for plane in (redness, blueness)]
    return [luma[:, None], torch.stack([pairs[..., ::2] + pairs[..., 1::2] for pairs in chroma], dim=1).mul_(0.25)]


def _diffjpeg_requantise(plane: Tensor, table: Tensor) -> Tensor:
    steps = _tile(table, plane)
    other = torch.empty_like(plane)
    _rows_times(plane, _DCT_ROWS, out=other)
    _strips(_times_columns(_DCT, other, out=plane)).div_(steps).round_().mul_(steps)
    return _rows_times(_times_columns(_DCT.T, plane, out=other), _IDCT_ROWS, out=plane)


def _diffjpeg_images(planes: Planes, out: Tensor) -> Tensor:
    luma = planes[0][..., :out.shape[-2], :out.shape[-1]]
    if len(planes) == 1:
        return torch.add(luma, 128, out=out).clamp_(0, 255).div_(255)
    redness, blueness = _repeat_2x2(planes[1], out).unbind(1)
    red, green, blue = out.unbind(1)
    luma = luma[:, 0].add_(128)
    torch.add(luma, redness, alpha=1.402, out=red)
    torch.sub(luma, redness, alpha=0.714136, out=green).sub_(blueness, alpha=0.344136)
    torch.add(luma, blueness, alpha=1.772, out=blue)
    return out.clamp_(0, 255).div_(255)


# ---- The constants and the function for users -----------------------------------------------------------------------

LIBJPEG = Codec(_libjpeg_tables, _libjpeg_planes, _libjpeg_requantise, _libjpeg_images)
"""libjpeg(-turbo) at its defaults, as OpenCV uses it.

Pixels and colour planes (JFIF YCbCr) are rounded to 8 bits, edges repeated to whole blocks, chroma is the mean of 2x2
pixels (4:2:0). Quality, rounded to an integer, gives tables ``floor((base * scale + 50) / 100)`` in 1..255 with
``scale = floor(5000 / quality)`` below 50, else ``200 - 2 * quality``. The DCT is the integer one; chroma is
interpolated linearly ("fancy upsampling"); the result is k / 255 with k an integer.

Equal to ``cv2.imdecode(cv2.imencode(...))`` bit for bit in float64, and in float32 but for about one level in one of
10^5 values.
"""

DIFFJPEG = Codec(_diffjpeg_tables, _diffjpeg_planes, _diffjpeg_requantise, _diffjpeg_images)
"""``basicsr.utils.diffjpeg.DiffJPEG(differentiable=False)``, after https://github.com/mlomnitz/DiffJPEG.

Only the coefficients are rounded. Images are padded with black to multiples of 16, chroma is the mean of 2x2 pixels and
repeated 2x2 times. Tables are ``base * factor``, real numbers, with ``factor = 50 / quality`` below 50, else
``2 - quality / 50``, at least 1e-6 (which leaves no quantisation at 100, where DiffJPEG returns NaN); that of luminance
is transposed, as there.
"""


@torch.no_grad()
def compress(images: Tensor, quality: float | Tensor, codec: Codec = LIBJPEG) -> Tensor:
    """Compress images as JPEG does, and decompress them.

    The transforms are matrix products: for `LIBJPEG` to be exact on a GPU, leave TF32 products off (PyTorch's default).

    Args:
        images: ``(B, C, H, W)`` in [0, 1], float32 or float64, any height and width; C = 3 is RGB, C = 1 is grey and
            uses the table of luminance alone.
        quality: 1 to 100; one for all images, or one for each, ``(B,)``. A tensor's values are clamped to that range.
        codec: `LIBJPEG` or `DIFFJPEG`.

    Returns:
        A new tensor of the same shape, dtype and device, in [0, 1], without gradient.

    Raises:
        ValueError: If the images are not such a batch, a number is outside 1 to 100, or there are neither one nor B
            qualities.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.dtype not in (torch.float32, torch.float64):
        raise ValueError('expected images (B, 3, H, W) or (B, 1, H, W), float32 or float64, '
                         f'got {tuple(images.shape)}, {images.dtype}')
    out = torch.empty_like(images, memory_format=torch.contiguous_format)
    tables = codec.tables(_as_tensor(quality, len(images)))
    planes = codec.to_planes(images, out)
    planes = [codec.requantise(plane, table) for plane, table in zip(planes, tables, strict=False)]
    return codec.to_images(planes, out)


def _as_tensor(quality: float | Tensor, batch: int) -> Tensor:
    """Qualities as ``(1,)`` or ``(B,)`` float64, on the device they come from."""
    if isinstance(quality, Tensor):
        if quality.numel() not in (1, batch):
            raise ValueError(f'expected one quality or {batch}, got {tuple(quality.shape)}')
        return quality.detach().flatten().to(torch.float64).clamp(1, 100)
    if not 1 <= quality <= 100:
        raise ValueError(f'quality must be in 1..100, got {quality}')
    return torch.tensor([quality], dtype=torch.float64)
