"""Rain against rasterised lines, closed-form moments and the composites written out in NumPy."""

import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage, stats
from torch import Tensor

from dil_plugin.distortions import parse_distortions
from dil_plugin.distortions.degrees import Uniform
from dil_plugin.distortions.rain import HeavyRain, Rain, RainStreaks, synthetic_depth
from dil_plugin.distortions.rain_streaks import rain_streaks, streak_kernels, streak_reach, streak_seeds
from dil_plugin.errors import OptionError

Array = NDArray[np.float64]

LINES = [(20, 0, 1), (20, 0, 3), (31.5, 17, 1.4), (12, -40, 2), (25, 63, 1), (18, 90, 1.7), (40, -85, 2.5)]
MEAN_BRIGHTNESS = 7 / 15  # of 0.2 + 0.8 u^2
BOTH = [RainStreaks(), HeavyRain()]

each_line = pytest.mark.parametrize(('length', 'angle', 'width'), LINES)
of_both = pytest.mark.parametrize('rain', BOTH, ids=lambda rain: type(rain).__name__)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def image(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=seeded(0), dtype=torch.float64).to(dtype)


def kernel(length: float, angle: float, width: float, margin: int = 0) -> Array:
    """One line, with ``margin`` more pixels around it than it needs."""
    rows, columns = streak_reach(length, angle, width)
    values = (torch.tensor([value], dtype=torch.float64) for value in (length, angle, width))
    return streak_kernels(*values, reach=(rows + margin, columns + margin))[0].numpy()


def offsets(shape: tuple[int, ...]) -> tuple[Array, Array]:
    rows, columns = np.indices(shape).astype(float)
    return rows - shape[0] // 2, columns - shape[1] // 2


def orientation(layer: Array) -> tuple[float, float]:
    """Degrees from the vertical along which the structure tensor of the layer is least, and its coherence."""
    gx, gy = (ndimage.gaussian_filter(layer, 1, order=order) for order in ((0, 1), (1, 0)))
    values, vectors = np.linalg.eigh([[(gx * gx).sum(), (gx * gy).sum()], [(gx * gy).sum(), (gy * gy).sum()]])
    dx, dy = vectors[:, 0]
    degrees = math.degrees(math.atan2(dx, dy))
    return (degrees + 90) % 180 - 90, (values[1] - values[0]) / values.sum()


def layers(rain: Rain, batch: int, size: int = 128, seed: int = 0) -> Array:
    """What the rain adds to black images, ``(batch, size, size)``."""
    return rain(torch.zeros(batch, 1, size, size, dtype=torch.float64), seeded(seed))[:, 0].numpy()


# the line


def softened_box(positions: Array, extent: float, lobe: float) -> Array:
    """A box of ``extent``, convolved on a fine grid with half a cosine of the length ``lobe``."""
    step = extent / 4000
    grid = np.arange(-4000, 4001) * step
    half_cosine = np.cos(math.pi * grid[abs(grid) <= lobe / 2] / lobe)
    box = (abs(grid) <= extent / 2).astype(float)
    return np.interp(positions, grid, np.convolve(box, half_cosine / half_cosine.sum(), mode='same'))


@each_line
def test_line_is_a_softened_rectangle(length: float, angle: float, width: float) -> None:
    """The closed form is a box softened by a lobe of half the length along, of the width across; turned by a matrix."""
    line = kernel(length, angle, width, margin=2)
    turn = np.exp(1j * math.radians(angle))
    rows, columns = offsets(line.shape)
    turned = (columns + 1j * rows) * turn  # the vertical of the line's own frame is the imaginary axis
    expected = softened_box(turned.imag, length, length / 2) * softened_box(turned.real, width, width)
    np.testing.assert_allclose(line, expected, atol=2e-3)


@each_line
def test_line_resembles_opencv(length: float, angle: float, width: float) -> None:
    """A sharp line drawn 16 times as large and reduced: the same slant and extent, up to the softness of the ends."""
    line = kernel(length, angle, width, margin=2)
    fine = np.zeros([16 * side for side in line.shape], np.uint8)
    middle = np.array(fine.shape[::-1]) / 2
    half = 8 * (length - width / 2) * np.array([math.sin(math.radians(angle)), math.cos(math.radians(angle))])
    ends = [tuple(np.rint(middle + sign * half).astype(int).tolist()) for sign in (-1, 1)]
    cv2.line(fine, *ends, color=255, thickness=round(16 * width))
    drawn = cv2.resize(fine, line.shape[::-1], interpolation=cv2.INTER_AREA) / 255

    def likeness(other: Array) -> float:
        return float((drawn * other).sum() / np.sqrt((drawn**2).sum() * (other**2).sum()))

    assert likeness(line) > 0.93
    assert abs(drawn.sum() / line.sum() - 1) < 0.1
    if angle % 90:
        assert likeness(line[:, ::-1]) < 0.6


@each_line
def test_moments_of_the_line(length: float, angle: float, width: float) -> None:
    """Sum length * width; a box has the variance l^2 / 12, half a cosine of extent l has l^2 (1 / 4 - 2 / pi^2)."""
    line = kernel(length, angle, width)
    assert abs(line.sum() / (length * width) - 1) < 0.02
    rows, columns = offsets(line.shape)
    weights = line / line.sum()
    moments = [[(weights * a * b).sum() for a in (columns, rows)] for b in (columns, rows)]
    values, vectors = np.linalg.eigh(moments)
    dx, dy = vectors[:, 1]
    assert abs((math.degrees(math.atan2(dx, dy)) - angle + 90) % 180 - 90) < 0.2
    half_cosine = 1 / 4 - 2 / math.pi**2
    assert values[1] == pytest.approx(length**2 / 12 + (length / 2)**2 * half_cosine, rel=0.01)
    if width >= 2:  # so that it is resolved
        assert values[0] == pytest.approx(width**2 / 12 + width**2 * half_cosine, rel=0.05)


@each_line
def test_peak_and_reach_of_the_line(length: float, angle: float, width: float) -> None:
    line = kernel(length, angle, width, margin=3)
    assert line.max() == line[line.shape[0] // 2, line.shape[1] // 2] == 1
    inner = line[3:-3, 3:-3].copy()
    line[3:-3, 3:-3] = 0
    assert np.count_nonzero(line) == 0
    np.testing.assert_array_equal(inner, kernel(length, angle, width))
    np.testing.assert_allclose(inner, inner[::-1, ::-1], atol=1e-15)


def test_length_and_width_are_those_at_half_height() -> None:
    line = kernel(20, 0, 4)
    rows, columns = line.shape[0] // 2, line.shape[1] // 2
    np.testing.assert_allclose([line[rows + 10, columns], line[rows, columns - 2], line[rows + 10, columns + 2]],
                               [0.5, 0.5, 0.25], atol=1e-15)


def test_reach_holds_for_every_lesser_degree() -> None:
    reach = streak_reach(30, 40, 3)
    length, angle, width = (low + (high - low) * torch.rand(200, generator=seeded(0), dtype=torch.float64)
                            for low, high in ((5, 30), (-40, 40), (1, 3)))
    wide = streak_kernels(length, angle, width, (reach[0] + 9, reach[1] + 9))
    assert (wide > 0).any(0).sum() > 100
    wide[:, 9:-9, 9:-9] = 0
    assert not wide.any()


# the layer


@pytest.mark.parametrize('density', [0.5, 7, 300, 1000])
def test_seeds(density: float) -> None:
    """Their share is the density, their brightness 0.2 + 0.8 u^2."""
    seeds = streak_seeds((2, 300, 200), torch.tensor([density, 0.0], dtype=torch.float64), seeded(1))
    assert not seeds[1].any()
    bright, share = seeds[0][seeds[0] > 0].numpy(), density / 1000
    assert abs(bright.size - 60000 * share) <= 5 * math.sqrt(60000 * share * (1 - share))
    assert bright.min() >= 0.2
    assert stats.kstest(np.sqrt((bright - 0.2) / 0.8), 'uniform').pvalue > 1e-4


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-14), (torch.float32, 2e-6)])
def test_layer_is_stamped_streak_by_streak(dtype: torch.dtype, tolerance: float) -> None:
    """Each sample has lines of its own, which enter from outside; sums end at 1."""
    lengths, angles, widths, densities = ([9., 14, 5], [10., -35, 70], [1., 1.5, 3], [3., 20, 90])
    reach = (16, 14)
    layer = rain_streaks(torch.zeros(3, 3, 31, 40, dtype=dtype), torch.tensor(lengths), torch.tensor(angles),
                         torch.tensor(widths), torch.tensor(densities), reach, seeded(4))
    seeds = streak_seeds((3, 31 + 32, 40 + 28), torch.tensor(densities, dtype=dtype), seeded(4)).numpy()
    for b, parameters in enumerate(zip(lengths, angles, widths, strict=True)):
        line = kernel(*parameters)
        rows, columns = line.shape[0] // 2, line.shape[1] // 2
        canvas = np.zeros((31 + 64, 40 + 56))
        for row, column in zip(*np.nonzero(seeds[b]), strict=True):
            top, left = row + 16 - rows, column + 14 - columns
            canvas[top:top + line.shape[0], left:left + line.shape[1]] += seeds[b, row, column] * line
        expected = np.minimum(canvas[32:-32, 28:-28], 1)
        assert expected.any()
        np.testing.assert_allclose(layer[b, 0].numpy(), expected, atol=tolerance)


def test_lone_streaks_peak_at_their_brightness() -> None:
    canvas, reach = (128, 20 + 2 * 14, 20 + 2 * 4), (14, 4)
    layer = rain_streaks(torch.zeros(128, 1, 20, 20, dtype=torch.float64), 15, 10, 1.2, 0.5, reach, seeded(2))
    seeds = streak_seeds(canvas, torch.full((128, ), 0.5, dtype=torch.float64), seeded(2))
    lone = ((seeds > 0).sum((1, 2)) == 1) & (seeds[:, 14:-14, 4:-4] > 0).any(2).any(1)
    assert lone.sum() >= 5
    torch.testing.assert_close(layer[lone].amax((1, 2, 3)), seeds[lone].amax((1, 2)), atol=1e-14, rtol=0)


def test_mean_of_the_layer() -> None:
    """``density * sum of the kernel * mean brightness`` where hardly any streaks overlap, for each sample its own."""
    density, length, width = torch.tensor([0.3, 0.5, 2]), torch.tensor([30., 12, 4]), torch.tensor([1., 2, 1])
    made = torch.stack([rain_streaks(torch.zeros(3, 1, 512, 512, dtype=torch.float64), length, 20, width, density,
                                     (26, 14), seeded(seed)).mean((1, 2, 3)) for seed in range(16)])
    expected = (MEAN_BRIGHTNESS * density / 1000 * length * width).double()
    error = made.std(0) / math.sqrt(len(made))
    assert ((made.mean(0) - expected).abs() < 5 * error + 0.005 * expected).all()
    assert (error < 0.05 * expected).all()


@pytest.mark.parametrize('angle', [0, 50, -90])
def test_borders_are_as_rainy_as_the_centre(angle: float) -> None:
    made = layers(RainStreaks(length=24, angle=angle, width=1.5, density=4, intensity=1), 400, size=48)
    centre = made[:, 20:28, 20:28].mean((1, 2))
    strips = made[:, :3], made[:, -3:], made[:, :, :3], made[:, :, -3:], made[:, :4, :4], made[:, -4:, -4:]
    for strip in strips:
        assert abs(stats.ttest_rel(strip.mean((1, 2)), centre).statistic) < 5
        assert abs(strip.std() / made[:, 20:28, 20:28].std() - 1) < 0.15


def test_orientation_of_each_sample() -> None:
    angles = torch.tensor([0, 8.0, -25, 50, -70, 88])
    made = rain_streaks(torch.zeros(6, 1, 160, 160), 24, angles, 1.5, 4, streak_reach(24, 90, 1.5), seeded(0))
    for layer, angle in zip(made[:, 0].double().numpy(), angles.tolist(), strict=True):
        found, coherence = orientation(layer)
        assert abs((found - angle + 90) % 180 - 90) < 1.5
        assert coherence > 0.8


@pytest.mark.parametrize('length', [10, 24])
def test_length_by_autocorrelation(length: float) -> None:
    """The autocovariance of shot noise is that of its kernel: along the streaks, of a box softened by half a cosine."""
    made = layers(RainStreaks(length=length, angle=0, width=1, density=0.8, intensity=1), 48, size=200)
    fluctuation = made - made.mean()
    lags = np.arange(2 * length)
    found = np.array([(fluctuation[:, lag:] * fluctuation[:, :200 - lag]).mean() for lag in lags])
    profile = softened_box(np.arange(-40.0, 41), length, length / 2)
    expected = np.array([(profile[lag:] * profile[:81 - lag]).sum() for lag in lags])
    np.testing.assert_allclose(found / found[0], expected / expected[0], atol=0.06)


# the composites


def test_streaks_are_added_and_clipped() -> None:
    clean = image((2, 3, 33, 47))
    made = RainStreaks(length=14, angle=15, width=1.5, density=20, intensity=0.7)(clean, seeded(5)).numpy()
    layer = rain_streaks(clean, 14, 15, 1.5, 20, streak_reach(14, 15, 1.5), seeded(5)).numpy()
    expected = np.minimum(clean.numpy() + 0.7 * layer, 1)
    assert (expected == 1).any()
    np.testing.assert_allclose(made, expected, atol=1e-14)


def heavy(clean: Tensor, **degrees: Any) -> Array:
    given = {'length': 12, 'angle': 5, 'width': 1.5, 'density': 15, 'intensity': 0.1, 'transmission': 0.7,
             'atmosphere': 0.6, 'relief': 0.5, **degrees}
    return HeavyRain(**given)(clean, seeded(6)).numpy()


def test_heavy_rain_is_its_formula() -> None:
    """T, A and the streaks are isolated at the same seed, then put together; dim enough that nothing is clipped."""
    black, clean = torch.zeros(4, 3, 40, 33, dtype=torch.float64), image((4, 3, 40, 33)) / 2
    transmission = 1 - heavy(black, intensity=0, atmosphere=1)
    streaks = heavy(black, transmission=1)
    assert streaks.max() > 0.05
    assert transmission.std() > 0.03
    expected = transmission * (clean.numpy() + streaks) + (1 - transmission) * 0.6
    np.testing.assert_allclose(heavy(clean), expected, atol=1e-14)
    np.testing.assert_allclose(heavy(black, intensity=0.2, transmission=1), 2 * streaks, atol=1e-14)
    np.testing.assert_allclose(heavy(clean, intensity=1), np.minimum(1, expected + 9 * transmission * streaks),
                               atol=1e-13)


@pytest.mark.parametrize('transmission', [0.2, 0.9])
def test_veil_without_relief(transmission: float) -> None:
    clean = image((2, 3, 9, 8))
    made = heavy(clean, intensity=0, transmission=transmission, relief=0)
    np.testing.assert_allclose(made, transmission * clean.numpy() + (1 - transmission) * 0.6, atol=1e-14)


def test_veil_follows_the_depth() -> None:
    """``log T / log transmission`` is a depth of mean 1 that rises to the top by 2 * 0.7 * relief."""
    clean = torch.zeros(400, 1, 32, 24, dtype=torch.float64)
    depth = np.log(1 - heavy(clean, intensity=0, atmosphere=1, relief=0.4)[:, 0]) / math.log(0.7)
    assert depth.min() >= 0.6
    assert depth.max() <= 1.4
    means = depth.mean((1, 2))
    assert abs(means.mean() - 1) < 5 * means.std() / 20
    slopes = np.polyfit((np.arange(32) + 0.5) / 32, depth.mean(2).T, 1)[0]
    assert abs(slopes.mean() + 2 * 0.7 * 0.4) < 5 * slopes.std() / 20
    assert slopes.std() > 0.02


def test_depth_is_smooth_and_random() -> None:
    depth = synthetic_depth(torch.zeros(50, 3, 64, 64, dtype=torch.float64), torch.linspace(0, 1, 50), seeded(0))
    assert depth.shape == (50, 1, 64, 64)
    assert torch.equal(depth[0], torch.ones(1, 64, 64, dtype=torch.float64))
    steps = torch.stack([depth.diff(dim=2).abs().amax((1, 2, 3)), depth.diff(dim=3).abs().amax((1, 2, 3))])
    # a wave changes by at most pi per half of the side, the slope by 1
    assert (steps[0] <= torch.linspace(0, 1, 50) * (0.7 + 0.3 * math.pi) / 32).all()
    assert (steps[1] <= torch.linspace(0, 1, 50) * 0.3 * math.pi / 32).all()
    assert (depth[1:, :, :, 0] != depth[1:, :, :, -1]).any(2).all()


def test_density_is_that_of_all_layers() -> None:
    """Lengths of mean 1 around the given one and 1 / n of the density each: the sum's mean does not depend on n."""
    for count in (1, 3):
        rain = HeavyRain(length=10, angle=0, width=1, density=0.6, intensity=1, layers=count, transmission=1)
        means = layers(rain, 400, size=64).mean((1, 2))
        expected = MEAN_BRIGHTNESS * 0.6 / 1000 * 10
        assert abs(means.mean() - expected) < 5 * means.std() / 20 + 0.005 * expected


def test_layers_differ_in_angle() -> None:
    """One layer is up to 8 degrees off the given angle; the mean of eight varies by 1 / sqrt(8) of that."""
    spreads = []
    for count in (1, 8):
        rain = HeavyRain(length=24, angle=20, width=1.5, density=4, intensity=0.5, layers=count, transmission=1)
        found = np.array([orientation(layer)[0] for layer in layers(rain, 100)])
        assert abs(found - 20).max() < 9.5
        spreads.append(found.std())
    assert abs(spreads[0] / (16 / math.sqrt(12)) - 1) < 0.2
    assert 0.2 < spreads[1] / spreads[0] < 0.55


def test_layers_differ_in_length() -> None:
    """The correlation at a lag of the given length, by which the shortest streaks have ended, varies between layers."""
    rain = HeavyRain(length=20, angle=0, width=1.5, density=1.5, intensity=0.5, layers=1, transmission=1)
    made = layers(rain, 40)
    fixed = layers(RainStreaks(length=20, angle=0, width=1.5, density=1.5, intensity=0.5), 40)

    def correlations(stack: Array) -> Array:
        smooth = ndimage.gaussian_filter1d(stack, 3, axis=2)  # layers are up to 8 degrees off the vertical
        smooth = smooth - smooth.mean((1, 2), keepdims=True)
        return (smooth[:, 12:] * smooth[:, :-12]).mean((1, 2)) / (smooth**2).mean((1, 2))

    assert correlations(made).std() > 2 * correlations(fixed).std()


def test_every_sample_draws_its_own_degrees() -> None:
    """Angles are uniform over the range, and each is that of all streaks of the sample."""
    rain = RainStreaks(length=24, angle=Uniform((-60, 60)), width=1.5, density=4, intensity=0.6)
    found = [orientation(layer) for layer in layers(rain, 120)]
    assert stats.kstest([angle for angle, _ in found], stats.uniform(-60, 120).cdf).pvalue > 1e-3
    assert min(coherence for _, coherence in found) > 0.8


@pytest.mark.parametrize(('name', 'low', 'high'), [('density', 0.1, 2), ('intensity', 0, 1), ('length', 4, 40)])
def test_ranges_reach_the_layer(name: str, low: float, high: float) -> None:
    """The samples' means, proportional to each of these degrees, spread as a uniform degree over its mean does."""
    degrees: dict[str, Any] = {'length': 20, 'angle': 0, 'width': 1, 'density': 2, 'intensity': 1}
    steady = layers(RainStreaks(**degrees), 150, size=150).mean((1, 2))
    means = layers(RainStreaks(**{**degrees, name: Uniform((low, high))}), 150, size=150).mean((1, 2))
    spread = (high - low) / math.sqrt(12) / ((high + low) / 2)
    assert steady.std() / steady.mean() < 0.2
    assert means.std() / means.mean() == pytest.approx(spread, rel=0.25)


# the contract of every distortion


@pytest.mark.parametrize('rain', [RainStreaks(density=0), RainStreaks(intensity=0),
                                  HeavyRain(density=0, transmission=1), HeavyRain(intensity=0, transmission=1)],
                         ids=lambda rain: rain.label)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_no_rain_is_the_identity(rain: Rain, dtype: torch.dtype) -> None:
    clean = image((2, 3, 20, 30), dtype)
    made = rain(clean, seeded(0))
    assert torch.equal(made, clean)
    assert made.data_ptr() != clean.data_ptr()


@of_both
@pytest.mark.parametrize('shape', [(1, 1, 1, 1), (1, 3, 37, 51), (3, 1, 8, 5), (2, 3, 2, 90), (4, 3, 64, 64)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_shape_dtype_and_range(rain: Rain, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    clean = image(shape, dtype)
    made = rain(clean, seeded(0))
    assert (made.shape, made.dtype) == (clean.shape, dtype)
    assert made.min() >= 0
    assert made.max() <= 1
    assert torch.equal(clean, image(shape, dtype))


@of_both
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_single_precision_rounded(rain: Rain, dtype: torch.dtype) -> None:
    clean = image((2, 3, 24, 24), dtype)
    assert torch.equal(rain(clean, seeded(1)), rain(clean.float(), seeded(1)).to(dtype))


@of_both
def test_same_in_all_channels(rain: Rain) -> None:
    grey = image((2, 1, 40, 40))
    made = rain(grey.expand(-1, 3, -1, -1), seeded(3))
    assert not torch.equal(made[:, :1], grey)
    assert torch.equal(made, rain(grey, seeded(3)).expand(-1, 3, -1, -1))


@of_both
def test_random_from_the_generator_alone(rain: Rain) -> None:
    clean = image((2, 3, 40, 40))
    state = torch.get_rng_state()
    first, again, other = (rain(clean, seeded(seed)) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0] - clean[0], first[1] - clean[1])
    assert torch.equal(torch.get_rng_state(), state)


@of_both
def test_without_generator_the_global_one_is_used(rain: Rain) -> None:
    clean = image((2, 3, 40, 40))
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(rain(clean))
    assert torch.equal(*made)


# YAML


def test_blocks() -> None:
    found = parse_distortions([
        {'type': 'RainStreaks', 'density': [2, 5], 'length': {'uniform': [10, 20]}, 'angle': -10},
        {'type': 'HeavyRain'},
        {'type': 'HeavyRain', 'layers': [1, 3], 'transmission': 0.5},
    ])
    assert list(found) == [
        *(RainStreaks(density=density, length=Uniform((10, 20)), angle=-10) for density in (2, 5)),
        HeavyRain(),
        *(HeavyRain(layers=count, transmission=0.5) for count in (1, 3)),
    ]
    assert found.labels[0] == 'RainStreaks(length=10..20, angle=-10, density=2)'
    assert (found.scale, found.min_size) == (1, 1)


@pytest.mark.parametrize(('block', 'message'), [
    ({'type': 'RainStreaks', 'length': 0}, r'rain\[0\]\.length: .*> 0.*; got 0'),
    ({'type': 'RainStreaks', 'width': 0.5}, r'rain\[0\]\.width: .*>= 1.*; got 0\.5'),
    ({'type': 'RainStreaks', 'angle': {'uniform': [-100, 0]}}, r'rain\[0\]\.angle\.uniform\[0\]: .*>= -90'),
    ({'type': 'RainStreaks', 'density': -1}, r'rain\[0\]\.density: .*>= 0'),
    ({'type': 'RainStreaks', 'intensity': {'uniform': [0, 2]}}, r'rain\[0\]\.intensity\.uniform\[1\]: .*<= 1'),
    ({'type': 'RainStreaks', 'length': {'uniform': [9, 3]}}, r'rain\[0\]\..*uniform: .*low <= high, got \[9, 3\]'),
    ({'type': 'RainStreaks', 'layers': 2}, r'rain\[0\]\.?.*layers'),
    ({'type': 'HeavyRain', 'layers': 0}, r'rain\[0\]\.layers: .*>= 1'),
    ({'type': 'HeavyRain', 'layers': 1.5}, r'rain\[0\]\.layers: .*a whole number'),
    ({'type': 'HeavyRain', 'transmission': 0}, r'rain\[0\]\.transmission: .*> 0'),
    ({'type': 'HeavyRain', 'atmosphere': 1.1}, r'rain\[0\]\.atmosphere: .*<= 1'),
    ({'type': 'HeavyRain', 'relief': [0.5, 3]}, r'rain\[0\]\.relief: .*<= 1'),
])
def test_wrong_options(block: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_distortions([block], 'rain')
