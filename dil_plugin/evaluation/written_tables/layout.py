"""What stands in which row and column of a table, and with how many decimals, whatever the table is written as."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dil_plugin.evaluation.published import PublishedNumber, published_numbers
from dil_plugin.evaluation.results import Results
from dil_plugin.evaluation.summary import Cell

MISSING = '–'

_TITLES = {'psnr': 'PSNR (dB)', 'ssim': 'SSIM'}


class Row(NamedTuple):
    """One method, as measured or as published.

    Attributes:
        label: The run's name, or ``METHOD, published``.
        group: ``RRDB`` of ``RRDB/ERM``.
        published: Whether the numbers are the paper's.
        values: By condition, the metrics by name.
        missing: By condition, how many images failed.
    """

    label: str
    group: str | None
    published: bool
    values: dict[str, dict[str, float]]
    missing: dict[str, int]


class Block(NamedTuple):
    """The table of one data set.

    Attributes:
        dataset: Its name.
        conditions: Those with numbers, in the protocol's order: the columns.
        rows: ``input``, then the runs group by group; the paper's numbers of a method stand below the last run that
            they are of, those of methods that were not run at the end of their group.
    """

    dataset: str
    conditions: list[str]
    rows: list[Row]


def table_blocks(results: Results, cells: Sequence[Cell]) -> list[Block]:
    """The tables, one per data set with scores."""
    return [_block(results, dataset, [cell for cell in cells if cell.dataset == dataset])
            for dataset in results.datasets]


def _block(results: Results, dataset: str, cells: Sequence[Cell]) -> Block:
    groups = dict.fromkeys([None, *results.protocol.groups, *(cell.group for cell in cells)])
    rows = [row for group in groups for row in _rows([cell for cell in cells if cell.group == group], group)]
    there = {condition for row in rows for condition in row.values}
    return Block(dataset, [name for name in results.conditions if name in there], rows)


def _rows(cells: Sequence[Cell], group: str | None) -> list[Row]:
    measured: dict[str, list[Cell]] = {}
    printed: dict[str, dict[str, PublishedNumber]] = {}
    last: dict[str, str] = {}  # the run below which a published method stands
    for cell in cells:
        if cell.measured:
            measured.setdefault(cell.run, []).append(cell)
        if cell.published is not None:
            printed.setdefault(cell.published.method, {})[cell.condition] = cell.published
    for run, own in measured.items():
        last.update({cell.published.method: run for cell in own if cell.published is not None})
    rows = []
    for run, own in measured.items():
        rows.append(Row(run, group, False, {cell.condition: cell.means for cell in own},
                        {cell.condition: cell.missing for cell in own}))
        rows += [_published_row(printed[method], group) for method, below in last.items() if below == run]
    return rows + [_published_row(numbers, group) for method, numbers in printed.items() if method not in last]


def _published_row(numbers: Mapping[str, PublishedNumber], group: str | None) -> Row:
    method = next(iter(numbers.values())).method
    name = f'{group}/{method}' if group else method
    values = {condition: {'psnr': number.psnr, 'ssim': number.ssim} for condition, number in numbers.items()}
    return Row(f'{name}, published', group, True, values, {})


def metric_groups(results: Results) -> list[list[str]]:
    """The metrics that share a table: PSNR and SSIM, and all others."""
    groups = [[name for name in results.metrics if name in _TITLES],
              [name for name in results.metrics if name not in _TITLES]]
    return [group for group in groups if group]


def metric_title(metric: str) -> str:
    """How a metric is written, with its unit."""
    return _TITLES.get(metric, metric.upper())


def metric_decimals(results: Results) -> dict[str, int]:
    """Decimals by metric: PSNR 2; SSIM 3, or 4 where the paper's table has 4; others 4."""
    four = any(abs(number.ssim - round(number.ssim, 3)) > 1e-6 for number in published_numbers(results.task))
    return {name: 2 if name == 'psnr' else 3 if name == 'ssim' and not four else 4 for name in results.metrics}


def number_text(value: float | None, decimals: int, sign: str = '') -> str:
    """A number rounded to its decimals, or a dash where there is none."""
    return MISSING if value is None or math.isnan(value) else f'{value:{sign}.{decimals}f}'


def published_differ(results: Results, dataset: str) -> str:
    """Says that the measured images are not those of the published numbers; empty where nothing speaks against it."""
    parts = []
    if results.limit is not None:
        parts.append(f'Only the first {results.limit} images of the set were measured.' if results.limit > 1 else
                     'Only the first image of the set was measured.')
    if dataset in results.remarks:
        remark = results.remarks[dataset].strip()
        parts.append(remark[:1].upper() + remark[1:])
    if parts and any(number.dataset == dataset for number in published_numbers(results.task)):
        parts.append('The published numbers are of the full set.')
    return ' '.join(part if part.endswith(('.', '!', '?')) else f'{part}.' for part in parts)
