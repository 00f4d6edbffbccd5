"""The matrices of the invariance report as heat maps with their numbers."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dil_plugin.evaluation.invariance.measuring import Invariance, mean_of_pairs
from dil_plugin.evaluation.results import INPUT

_CELL, _ROW = 46, 30  # pixels, width and height of a number
_ABOVE, _BELOW = 46, 46  # pixels around a matrix
_LETTER, _LINE = 8, 20  # pixels of text
_DPI = 100


class _Map(NamedTuple):
    """One matrix; its rows, what stands above it, and how numbers are coloured and written."""

    values: Sequence[Sequence[float | None]]
    rows: Sequence[str]
    title: str
    colours: str
    limits: tuple[float, float]
    digits: str = '.1f'


def short_labels(labels: Sequence[str]) -> tuple[list[str], str]:
    """What fits beside a matrix, and what it means.

    Returns:
        The values of the one degree in which the labels differ, and its name, as in ``(['5', '10'], 'GaussianNoise,
        sigma')``; otherwise ``d1``, ``d2``, … and an empty text.
    """
    found = [re.fullmatch(r'(\w+)\((\w+)=([\w.]+)\)', label) for label in labels]
    there = [match for match in found if match]
    if len(there) == len(labels) and len({match.group(1, 2) for match in there}) == 1:
        return [match[3] for match in there], f'{there[0][1]}, {there[0][2]}'
    return [f'd{k}' for k in range(1, len(labels) + 1)], ''


def invariance_figure(runs: Mapping[str, Invariance]) -> Figure:
    """The matrices of all runs side by side.

    Above, the dependence of the inputs (grey, on a scale of its own) and that of each run's outputs (one colour scale
    for all runs); below, the errors of all runs (grey) and the cosines of each run's gradients (-1 red, 1 blue).

    Args:
        runs: At least one; all of the same confounders.

    Returns:
        The figure; ``save_png`` writes it.
    """
    labels = next(iter(runs.values())).labels
    short, meaning = short_labels(labels)
    notes = [] if meaning else [f'{s} = {label}' for s, label in zip(short, labels, strict=True)]
    columns = [_inputs_and_errors(runs, short), *_outputs_and_cosines(runs, short)]
    left = 30 + _LETTER * max(len(row) for maps in columns for one in maps for row in one.rows)
    step = left + max(len(short) * _CELL, *(_LETTER * len(one.title) for maps in columns for one in maps))
    upper = max(len(maps[0].rows) for maps in columns) * _ROW + _ABOVE + _BELOW
    lower = max(len(maps[1].rows) for maps in columns) * _ROW + _ABOVE + _BELOW
    width, height = len(columns) * step + 20, _LINE + upper + lower + _LINE * len(notes)
    figure = Figure(figsize=((width + 0.1) / _DPI, (height + 0.1) / _DPI), dpi=_DPI, facecolor='white')
    FigureCanvasAgg(figure)
    for column, maps in enumerate(columns):
        for one, top in zip(maps, (_LINE, _LINE + upper), strict=True):
            y = height - top - _ABOVE - len(one.rows) * _ROW  # pixels count from the lower left corner
            box = ((left + column * step) / width, y / height,
                   len(short) * _CELL / width, len(one.rows) * _ROW / height)
            _draw(figure, box, one, short)
    heading = (f'confounders: {meaning or "d1, d2, …"}; RMSE on the 0-255 scale; colours of outputs: one scale for '
               'all runs')
    figure.text(left / width, 1 - 4 / height, heading, ha='left', va='top', fontsize=10, weight='bold')
    for line, text in enumerate(reversed(notes)):
        figure.text(left / width, (8 + _LINE * line) / height, text, ha='left', va='bottom', fontsize=9)
    return figure


def _inputs_and_errors(runs: Mapping[str, Invariance], short: Sequence[str]) -> tuple[_Map, _Map]:
    first = next(iter(runs.values()))
    errors = {INPUT: first.input_errors} if first.input_errors else {}
    errors.update((name, run.errors) for name, run in runs.items())
    return (_Map(first.inputs, short, f'inputs: mean {mean_of_pairs(first.inputs):.2f}', 'Greys', _up_to(first.inputs)),
            _Map(list(errors.values()), list(errors), 'error, RMSE to the clean image', 'Greys',
                 _up_to(list(errors.values()))))


def _outputs_and_cosines(runs: Mapping[str, Invariance], short: Sequence[str]) -> list[tuple[_Map, _Map]]:
    limits = _up_to([row for run in runs.values() for row in run.outputs])
    return [(_Map(run.outputs, short, f'{name}, outputs: mean {mean_of_pairs(run.outputs):.2f}', 'viridis', limits),
             _Map(run.gradients.cosines, short, f'{name}, gradients: {_mean_cosine(run)}', 'RdBu', (-1, 1), '.2f'))
            for name, run in runs.items()]


def _up_to(values: Sequence[Sequence[float]]) -> tuple[float, float]:
    return 0, max(map(max, values)) or 1.0


def _mean_cosine(run: Invariance) -> str:
    mean = run.gradients.mean_cosine
    return 'no cosine' if mean is None else f'mean cosine {mean:.3f}'


def _draw(figure: Figure, box: tuple[float, float, float, float], one: _Map, columns: Sequence[str]) -> None:
    numbers: npt.NDArray[np.float64] = np.array([[np.nan if v is None else v for v in row] for row in one.values])
    axes = figure.add_axes(box)
    colour_map, (low, high) = colormaps[one.colours].with_extremes(bad='#FFFFFF'), one.limits
    axes.imshow(numbers, cmap=colour_map, vmin=low, vmax=high, aspect='auto', interpolation='nearest')
    axes.set_xticks(range(len(columns)), columns, fontsize=9)
    axes.set_yticks(range(len(one.rows)), one.rows, fontsize=9)
    axes.tick_params(length=0)
    axes.set_title(one.title, fontsize=10, loc='left')
    for (i, j), value in np.ndenumerate(numbers):
        red, green, blue, _ = colour_map((value - low) / (high - low))
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        axes.text(j, i, '–' if np.isnan(value) else format(value, one.digits), ha='center', va='center', fontsize=8,
                  color='white' if dark else 'black')
