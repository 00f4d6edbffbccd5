"""Change of resolution against OpenCV, Pillow and torch's own interpolation."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import Tensor
from torch.nn import functional

from dil_plugin.distortions import Downsample, Resize, Uniform
from dil_plugin.distortions.resize import draw_mode, resize_by_matrices, resize_each
from dil_plugin.distortions.resize_matrices import MODES, resize_matrices

FLAGS = {'area': cv2.INTER_AREA, 'bilinear': cv2.INTER_LINEAR, 'bicubic': cv2.INTER_CUBIC}

each_mode = pytest.mark.parametrize('mode', MODES)


@pytest.fixture(params=['with OpenCV', 'without'], autouse=True)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything holds on both paths: where OpenCV is installed, and where it is not (or the images are on a GPU)."""
    if request.param == 'without':
        monkeypatch.setattr('dil_plugin.distortions.opencv_path.opencv', lambda: None)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def image(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=seeded(), dtype=torch.float64).to(dtype)


def with_opencv(clean: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """``size`` is (height, width)."""
    planes = [[cv2.resize(plane, size[::-1], interpolation=FLAGS[mode]) for plane in planes]
              for planes in clean.numpy()]
    return torch.from_numpy(np.array(planes))


def with_pillow(clean: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    resample = {'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC}[mode]
    planes = [[np.array(Image.fromarray(plane).resize(size[::-1], resample)) for plane in planes]
              for planes in clean.numpy()]
    return torch.from_numpy(np.array(planes))


class TestDownsample:

    @each_mode
    @pytest.mark.parametrize('scale', [2, 3, 4])
    @pytest.mark.parametrize('channels', [1, 3])
    def test_equals_opencv(self, channels: int, scale: int, mode: str) -> None:
        clean = image(2, channels, 24, 36)
        expected = with_opencv(clean, (24 // scale, 36 // scale), mode).clamp(0, 1)
        # OpenCV computes the positions and weights of a bilinear or bicubic kernel in single precision
        torch.testing.assert_close(Downsample(scale, mode)(clean), expected, atol=1e-6, rtol=0)

    @pytest.mark.parametrize('mode', ['bilinear', 'bicubic'])
    @pytest.mark.parametrize('scale', [2, 3, 4])
    def test_antialiased_equals_pillow(self, scale: int, mode: str) -> None:
        clean = image(2, 3, 24, 36, dtype=torch.float32)
        expected = with_pillow(clean, (24 // scale, 36 // scale), mode).clamp(0, 1)
        torch.testing.assert_close(Downsample(scale, mode, antialias=True)(clean), expected, atol=2e-6, rtol=0)

    def test_area_covers_every_pixel_as_it_is(self) -> None:
        clean = image(1, 3, 12, 18)
        expected = clean.numpy().reshape(1, 3, 4, 3, 6, 3).mean((3, 5))
        for antialias in (False, True):
            made = Downsample(3, 'area', antialias)(clean)
            torch.testing.assert_close(made, torch.from_numpy(expected), atol=1e-14, rtol=0)

    def test_bicubic_is_the_default(self) -> None:
        clean = image(1, 3, 24, 24)
        assert torch.equal(Downsample(3)(clean), Downsample(3, 'bicubic', antialias=False)(clean))

    def test_overshoot_is_clipped(self) -> None:
        clean = (image(2, 3, 64, 64) > 0.5).double()
        raw = with_opencv(clean, (32, 32), 'bicubic')
        assert raw.min() < -0.01
        assert raw.max() > 1.01
        made = Downsample(2)(clean)
        assert (made.min(), made.max()) == (0, 1)

    def test_random_takes_one_mode_per_batch(self) -> None:
        clean = image(2, 1, 4, 4)
        each = torch.stack([Downsample(2, mode)(clean) for mode in MODES])
        generator, counts = seeded(1), np.zeros(3)
        for _ in range(300):
            same = (Downsample(2, 'random')(clean, generator) == each).flatten(1).all(1)
            assert same.sum() == (2 if same[0] else 1)  # by 2, the bilinear kernel is the mean of four pixels
            counts += same.numpy()
        assert stats.binomtest(int(counts[2]), 300, 1 / 3).pvalue > 1e-3

    def test_random_by_three_modes_of_scale_four(self) -> None:
        clean = image(2, 1, 8, 8)
        each = torch.stack([Downsample(4, mode)(clean) for mode in MODES])
        generator = seeded(2)
        made = [Downsample(4, 'random')(clean, generator) for _ in range(300)]
        same = torch.stack([(one == each).flatten(1).all(1) for one in made])
        assert (same.sum(1) == 1).all()
        assert stats.chisquare(same.sum(0).numpy()).pvalue > 1e-3

    @each_mode
    def test_fixed_modes_draw_nothing(self, mode: str) -> None:
        generator = seeded()
        state = generator.get_state()
        Downsample(2, mode)(image(1, 3, 4, 4), generator)
        assert torch.equal(generator.get_state(), state)

    def test_scale(self) -> None:
        assert Downsample(4).scale == 4
        assert Downsample(2)(image(2, 3, 6, 10)).shape == (2, 3, 3, 5)
        assert Downsample(3)(image(1, 1, 3, 3)).shape == (1, 1, 1, 1)

    @pytest.mark.parametrize(('height', 'width'), [(8, 10), (10, 8), (7, 7), (1, 1)])
    def test_size_must_be_a_multiple(self, height: int, width: int) -> None:
        with pytest.raises(ValueError, match=rf'Downsample\(scale=4\): .*{height}x{width} is not a multiple.* 4'):
            Downsample(4)(image(1, 3, height, width))

    @pytest.mark.parametrize('scale', [1, 0, -2, 2.5])
    def test_limits_of_scale(self, scale: float) -> None:
        with pytest.raises(ValueError, match=r'^\.scale: Expected a whole number'):
            Downsample(scale)

    def test_label(self) -> None:
        assert Downsample(2).label == 'Downsample(scale=2)'
        assert Downsample(4, 'area').label == 'Downsample(scale=4, mode=area)'


def there_and_back(clean: Tensor, factor: float, there: str, back: str) -> Tensor:
    """By two calls of torch's interpolation, without clipping."""
    height, width = clean.shape[-2:]
    size = (max(1, int(height * factor)), max(1, int(width * factor)))
    return functional.interpolate(functional.interpolate(clean, size=size, mode=there), size=(height, width), mode=back)


class TestResize:

    @each_mode
    @pytest.mark.parametrize('factor', [0.15, 0.5, 0.77, 1.5, 8])
    @pytest.mark.parametrize('shape', [(2, 3, 24, 36), (1, 1, 17, 11), (1, 3, 1, 9)])
    def test_fixed_equals_torch(self, shape: tuple[int, ...], factor: float, mode: str) -> None:
        clean = image(*shape)
        expected = there_and_back(clean, factor, mode, mode).clamp(0, 1)
        torch.testing.assert_close(Resize(factor, mode)(clean), expected, atol=1e-14, rtol=0)

    @pytest.mark.parametrize('mode', ['bilinear', 'bicubic'])
    @pytest.mark.parametrize('factor', [0.5, 0.31, 1.7])
    def test_fixed_equals_opencv(self, factor: float, mode: str) -> None:
        clean = image(2, 3, 24, 37)
        middle = with_opencv(clean, (int(24 * factor), int(37 * factor)), mode)
        expected = with_opencv(middle, (24, 37), mode).clamp(0, 1)
        torch.testing.assert_close(Resize(factor, mode)(clean), expected, atol=2e-6, rtol=0)

    def test_one_is_the_identity(self) -> None:
        clean = image(2, 3, 9, 7)
        for factor in (1, 1.0):
            made = Resize(factor)(clean, seeded())
            assert torch.equal(made, clean)
            assert made.data_ptr() != clean.data_ptr()
        torch.testing.assert_close(Resize(Uniform((1, 1)))(clean, seeded()), clean, atol=1e-14, rtol=0)

    @each_mode
    def test_range_equals_fixed_factors_of_the_samples(self, mode: str) -> None:
        """Each sample is one of the results that are possible for its image, and the sizes spread over the range."""
        clean = image(1, 1, 8, 8).expand(400, -1, -1, -1)
        possible = torch.cat([there_and_back(clean[:1], size / 8, mode, mode) for size in range(4, 12)]).clamp(0, 1)
        made = Resize(Uniform((0.5, 1.5)), mode)(clean, seeded())
        same = (made - possible.transpose(0, 1)).abs().flatten(2).amax(2) < 1e-12
        assert (same.sum(1) == 1).all()
        assert stats.chisquare(same.sum(0).numpy()).pvalue > 1e-3

    def test_random_draws_each_way_and_sample(self) -> None:
        clean = image(1, 1, 7, 7).expand(450, -1, -1, -1)
        possible = torch.cat([there_and_back(clean[:1], 0.5, there, back) for there in MODES for back in MODES])
        made = Resize(0.5)(clean, seeded())
        same = (made - possible.clamp(0, 1).transpose(0, 1)).abs().flatten(2).amax(2) < 1e-12
        assert (same.sum(1) == 1).all()
        assert stats.chisquare(same.sum(0).numpy()).pvalue > 1e-3

    @pytest.mark.parametrize('degree', [0.3, Uniform((0.15, 1.5))])
    @pytest.mark.parametrize('mode', [*MODES, 'random'])
    def test_flat_images_stay_flat(self, mode: str, degree: float | Uniform) -> None:
        for value in (0.0, 0.3, 1.0):
            clean = torch.full((8, 3, 13, 10), value)
            made = Resize(degree, mode)(clean, seeded())
            torch.testing.assert_close(made, clean, atol=1e-6, rtol=0)
            assert (made >= 0).all()
            assert (made <= 1).all()

    def test_range_of_values_is_kept(self) -> None:
        clean = (image(16, 3, 24, 24) > 0.5).float()
        made = Resize(Uniform((0.15, 1.5)))(clean, seeded())
        assert (made.min(), made.max()) == (0, 1)

    @pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    @pytest.mark.parametrize('shape', [(1, 1, 1, 1), (3, 3, 7, 5)])
    def test_shape_and_dtype_stay_and_input_is_unchanged(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        clean = image(*shape, dtype=dtype)
        before = clean.clone()
        made = Resize(Uniform((0.15, 1.5)))(clean, seeded())
        assert (made.shape, made.dtype) == (clean.shape, dtype)
        assert torch.equal(clean, before)

    def test_same_seed_same_images(self) -> None:
        clean = image(4, 3, 16, 16)
        first, again, other = (Resize(Uniform((0.15, 1.5)))(clean, seeded(seed)) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def random_draws(size: int, low: float, high: float) -> tuple[Tensor, Tensor, Tensor]:
    generator = seeded(5)
    factors = torch.rand(size, generator=generator, dtype=torch.float64) * (high - low) + low
    return factors, *(torch.randint(3, (size, ), generator=generator) for _ in range(2))


class TestMatrices:

    @pytest.mark.parametrize(('low', 'high'), [(0.15, 1), (1, 1.5), (0.01, 0.2), (2, 8), (0.15, 1.5)])
    @pytest.mark.parametrize(('height', 'width'), [(24, 32), (17, 31), (5, 1), (2, 3), (1, 1)])
    def test_equal_interpolation_one_by_one(self, height: int, width: int, low: float, high: float) -> None:
        clean, (factors, there, back) = image(27, 2, height, width), random_draws(27, low, high)
        expected = torch.cat([there_and_back(one[None], factor, MODES[first], MODES[second]) for
                              one, factor, first, second in zip(clean, factors.tolist(), there, back, strict=True)])
        for resize in (resize_each, resize_by_matrices):
            made = resize(clean, factors, high, there, back)
            torch.testing.assert_close(made, expected, atol=1e-12, rtol=0)

    def test_single_precision(self) -> None:
        clean, draws = image(27, 3, 33, 48, dtype=torch.float32), random_draws(27, 0.15, 1.5)
        arguments = draws[0], 1.5, *draws[1:]
        made = resize_by_matrices(clean, *arguments)
        assert made.dtype == torch.float32
        torch.testing.assert_close(made, resize_by_matrices(clean.double(), *arguments).float(), atol=5e-6, rtol=0)

    @each_mode
    @pytest.mark.parametrize(('n', 'm'), [(7, 7), (7, 3), (3, 7), (1, 5), (5, 1), (64, 9), (9, 64), (12, 6)])
    def test_equal_interpolation_of_a_line(self, n: int, m: int, mode: str) -> None:
        """The matrix of interpolation is what it does to the unit vectors."""
        vectors = torch.eye(n, dtype=torch.float64).view(n, 1, n, 1)
        expected = functional.interpolate(vectors, size=(m, 1), mode=mode)[:, 0, :, 0].T
        sizes = (torch.tensor([n], dtype=torch.float64), torch.tensor([m], dtype=torch.float64))
        made = resize_matrices(*sizes, (m + 2, n + 3), torch.tensor([MODES.index(mode)]))[0]
        torch.testing.assert_close(made[:m, :n], expected, atol=1e-13, rtol=0)
        assert not made[m:].any()
        assert not made[:, n:].any()

    def test_rows_sum_to_one(self) -> None:
        size_in, size_out = (torch.randint(1, 40, (60, ), generator=seeded(k)).double() for k in range(2))
        made = resize_matrices(size_in, size_out, (40, 40), torch.arange(60) % 3)
        expected = (torch.arange(40) < size_out[:, None]).double()
        torch.testing.assert_close(made.sum(2), expected, atol=1e-12, rtol=0)

    # The nearest float32 to these factors lies above them: a sample drawn in it would have more pixels in between than
    # resize_by_matrices, which trusts `highest`, has columns for.
    @pytest.mark.parametrize(('side', 'factor'), [(22, 15 / 22), (11, 15 / 11)])
    def test_range_of_one_point_loses_no_pixels(self, side: int, factor: float,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr('dil_plugin.distortions.resize.resize_each', resize_by_matrices)
        clean = torch.ones(2, 1, side, side)
        made = Resize(Uniform((factor, factor)), 'bilinear')(clean, seeded())
        torch.testing.assert_close(made, clean, atol=1e-6, rtol=0)


def test_modes_are_equally_likely() -> None:
    generator = seeded()
    counts = [0, 0, 0]
    for _ in range(1500):
        counts[MODES.index(draw_mode(generator))] += 1
    assert stats.chisquare(counts).pvalue > 1e-3
