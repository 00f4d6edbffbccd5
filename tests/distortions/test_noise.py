"""Gaussian and Poisson noise against their closed-form moments and BasicSR's functions."""

import math
from typing import Any

import dil_plugin.basicsr  # noqa: F401  BasicSR needs its shims

# isort: split
import numpy as np
import pytest
import torch
from basicsr.data import degradations
from scipy import stats
from torch import Tensor

from dil_plugin.distortions import Distortion, GaussianNoise, PoissonNoise, Uniform
from dil_plugin.distortions.noise import draw_flags, gaussian_noise, luma, poisson_noise


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('sigma', [5, 20, 25.5])
def test_moments_on_grey(sigma: float, dtype: torch.dtype) -> None:
    """Mid-grey is at least five standard deviations from both ends, so nothing is clipped; bounds of five sigma."""
    clean = torch.full((4, 3, 256, 256), 0.5, dtype=dtype)
    error = (GaussianNoise(sigma)(clean, seeded(0)) - clean).double()
    n, std = error.numel(), sigma / 255
    assert abs(error.mean().item()) < 5 * std / math.sqrt(n)
    assert abs(error.std().item() / std - 1) < 5 / math.sqrt(2 * n)
    standard = error / std
    assert abs((standard**3).mean().item()) < 5 * math.sqrt(15 / n)
    assert abs((standard**4).mean().item() - 3) < 5 * math.sqrt(96 / n)


def test_noise_is_white() -> None:
    """Neighbours in each direction, colours and images of the batch are uncorrelated."""
    clean = torch.full((4, 3, 256, 256), 0.5)
    noise = (GaussianNoise(20)(clean, seeded(0)) - clean) / (20 / 255)
    for dim in range(4):
        size = noise.shape[dim]
        product = noise.narrow(dim, 0, size - 1) * noise.narrow(dim, 1, size - 1)
        assert abs(product.mean().item()) < 5 / math.sqrt(product.numel())


@pytest.mark.parametrize(('value', 'sign'), [(0.0, 1), (1.0, -1)])
def test_clipped_at_the_ends(value: float, sign: int) -> None:
    """At black half of the values are cut, the rest is a half normal: mean sigma / sqrt(2 pi)."""
    clean = torch.full((4, 3, 256, 256), value, dtype=torch.float64)
    noisy = GaussianNoise(40)(clean, seeded(1))
    assert noisy.min() >= 0
    assert noisy.max() <= 1
    n, std = noisy.numel(), 40 / 255
    assert abs((noisy == value).double().mean().item() - 0.5) < 5 * 0.5 / math.sqrt(n)
    spread = std * math.sqrt(0.5 - 1 / (2 * math.pi))
    assert abs(sign * (noisy - clean).mean().item() - std / math.sqrt(2 * math.pi)) < 5 * spread / math.sqrt(n)


def test_not_rounded_to_8_bit() -> None:
    noisy = GaussianNoise(5)(torch.full((1, 3, 32, 32), 0.5, dtype=torch.float64), seeded(0)) * 255
    assert (noisy - noisy.round()).abs().max() > 0.4


def test_same_seed_same_noise() -> None:
    clean = torch.rand(2, 3, 16, 16)
    first, again, other = (GaussianNoise(15)(clean, seeded(seed)) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_calls_continue_the_stream() -> None:
    clean, generator = torch.rand(2, 3, 16, 16), seeded(7)
    assert not torch.equal(GaussianNoise(15)(clean, generator), GaussianNoise(15)(clean, generator))


def test_without_generator_the_global_one_is_used() -> None:
    clean = torch.rand(2, 3, 16, 16)
    torch.manual_seed(3)
    first = GaussianNoise(15)(clean)
    torch.manual_seed(3)
    assert torch.equal(GaussianNoise(15)(clean), first)


def test_generator_leaves_the_global_stream() -> None:
    state = torch.get_rng_state()
    GaussianNoise(15)(torch.rand(1, 1, 4, 4, generator=seeded(0)), seeded(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_sigma_zero_is_the_identity() -> None:
    clean = torch.rand(2, 3, 16, 16)
    distorted = GaussianNoise(0)(clean, seeded(0))
    assert torch.equal(distorted, clean)
    assert distorted.data_ptr() != clean.data_ptr()




def test_label() -> None:
    assert GaussianNoise(20).label == 'GaussianNoise(sigma=20)'
    assert GaussianNoise(2.5).label == 'GaussianNoise(sigma=2.5)'


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_fixed_sigma_by_hand(dtype: torch.dtype) -> None:
    """One normal number per value from the generator, nothing else."""
    clean, generator = torch.rand(3, 3, 9, 7, dtype=dtype, generator=seeded(1)), seeded(2)
    expected = (clean + 25 / 255 * torch.randn(clean.shape, dtype=dtype, generator=generator)).clamp(0, 1)
    made = GaussianNoise(25)
    used = seeded(2)
    torch.testing.assert_close(made(clean, used), expected, atol=4 * torch.finfo(dtype).eps, rtol=0)
    assert torch.equal(used.get_state(), generator.get_state())


def test_range_of_sigma() -> None:
    """Every sample has a standard deviation of its own; drawn before the noise, uniform in the range."""
    clean = torch.full((500, 3, 16, 16), 0.5, dtype=torch.float64)
    made = GaussianNoise(Uniform((5, 25)))(clean, seeded(0))
    measured = (made - clean).flatten(1).std(1, correction=0) * 255
    drawn = 5 + 20 * torch.rand(500, dtype=torch.float64, generator=seeded(0))
    assert (measured / drawn - 1).abs().max() < 5 / math.sqrt(2 * 3 * 16 * 16)
    assert stats.kstest(measured.numpy(), stats.uniform(5, 20).cdf).pvalue > 1e-3


def test_range_from_zero() -> None:
    """A range may begin at 0, where it is the identity."""
    clean = torch.full((4, 3, 8, 8), 0.5)
    assert torch.equal(GaussianNoise(Uniform((0, 0)))(clean, seeded(0)), clean)
    assert torch.equal(PoissonNoise(Uniform((0, 0)))(clean, seeded(0)), clean)


NOISES = [
    GaussianNoise(20),
    PoissonNoise(1),
    GaussianNoise(Uniform((5, 20)), 0.5),
    PoissonNoise(Uniform((0.5, 1)), 0.5),
]
each_noise = pytest.mark.parametrize('noise', NOISES, ids=lambda noise: noise.label)


@each_noise
@pytest.mark.parametrize('shape', [(1, 1, 1, 1), (1, 3, 7, 5), (3, 1, 8, 8), (5, 3, 1, 9)])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_shape_and_dtype_stay_and_input_is_unchanged(noise: Distortion, shape: tuple[int, ...],
                                                     dtype: torch.dtype) -> None:
    clean = torch.rand(shape, generator=seeded(0)).to(dtype)
    before = clean.clone()
    distorted = noise(clean, seeded(0))
    assert (distorted.shape, distorted.dtype) == (clean.shape, dtype)
    assert torch.equal(clean, before)
    assert distorted.min() >= 0
    assert distorted.max() <= 1
    assert distorted.isfinite().all()


@each_noise
def test_ranges_and_grey_noise_come_from_the_generator(noise: Distortion) -> None:
    clean = torch.rand(4, 3, 8, 8, generator=seeded(0))
    state = torch.get_rng_state()
    first, again, other = (noise(clean, seeded(seed)) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@each_noise
def test_half_precision_is_computed_in_single(noise: Distortion) -> None:
    clean = torch.rand(2, 3, 8, 8, generator=seeded(0)).half()
    assert torch.equal(noise(clean, seeded(1)), noise(clean.float(), seeded(1)).half())


class TestGrey:

    @pytest.mark.parametrize('cls', [GaussianNoise, PoissonNoise])
    @pytest.mark.parametrize('probability', [0.0, 0.25, 0.5, 1.0])
    def test_share_of_samples(self, cls: Any, probability: float) -> None:
        clean = torch.full((2000, 3, 4, 4), 0.5, dtype=torch.float64)
        noise = cls(0.5, probability)(clean, seeded(0)) - clean
        is_grey = (noise == noise[:, :1]).flatten(1).all(1)
        assert stats.binomtest(int(is_grey.sum()), 2000, probability).pvalue > 1e-3
        coloured = noise[~is_grey]
        assert not (coloured == coloured[:, :1]).flatten(1).all(1).any()

    def test_flags(self) -> None:
        clean = torch.zeros(4000, 1, 1, 1, dtype=torch.float64)
        flags = draw_flags(0.3, clean, seeded(0))
        assert flags is not None
        assert (flags.shape, flags.dtype, set(flags.tolist())) == ((4000, ), torch.float64, {0.0, 1.0})
        assert stats.binomtest(int(flags.sum()), 4000, 0.3).pvalue > 1e-3
        assert draw_flags(0, clean, seeded(0)) is None

    def test_moments(self) -> None:
        """Grey noise has the same deviation, and each sample of the batch its own."""
        clean = torch.full((4, 3, 128, 128), 0.5, dtype=torch.float64)
        noise = (GaussianNoise(20, 1)(clean, seeded(0)) - clean)[:, 0] * 255 / 20
        assert abs(noise.std().item() - 1) < 5 / math.sqrt(2 * noise.numel())
        assert (np.abs(np.corrcoef(noise.flatten(1)) - np.eye(4)) < 5 / 128).all()

    @pytest.mark.parametrize('cls', [GaussianNoise, PoissonNoise])
    def test_grey_image(self, cls: Any) -> None:
        """With one channel all noise is grey, so the probability can only move the stream."""
        clean = torch.full((2, 1, 128, 128), 0.5, dtype=torch.float64)
        grey, coloured = (cls(1, p)(clean, seeded(0)) - clean for p in (1, 0))
        assert grey.std().item() == pytest.approx(coloured.std().item(), rel=5 / 128)

    @pytest.mark.parametrize('probability', [-0.1, 1.1])
    @pytest.mark.parametrize('cls', [GaussianNoise, PoissonNoise])
    def test_limits(self, cls: Any, probability: float) -> None:
        with pytest.raises(ValueError, match=r'^\.gray_prob: '):
            cls(5, probability)

    def test_label(self) -> None:
        assert GaussianNoise(20, 0.4).label == 'GaussianNoise(sigma=20, gray_prob=0.4)'
        assert PoissonNoise(2.5).label == 'PoissonNoise(poisson_scale=2.5)'

    def test_luma(self) -> None:
        """Of a colour and of grey; torchvision's weights sum to 0.9999."""
        colour = torch.tensor([0.1, 0.6, 0.9], dtype=torch.float64).view(1, 3, 1, 1)
        assert luma(colour).item() == pytest.approx(0.02989 + 0.3522 + 0.1026)


def next_power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


def levels_image(count: int, size: int = 128, channels: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    """One sample that holds exactly ``count`` of the 256 values, all between 64 / 255 and 191 / 255 where that fits."""
    values = np.arange(count) + (64 if count <= 128 else 0)
    return torch.from_numpy(np.resize(values, (1, channels, size, size)) / 255).to(dtype)


class TestPoisson:

    @pytest.mark.parametrize('count', [1, 2, 3, 4, 5, 8, 9, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256])
    @pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
    def test_noise_is_a_count_over_v(self, count: int, dtype: torch.dtype) -> None:
        """``v (noise + q)`` is a whole number for the v of the definition, and not for v / 2."""
        clean = levels_image(count, 64, dtype=dtype)
        v = next_power_of_two(len(np.unique(clean.numpy())))
        assert v == next_power_of_two(count)
        counts = (poisson_noise(clean, 1.0, None, seeded(0)) + clean) * v
        assert (counts - counts.round()).abs().max() < 1e-3
        if v > 1:
            assert ((counts.round() % 2) == 1).any()

    @pytest.mark.parametrize('scale', [0.5, 2.0])
    @pytest.mark.parametrize('count', [1, 3, 100, 256])
    def test_moments(self, count: int, scale: float) -> None:
        """Of each level q: mean 0 and variance ``s^2 q / v``, excess kurtosis ``1 / (v q)``."""
        clean = levels_image(count, 200)
        v = next_power_of_two(count)
        noise = poisson_noise(clean, scale, None, seeded(3)) / scale
        standard = (noise / (clean / v).sqrt())[clean > 0]
        n, least = standard.numel(), clean[clean > 0].min().item()
        kurtosis = 2 + 1 / (v * least)
        assert abs(standard.mean().item()) < 5 / math.sqrt(n)
        assert abs((standard**2).mean().item() - 1) < 5 * math.sqrt(kurtosis / n)
        assert not noise[clean == 0].any()

    def test_each_sample_by_its_own_v(self) -> None:
        clean = torch.cat([levels_image(count) for count in (1, 2, 20, 256)])
        noise = poisson_noise(clean, 1.0, None, seeded(0))
        for sample, one in zip(noise, clean, strict=True):
            v = next_power_of_two(len(np.unique(one.numpy())))
            expected = one.mean().item() / v
            assert (sample**2).mean().item() == pytest.approx(expected, rel=0.03)

    def test_range_of_scales(self) -> None:
        clean = torch.cat([levels_image(100, 32)] * 300)
        measured = (PoissonNoise(Uniform((0.5, 1.5)))(clean, seeded(0)) - clean).flatten(1).std(1, correction=0)
        relative = measured / math.sqrt(clean[0].mean().item() / 128)
        drawn = 0.5 + torch.rand(300, dtype=torch.float64, generator=seeded(0))
        assert (relative / drawn - 1).abs().max() < 0.1
        assert stats.kstest(relative.numpy(), stats.uniform(0.5, 1).cdf).pvalue > 1e-3

    def test_image_is_rounded_to_8_bits(self) -> None:
        """Values between the levels make no level more, and the noise is that of the nearest level."""
        rounded = levels_image(100, 32)
        clean = rounded + (torch.rand(rounded.shape, generator=seeded(5), dtype=torch.float64) - 0.5) * 0.9 / 255
        near, exact = (poisson_noise(images, 1.0, None, seeded(0)) for images in (clean, rounded))
        torch.testing.assert_close(near, exact, atol=1e-15, rtol=0)
        made = PoissonNoise(0)(clean, seeded(0))
        assert torch.equal(made, clean)  # the image itself is not rounded

    def test_black_and_white(self) -> None:
        """No light, no noise; a white image has one value, v = 1, and half of what is added is cut."""
        black = torch.zeros(1, 3, 16, 16)
        assert torch.equal(PoissonNoise(3)(black, seeded(0)), black)
        white = PoissonNoise(1)(torch.ones(1, 3, 100, 100), seeded(0))
        assert set(white.unique().tolist()) == {0.0, 1.0}
        assert stats.binomtest(int((white == 0).sum()), white.numel(), math.exp(-1)).pvalue > 1e-3

    def test_added_and_clipped(self) -> None:
        clean = levels_image(256, 48, dtype=torch.float64)
        expected = (clean + poisson_noise(clean, 2.0, None, seeded(0))).clamp(0, 1)
        assert ((expected == 0) | (expected == 1)).any()
        torch.testing.assert_close(PoissonNoise(2)(clean, seeded(0)), expected, atol=1e-15, rtol=0)

    def test_grey_noise_is_that_of_the_luma(self) -> None:
        """Flat colour: the luma has one value, v = 1 and variance Y; the colours have three values, v = 4."""
        clean = torch.tensor([200, 100, 50], dtype=torch.float64).div(255).view(1, 3, 1, 1).expand(2, 3, 200, 200)
        flags = torch.tensor([1.0, 0.0], dtype=torch.float64)
        grey, coloured = poisson_noise(clean, 1.0, flags, seeded(0))
        assert torch.equal(grey[0], grey[1])
        assert torch.equal(grey[0], grey[2])
        y = round(0.2989 * 200 + 0.587 * 100 + 0.114 * 50) / 255
        assert abs(grey[0].mean().item()) < 5 * math.sqrt(y) / 200
        assert grey[0].var().item() == pytest.approx(y, rel=5 * math.sqrt(2 + 1 / y) / 200)
        for channel, q in zip(coloured, (200, 100, 50), strict=True):
            assert channel.var().item() == pytest.approx(q / 255 / 4, rel=5 * math.sqrt(2 + 255 / q / 4) / 200)


def photo_like(batch: int, size: int = 40) -> Tensor:
    """Smooth images of 8 bits in float32, each with another number of levels."""
    rows = torch.linspace(0, 1, size)
    ramps = torch.stack([(0.3 + 0.1 * b) * torch.outer(rows, rows.roll(c)) + 0.2
                         for b in range(batch) for c in range(3)])
    return (ramps.view(batch, 3, size, size).clamp(0, 1) * 255).round() / 255


class TestBasicSR:
    """The same numbers of torch's global stream, where BasicSR draws in the same order."""

    @pytest.mark.parametrize('sigma', [20, torch.tensor([5.0, 10, 50])])
    def test_gaussian(self, sigma: float | Tensor) -> None:
        clean = photo_like(3)
        torch.manual_seed(0)
        expected = degradations.generate_gaussian_noise_pt(clean, sigma)
        torch.manual_seed(0)
        torch.testing.assert_close(gaussian_noise(clean, sigma), expected, atol=1e-7, rtol=0)

    def test_gaussian_confounder(self) -> None:
        clean = photo_like(3)
        torch.manual_seed(0)
        expected = degradations.add_gaussian_noise_pt(clean, 40)
        torch.manual_seed(0)
        torch.testing.assert_close(GaussianNoise(40)(clean), expected, atol=1e-6, rtol=0)

    @pytest.mark.parametrize('scale', [1.5, torch.tensor([0.5, 1, 3])])
    def test_poisson(self, scale: float | Tensor) -> None:
        clean = photo_like(3)
        torch.manual_seed(0)
        expected = degradations.generate_poisson_noise_pt(clean, scale)
        torch.manual_seed(0)
        torch.testing.assert_close(poisson_noise(clean, scale), expected, atol=1e-6, rtol=0)

    def test_poisson_confounder(self) -> None:
        clean = photo_like(3)
        torch.manual_seed(0)
        expected = degradations.add_poisson_noise_pt(clean, 2.0)
        torch.manual_seed(0)
        torch.testing.assert_close(PoissonNoise(2)(clean), expected, atol=1e-6, rtol=0)

    def test_grey_gaussian(self) -> None:
        """BasicSR draws the grey noise first: behind a coloured one it meets the numbers that are taken here."""
        clean = photo_like(1)
        torch.manual_seed(0)
        degradations.generate_gaussian_noise_pt(clean, 20)
        expected = degradations.generate_gaussian_noise_pt(clean, 20, 1)
        torch.manual_seed(0)
        torch.testing.assert_close(gaussian_noise(clean, 20, torch.ones(1)), expected, atol=1e-7, rtol=0)

    def test_grey_poisson(self) -> None:
        clean, flags = photo_like(3), torch.tensor([1.0, 0, 1])
        torch.manual_seed(0)
        coloured = degradations.generate_poisson_noise_pt(clean, 1.5)
        grey = degradations.generate_poisson_noise_pt(clean, 1.5, 1)
        expected = torch.where(flags.view(3, 1, 1, 1) == 1, grey, coloured)
        torch.manual_seed(0)
        torch.testing.assert_close(poisson_noise(clean, 1.5, flags), expected, atol=1e-6, rtol=0)

    @pytest.mark.parametrize('grey', [0, 1])
    def test_poisson_in_distribution(self, grey: int) -> None:
        """First four moments of the noise on one image, of independent streams."""
        clean = photo_like(1).expand(60, -1, -1, -1)
        torch.manual_seed(1)
        ours = (PoissonNoise(1, float(grey))(clean, seeded(99)) - clean).mean((1, )).flatten()
        theirs = (degradations.add_poisson_noise_pt(clean, 1.0, gray_noise=grey) - clean).mean((1, )).flatten()
        for power in (1, 2, 3, 4):
            assert stats.ttest_ind((ours**power).numpy(), (theirs**power).numpy(), equal_var=False).pvalue > 1e-3
