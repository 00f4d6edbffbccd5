"""Paired differences against a bootstrap written out by hand, the normal approximation, and closed forms."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from dil_plugin.evaluation.statistics import Difference, few_images, paired_difference


def named(values: np.ndarray) -> dict[str, float]:
    return {str(k): float(value) for k, value in enumerate(values)}


def zeros(count: int) -> dict[str, float]:
    return named(np.zeros(count))


def bca(values: np.ndarray, resamples: int = 40000) -> tuple[float, float]:
    """The bias-corrected and accelerated interval of the mean (Efron 1987), from the formulas."""
    rng = np.random.default_rng(99)
    means = np.sort(values[rng.integers(0, len(values), (resamples, len(values)))].mean(1))
    bias = norm.ppf(((means < values.mean()).sum() + (means == values.mean()).sum() / 2) / resamples)
    centred = values - values.mean()
    acceleration = (centred**3).sum() / (6 * (centred**2).sum()**1.5)
    ends = []
    for z in (norm.ppf(0.025), norm.ppf(0.975)):
        level = norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
        ends.append(float(np.quantile(means, level)))
    return ends[0], ends[1]


@pytest.mark.parametrize('draw', [
    lambda rng: rng.normal(0.3, 1, 68), lambda rng: rng.exponential(1, 24), lambda rng: -rng.exponential(1, 18),
    lambda rng: rng.uniform(-1, 1, 100),
], ids=['normal', 'skewed', 'skewed to the left', 'uniform'])
def test_interval_is_bca(draw) -> None:
    values = draw(np.random.default_rng(0))
    found = paired_difference(named(values), zeros(len(values)))
    low, high = bca(values)
    tolerance = 0.06 * values.std() / math.sqrt(len(values))  # of the ends of an interval of 9999 resamples
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((low, high), abs=tolerance)
    assert found.images == len(values)


def test_many_images_give_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(0.1, 2, 400)
    found = paired_difference(named(values), zeros(400))
    half = 1.96 * values.std(ddof=1) / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05 * half)


def test_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    samples = rng.normal(1, 1, (80, 40))
    found = [paired_difference(named(sample), zeros(40)) for sample in samples]
    assert 0.87 <= np.mean([one.low <= 1 <= one.high for one in found]) < 1


def test_pairs_not_groups() -> None:
    """Images differ by 20 dB, the methods by 0.1 dB on every one."""
    base = np.random.default_rng(3).uniform(20, 40, 50)
    found = paired_difference(named(base + np.random.default_rng(4).normal(0.1, 0.01, 50)), named(base))
    assert found.significant
    assert found.high - found.low < 0.01


def test_common_images_alone() -> None:
    found = paired_difference({'a': 3.0, 'b': 5.0, 'c': 100.0}, {'b': 4.0, 'a': 1.0, 'd': -100.0})
    assert (found.mean, found.images) == (1.5, 2)
    assert (found.low, found.high) == (1.0, 2.0)


def test_no_common_image() -> None:
    assert paired_difference({'a': 1.0}, {'b': 1.0}) is None


def test_one_image_has_no_interval() -> None:
    found = paired_difference({'a': 3.0}, {'a': 1.0})
    assert (found.mean, found.images) == (2.0, 1)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert not found.significant


@pytest.mark.parametrize('gain', [0.0, 0.5, -0.1])
def test_the_same_difference_everywhere(gain: float) -> None:
    """Up to rounding: 30.1 + 0.1 - 30.1 is not quite 0.1."""
    base = np.random.default_rng(5).uniform(20, 40, 12)
    found = paired_difference(named(base + gain), named(base))
    assert found[:3] == pytest.approx((gain, gain, gain), abs=1e-12)
    assert found.significant == (gain != 0)


def test_same_interval_every_time_and_in_any_order() -> None:
    values = named(np.random.default_rng(6).normal(size=20))
    turned = dict(reversed(values.items()))
    assert paired_difference(values, zeros(20)) == paired_difference(turned, zeros(20))


@pytest.mark.parametrize(('low', 'high', 'significant'), [
    (0.1, 0.3, True), (-0.3, -0.1, True), (-0.1, 0.1, False), (0.0, 0.2, False), (-0.2, 0.0, False),
    (math.nan, math.nan, False),
])
def test_significant(low: float, high: float, significant: bool) -> None:
    assert Difference((low + high) / 2, low, high, 9).significant is significant


def test_a_warning_where_images_are_few() -> None:
    enough, few = Difference(1.0, 0.5, 1.5, 10), Difference(1.0, 0.5, 1.5, 4)
    assert few_images([enough, enough]) == ''
    assert few_images([]) == ''
    assert few_images([enough, few]).endswith('the fewest here are 4.')
