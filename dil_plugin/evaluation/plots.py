"""Figures: a metric over the degree of a distortion, and images side by side.

All functions use matplotlib's objects and its Agg canvas, never ``pyplot``: no window, no global state, any thread.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Colours that stay apart for colour-blind readers (Okabe and Ito, 2008), each with its own marker for print.
_STYLES = (
    {'color': '#0072B2', 'marker': 's'},
    {'color': '#D55E00', 'marker': 'o'},
    {'color': '#009E73', 'marker': '^'},
    {'color': '#CC79A7', 'marker': 'D'},
    {'color': '#56B4E9', 'marker': 'v'},
    {'color': '#E69F00', 'marker': 'P'},
)
MOST_CURVES = len(_STYLES)
_REFERENCE = {'color': '#777777', 'marker': '.', 'linestyle': '--'}
_SHADE = '#DDE8F3'

_LEGEND_INSIDE = 5  # entries that find a place inside of the axes
_LEGEND_COLUMNS = 3

_GAP = 8  # pixels between and around panels
_LINE = 20  # pixels per line of text


class Panel(NamedTuple):
    """One image of ``side_by_side``.

    Attributes:
        image: uint8, ``(h, w, 3)`` in RGB order or ``(h, w)`` for grey.
        title: What stands above it; may have several lines.
    """

    image: npt.NDArray[np.uint8]
    title: str = ''


def degree_curve(
    degrees: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    *,
    training_range: tuple[float, float] | None = None,
    references: Mapping[str, Sequence[float]] | None = None,
    published: Mapping[str, Sequence[float]] | None = None,
    xlabel: str = 'noise level sigma (0-255 scale)',
    ylabel: str = 'PSNR (dB)',
    title: str = '',
) -> Figure:
    """A metric over the degree of a distortion, one line per method, with the degrees seen in training shaded.

    Args:
        degrees: The degrees that were measured, such as noise levels sigma on the 0-255 scale.
        curves: For each method, by name, the metric at each degree (PSNR in dB). NaN leaves a gap.
        training_range: Lowest and highest degree seen in training; None shades nothing.
        references: The same for what is no method, such as the distorted input; drawn dashed and grey.
        published: For some of the methods, by name, what a paper prints at each degree (NaN where it prints nothing);
            drawn as hollow markers in the method's colour, without a line.
        xlabel: What the degrees are, with their unit.
        ylabel: What the metric is, with its unit.
        title: What stands above the figure.

    Returns:
        The figure, 6.4 x 4 inches; lines are labelled with their names. A legend of more than five entries stands above
        the axes, where it hides nothing, and makes the figure that much higher.

    Raises:
        ValueError: There is nothing to draw, a curve's length differs from that of ``degrees``, a name is given twice,
            the range is upside down, there are more methods than distinguishable styles, or something published is of
            no curve.
    """
    references = references or {}
    published = published or {}
    _check_curves(degrees, curves, references)
    _check_published(degrees, curves, published)
    entries = len(curves) + len(references) + (training_range is not None) + bool(published)
    rows = math.ceil(entries / _LEGEND_COLUMNS) if entries > _LEGEND_INSIDE else 0
    height = 400 + rows * _LINE + (_GAP if rows else 0)
    figure = _figure(640, height)
    axes = figure.add_axes((0.11, 52 / height, 0.86, (308 if title else 332) / height))
    if training_range is not None:
        low, high = training_range
        if low > high:
            raise ValueError(f'training_range: {low} is above {high}')
        axes.axvspan(low, high, color=_SHADE, linewidth=0, label='seen in training', zorder=0)
    for (name, values), style in zip(curves.items(), _STYLES, strict=False):
        axes.plot(degrees, values, label=_literal(name), linewidth=1.8, markersize=6, **style)  # type: ignore[arg-type]
    for name, values in references.items():
        axes.plot(degrees, values, label=_literal(name), linewidth=1.2, **_REFERENCE)  # type: ignore[arg-type]
    _draw_published(axes, degrees, curves, published)
    axes.set_title(title, fontsize=11, pad=6 + (height - 400) * 72 / figure.dpi, parse_math=False)
    axes.set(xlabel=xlabel, ylabel=ylabel, xticks=sorted({*degrees, *(training_range or ())}))
    axes.grid(axis='y', color='#E4E4E4', linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
    if rows:
        axes.legend(frameon=False, ncols=_LEGEND_COLUMNS, loc='lower left', bbox_to_anchor=(0, 1), borderaxespad=0)
    else:
        axes.legend(frameon=False)
    return figure


def _draw_published(axes: Axes, degrees: Sequence[float], curves: Mapping[str, Sequence[float]],
                    published: Mapping[str, Sequence[float]]) -> None:
    hollow: dict[str, Any] = {'linestyle': 'none', 'markersize': 5, 'markerfacecolor': 'none', 'markeredgewidth': 1.1}
    for name, style in zip(curves, _STYLES, strict=False):
        if name in published:
            axes.plot(degrees, published[name], label='_nolegend_', **{**style, **hollow})
    if published:  # one entry of the legend for all of them, of no method's colour
        axes.plot([], [], label='published', color='#444444', marker='o', **hollow)


def _check_published(degrees: Sequence[float], curves: Mapping[str, Sequence[float]],
                     published: Mapping[str, Sequence[float]]) -> None:
    for name, values in published.items():
        if name not in curves:
            raise ValueError(f'{name}: published, but of no curve; there are {", ".join(curves)}')
        if len(values) != len(degrees):
            raise ValueError(f'{name}: {len(values)} published values for {len(degrees)} degrees')


def _check_curves(
    degrees: Sequence[float], curves: Mapping[str, Sequence[float]], references: Mapping[str, Sequence[float]]
) -> None:
    if not len(degrees) or not curves:
        raise ValueError('there is nothing to draw: give degrees and at least one curve')
    if len(curves) > len(_STYLES):
        raise ValueError(f'{len(curves)} curves are more than the {len(_STYLES)} that can be told apart')
    if twice := curves.keys() & references.keys():
        raise ValueError(f'both a curve and a reference: {", ".join(sorted(twice))}')
    for name, values in (*curves.items(), *references.items()):
        if len(values) != len(degrees):
            raise ValueError(f'{name}: {len(values)} values for {len(degrees)} degrees')


def side_by_side(rows: Sequence[Sequence[Panel]], *, zoom: int = 1, title: str = '') -> Figure:
    """Images side by side, each pixel as it is: enlarged by a whole factor, never interpolated.

    Args:
        rows: The panels, row by row. Columns are as wide as their widest image, rows as high as their highest.
        zoom: How many pixels of the figure each pixel of an image becomes, along each side.
        title: What stands above all.

    Returns:
        The figure; ``save_png`` writes it so that every image pixel is a square of ``zoom`` x ``zoom`` pixels.

    Raises:
        ValueError: There are no panels, ``zoom`` is below 1, or an image is not uint8 of shape (h, w, 3) or (h, w).
    """
    if not any(rows) or zoom < 1:
        raise ValueError(f'expected at least one panel and zoom >= 1, got {sum(map(len, rows))} panels, zoom {zoom}')
    for panel in (panel for row in rows for panel in row):
        _check_image(panel.image)
    columns = range(max(map(len, rows)))
    widths = [max(row[k].image.shape[1] for row in rows if k < len(row)) * zoom for k in columns]
    heights = [max((panel.image.shape[0] for panel in row), default=0) * zoom for row in rows]
    captions = [max((_lines(panel.title) for panel in row), default=0) * _LINE for row in rows]
    top = _lines(title) * _LINE + (_GAP if title else 0)
    width = sum(widths) + _GAP * (len(widths) + 1)
    height = top + sum(heights) + sum(captions) + _GAP * (len(rows) + 1)
    figure = _figure(width, height)
    if title:
        _write(figure, width / 2, height - _GAP, title, weight='bold')
    y = height - top  # pixels count from the lower left corner
    for row, row_height, caption in zip(rows, heights, captions, strict=True):
        y -= _GAP + caption + row_height
        x = _GAP
        for panel, column_width in zip(row, widths, strict=False):
            _write(figure, x + panel.image.shape[1] * zoom / 2, y + row_height + caption, panel.title)
            enlarged = _rgb(panel.image).repeat(zoom, 0).repeat(zoom, 1)
            figure.figimage(enlarged, x, y + row_height - enlarged.shape[0], origin='upper', resize=False)
            x += column_width + _GAP
    return figure


def save_png(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure as PNG, pixel by pixel as it was laid out.

    Args:
        figure: What ``degree_curve`` or ``side_by_side`` returned.
        path: The file to write.

    Raises:
        OSError: The file cannot be written.
    """
    # our own dpi and no bounding box, whatever the user's matplotlibrc says
    figure.savefig(path, format='png', dpi=figure.dpi, bbox_inches=figure.bbox_inches, facecolor='white')


def _figure(width: int, height: int) -> Figure:
    dpi = 100
    # matplotlib cuts off what is left of a pixel, and 9.28 inches at 100 dpi are 927.99…
    figure = Figure(figsize=((width + 0.1) / dpi, (height + 0.1) / dpi), dpi=dpi, facecolor='white')
    FigureCanvasAgg(figure)
    return figure


def _write(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    """Text whose upper edge is centred at ``(x, y)``, in pixels from the lower left corner."""
    figure.text(x, y, text, transform=None, ha='center', va='top', fontsize=10, parse_math=False, **style)


def _literal(text: str) -> str:
    """A label that is shown as it is, where matplotlib would take what stands between two dollars as mathematics."""
    return text.replace('$', r'\$')


def _lines(text: str) -> int:
    return text.count('\n') + 1 if text else 0


def _rgb(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image


def _check_image(image: npt.NDArray[Any]) -> None:
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise ValueError(f'expected uint8 of shape (h, w, 3) or (h, w), got {image.dtype} of shape {image.shape}')
