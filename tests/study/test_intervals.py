"""Intervals over seeds, against SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from dil_plugin.study.intervals import paired_interval, t_interval


@pytest.mark.parametrize('count', [2, 3, 5, 12])
def test_mean_and_half_width_are_those_of_scipy(count: int) -> None:
    values = np.random.default_rng(count).normal(28, 0.3, count).tolist()
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    interval = t_interval(values)
    assert interval.mean == pytest.approx((low + high) / 2, rel=1e-12)
    assert interval.half == pytest.approx((high - low) / 2, rel=1e-9)
    assert interval.seeds == count


@pytest.mark.parametrize('shift', [0.0, 2.0])
def test_paired_differences_are_those_of_a_paired_t_test(shift: float) -> None:
    rng = np.random.default_rng(1)
    baseline = dict(enumerate(rng.normal(28, 1, 6)))
    method = {seed: value + shift + rng.normal(0, 0.2) for seed, value in baseline.items()}
    test = stats.ttest_rel(list(method.values()), list(baseline.values()))
    low, high = test.confidence_interval(0.95)
    interval = paired_interval(method, baseline)
    assert interval is not None
    assert (interval.mean - interval.half, interval.mean + interval.half) == pytest.approx((low, high))
    assert interval.leaves_out_zero == (test.pvalue < 0.05)


def test_only_common_seeds_are_paired() -> None:
    interval = paired_interval({0: 1.0, 1: 3.0, 5: 9.0}, {5: 8.0, 1: 1.0, 2: 0.0})
    assert interval is not None
    assert (interval.mean, interval.seeds) == (1.5, 2)
    assert paired_interval({0: 1.0}, {1: 1.0}) is None


def test_one_seed_has_no_interval() -> None:
    interval = t_interval([28.123])
    assert math.isnan(interval.half)
    assert not interval.leaves_out_zero
    assert interval.text() == '28.12'
    assert t_interval([1, 3]).text(sign=True, digits=1) == '+2.0 ± 12.7'
