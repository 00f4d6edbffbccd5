"""The plot of a study: seen and unseen PSNR over the training."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dil_plugin.study.results import Results
from dil_plugin.study.rows import Row, curves_of, rows_of, series

_BASELINE = '#000000'
_COLOURS = ('#D55E00', '#0072B2', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#8C6D46',
            '#5E3C99', '#B2182B', '#7FBC41', '#878787')
_LINES = ('-', '--', ':', '-.')
_LOWEST = 6.0  # dB below the best at the end; what is lower is worth no space
_INCHES = (4.3, 3.4)
_LEGEND = 2.6  # inches
_ENTRY = 0.16  # inches, the height of one in the legend
_BANDS = 20  # lines, above which their bands would hide each other
_FEW = 8  # points, below which each is marked


def study_figure(results: Results) -> Figure:
    """Mean over seeds of seen and unseen PSNR against image gradients, a band from the lowest to the highest seed.

    Above twenty lines there are no bands. One row of panels for every group of arms; the baseline is black.

    Args:
        results: With at least one finished cell.
    """
    rows = rows_of(results)
    groups = list(dict.fromkeys(row.group for row in rows))
    kinds = [(name, conditions) for name, conditions in (('seen', results.seen), ('unseen', results.unseen))
             if conditions]
    entries = max(sum(row.group == group for row in rows) for group in groups)
    width = _INCHES[0] * len(kinds) + _LEGEND
    height = max(_INCHES[1], _ENTRY * entries + 0.7) * len(groups) + 0.1
    figure = Figure(figsize=(width, height), dpi=100, facecolor='white', layout='constrained')
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(groups), len(kinds), squeeze=False)
    for line, group in zip(panels, groups, strict=True):
        of_group = [row for row in rows if row.group == group]
        for axes, (name, conditions) in zip(line, kinds, strict=True):
            _draw(axes, results, of_group, conditions)
            axes.set_title(', '.join(filter(None, (f'{name}: {", ".join(conditions)}', group))), fontsize=10,
                           parse_math=False)
        line[0].set_ylabel('PSNR (dB)')
        line[-1].legend(frameon=False, fontsize=8, loc='upper left', bbox_to_anchor=(1.01, 1.02), handlelength=2.6)
    for axes in panels[-1]:
        axes.set_xlabel('image gradients (thousands)')
    return figure


def _style(row: Row, arms: list[str], rows: list[Row]) -> tuple[str, str]:
    """Every arm has its colour, the parameters of one arm have their own lines."""
    number = arms.index(row.arm)
    of_arm = [one.parameters for one in rows if one.arm == row.arm]
    if number == 0:
        return _LINES[of_arm.index(row.parameters) % len(_LINES)], _BASELINE
    line = (number - 1) // len(_COLOURS) + of_arm.index(row.parameters)
    return _LINES[line % len(_LINES)], _COLOURS[(number - 1) % len(_COLOURS)]


def _draw(axes: Axes, results: Results, rows: list[Row], conditions: list[str]) -> None:
    ends, late, drawn = [], [], []
    arms = sorted(dict.fromkeys(row.arm for row in rows), key=lambda arm: arm != results.baseline)  # which is black
    for row in rows:
        dashes, colour = _style(row, arms, rows)
        curves = list(curves_of(results, row).values())
        x = np.array(curves[0].image_gradients) / 1000
        y = np.array([series(curve, row.parameters, conditions) for curve in curves])
        label = f'{row.label} (n = {len(curves)})'.replace('$', r'\$')
        curve, = axes.plot(x, y.mean(0), label=label, color=colour, linestyle=dashes, linewidth=1.5,
                           marker='.' if len(x) < _FEW else None)
        drawn.append((curve, y.mean(0).max()))
        if len(curves) > 1 and len(rows) <= _BANDS:
            axes.fill_between(x, y.min(0), y.max(0), color=colour, alpha=0.12, linewidth=0)
        ends.append(y.mean(0)[-1])
        late += y[:, len(x) // 4:].ravel().tolist()
    best = max(ends)
    lowest = max(min(late), best - _LOWEST) - 0.3
    axes.set_ylim(lowest, max(late) + 0.3)
    for line, highest in drawn:
        if highest < lowest:
            line.set_label(f'{line.get_label()}, below')
    axes.grid(color='#E4E4E4', linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
