"""PSNR over the degree of the distortion, as in the paper's Figure 1: how far a method holds beyond its training."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from dil_plugin.errors import DataError
from dil_plugin.evaluation.output_files import file_stem, write_figure
from dil_plugin.evaluation.plots import MOST_CURVES, degree_curve
from dil_plugin.evaluation.results import INPUT, Results
from dil_plugin.evaluation.summary import Cell, summarise


def degree_curves(results: Results, cells: Sequence[Cell] | None = None) -> dict[str, Figure]:
    """One figure per data set: mean PSNR in dB over the degree, with the training range shaded.

    The distorted input is a grey reference, the paper's numbers of the same methods are small hollow markers. More runs
    than colours that can be told apart (6) are split into several figures of one scale, the baseline in each of them.

    Args:
        results: What was measured.
        cells: ``summarise(results)``, where it is at hand.

    Returns:
        The figures by title: the data set's name, with ``, part 2`` and so on behind it where the runs were split.
        None for data sets with fewer than two measured conditions, and none where the protocol has no degrees.
    """
    if results.protocol.degree is None:
        return {}
    cells = summarise(results) if cells is None else cells
    figures: dict[str, Figure] = {}
    for dataset in results.datasets:
        own = {(cell.run, cell.condition): cell for cell in cells if cell.dataset == dataset and cell.measured}
        runs = [run.name for run in results.runs if any(name == run.name for name, _ in own)]
        if not runs or len({condition for _, condition in own}) < 2:
            continue
        parts = [_figure(results, dataset, own, part) for part in _parts(runs, results.baseline)]
        limits = [limit for figure in parts for limit in figure.axes[0].get_ylim()]
        for number, figure in enumerate(parts, 1):
            figure.axes[0].set_ylim(min(limits), max(limits))
            figures[dataset if len(parts) == 1 else f'{dataset}, part {number}'] = figure
    return figures


def write_curves(results: Results, folder: Path, cells: Sequence[Cell] | None = None) -> list[Path]:
    """Writes the figures of ``degree_curves`` as ``curve_NAME.png``, and as PDF for a manuscript.

    Args:
        results: What was measured.
        folder: Where to write.
        cells: ``summarise(results)``, where it is at hand.

    Returns:
        The paths, PNG and PDF by turns.

    Raises:
        DataError: A file cannot be written.
    """
    paths = []
    for name, figure in degree_curves(results, cells).items():
        path = folder / f'curve_{file_stem(name)}.png'
        write_figure(figure, path)
        paths += [path, _write_pdf(figure, path.with_name(f'{path.stem}.pdf'))]
    return paths


def _write_pdf(figure: Figure, path: Path) -> Path:
    try:  # without a date, the same results give the same file
        figure.savefig(path, format='pdf', bbox_inches=figure.bbox_inches, metadata={'CreationDate': None})
    except OSError as error:
        raise DataError(f'--output: {path} cannot be written ({error.strerror})') from None
    return path


def _parts(runs: Sequence[str], baseline: str) -> list[list[str]]:
    """Runs in their order, at most as many as there are colours; the baseline in every part."""
    if len(runs) <= MOST_CURVES:
        return [list(runs)]
    first = [baseline] if baseline in runs else []
    others = [run for run in runs if run not in first]
    step = MOST_CURVES - len(first)
    return [[*first, *others[start:start + step]] for start in range(0, len(others), step)]


def _figure(results: Results, dataset: str, cells: Mapping[tuple[str, str], Cell], runs: Sequence[str]) -> Figure:
    protocol = results.protocol
    assert protocol.degree is not None
    measured = {condition for _, condition in cells}
    degrees = sorted((condition.degree, condition.name) for condition in protocol.conditions
                     if condition.degree is not None and condition.name in measured)
    found = {run: [cells.get((run, name)) for _, name in degrees] for run in [INPUT, *runs]}
    curves = {run: [math.nan if cell is None else cell.means.get('psnr', math.nan) for cell in row]
              for run, row in found.items()}
    published = {run: [math.nan if cell is None or cell.published is None else cell.published.psnr for cell in row]
                 for run, row in found.items() if run != INPUT}
    published = {run: values for run, values in published.items() if not all(map(math.isnan, values))}
    references = {INPUT: curves.pop(INPUT)}
    if all(map(math.isnan, references[INPUT])):
        references = {}
    title = f'{protocol.title}, {dataset}'
    if results.limit is not None:
        title += f', first {results.limit} images' if results.limit > 1 else ', first image'
    if published and (results.limit is not None or dataset in results.remarks):
        title += ' (published: full set)'
    return degree_curve([degree for degree, _ in degrees], curves, training_range=protocol.degree.training,
                        references=references, published=published, xlabel=protocol.degree.label,
                        ylabel=f'PSNR (dB), {protocol.channel}', title=title)
