"""The tables of a study, in Markdown."""

import math
from collections.abc import Sequence
from pathlib import Path

from scipy import stats

from dil_plugin.evaluation.tables import Cell, Column, markdown_table
from dil_plugin.study.intervals import Interval, t_interval
from dil_plugin.study.results import Results
from dil_plugin.study.rows import (
    Reduce,
    Row,
    at_the_end,
    baseline_row,
    by_seed,
    curves_of,
    difference,
    mean_over_seeds,
    over_the_last_third,
    rows_of,
    series,
)

FEW = 3
"""Points, up to which their last third is the last one."""


def study_report(results: Results, plot: str, metrics: Sequence[str] = ('psnr', )) -> str:
    """The whole fragment ``study.md``.

    Args:
        results: What has ended so far.
        plot: The file of the plot, as it is linked.
        metrics: The metrics of the study.
    """
    ended = len(results.cells)
    failed = sum(curve.status == 'failed' for curve in results.cells.values())
    budgets = sorted({curve.image_gradients[-1] for curve in results.cells.values()})
    spent = f'{budgets[0]:,}' if len(set(budgets)) == 1 else f'{budgets[0]:,} to {budgets[-1]:,}'
    points = max(len(curve.image_gradients) for curve in results.cells.values())
    parts = [
        f'# {results.question}',
        f'{ended} of {results.planned} trainings have ended{f", {failed} of them failed" if failed else ""}; '
        f'{spent} image gradients each. Means over n seeds ± half of the 95 % t interval over seeds; Δ is the paired '
        f'difference to {results.baseline} over the seeds that both have, bold where its interval leaves out zero. '
        f'Conditions are seen in training or not, as the heads of the columns say. {_machines(results)}',
    ]
    for group in dict.fromkeys(row.group for row in rows_of(results)):
        rows = [row for row in rows_of(results) if row.group == group]
        if group:
            parts.append(f'### {group}')
        for metric in metrics:
            unit = 'PSNR (dB)' if metric == 'psnr' else metric.upper()
            if points > FEW:
                parts += [f'{unit}, mean over the last third of the points:',
                          score_table(results, rows, over_the_last_third, metric)]
            parts += [f'{unit} at the last point:', score_table(results, rows, at_the_end, metric)]
    parts += [f'![PSNR over image gradients]({plot})', 'What it cost:', cost_table(results)]
    if any(curve.invariance for curve in results.cells.values()):
        parts += ['Invariance at the end, theta:', invariance_table(results), agreement(results)]
    parts += [f'* {name} failed: {curve.error}' for name, curve in results.cells.items() if curve.status == 'failed']
    return '\n\n'.join(parts) + '\n'


def _machines(results: Results) -> str:
    found = sorted({(curve.device, curve.torch) for curve in results.cells.values() if curve.status == 'done'})
    return f'Trained on {", ".join(f"{device} with torch {torch}" for device, torch in found)}.' if found else ''


def score_table(results: Results, rows: Sequence[Row], reduce: Reduce, metric: str = 'psnr') -> str:
    """A row for every arm, a column for every condition.

    The last column has the mean of every seed: an interval says little where seeds fall into two groups.
    """
    groups = {'seen': results.seen, 'unseen': results.unseen}
    groups = {name: conditions for name, conditions in groups.items() if conditions}
    last = list(groups)[-1]
    columns = [Column('arm', align='left'), Column('n'),
               *(Column(f'{condition}, {name}') for name, conditions in groups.items() for condition in conditions),
               *(Column(f'mean {name}') for name in groups), *(Column(f'Δ {name}') for name in groups),
               Column(f'{last}, by seed')]
    digits = 2 if metric == 'psnr' else 3
    lines: list[list[Cell]] = []
    for row in rows:
        line: list[Cell] = [row.label, str(len(curves_of(results, row)))]
        line += [f'{mean_over_seeds(results, row, [condition], reduce, metric).mean:.{digits}f}'
                 for conditions in groups.values() for condition in conditions]
        line += [mean_over_seeds(results, row, conditions, reduce, metric).text(digits=digits)
                 for conditions in groups.values()]
        line += [_difference(difference(results, row, conditions, reduce, metric), digits)
                 for conditions in groups.values()]
        by_each = sorted(by_seed(results, row, groups[last], reduce, metric).items())
        line.append(' / '.join(f'{value:.{1 if metric == "psnr" else 3}f}' for _, value in by_each))
        lines.append(line)
    return markdown_table(columns, lines)


def _difference(interval: Interval | None, digits: int) -> str | None:
    if interval is None:
        return None
    text = interval.text(sign=True, digits=digits)
    return f'**{text}**' if interval.leaves_out_zero else text


def cost_table(results: Results) -> str:
    """Iterations, outer steps, image gradients by kind, seconds and failures of every arm."""
    columns = [Column('arm', align='left'), *map(Column, ('iterations', 'outer steps', 'inner', 'query', 'Hessian',
                                                          'seconds', 'failed'))]
    lines: list[list[Cell]] = []
    for arm, group in dict.fromkeys((curve.arm, curve.group) for curve in results.cells.values()):
        cells = [curve for curve in results.cells.values() if (curve.arm, curve.group) == (arm, group)]
        one = cells[0]
        seconds = [curve.seconds for curve in cells if curve.seconds is not None]
        lines.append([', '.join(filter(None, (arm, group))), f'{one.iterations:,}',
                      f'{one.iterations * one.outer_steps:,}',
                      *(f'{one.iterations * one.cost[kind]:,}' for kind in ('inner', 'query', 'hessian')),
                      f'{math.fsum(seconds) / len(seconds):.0f}' if seconds else None,
                      str(sum(curve.status == 'failed' for curve in cells))])
    return markdown_table(columns, lines)


def invariance_table(results: Results) -> str:
    """The invariance report's means of every arm, over seeds."""
    names = list(dict.fromkeys(name for curve in results.cells.values() for name in curve.invariance or ()))
    lines: list[list[Cell]] = []
    for arm, group in dict.fromkeys((curve.arm, curve.group) for curve in results.cells.values()):
        found = [curve.invariance for curve in results.cells.values()
                 if (curve.arm, curve.group) == (arm, group) and curve.invariance]
        if found:
            values = [[one[name] for one in found if name in one] for name in names]
            lines.append([', '.join(filter(None, (arm, group))), str(len(found)),
                          *(t_interval(each).text(digits=3) if each else None for each in values)])
    return markdown_table([Column('arm', align='left'), Column('n'), *map(Column, names)], lines)


def agreement(results: Results) -> str:
    """Whether the report agrees with PSNR: rank correlations of the two differences to the baseline of equal seed."""
    pairs = [(curve, other) for row in rows_of(results) if row.parameters == 'theta' and row.arm != results.baseline
             for seed, curve in curves_of(results, row).items()
             if (other := curves_of(results, baseline_row(results, row)).get(seed)) is not None]
    pairs = [(curve, other) for curve, other in pairs if curve.invariance and other.invariance]
    if len(pairs) < 3:
        return 'Too few trainings for a rank correlation of these with PSNR.'
    lines = []
    for kind, conditions in (('seen', results.seen), ('unseen', results.unseen)):
        gains = [at_the_end(series(curve, 'theta', conditions)) - at_the_end(series(other, 'theta', conditions))
                 for curve, other in pairs] if conditions else []
        for name in (pairs[0][0].invariance or {}) if gains else ():
            changes = [(curve.invariance or {}).get(name, math.nan) - (other.invariance or {}).get(name, math.nan)
                       for curve, other in pairs]
            if len(set(changes)) > 1:
                lines.append(f'* {name} and {kind} PSNR: {stats.spearmanr(changes, gains).statistic:+.2f}')
    return f"Spearman's rank correlation of the differences to {results.baseline} of equal seed, over {len(pairs)} " \
           'trainings:\n\n' + '\n'.join(lines)


def write_report(results: Results, output: Path, metrics: Sequence[str]) -> list[Path]:
    """Writes ``study.md`` and ``study.png``; nothing where no training has ended well."""
    from dil_plugin.evaluation.output_files import write_figure, write_text
    from dil_plugin.study.plot import study_figure
    if not rows_of(results):
        return []
    paths = [write_text(output / 'study.md', study_report(results, 'study.png', metrics)), output / 'study.png']
    write_figure(study_figure(results), paths[1])
    return paths
