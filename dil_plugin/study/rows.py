"""The rows of a study's tables: an arm, a group and the parameters that were tested, over the seeds."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from dil_plugin.study.intervals import Interval, paired_interval, t_interval
from dil_plugin.study.results import Curve, Results

Reduce = Callable[[Sequence[float]], float]


def at_the_end(values: Sequence[float]) -> float:
    """The value at the last point."""
    return values[-1]


def over_the_last_third(values: Sequence[float]) -> float:
    """The mean over the last third of the points: single checkpoints jump."""
    count = math.ceil(len(values) / 3)
    return math.fsum(values[-count:]) / count


class Row(NamedTuple):
    """What is averaged over seeds.

    Attributes:
        arm: Its name.
        group: The values of the study's axes.
        parameters: ``theta``, ``ema`` or ``phi ALPHA``.
    """

    arm: str
    group: str
    parameters: str

    @property
    def label(self) -> str:
        """As a table names it; ``theta``, which all have, is not said."""
        return self.arm if self.parameters == 'theta' else f'{self.arm}, {self.parameters}'


def rows_of(results: Results) -> list[Row]:
    """All rows, group by group, in the order of the study."""
    rows = [Row(curve.arm, curve.group, parameters) for curve in results.cells.values() for parameters in curve.scores]
    groups = list(dict.fromkeys(row.group for row in rows))
    arms = list(dict.fromkeys(row.arm for row in rows))
    return sorted(dict.fromkeys(rows), key=lambda row: (groups.index(row.group), arms.index(row.arm)))


def curves_of(results: Results, row: Row) -> dict[int, Curve]:
    """The finished cells of a row by their seeds."""
    return {curve.seed: curve for curve in results.cells.values()
            if (curve.arm, curve.group) == (row.arm, row.group) and row.parameters in curve.scores}


def series(curve: Curve, parameters: str, conditions: Sequence[str], metric: str = 'psnr') -> list[float]:
    """The mean over some conditions at every point."""
    each = [curve.scores[parameters][condition][metric] for condition in conditions]
    return [math.fsum(values) / len(each) for values in zip(*each, strict=True)]


def by_seed(results: Results, row: Row, conditions: Sequence[str], reduce: Reduce,
            metric: str = 'psnr') -> dict[int, float]:
    """One number for every seed of a row."""
    return {seed: reduce(series(curve, row.parameters, conditions, metric))
            for seed, curve in curves_of(results, row).items()}


def baseline_row(results: Results, row: Row) -> Row:
    """The row of the baseline that a row is compared with: averaged parameters with averaged ones, others with theta.

    Where the baseline was not tested at ``theta`` it is the first of what it was tested at.
    """
    tested = [one.parameters for one in rows_of(results) if (one.arm, one.group) == (results.baseline, row.group)]
    wanted = 'ema' if row.parameters == 'ema' and 'ema' in tested else 'theta'
    return Row(results.baseline, row.group, wanted if wanted in tested or not tested else tested[0])


def mean_over_seeds(results: Results, row: Row, conditions: Sequence[str], reduce: Reduce,
                    metric: str = 'psnr') -> Interval:
    """Mean and interval of a row."""
    return t_interval(list(by_seed(results, row, conditions, reduce, metric).values()))


def difference(results: Results, row: Row, conditions: Sequence[str], reduce: Reduce,
               metric: str = 'psnr') -> Interval | None:
    """The paired difference of a row to the baseline; None for the baseline, or where they have no seed in common."""
    other = baseline_row(results, row)
    if other == row:
        return None
    return paired_interval(by_seed(results, row, conditions, reduce, metric),
                           by_seed(results, other, conditions, reduce, metric))
