"""Results summed up: means over images, beside what the paper prints, and the differences to the baseline."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dil_plugin.evaluation.published import PublishedNumber, find_published, published_numbers
from dil_plugin.evaluation.results import INPUT, Results, Score
from dil_plugin.evaluation.statistics import Difference, paired_difference

Place = tuple[str, str, str]
"""Run, data set and condition."""


class Cell(NamedTuple):
    """One method on one data set under one condition.

    Attributes:
        run: The run's name, ``input``, or a method of the paper that was not run (``measured`` is False then).
        dataset: The data set's name.
        condition: The condition's name.
        seen: Whether the condition was among the training distortions; None where it is not said.
        measured: Whether it was measured here.
        means: Mean over images by metric; empty where nothing was measured, NaN where no image has the metric.
        images: How many images the means are over.
        missing: How many images of the set failed for this run.
        published: What the paper prints for this method, where it does.
        differences: To the baseline, by metric, over the images that both have; empty for the baseline itself, for
            ``input``, and where nothing was measured.
    """

    run: str
    dataset: str
    condition: str
    seen: bool | None
    measured: bool
    means: dict[str, float]
    images: int
    missing: int
    published: PublishedNumber | None
    differences: dict[str, Difference]

    @property
    def group(self) -> str | None:
        """``RRDB`` of ``RRDB/ERM``."""
        return self.run.rpartition('/')[0] or None

    @property
    def method(self) -> str:
        """``ERM`` of ``RRDB/ERM``."""
        return self.run.rpartition('/')[2]


def summarise(results: Results) -> list[Cell]:
    """All cells, by data set, then condition, then method: ``input``, the runs, the paper's methods that were not run.

    A run is compared with the baseline of its own group (``RRDB/DIL`` with ``RRDB/ERM``).
    """
    names = [INPUT, *(run.name for run in results.runs)]
    scores: dict[Place, list[Score]] = {}
    for score in results.scores:
        scores.setdefault((score.run, score.dataset, score.condition), []).append(score)
    cells = []
    for dataset in results.datasets:
        for condition in results.conditions:
            seen = results.protocol.condition(condition).seen
            measured = [cell for cell in (_measured(results, scores, (run, dataset, condition), seen) for run in names)
                        if cell.images or cell.missing]
            cells += measured
            shown = {cell.published for cell in measured}
            cells += [_printed(number, dataset, condition, seen) for number in _published(results, dataset, condition)
                      if number not in shown]
    return cells


def baseline_of(results: Results, run: str) -> str | None:
    """The run that another is compared with, in its own group; None for the baseline itself and for ``input``."""
    group, _, method = results.baseline.rpartition('/')
    own = run.rpartition('/')[0]
    name = f'{own}/{method}' if own else results.baseline
    there = {one.name for one in results.runs}
    return name if run not in (name, INPUT) and name in there else None


def _measured(results: Results, scores: Mapping[Place, Sequence[Score]], place: Place, seen: bool | None) -> Cell:
    run, dataset, condition = place
    scored = scores.get(place, ())
    values = {metric: _values(scored, metric) for metric in results.metrics}
    baseline = baseline_of(results, run)
    differences = {}
    if baseline is not None:
        for metric, found in values.items():
            difference = paired_difference(found, _values(scores.get((baseline, dataset, condition), ()), metric))
            if difference is not None:
                differences[metric] = difference
    group, _, method = run.rpartition('/')
    published = find_published(results.task, group or None, dataset, condition, method)
    missing = sum(score.error is not None for score in scored)
    means = {metric: math.fsum(found.values()) / len(found) if found else math.nan for metric, found in values.items()}
    return Cell(run, dataset, condition, seen, True, means, len(scored) - missing, missing, published, differences)


def _values(scores: Sequence[Score], metric: str) -> dict[str, float]:
    """A metric by image name, of the images that have it."""
    found = {score.image: score.metrics.get(metric) for score in scores}
    return {image: value for image, value in found.items() if value is not None}


def _published(results: Results, dataset: str, condition: str) -> list[PublishedNumber]:
    groups = {run.group for run in results.runs}
    return [number for number in published_numbers(results.task)
            if number.dataset == dataset and number.condition in (condition, None) and number.group in groups]


def _printed(number: PublishedNumber, dataset: str, condition: str, seen: bool | None) -> Cell:
    name = f'{number.group}/{number.method}' if number.group else number.method
    return Cell(name, dataset, condition, seen, False, {}, 0, 0, number, {})
