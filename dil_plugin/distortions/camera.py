"""Camera noise: shot and read noise in one of the colour spaces of a camera's pipeline."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import torch
from msgspec import Meta
from torch import Tensor
from typing_extensions import Self

from dil_plugin.distortions.base import DISTORTION_REGISTRY, Distortion
from dil_plugin.distortions.degrees import Uniform, draw, per_sample
from dil_plugin.distortions.isp import (
    PATTERNS,
    Camera,
    Response,
    ResponseName,
    bayer_masks,
    demosaic,
    draw_camera,
    draw_response,
    mosaic,
)
from dil_plugin.distortions.jpeg_codec import LIBJPEG, compress
from dil_plugin.distortions.noise import luma
from dil_plugin.errors import OptionError

Shot = Annotated[float, Meta(ge=0, le=1, description='Standard deviation of the shot noise at signal 1, of [0, 1].')]
Read = Annotated[float, Meta(ge=0, le=1, description='Standard deviation of the read noise; signal in [0, 1].')]
Quality = Annotated[float, Meta(ge=1, le=100, description='JPEG quality, 1 to 100.')]


_USED_IN = {'response': ('raw', 'linear'), 'quality': ('srgb_jpeg', )}


@DISTORTION_REGISTRY.register
class CameraNoise(Distortion, frozen=True):
    """Poisson-Gaussian noise in a colour space of the camera's pipeline, ``g(x) = clip(P(P^-1(x) + n), 0, 1)``.

    ``n ~ N(0, shot^2 L + read^2)`` independently for every value, where ``L = P^-1(x)`` is the signal, within
    [0, 1], in the space where the noise comes in, and P the rest of the pipeline:

    * ``raw``: the Bayer mosaic of the sensor. P demosaics (bilinear), balances white, goes to linear sRGB by a colour
      matrix and applies the camera's response. Every sample has a camera and one of the four Bayer patterns of its own.
    * ``linear``: linear sRGB. P is the camera's response.
    * ``srgb``: the image itself.
    * ``srgb_jpeg``: the image itself; the clipped noisy image is then compressed (libjpeg's defaults, so 4:2:0).

    So ``{type: CameraNoise, space: [raw, linear, srgb, srgb_jpeg]}`` makes the four confounders of DIL's real
    denoising. Noise model and default ranges are those of CBDNet (Guo et al., CVPR 2019): ``n = n_s(L) + n_c``,
    ``Var n_s = L sigma_s^2``, ``Var n_c = sigma_c^2``; one pair of sigmas per sample. As there, shot noise is a
    Gaussian of the Poisson law's variance, not a count: of the skewness ``shot / sqrt(L)`` that this leaves out, white
    has 0.16 at the strongest default, and only signals of less than one photon, ``L < shot^2``, more than 1. In return
    the noise is defined down to ``shot = 0`` and at ``L < 0`` (colours that the sensor cannot mix; they have read noise
    alone), and costs one draw per value.

    Without noise ``srgb`` is the identity, ``linear`` up to rounding, ``raw`` leaves what demosaicing loses.

    A grey image (C = 1) goes through as an achromatic colour image and is changed by the luma of its noise, as a colour
    photograph that is made grey afterwards.

    Attributes:
        space: Where the noise comes in.
        shot: Standard deviation of the shot noise at signal 1, in units of the signal's range [0, 1].
        read: Standard deviation of the read noise, in the same units.
        response: The camera's response, for ``raw`` and ``linear``; see `isp.draw_response`.
        quality: JPEG quality, for ``srgb_jpeg``.
    """

    space: Literal['raw', 'linear', 'srgb', 'srgb_jpeg']
    shot: Shot | Uniform = Uniform((0, 0.16))
    read: Read | Uniform = Uniform((0, 0.06))
    response: ResponseName = 'random'
    quality: Quality | Uniform = Uniform((60, 100))

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ('response', 'quality'):
            default = next(field.default for field in msgspec.structs.fields(self) if field.name == name)
            if getattr(self, name) != default and self.space not in _USED_IN[name]:
                raise ValueError(f'.{name}: has no effect in space {self.space}, only in {", ".join(_USED_IN[name])}')

    @classmethod
    def expand(cls, options: Mapping[str, Any], key: str) -> list[Self]:
        """As ``Distortion.expand``; of several spaces each takes the options that it has a use for."""
        spaces = options.get('space')
        if not isinstance(spaces, list) or not spaces:
            return super().expand(options, key)
        for name, used_in in _USED_IN.items():
            if name in options and not set(used_in) & {str(space) for space in spaces}:
                raise OptionError(f'{key}.{name}: has no effect in these spaces, only in {", ".join(used_in)}')
        given = [{name: value for name, value in options.items() if space in _USED_IN.get(name, (space, ))}
                 for space in spaces]
        return [made for space, one in zip(spaces, given, strict=True)
                for made in super(CameraNoise, cls).expand({**one, 'space': space}, key)]

    @property
    def min_size(self) -> int:
        """Demosaicing reflects the borders, which takes two pixels."""
        return 2 if self.space == 'raw' else 1

    def apply(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
        """See the class. Raises ValueError if C is neither 3 nor 1."""
        if clean.shape[1] not in (1, 3):
            raise ValueError(f'{self.label}: expected 3 channels, or 1 for grey, got {clean.shape[1]}')
        if clean.shape[1] == 3:
            return self._distort(clean, generator)
        change = self._distort(clean.expand(-1, 3, -1, -1), generator).sub_(clean)
        return luma(change).add_(clean).clamp_(0, 1)

    def _distort(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
        shot, read = draw(self.shot, clean, generator), draw(self.read, clean, generator)
        if self.space == 'raw':
            camera = draw_camera(self.response, clean, generator)
            patterns = torch.randint(len(PATTERNS), clean.shape[:1], device=clean.device, generator=generator)
            noisy = noise_in_raw(clean, camera, patterns, shot, read, generator)
        elif self.space == 'linear':
            response = draw_response(self.response, clean, generator)
            noisy = noise_in_linear(clean, response, shot, read, generator)
        else:
            noisy = add_noise(clean, shot, read, generator)
        noisy.clamp_(0, 1)
        return compress(noisy, draw(self.quality, clean, generator), LIBJPEG) if self.space == 'srgb_jpeg' else noisy


def add_noise(signal: Tensor, shot: float | Tensor, read: float | Tensor, generator: torch.Generator | None) -> Tensor:
    """``L + sqrt(shot^2 max(L, 0) + read^2) e``, ``e ~ N(0, 1)`` for every value; not clipped.

    Args:
        signal: L, ``(B, C, H, W)``.
        shot: Standard deviation of the shot noise at signal 1; a number or ``(B,)``.
        read: Standard deviation of the read noise; a number or ``(B,)``.
        generator: Source of randomness on the signal's device.
    """
    noise = torch.randn(signal.shape, dtype=signal.dtype, device=signal.device, generator=generator)
    std = signal.clamp(min=0).mul_(per_sample(shot)**2).add_(per_sample(read)**2).sqrt_()
    return noise.mul_(std).add_(signal)


def noise_in_linear(images: Tensor, response: Response, shot: float | Tensor, read: float | Tensor,
                    generator: torch.Generator | None) -> Tensor:
    """Noise in linear RGB.

    Args:
        images: sRGB, ``(B, C, H, W)`` in [0, 1].
        response: The cameras' responses.
        shot: See `add_noise`.
        read: See `add_noise`.
        generator: Source of randomness on the images' device.

    Returns:
        sRGB of the same shape, not clipped.
    """
    return response.encode(add_noise(response.linearize(images), shot, read, generator))


def noise_in_raw(images: Tensor, camera: Camera, patterns: Tensor, shot: float | Tensor, read: float | Tensor,
                 generator: torch.Generator | None) -> Tensor:
    """Noise in the Bayer mosaic.

    Args:
        images: sRGB, ``(B, 3, H, W)`` in [0, 1], H and W at least 2.
        camera: The samples' cameras.
        patterns: ``(B,)``, indices into `isp.PATTERNS`.
        shot: See `add_noise`.
        read: See `add_noise`.
        generator: Source of randomness on the images' device.

    Returns:
        sRGB of the same shape, not clipped.
    """
    masks = bayer_masks(patterns, images)
    raw = add_noise(mosaic(camera.unprocess(images), masks), shot, read, generator)
    return camera.process(demosaic(raw, masks))
