"""JPEG codec against OpenCV's (libjpeg-turbo) and BasicSR's DiffJPEG."""

import copy

import cv2
import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor

from dil_plugin.distortions.jpeg_codec import DIFFJPEG, LIBJPEG, Codec, compress

QUALITIES = [1, 10, 20, 30, 40, 49, 50, 60, 70, 80, 90, 95, 99, 100]
SIZES = [(1, 1), (2, 3), (3, 4), (4, 5), (8, 8), (9, 17), (16, 16), (17, 9), (18, 34), (33, 31), (40, 48)]
PHOTOGRAPHS = ['astronaut', 'chelsea', 'coffee']

each_quality = pytest.mark.parametrize('quality', QUALITIES)
each_size = pytest.mark.parametrize('size', SIZES, ids=str)
each_photograph = pytest.mark.parametrize('photograph', PHOTOGRAPHS)
each_codec = pytest.mark.parametrize('codec', [LIBJPEG, DIFFJPEG], ids=['libjpeg', 'diffjpeg'])
each_channels = pytest.mark.parametrize('channels', [1, 3])


def crops(size: tuple[int, int], count: int = 1, channels: int = 3, photograph: str = 'astronaut',
          dtype: torch.dtype = torch.float64) -> Tensor:
    """Different crops of a photograph, every value a multiple of 1/255."""
    picture = getattr(data, photograph)()[..., 3 - channels:]
    images = [picture[31 * i + 60:31 * i + 60 + size[0], 23 * i + 120:23 * i + 120 + size[1]] for i in range(count)]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(dtype) / 255


def with_opencv(clean: Tensor, quality: int) -> Tensor:
    decoded = []
    for image in (clean * 255).round().byte().permute(0, 2, 3, 1).numpy():
        ok, encoded = cv2.imencode('.jpg', np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert ok
        decoded.append(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED).reshape(image.shape)[..., ::-1])
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).to(clean.dtype) / 255


def with_basicsr(clean: Tensor, quality: float | Tensor) -> Tensor:
    """DiffJPEG in the images' precision; it shares its tables between instances, hence the copy."""
    # Makes BasicSR importable on a current torchvision.
    import dil_plugin.basicsr  # noqa: F401, I001
    from basicsr.utils.diffjpeg import DiffJPEG

    codec = copy.deepcopy(DiffJPEG(differentiable=False)).to(clean.dtype)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(Tensor, 'float', lambda self: self.to(clean.dtype))
        return codec(clean, copy.deepcopy(quality))


def psnr(distorted: Tensor, clean: Tensor) -> float:
    return float(-10 * torch.log10((distorted.double() - clean.double()).square().mean()))


@each_quality
@each_photograph
def test_libjpeg_equals_opencv(photograph: str, quality: int) -> None:
    clean = crops((161, 143), photograph=photograph)
    torch.testing.assert_close(compress(clean, quality), with_opencv(clean, quality), atol=1e-12, rtol=0)


@each_size
@each_channels
@pytest.mark.parametrize('quality', [10, 75, 100])
def test_libjpeg_equals_opencv_at_any_size(size: tuple[int, int], channels: int, quality: int) -> None:
    clean = crops(size, 2, channels)
    torch.testing.assert_close(compress(clean, quality), with_opencv(clean, quality), atol=1e-12, rtol=0)


@each_quality
@each_channels
def test_libjpeg_equals_opencv_on_noise(channels: int, quality: int) -> None:
    """Values beyond 0..255 after decoding, and coefficients in every place."""
    noise = torch.randint(256, (2, channels, 48, 80), generator=torch.Generator().manual_seed(0)).double() / 255
    for clean in (noise, noise.round()):
        torch.testing.assert_close(compress(clean, quality), with_opencv(clean, quality), atol=1e-12, rtol=0)


@each_quality
@each_photograph
def test_libjpeg_in_single_precision(photograph: str, quality: int) -> None:
    clean = crops((161, 143), photograph=photograph, dtype=torch.float32)
    distorted, expected = compress(clean, quality), with_opencv(clean, quality)
    assert distorted.dtype == torch.float32
    assert ((distorted - expected).abs() > 1e-6).double().mean() < 5e-4
    assert abs(psnr(distorted, clean) - psnr(expected, clean)) < 0.005


def test_libjpeg_rounds_to_eight_bits() -> None:
    clean = torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    distorted = compress(clean, 80)
    assert torch.equal(distorted, compress((clean * 255).round() / 255, 80))
    assert torch.equal(distorted, (distorted * 255).round() / 255)


@pytest.mark.parametrize(('quality', 'integer'), [(49.6, 50), (33.3, 33), (7.4, 7), (99.9, 100)])
def test_libjpeg_rounds_the_quality(quality: float, integer: int) -> None:
    clean = crops((40, 40))
    torch.testing.assert_close(compress(clean, quality), with_opencv(clean, integer), atol=1e-12, rtol=0)


@each_photograph
@pytest.mark.parametrize('quality', [1, 10, 30.5, 49.9, 50, 75.5, 90, 99])
def test_diffjpeg_equals_basicsr(photograph: str, quality: float) -> None:
    clean = crops((96, 89), 2, photograph=photograph)  # BasicSR's constants are of single precision, hence 1e-6
    torch.testing.assert_close(compress(clean, quality, DIFFJPEG), with_basicsr(clean, quality), atol=1e-6, rtol=0)


@each_photograph
@pytest.mark.parametrize('quality', [1, 10, 30.5, 49.9, 50, 75.5, 90, 99])
def test_diffjpeg_in_single_precision(photograph: str, quality: float) -> None:
    """A coefficient next to a rounding boundary may fall on either side and changes its block."""
    clean = crops((96, 89), 2, photograph=photograph, dtype=torch.float32)
    distorted = compress(clean, quality, DIFFJPEG)
    assert distorted.dtype == torch.float32
    assert ((distorted - with_basicsr(clean, quality)).abs() > 2e-6).double().mean() < 0.01


@each_size
def test_diffjpeg_equals_basicsr_at_any_size(size: tuple[int, int]) -> None:
    clean = crops(size, 2)
    torch.testing.assert_close(compress(clean, 40, DIFFJPEG), with_basicsr(clean, 40), atol=1e-6, rtol=0)


def test_diffjpeg_equals_basicsr_for_each_quality() -> None:
    clean, quality = crops((40, 48), 4), torch.tensor([5, 30.25, 50, 95], dtype=torch.float64)
    torch.testing.assert_close(compress(clean, quality, DIFFJPEG), with_basicsr(clean, quality), atol=1e-6, rtol=0)


@pytest.mark.parametrize('quality', [10, 60])
def test_diffjpeg_of_a_grey_image_is_its_luminance(quality: int) -> None:
    """The coefficients that JFIF's weights, rounded to six digits, leave in chroma round to 0."""
    clean = crops((41, 39), channels=1)
    torch.testing.assert_close(compress(clean, quality, DIFFJPEG).expand(-1, 3, -1, -1),
                               with_basicsr(clean.expand(-1, 3, -1, -1), quality), atol=1e-6, rtol=0)


def test_diffjpeg_at_quality_100_keeps_luminance() -> None:
    clean = crops((41, 39), 2, channels=1)
    torch.testing.assert_close(compress(clean, 100, DIFFJPEG), clean, atol=1e-6, rtol=0)


@each_codec
@each_channels
def test_each_image_has_its_quality(codec: Codec, channels: int) -> None:
    clean, quality = crops((50, 43), 5, channels), torch.tensor([1, 20, 50, 77, 100])
    single = torch.cat([compress(one[None], float(q), codec) for one, q in zip(clean, quality, strict=True)])
    torch.testing.assert_close(compress(clean, quality, codec), single, atol=1e-12, rtol=0)


@each_codec
def test_one_quality_in_a_tensor(codec: Codec) -> None:
    clean = crops((32, 32), 3)
    for quality in (torch.tensor(30), torch.tensor([30.0])):
        assert torch.equal(compress(clean, quality, codec), compress(clean, 30, codec))


@each_codec
def test_qualities_in_a_tensor_are_clamped(codec: Codec) -> None:
    clean = crops((32, 32), 2)
    distorted = compress(clean, torch.tensor([-3.0, 120.0]), codec)
    assert torch.equal(distorted, compress(clean, torch.tensor([1.0, 100.0]), codec))


@each_codec
@each_channels
@pytest.mark.parametrize('quality', [1, 15, 100])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_values_stay_within_range(codec: Codec, channels: int, quality: int, dtype: torch.dtype) -> None:
    clean = torch.rand(2, channels, 37, 50, generator=torch.Generator().manual_seed(0), dtype=dtype).round()
    distorted = compress(clean, quality, codec)
    assert distorted.shape == clean.shape
    assert distorted.min() >= 0
    assert distorted.max() <= 1


@each_codec
@each_channels
@pytest.mark.parametrize('size', [(48, 64), (37, 51)])
def test_arguments_are_unchanged(codec: Codec, channels: int, size: tuple[int, int]) -> None:
    clean, quality = crops(size, 2, channels), torch.tensor([30.0, 60.0], dtype=torch.float64)
    compress(clean, quality, codec).fill_(9)
    assert torch.equal(clean, crops(size, 2, channels))
    assert quality.tolist() == [30, 60]


@each_codec
@each_channels
@pytest.mark.parametrize('size', [(48, 64), (37, 51)])
def test_memory_layout_does_not_matter(codec: Codec, channels: int, size: tuple[int, int]) -> None:
    clean = crops(size, 2, channels)
    channels_last = clean.contiguous(memory_format=torch.channels_last)
    transposed = clean.mT.contiguous().mT
    cropped = clean.repeat(1, 1, 1, 2)[..., :size[1]]
    expected = compress(clean.contiguous(), 40, codec)
    for view in (channels_last, transposed, cropped):
        torch.testing.assert_close(compress(view, 40, codec), expected, atol=1e-12, rtol=0)


@each_codec
def test_no_gradient(codec: Codec) -> None:
    assert not compress(crops((16, 16)).requires_grad_(), 40, codec).requires_grad


@pytest.mark.parametrize('clean', [torch.rand(3, 8, 8), torch.rand(1, 2, 8, 8), torch.rand(1, 3, 8, 8).half(),
                                   torch.zeros(1, 3, 8, 8, dtype=torch.uint8)])
def test_not_a_batch_of_images(clean: Tensor) -> None:
    with pytest.raises(ValueError, match=r'expected images \(B, 3, H, W\) or \(B, 1, H, W\), float32 or float64, got'):
        compress(clean, 50)


@pytest.mark.parametrize('quality', [0, 0.9, 100.1, -5, float('nan')])
def test_quality_out_of_range(quality: float) -> None:
    with pytest.raises(ValueError, match=r'quality must be in 1\.\.100'):
        compress(crops((8, 8)), quality)


def test_wrong_number_of_qualities() -> None:
    with pytest.raises(ValueError, match=r'expected one quality or 3, got \(2,\)'):
        compress(crops((8, 8), 3), torch.tensor([10, 20]))
