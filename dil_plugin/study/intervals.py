"""Means over seeds with their intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy import stats

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean with its 95 % interval.

    Attributes:
        mean: Over seeds.
        half: Half of the interval's width; NaN with fewer than two seeds.
        seeds: How many there are.
    """

    mean: float
    half: float
    seeds: int

    @property
    def leaves_out_zero(self) -> bool:
        """Whether the interval does."""
        return abs(self.mean) > self.half

    def text(self, sign: bool = False, digits: int = 2) -> str:
        """As a table has it: ``28.41 ± 0.12``; without an interval where there is one seed."""
        mean = f'{self.mean:{"+" if sign else ""}.{digits}f}'
        return mean if math.isnan(self.half) else f'{mean} ± {self.half:.{digits}f}'


def t_interval(values: Sequence[float]) -> Interval:
    """Mean and Student's t interval, ``mean ± t_{0.975, n-1} s / sqrt(n)``.

    It takes the seeds' values as normally distributed, which with three of them cannot be checked.
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return Interval(mean, math.nan, count)
    deviation = math.sqrt(math.fsum((value - mean)**2 for value in values) / (count - 1))
    return Interval(mean, float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * deviation / math.sqrt(count), count)


def paired_interval(method: Mapping[int, float], baseline: Mapping[int, float]) -> Interval | None:
    """The mean difference over the seeds that both have; None where there is none."""
    common = sorted(method.keys() & baseline.keys())
    return t_interval([method[seed] - baseline[seed] for seed in common]) if common else None
