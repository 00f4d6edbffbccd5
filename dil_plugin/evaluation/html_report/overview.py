"""The tables of means and of differences, as the template shows them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from dil_plugin.evaluation.html_report.wording import run_label, write_number
from dil_plugin.evaluation.results import INPUT, Results
from dil_plugin.evaluation.statistics import Difference, few_images
from dil_plugin.evaluation.summary import Cell, baseline_of
from dil_plugin.evaluation.written_tables.layout import (
    MISSING,
    Block,
    Row,
    metric_decimals,
    metric_groups,
    metric_title,
    published_differ,
    table_blocks,
)


class Part(NamedTuple):
    """One number, and whether it is the best of the measured ones in its column."""

    text: str
    best: bool


class Head(NamedTuple):
    """What stands above a column: a condition, and ``seen``, ``unseen`` or nothing."""

    name: str
    seen: str


class MeanRow(NamedTuple):
    """One method: per condition the numbers, and how many images are missing. ``kind`` is its look."""

    label: str
    kind: str
    cells: list[tuple[list[Part], int]]


class Gap(NamedTuple):
    """A difference to the baseline; ``verdict`` is ``better``, ``worse`` or nothing where the interval holds zero."""

    mean: str
    interval: str
    verdict: str


class GapRow(NamedTuple):
    """One comparison, per condition."""

    label: str
    cells: list[Gap | None]


class Overview(NamedTuple):
    """All that is said of one data set.

    Attributes:
        dataset: Its name.
        differs: What sets the images apart from those of the published numbers; may be empty.
        images: The largest number of images behind a mean.
        heads: The columns.
        means: For each table what the numbers of a cell are, and the rows.
        gaps: For each metric its name, and the rows.
    """

    dataset: str
    differs: str
    images: int
    heads: list[Head]
    means: list[tuple[str, list[MeanRow]]]
    gaps: list[tuple[str, list[GapRow]]]
    warning: str


def overviews(results: Results, cells: Sequence[Cell]) -> list[Overview]:
    """What the report says of each data set, in the protocol's order; ``cells`` is ``summarise(results)``."""
    found = []
    for block in table_blocks(results, cells):
        own = [cell for cell in cells if cell.dataset == block.dataset]
        heads = [Head(name, results.protocol.condition(name).seen_text) for name in block.conditions]
        means = [(' / '.join(map(metric_title, metrics)), _mean_rows(results, block, metrics))
                 for metrics in metric_groups(results)]
        gaps = [(metric_title(metric), rows) for metric in results.metrics
                if (rows := _gap_rows(results, block, own, metric))]
        found.append(Overview(block.dataset, published_differ(results, block.dataset),
                              max((cell.images for cell in own), default=0), heads, means, gaps,
                              few_images([one for cell in own for one in cell.differences.values()])))
    return found


def _mean_rows(results: Results, block: Block, metrics: Sequence[str]) -> list[MeanRow]:
    decimals = metric_decimals(results)
    best = {(condition, metric): text for condition in block.conditions for metric in metrics
            if (text := _best(results, block, condition, metric))}
    rows = []
    for row in block.rows:
        if row.published and not any(metric in values for values in row.values.values() for metric in metrics):
            continue
        cells = []
        for condition in block.conditions:
            texts = {metric: write_number(row.values.get(condition, {}).get(metric), decimals[metric])
                     for metric in metrics}
            parts = [Part(text, _competes(row) and best.get((condition, metric)) == text)
                     for metric, text in texts.items()]
            empty = {part.text for part in parts} == {MISSING}
            cells.append((parts[:1] if empty else parts, row.missing.get(condition, 0)))
        rows.append(MeanRow(run_label(row.label), _kind(row), cells))
    return rows


def _kind(row: Row) -> str:
    if row.published:
        return 'published'
    return 'input' if row.label == INPUT else 'measured'


def _competes(row: Row) -> bool:
    return not row.published and row.label != INPUT


def _best(results: Results, block: Block, condition: str, metric: str) -> str:
    """The best value of a column as it is written (what looks equal is equally good); empty for a single run."""
    values = [row.values[condition].get(metric, math.nan) for row in block.rows
              if _competes(row) and condition in row.values]
    known = [value for value in values if not math.isnan(value)]
    if len(known) < 2:
        return ''
    return write_number(min(known) if metric in results.lower_is_better else max(known),
                        metric_decimals(results)[metric])


def _gap_rows(results: Results, block: Block, cells: Sequence[Cell], metric: str) -> list[GapRow]:
    digits = metric_decimals(results)[metric]
    rows = []
    for run in results.runs:
        own = {cell.condition: cell.differences.get(metric) for cell in cells if cell.run == run.name and cell.measured}
        if any(own.values()):
            gaps = [_gap(own.get(name), digits, metric in results.lower_is_better) for name in block.conditions]
            rows.append(GapRow(f'{run.name} − {baseline_of(results, run.name)}', gaps))
    return rows


def _gap(difference: Difference | None, digits: int, lower_is_better: bool) -> Gap | None:
    if difference is None:
        return None
    low, high = (write_number(end, digits, signed=True) for end in (difference.low, difference.high))
    interval = 'one image only' if difference.images < 2 else f'[{low}, {high}]'
    verdict = ''
    if difference.significant:
        verdict = 'better' if (difference.mean > 0) != lower_is_better else 'worse'
    return Gap(write_number(difference.mean, digits, signed=True), interval, verdict)
