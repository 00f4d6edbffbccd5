"""The scores of every image, as the data from which the page makes its sortable table."""

import math
from typing import Any

from dil_plugin.evaluation.html_report.wording import run_label
from dil_plugin.evaluation.results import Results, Score
from dil_plugin.evaluation.summary import baseline_of
from dil_plugin.evaluation.written_tables.layout import metric_decimals, metric_title

_DECIMALS = 5  # more than is shown, so that sorting is by the value


def listing(results: Results) -> dict[str, Any]:
    """Columns and rows, ready for JSON.

    Returns:
        ``columns``: of each ``key``, ``label``, ``digits`` (numbers only) and ``signed``. ``rows``: one list of cells
        per score, in the order of the columns; a number, text, ``inf`` for an infinite PSNR, or None.
    """
    digits = metric_decimals(results)
    columns: list[dict[str, Any]] = [{'key': key, 'label': label} for key, label in
                                     (('image', 'Image'), ('dataset', 'Set'), ('condition', 'Condition'),
                                      ('run', 'Method'))]
    columns += [{'key': metric, 'label': metric_title(metric), 'digits': digits[metric]} for metric in results.metrics]
    compared = results.metrics[:1] if any(baseline_of(results, run.name) for run in results.runs) else []
    columns += [{'key': 'difference', 'label': f'{metric_title(metric)} − {results.baseline.rpartition("/")[2]}',
                 'digits': digits[metric], 'signed': True} for metric in compared]
    if results.failures:
        columns.append({'key': 'error', 'label': 'Failure'})
    by_place = {(score.run, score.dataset, score.condition, score.image): score for score in results.scores}
    rows = []
    for score in results.scores:
        row: list[Any] = [score.image, score.dataset, score.condition, run_label(score.run)]
        row += [_value(score, metric) for metric in results.metrics]
        row += [_difference(results, score, by_place, metric) for metric in compared]
        rows.append([*row, score.error or ''] if results.failures else row)
    return {'columns': columns, 'rows': rows}


def _value(score: Score, metric: str) -> float | str | None:
    value = score.metrics.get(metric)
    if value is None:
        return 'inf' if metric == 'psnr' and metric in score.metrics else None
    return round(value, _DECIMALS) if math.isfinite(value) else None


def _difference(results: Results, score: Score, by_place: dict[tuple[str, str, str, str], Score],
                metric: str) -> float | None:
    baseline = baseline_of(results, score.run)
    other = by_place.get((baseline, score.dataset, score.condition, score.image)) if baseline else None
    ours, theirs = score.metrics.get(metric), other.metrics.get(metric) if other else None
    return None if ours is None or theirs is None else round(ours - theirs, _DECIMALS)
