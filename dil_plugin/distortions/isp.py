"""A camera's pipeline and its inverse: sRGB images to linear RGB, to sensor values, to a Bayer mosaic, and back.

Every sample of a batch has a camera of its own. Nothing is clipped between the stages, so that without noise and mosaic
the way back is the inverse of the way forth, saturated colours included. The stages and the ranges of their parameters
are those of Brooks et al., "Unprocessing Images for Learned Raw Denoising", CVPR 2019.
"""

import functools
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

ResponseName = Literal['srgb', 'gamma', 'filmic', 'random']
PATTERNS = ('RGGB', 'GRBG', 'GBRG', 'BGGR')  # rows of the cell one after the other; red is at (index // 2, index % 2)
WHITE_BALANCE = torch.tensor([[1.9, 1, 1.5], [2.4, 1, 1.9]], dtype=torch.float64)  # least and greatest gains
INVERSE_GAIN_MEAN, INVERSE_GAIN_STD = 0.8, 0.1
INVERSE_GAIN_LIMITS = (0.5, 1.0)  # white stays within the sensor's range

# XYZ to camera RGB of four cameras, and linear sRGB to XYZ (D65), both as published by Brooks et al.
XYZ_TO_CAMERA = torch.tensor([
    [[1.0234, -0.2969, -0.2266], [-0.5625, 1.6328, -0.0469], [-0.0703, 0.2188, 0.6406]],
    [[0.4913, -0.0541, -0.0202], [-0.6130, 1.3513, 0.2906], [-0.1564, 0.2151, 0.7183]],
    [[0.8380, -0.2630, -0.0639], [-0.2887, 1.0725, 0.2496], [-0.0627, 0.1427, 0.5438]],
    [[0.6596, -0.2079, -0.0562], [-0.4782, 1.3016, 0.1933], [-0.0970, 0.1581, 0.5181]],
], dtype=torch.float64)
SRGB_TO_XYZ = torch.tensor([
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
], dtype=torch.float64)

# A power has an infinite slope at 0, where float32's rounding would show; below two grey levels of 8 bits it is a line.
_TOE = 2 / 255
# Per response: end of the straight part, its slope, offset a and exponent g of (1 + a) x^(1 / g) - a.
_CURVES = torch.tensor([
    [0.0031308, 12.92, 0.055, 2.4],
    [_TOE**2.2, _TOE**(1 - 2.2), 0, 2.2],
    [0.0031308, 12.92, 0.055, 2.4],
], dtype=torch.float64)
_SRGB, _GAMMA, _FILMIC = range(3)
_INDICES = {'srgb': _SRGB, 'gamma': _GAMMA, 'filmic': _FILMIC}


class Response(NamedTuple):
    """Camera response curves, one per sample; strictly increasing and continuous, `filmic` only within [0, 1].

    ``f(x) = slope x`` up to the knee and ``(1 + a) x^(1 / g) - a`` above it; `filmic` puts ``3 f^2 - 2 f^3`` on top,
    which stays at 0 and 1 outside of [0, 1], where its slope is 0 already. The straight part goes on below 0 and the
    power above 1, so noisy values keep their order.

    Attributes:
        knee: ``(B, 1, 1, 1)``, the linear value at which the straight part ends.
        slope: Its slope, same shape.
        offset: The ``a`` of the power, same shape.
        exponent: Its ``g``, same shape.
        filmic: Same shape, bool: which samples have the S-curve. None: no sample.
    """

    knee: Tensor
    slope: Tensor
    offset: Tensor
    exponent: Tensor
    filmic: Tensor | None

    def encode(self, linear: Tensor) -> Tensor:
        """The response ``f``: linear values ``(B, C, H, W)`` to sRGB values."""
        power = torch.maximum(linear, self.knee).pow_(1 / self.exponent).mul_(1 + self.offset).sub_(self.offset)
        encoded = torch.where(linear <= self.knee, linear * self.slope, power)
        return encoded if self.filmic is None else torch.where(self.filmic, smoothstep(encoded), encoded)

    def linearize(self, images: Tensor) -> Tensor:
        """The inverse of ``f``: sRGB values ``(B, C, H, W)`` to linear ones; `filmic` clips its input to [0, 1]."""
        if self.filmic is not None:
            images = torch.where(self.filmic, inverse_smoothstep(images), images)
        knee = self.knee * self.slope
        power = torch.maximum(images, knee).add_(self.offset).div_(1 + self.offset).pow_(self.exponent)
        return torch.where(images <= knee, images / self.slope, power)


def draw_response(name: ResponseName, images: Tensor, generator: torch.Generator | None) -> Response:
    """The response of each sample's camera.

    Args:
        name: ``srgb`` (IEC 61966-2-1), ``gamma`` (``x^(1 / 2.2)``; a line through 0 up to the encoded value 2 / 255),
            ``filmic`` (``srgb``, then the S-curve ``3 x^2 - 2 x^3`` of Brooks et al.), or ``random``: every sample
            draws one of the three.
        images: ``(B, C, H, W)``; gives B, dtype and device.
        generator: Source of randomness on the images' device.
    """
    if name == 'random':
        index = torch.randint(len(_INDICES), images.shape[:1], device=images.device, generator=generator)
    else:
        index = torch.full(images.shape[:1], _INDICES[name], device=images.device)
    curves = _CURVES.to(images.device, images.dtype, non_blocking=True).index_select(0, index)
    knee, slope, offset, exponent = curves.view(-1, 4, 1, 1, 1).unbind(1)
    may_be_filmic = name in ('filmic', 'random')
    return Response(knee, slope, offset, exponent, (index == _FILMIC).view(-1, 1, 1, 1) if may_be_filmic else None)


def smoothstep(values: Tensor) -> Tensor:
    """The S-curve ``3 x^2 - 2 x^3`` of values clipped to [0, 1]; any shape."""
    values = values.clamp(0, 1)
    return (3 - 2 * values).mul_(values).mul_(values)


def inverse_smoothstep(values: Tensor) -> Tensor:
    """The x in [0, 1] with ``3 x^2 - 2 x^3 = y``, for y clipped to [0, 1]; any shape.

    ``1/2 - sin(asin(1 - 2 y) / 3)``, written as ``2 sin(t) cos(pi / 6 - t)`` with ``t = asin(sqrt(y)) / 3``, which does
    not lose digits where y is small.
    """
    third = values.clamp(0, 1).sqrt_().asin_().div_(3)
    return (torch.pi / 6 - third).cos_().mul_(third.sin_()).mul_(2)


class Camera(NamedTuple):
    """What a camera does between its sensor and the sRGB image, one per sample.

    Attributes:
        response: Linear sRGB to sRGB.
        to_sensor: ``(B, 3, 3)``, linear sRGB to sensor values: colour matrix, then the inverse white balance.
        to_linear: ``(B, 3, 3)``, its inverse: white balance, then the inverse colour matrix.
    """

    response: Response
    to_sensor: Tensor
    to_linear: Tensor

    def unprocess(self, images: Tensor) -> Tensor:
        """sRGB ``(B, 3, H, W)`` in [0, 1] to sensor values of the same shape.

        They are in [0, 1] but for colours that the sensor's primaries cannot mix, some of whose values are negative.
        """
        return transform_colors(self.response.linearize(images), self.to_sensor)

    def process(self, sensor: Tensor) -> Tensor:
        """Sensor values ``(B, 3, H, W)`` to sRGB, not clipped: the inverse of `unprocess`."""
        return self.response.encode(transform_colors(sensor, self.to_linear))


def make_camera(response: Response, matrices: Tensor, gains: Tensor) -> Camera:
    """A camera from its parts.

    Args:
        response: Its response; also gives dtype and device.
        matrices: ``(B, 3, 3)``, linear sRGB to camera RGB, as from `color_matrices`; float64.
        gains: ``(B, 3)``, the white balance: what the sensor's red, green and blue are multiplied by.
    """
    to_sensor = matrices / gains.to(matrices.dtype).unsqueeze(2)
    to_linear, _ = torch.linalg.inv_ex(to_sensor)  # inv would wait for the device to report singular matrices
    return Camera(response, to_sensor.to(response.knee.dtype), to_linear.to(response.knee.dtype))


def draw_camera(response: ResponseName, images: Tensor, generator: torch.Generator | None) -> Camera:
    """A random camera for each sample.

    The colour matrix is a convex combination of those of four cameras with weights ~ U[0, 1) before they are made to
    sum to 1; the gains are red ~ U(1.9, 2.4), blue ~ U(1.5, 1.9), and for all three ``1 / gain ~ N(0.8, 0.1^2)``,
    limited to [0.5, 1].

    Args:
        response: See `draw_response`.
        images: ``(B, C, H, W)``; gives B, dtype and device.
        generator: Source of randomness on the images' device.
    """
    curve = draw_response(response, images, generator)
    new = functools.partial(images.new_empty, dtype=torch.float64)
    weights = new((images.shape[0], len(XYZ_TO_CAMERA))).uniform_(generator=generator)
    low, high = WHITE_BALANCE.to(images.device, non_blocking=True)
    balance = new((images.shape[0], 3)).uniform_(generator=generator).mul_(high - low).add_(low)
    inverse = new((images.shape[0], 1)).normal_(INVERSE_GAIN_MEAN, INVERSE_GAIN_STD, generator=generator)
    inverse.clamp_(*INVERSE_GAIN_LIMITS)
    return make_camera(curve, color_matrices(weights), balance / inverse)


def color_matrices(weights: Tensor) -> Tensor:
    """Linear sRGB to camera RGB, ``(B, 3, 3)`` float64; each row sums to 1, so white stays white.

    Args:
        weights: ``(B, 4)`` float64, not negative and not all 0: the shares of the four matrices `XYZ_TO_CAMERA`.
    """
    cameras, srgb = (matrix.to(weights.device, non_blocking=True) for matrix in (XYZ_TO_CAMERA, SRGB_TO_XYZ))
    mixed = (weights[:, :, None, None] * cameras).sum(1)
    matrices = (mixed[:, :, :, None] * srgb).sum(2)
    return matrices / matrices.sum(2, keepdim=True)


def transform_colors(images: Tensor, matrices: Tensor) -> Tensor:
    """Multiplies each pixel of ``(B, 3, H, W)`` by its sample's matrix ``(B, 3, 3)``."""
    # No matmul: at PyTorch's lower matmul precisions it would round to 10 bits on a GPU.
    red, green, blue = matrices[:, :, :, None, None].unbind(2)
    return (red * images[:, 0:1]).addcmul_(green, images[:, 1:2]).addcmul_(blue, images[:, 2:3])


def bayer_masks(patterns: Tensor, images: Tensor) -> Tensor:
    """Which colour each pixel of a Bayer sensor sees.

    Args:
        patterns: ``(B,)`` int64, indices into `PATTERNS`.
        images: ``(B, C, H, W)``; gives H, W, dtype and device.

    Returns:
        ``(B, 3, H, W)`` of 0 and 1: red, green, blue; one 1 per pixel.
    """
    height, width = (torch.arange(size, device=images.device) for size in images.shape[-2:])
    red_row = (height + patterns.div(2, rounding_mode='floor')[:, None]) % 2 == 0
    red_column = (width + patterns[:, None]) % 2 == 0
    row, column = red_row[:, :, None], red_column[:, None, :]
    return torch.stack([row & column, row ^ column, ~(row | column)], 1).to(images.dtype)


def mosaic(images: Tensor, masks: Tensor) -> Tensor:
    """What a Bayer sensor sees of ``(B, 3, H, W)``: one colour per pixel, ``(B, 1, H, W)``; `masks` say which."""
    return (images * masks).sum(1, keepdim=True)


def demosaic(raw: Tensor, masks: Tensor) -> Tensor:
    """Bilinear interpolation of the colours that a Bayer sensor does not see; those that it sees stay.

    As `kornia.color.raw_to_rgb` and OpenCV's ``COLOR_Bayer…2RGB`` inside. Borders are reflected without the border
    pixel, so the pattern goes on beyond them, at odd sizes too.

    Args:
        raw: ``(B, 1, H, W)``, H and W at least 2.
        masks: ``(B, 3, H, W)``, see `bayer_masks`.

    Returns:
        ``(B, 3, H, W)``.
    """
    # Sums of slices, because a convolution may round to 10 bits on a GPU, as PyTorch allows it by default.
    planes = functional.pad(raw, (1, 1, 1, 1), mode='reflect') * functional.pad(masks, (1, 1, 1, 1), mode='reflect')
    out = torch.empty_like(masks)
    out[:, 0::2] = _tent(planes[:, 0::2])
    green = planes[:, 1]
    around = green[:, :-2, 1:-1] + green[:, 2:, 1:-1] + green[:, 1:-1, :-2] + green[:, 1:-1, 2:]
    torch.add(green[:, 1:-1, 1:-1], around, alpha=0.25, out=out[:, 1])
    return out


def _tent(planes: Tensor) -> Tensor:
    """The sum over 3x3 pixels with the weights 1/2, 1, 1/2 in both directions."""
    rows = torch.add(planes[..., 1:-1], planes[..., :-2] + planes[..., 2:], alpha=0.5)
    return torch.add(rows[..., 1:-1, :], rows[..., :-2, :] + rows[..., 2:, :], alpha=0.5)
