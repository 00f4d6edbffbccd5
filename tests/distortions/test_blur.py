"""Gaussian blur against OpenCV and SciPy."""

import math

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from dil_plugin.distortions import Distortion, GaussianBlur

SIGMAS = [0.3, 0.5, 1, 1.7, 4.2, 5]
SHAPES = [(2, 3, 48, 64), (1, 3, 37, 51), (3, 1, 33, 40), (1, 1, 17, 16)]

each_sigma = pytest.mark.parametrize('sigma', SIGMAS)
each_shape = pytest.mark.parametrize('shape', SHAPES)


@pytest.fixture(params=['with OpenCV', 'without'], autouse=True)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything holds on both paths: where OpenCV is installed, and where it is not (or the images are on a GPU)."""
    if request.param == 'without':
        monkeypatch.setattr('dil_plugin.distortions.opencv_path.opencv', lambda: None)


def image(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def with_opencv(clean: Tensor, sigma: float) -> Tensor:
    size = 2 * math.ceil(3 * sigma) + 1
    planes = [[cv2.GaussianBlur(plane, (size, size), sigma, sigmaY=sigma, borderType=cv2.BORDER_REFLECT_101)
               for plane in planes] for planes in clean.numpy()]
    return torch.from_numpy(np.array(planes))


def with_scipy(clean: Tensor, sigma: float) -> Tensor:
    radius = math.ceil(3 * sigma)
    truncate = radius / sigma  # SciPy's radius is int(truncate * sigma + 0.5)
    blurred = ndimage.gaussian_filter(clean.numpy(), sigma, mode='mirror', truncate=truncate, axes=(2, 3))
    return torch.from_numpy(blurred)


@each_sigma
@each_shape
def test_equals_opencv(shape: tuple[int, ...], sigma: float) -> None:
    clean = image(shape)
    torch.testing.assert_close(GaussianBlur(sigma)(clean), with_opencv(clean, sigma), atol=1e-12, rtol=0)


@each_sigma
@each_shape
def test_equals_scipy(shape: tuple[int, ...], sigma: float) -> None:
    clean = image(shape)
    torch.testing.assert_close(GaussianBlur(sigma)(clean), with_scipy(clean, sigma), atol=1e-12, rtol=0)


@each_sigma
def test_single_precision(sigma: float) -> None:
    clean = image(SHAPES[0], torch.float32)
    distorted = GaussianBlur(sigma)(clean)
    assert distorted.dtype == torch.float32
    torch.testing.assert_close(distorted.double(), with_scipy(clean.double(), sigma), atol=2e-6, rtol=0)


@each_sigma
def test_point_becomes_the_kernel(sigma: float) -> None:
    """Gaussian up to ``ceil(3 sigma)`` and nothing beyond, of sum 1."""
    radius = math.ceil(3 * sigma)
    clean = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    clean[..., 20, 20] = 1
    profile = torch.exp(-torch.arange(-20, 21, dtype=torch.float64)**2 / (2 * sigma**2))
    profile[:20 - radius] = profile[21 + radius:] = 0
    kernel = torch.outer(profile, profile)
    torch.testing.assert_close(GaussianBlur(sigma)(clean)[0, 0], kernel / kernel.sum(), atol=1e-14, rtol=0)


@each_sigma
@pytest.mark.parametrize('value', [0.0, 0.3, 1.0])
def test_flat_images_stay_flat_within_range(sigma: float, value: float) -> None:
    clean = torch.full((1, 3, 20, 20), value)
    distorted = GaussianBlur(sigma)(clean)
    torch.testing.assert_close(distorted, clean, atol=1e-6, rtol=0)
    assert distorted.min() >= 0
    assert distorted.max() <= 1


def test_sigma_zero_is_the_identity() -> None:
    clean = image(SHAPES[0])
    distorted = GaussianBlur(0)(clean)
    assert torch.equal(distorted, clean)
    assert distorted.data_ptr() != clean.data_ptr()


@pytest.mark.parametrize('sigma', [0, 0.5, 5])
def test_input_is_unchanged(sigma: float) -> None:
    clean = image(SHAPES[0])
    GaussianBlur(sigma)(clean).fill_(9)
    assert torch.equal(clean, image(SHAPES[0]))


def test_batch_is_blurred_image_by_image() -> None:
    clean = image((3, 3, 24, 24))
    single = torch.cat([GaussianBlur(1.7)(one[None]) for one in clean])
    torch.testing.assert_close(GaussianBlur(1.7)(clean), single, atol=1e-15, rtol=0)


def test_not_random() -> None:
    clean = image(SHAPES[1])
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    assert torch.equal(GaussianBlur(2)(clean, generator), GaussianBlur(2)(clean))
    assert torch.equal(generator.get_state(), state)


@pytest.mark.parametrize(('sigma', 'least'), [(0, 1), (0.5, 3), (1, 4), (1.7, 7), (5, 16)])
def test_least_size(sigma: float, least: int) -> None:
    """Reflection can reach as far as the image, less its border pixel."""
    blur = GaussianBlur(sigma)
    assert blur.min_size == least
    clean = image((1, 3, least, least))
    torch.testing.assert_close(blur(clean), with_scipy(clean, sigma) if sigma else clean, atol=1e-12, rtol=0)


@pytest.mark.parametrize('shape', [(1, 3, 15, 40), (1, 3, 40, 15)])
def test_too_small_an_image(shape: tuple[int, ...]) -> None:
    size = f'{shape[2]}x{shape[3]}'
    with pytest.raises(ValueError, match=rf'GaussianBlur\(sigma=5\): .*at least 16x16 pixels, got {size}'):
        GaussianBlur(5)(image(shape))


@pytest.mark.parametrize('clean', [torch.rand(3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)])
def test_not_a_batch_of_images(clean: Tensor) -> None:
    with pytest.raises(ValueError, match=r'GaussianBlur\(sigma=1\): expected a floating point tensor \(B, C, H, W\)'):
        GaussianBlur(1)(clean)


def test_distortion_without_apply() -> None:

    class Nothing(Distortion):
        pass

    with pytest.raises(TypeError, match='Nothing does not define apply'):
        Nothing()(torch.rand(1, 3, 4, 4))
