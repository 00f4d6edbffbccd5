"""The camera pipeline against closed forms, scikit-image, SciPy, OpenCV and Kornia."""

import itertools

import cv2
import kornia
import numpy as np
import pytest
import torch
from scipy import ndimage, optimize, stats
from skimage import color, data
from torch import Tensor

from dil_plugin.distortions import isp
from dil_plugin.distortions.isp import PATTERNS, Camera, Response, ResponseName

RESPONSES: list[ResponseName] = ['srgb', 'gamma', 'filmic', 'random']
KORNIA = {'RGGB': 'BG', 'GRBG': 'GB', 'GBRG': 'GR', 'BGGR': 'RG'}  # named by the pixels from (1, 1) on, as in OpenCV

each_response = pytest.mark.parametrize('name', RESPONSES)
each_pattern = pytest.mark.parametrize('pattern', PATTERNS)
each_size = pytest.mark.parametrize('size', [(8, 10), (9, 7), (2, 2), (3, 2)])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def curve(name: ResponseName, dtype: torch.dtype = torch.float64) -> Response:
    return isp.draw_response(name, torch.zeros(1, 3, 1, 1, dtype=dtype), None)


def as_image(values: np.ndarray | list[float]) -> Tensor:
    return torch.as_tensor(np.asarray(values, dtype=np.float64)).view(1, 1, 1, -1)


def colors(batch: int, dtype: torch.dtype) -> Tensor:
    """Dark, middle and saturated levels in all combinations, the same in every sample."""
    levels = [level / 255 for level in (0, 1, 2, 3, 10, 64, 128, 200, 253, 254, 255)]
    image = torch.tensor(list(itertools.product(levels, repeat=3)), dtype=dtype).T.reshape(1, 3, 11, 121)
    return image.expand(batch, -1, -1, -1)


def masks_of(pattern: str, height: int, width: int) -> np.ndarray:
    """``(3, H, W)``, read off the pattern's name."""
    cell = np.array(list(pattern)).reshape(2, 2)
    sensor = np.tile(cell, (height // 2 + 1, width // 2 + 1))[:height, :width]
    return np.array([sensor == letter for letter in 'RGB']).astype(np.float64)


def our_masks(pattern: str, images: Tensor) -> Tensor:
    return isp.bayer_masks(torch.full(images.shape[:1], PATTERNS.index(pattern)), images)


class TestResponse:

    def test_srgb_is_the_standard(self) -> None:
        linear = np.linspace(0, 1, 1001)
        standard = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear**(1 / 2.4) - 0.055)
        np.testing.assert_allclose(curve('srgb').encode(as_image(linear)).flatten(), standard, atol=1e-12)

    def test_srgb_and_its_primaries_are_those_of_scikit_image(self) -> None:
        image = data.astronaut()[::8, ::8] / 255
        linear = curve('srgb').linearize(torch.from_numpy(image).permute(2, 0, 1)[None])[0]
        xyz = np.einsum('ij,jhw->hwi', isp.SRGB_TO_XYZ.numpy(), linear.numpy())
        np.testing.assert_allclose(xyz, color.rgb2xyz(image), atol=1e-4)  # its matrix differs by 8e-5

    def test_gamma_is_the_power_above_two_grey_levels(self) -> None:
        encoded = np.linspace(2 / 255, 1, 500)
        np.testing.assert_allclose(curve('gamma').linearize(as_image(encoded)).flatten(), encoded**2.2, atol=1e-12)
        np.testing.assert_allclose(curve('gamma').encode(as_image(encoded**2.2)).flatten(), encoded, atol=1e-12)

    def test_filmic_is_srgb_and_the_s_curve(self) -> None:
        linear = as_image(np.linspace(0, 1, 1001))
        srgb = curve('srgb').encode(linear)
        torch.testing.assert_close(curve('filmic').encode(linear), 3 * srgb**2 - 2 * srgb**3, atol=1e-12, rtol=0)

    @pytest.mark.parametrize('y', [0, 1e-14, 1e-9, 1e-4, 0.1, 0.5, 0.77, 1 - 1e-4, 1 - 1e-9, 1])
    def test_inverse_of_the_s_curve_is_its_root(self, y: float) -> None:
        root = optimize.brentq(lambda x: 3 * x**2 - 2 * x**3 - y, 0, 1, xtol=1e-16)
        # Near 1 the curve is flat, and y itself holds no more digits of x.
        assert isp.inverse_smoothstep(torch.tensor(y, dtype=torch.float64)).item() == pytest.approx(root, abs=1e-8)
        if 0 < y < 0.1:
            small = isp.inverse_smoothstep(torch.tensor(y)).item()
            assert small == pytest.approx(root, rel=1e-6), 'float32 keeps the digits of small values'

    @pytest.mark.parametrize('name', RESPONSES[:3])
    def test_rises_and_is_continuous_beyond_the_range(self, name: ResponseName) -> None:
        linear = torch.linspace(-0.5, 3, 100_001, dtype=torch.float64).view(1, 1, 1, -1)
        encoded = curve(name).encode(linear).flatten()
        steps = encoded.diff()
        inside = (linear.flatten()[1:] > 0) & (linear.flatten()[1:] < 1)
        assert encoded.isfinite().all()
        assert (steps >= 0).all()
        assert (steps[inside | (name != 'filmic')] > 0).all()
        assert steps.max() < 3.5e-5 * 336.5  # the steepest slope, that of gamma's toe

    @pytest.mark.parametrize('name', RESPONSES[:3])
    def test_no_jump_at_the_knee(self, name: ResponseName) -> None:
        response = curve(name)
        around = response.knee.flatten() * torch.tensor([1 - 1e-9, 1 + 1e-9], dtype=torch.float64)
        assert response.encode(as_image(around.numpy())).diff().abs().item() < 1e-7

    @pytest.mark.parametrize('name', RESPONSES[:3])
    def test_ends_stay(self, name: ResponseName) -> None:
        ends = as_image([0, 1])
        torch.testing.assert_close(curve(name).encode(ends), ends, atol=1e-15, rtol=0)
        torch.testing.assert_close(curve(name).linearize(ends), ends, atol=1e-15, rtol=0)

    def test_random_draws_each_alike_and_per_sample(self) -> None:
        grey = torch.full((3000, 1, 1, 1), 0.3, dtype=torch.float64)
        linear = isp.draw_response('random', grey, seeded()).linearize(grey).flatten()
        known = torch.cat([curve(name).linearize(grey[:1]).flatten() for name in RESPONSES[:3]])
        counts = (linear[:, None] - known).abs().lt(1e-12).sum(0)
        assert counts.sum() == 3000
        assert stats.chisquare(counts.numpy()).pvalue > 1e-3


class TestRoundTrip:

    @pytest.mark.parametrize(('dtype', 'atol'), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
    @each_response
    def test_process_undoes_unprocess(self, name: ResponseName, dtype: torch.dtype, atol: float) -> None:
        images = colors(64, dtype)
        camera = isp.draw_camera(name, images, seeded())
        sensor = camera.unprocess(images)
        assert sensor.dtype == dtype
        torch.testing.assert_close(camera.process(sensor), images, atol=atol, rtol=0)

    @each_response
    def test_sensor_values_are_within_its_range(self, name: ResponseName) -> None:
        sensor = isp.draw_camera(name, colors(200, torch.float64), seeded()).unprocess(colors(200, torch.float64))
        assert sensor.max() <= 1 + 1e-12
        assert sensor.min() > -0.2

    def test_no_sample_takes_anothers_camera(self) -> None:
        images = torch.rand(5, 3, 6, 6, generator=seeded(), dtype=torch.float64)
        camera = isp.draw_camera('random', images, seeded(3))
        together = camera.unprocess(images)
        for b, image in enumerate(images):
            response = Response(*(None if part is None else part[b:b + 1] for part in camera.response))
            alone = Camera(response, camera.to_sensor[b:b + 1], camera.to_linear[b:b + 1])
            torch.testing.assert_close(alone.unprocess(image[None]), together[b:b + 1], atol=1e-14, rtol=0)


class TestColors:

    def test_matrices_against_numpy(self) -> None:
        weights = torch.rand(20, 4, generator=seeded(), dtype=torch.float64)
        cameras, srgb = isp.XYZ_TO_CAMERA.numpy(), isp.SRGB_TO_XYZ.numpy()
        for row, matrix in zip(weights.numpy(), isp.color_matrices(weights).numpy(), strict=True):
            mixed = np.tensordot(row / row.sum(), cameras, 1) @ srgb
            np.testing.assert_allclose(matrix, mixed / mixed.sum(1, keepdims=True), atol=1e-14)

    def test_camera_is_matrix_and_white_balance(self) -> None:
        matrices = isp.color_matrices(torch.rand(4, 4, generator=seeded(), dtype=torch.float64))
        gains = 1 + torch.rand(4, 3, generator=seeded(1), dtype=torch.float64)
        camera = isp.make_camera(curve('srgb'), matrices, gains)
        for gain, matrix, there, back in zip(gains, matrices, camera.to_sensor, camera.to_linear, strict=True):
            expected = np.diag(1 / gain.numpy()) @ matrix.numpy()
            np.testing.assert_allclose(there, expected, atol=1e-14)
            np.testing.assert_allclose(back, np.linalg.inv(expected), atol=1e-12)

    def test_drawn_white_balance(self) -> None:
        """The sensor's view of white is one over the gains."""
        white = torch.ones(4000, 3, 1, 1, dtype=torch.float64)
        red, green, blue = isp.draw_camera('srgb', white, seeded()).unprocess(white).flatten(1).T.numpy()
        assert stats.kstest(green / red, stats.uniform(1.9, 0.5).cdf).pvalue > 1e-3
        assert stats.kstest(green / blue, stats.uniform(1.5, 0.4).cdf).pvalue > 1e-3
        assert green.min() >= 0.5 - 1e-12
        assert green.max() <= 1 + 1e-12
        within = green[green < 1 - 1e-9]  # about 2 % are limited
        assert stats.kstest(within, stats.truncnorm(-3, 2, 0.8, 0.1).cdf).pvalue > 1e-3
        assert abs(np.corrcoef([green / red, green / blue, green]) - np.eye(3)).max() < 5 / np.sqrt(4000)

    def test_drawn_matrices_differ_and_lie_within_the_four(self) -> None:
        camera = isp.draw_camera('srgb', torch.zeros(500, 3, 1, 1, dtype=torch.float64), seeded())
        matrices = camera.to_sensor / camera.to_sensor.sum(2, keepdim=True)
        corners = isp.color_matrices(torch.eye(4, dtype=torch.float64))
        assert (matrices >= corners.amin(0) - 1e-12).all()
        assert (matrices <= corners.amax(0) + 1e-12).all()
        assert (matrices.std(0) > 0.1 * (corners.amax(0) - corners.amin(0))).all()

    def test_transform_is_a_product_per_pixel(self) -> None:
        images = torch.rand(3, 3, 4, 5, generator=seeded(), dtype=torch.float64)
        matrices = torch.rand(3, 3, 3, generator=seeded(1), dtype=torch.float64)
        expected = np.einsum('bij,bjhw->bihw', matrices.numpy(), images.numpy())
        np.testing.assert_allclose(isp.transform_colors(images, matrices), expected, atol=1e-14)


class TestBayer:

    @each_size
    @each_pattern
    def test_masks_are_what_the_name_says(self, pattern: str, size: tuple[int, int]) -> None:
        masks = our_masks(pattern, torch.zeros(1, 3, *size))
        np.testing.assert_array_equal(masks[0], masks_of(pattern, *size))

    def test_patterns_of_a_batch(self) -> None:
        masks = isp.bayer_masks(torch.tensor([2, 0, 3, 1]), torch.zeros(4, 3, 5, 6))
        for mask, pattern in zip(masks, ['GBRG', 'RGGB', 'BGGR', 'GRBG'], strict=True):
            np.testing.assert_array_equal(mask, masks_of(pattern, 5, 6))

    @each_size
    @each_pattern
    def test_mosaic_and_demosaic_against_scipy(self, pattern: str, size: tuple[int, int]) -> None:
        image = torch.rand(1, 3, *size, generator=seeded(), dtype=torch.float64)
        masks = our_masks(pattern, image)
        raw = isp.mosaic(image, masks)
        expected_raw = (image[0].numpy() * masks_of(pattern, *size)).sum(0)
        np.testing.assert_array_equal(raw[0, 0], expected_raw)
        cross = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4
        tent = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
        expected = [ndimage.convolve(expected_raw * mask, kernel, mode='mirror')
                    for mask, kernel in zip(masks_of(pattern, *size), (tent, cross, tent), strict=True)]
        np.testing.assert_allclose(isp.demosaic(raw, masks)[0], np.array(expected), atol=1e-14)

    @each_pattern
    def test_mosaic_and_demosaic_against_kornia(self, pattern: str) -> None:
        """Kornia repeats the border's red and blue, so only the inside is the same."""
        image = torch.rand(2, 3, 12, 16, generator=seeded(), dtype=torch.float64)
        masks, cfa = our_masks(pattern, image), kornia.color.CFA[KORNIA[pattern]]
        raw = isp.mosaic(image, masks)
        assert torch.equal(raw, kornia.color.rgb_to_raw(image, cfa))
        ours, theirs = isp.demosaic(raw, masks), kornia.color.raw_to_rgb(raw, cfa)
        torch.testing.assert_close(ours[..., 1:-1, 1:-1], theirs[..., 1:-1, 1:-1], atol=1e-14, rtol=0)

    @each_pattern
    def test_demosaic_against_opencv(self, pattern: str) -> None:
        image = torch.from_numpy(ndimage.gaussian_filter(data.astronaut()[:64, 200:264] / 255, (2, 2, 0)))
        image = image.permute(2, 0, 1)[None]
        masks = our_masks(pattern, image)
        levels = (isp.mosaic(image, masks) * 65535).round()
        code = getattr(cv2, f'COLOR_Bayer{KORNIA[pattern]}2RGB')
        theirs = cv2.cvtColor(levels[0, 0].numpy().astype(np.uint16), code).transpose(2, 0, 1)
        ours = isp.demosaic(levels, masks)[0].numpy()
        assert abs(ours - theirs)[:, 1:-1, 1:-1].max() <= 1  # it rounds to whole levels

    @each_pattern
    def test_seen_colors_stay(self, pattern: str) -> None:
        image = torch.rand(1, 3, 9, 11, generator=seeded())
        masks = our_masks(pattern, image)
        raw = isp.mosaic(image, masks)
        torch.testing.assert_close(isp.mosaic(isp.demosaic(raw, masks), masks), raw, atol=0, rtol=0)
