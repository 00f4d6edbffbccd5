"""CSV for other programs: the summary and every single image, in full precision."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from dil_plugin.evaluation.output_files import write_text
from dil_plugin.evaluation.results import Results
from dil_plugin.evaluation.summary import Cell, summarise

Field = str | int | float | bool | None


def write_csv(results: Results, folder: Path, cells: Sequence[Cell] | None = None) -> list[Path]:
    """Writes ``summary.csv`` and ``images.csv``.

    ``summary.csv`` has a row per data set, condition and method (the paper's methods that were not run too):
    ``run, dataset, condition, seen, measured, images, missing``, the mean of every metric, the published
    ``published_method, published_psnr, published_ssim``, then for every metric ``M_difference, M_low, M_high,
    M_images``: the mean difference to the baseline, its 95 % interval, and over how many images.
    ``images.csv`` has a row per run, data set, condition and image: ``run, dataset, condition, image``, the metrics,
    and ``error`` where the image failed. Numbers have full precision; what there is none of (an infinite PSNR too)
    is empty.

    Args:
        results: What was measured.
        folder: Where to write.
        cells: ``summarise(results)``, where it is at hand.

    Returns:
        The two paths.

    Raises:
        DataError: A file cannot be written.
    """
    cells = summarise(results) if cells is None else cells
    return [write_text(folder / 'summary.csv', _csv(_summary(results, cells))),
            write_text(folder / 'images.csv', _csv(_images(results)))]


def _summary(results: Results, cells: Sequence[Cell]) -> Iterable[list[Field]]:
    parts = ('difference', 'low', 'high', 'images')
    yield ['run', 'dataset', 'condition', 'seen', 'measured', 'images', 'missing', *results.metrics,
           'published_method', 'published_psnr', 'published_ssim',
           *(f'{metric}_{part}' for metric in results.metrics for part in parts)]
    for cell in cells:
        row: list[Field] = [cell.run, cell.dataset, cell.condition, cell.seen, cell.measured, cell.images, cell.missing]
        row += [cell.means.get(metric) for metric in results.metrics]
        number = cell.published
        row += [None] * 3 if number is None else [number.method, number.psnr, number.ssim]
        for metric in results.metrics:
            row += cell.differences.get(metric, [None] * len(parts))
        yield row


def _images(results: Results) -> Iterable[list[Field]]:
    yield ['run', 'dataset', 'condition', 'image', *results.metrics, 'error']
    for score in results.scores:
        yield [score.run, score.dataset, score.condition, score.image,
               *(score.metrics.get(metric) for metric in results.metrics), score.error]


def _csv(rows: Iterable[Sequence[Field]]) -> str:
    text = io.StringIO(newline='')
    writer = csv.writer(text, lineterminator='\n')
    writer.writerows([_field(value) for value in row] for row in rows)
    return text.getvalue()


def _field(value: Field) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ''
    if isinstance(value, bool):
        return str(value).lower()
    return repr(float(value)) if isinstance(value, float) else str(value)  # NumPy's own repr names its type
