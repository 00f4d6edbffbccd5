"""The report in Markdown: every table of the evaluation, and all that a reader must know about it."""

import re
from collections.abc import Sequence
from pathlib import Path

from dil_plugin.evaluation.output_files import write_text
from dil_plugin.evaluation.published import PAPER, published_numbers
from dil_plugin.evaluation.results import INPUT, Results, Score
from dil_plugin.evaluation.statistics import Difference, few_images
from dil_plugin.evaluation.summary import Cell, baseline_of, summarise
from dil_plugin.evaluation.tables import Column, markdown_table
from dil_plugin.evaluation.written_tables.layout import (
    MISSING,
    Block,
    Row,
    metric_decimals,
    metric_groups,
    metric_title,
    number_text,
    published_differ,
    table_blocks,
)
from dil_plugin.evaluation.written_tables.markdown_protocol import how_measured

_SHOWN_FAILURES = 20


def write_markdown(results: Results, folder: Path, cells: Sequence[Cell] | None = None) -> Path:
    """Writes ``table.md``.

    For every data set a table of means (rows are methods, columns conditions), with the published numbers in rows of
    their own below the method that they are of, and a table of differences to the baseline with 95 % bootstrap
    intervals; then what was skipped, what failed, and how it was measured.

    Args:
        results: What was measured.
        folder: Where to write.
        cells: ``summarise(results)``, where it is at hand.

    Returns:
        The path.

    Raises:
        DataError: The file cannot be written.
    """
    cells = summarise(results) if cells is None else cells
    parts = [f'# {plain(results.protocol.title)}', _introduction(results)]
    for block in table_blocks(results, cells):
        own = [cell for cell in cells if cell.dataset == block.dataset]
        parts += [f'## {plain(block.dataset)}', *_dataset(results, block, own)]
    parts += [*_skipped(results), *_failures(results), '## How it was measured', *how_measured(results, plain)]
    return write_text(folder / 'table.md', '\n\n'.join(part for part in parts if part) + '\n')


def plain(text: str) -> str:
    """Text that Markdown shows as it is; underscores inside of words need no escape."""
    return re.sub(r'[\\`*<\[\]]|(?<!\w)_|_(?!\w)', r'\\\g<0>', ' '.join(text.split()))


def _introduction(results: Results) -> str:
    protocol = results.protocol
    arrows = ', '.join(plain(metric_title(metric)) for metric in results.lower_is_better)
    lines = [
        f'Means over images; PSNR and SSIM on {"RGB" if protocol.channel == "RGB" else "Y (luma)"}'
        + (f', without {protocol.crop_border} pixels along every border.' if protocol.crop_border else '.'),
        f'`{INPUT}` is the distorted image itself'
        + (f', enlarged {protocol.scale} times by bicubic interpolation.' if protocol.scale > 1 else '.'),
        'Seen or unseen: whether the test distortion was among the training distortions.'
        if any(condition.seen is not None for condition in protocol.conditions) else '',
        f'Lower is better: {arrows}.' if arrows else '',
    ]
    if protocol.paper_table and published_numbers(results.task):
        lines.append(f'The published numbers are of Table {protocol.paper_table} of {PAPER}; all others were measured '
                     'here.')
    return '\n'.join(line for line in [*lines, plain(protocol.notes)] if line)


def _dataset(results: Results, block: Block, cells: Sequence[Cell]) -> list[str]:
    parts = [_images(cells)]
    if differ := published_differ(results, block.dataset):
        parts.append(f'> {plain(differ)}')
    for metrics in metric_groups(results):
        if rows := [row for row in block.rows if _has(row, metrics)]:
            parts.append(_means(results, block, rows, metrics))
    return [*parts, *_footnotes(results, block), *_differences(results, block, cells)]


def _images(cells: Sequence[Cell]) -> str:
    counts = sorted({cell.images for cell in cells if cell.measured})
    text = f'{counts[0]} to {counts[-1]} images' if len(counts) > 1 else \
        f'{counts[0]} image{"" if counts[0] == 1 else "s"}'
    missing = max((cell.missing for cell in cells if cell.measured), default=0)
    return f'{text}; {missing} failed.' if missing else f'{text}.'


def _has(row: Row, metrics: Sequence[str]) -> bool:
    return not row.published or any(metric in values for values in row.values.values() for metric in metrics)


def _means(results: Results, block: Block, rows: Sequence[Row], metrics: Sequence[str]) -> str:
    decimals = metric_decimals(results)
    title = 'method: ' + ' / '.join(plain(metric_title(metric)) for metric in metrics)
    body: list[list[str | float | None]] = []
    for row in rows:
        line: list[str | float | None] = [plain(row.label)]
        for condition in block.conditions:
            texts = [number_text(row.values.get(condition, {}).get(metric), decimals[metric]) for metric in metrics]
            cell = MISSING if set(texts) == {MISSING} else ' / '.join(texts)
            line.append(cell + (' †' if row.missing.get(condition) else ''))
        body.append(line)
    return markdown_table(_columns(results, block, title), body)


def _columns(results: Results, block: Block, first: str) -> list[Column]:
    conditions = [results.protocol.condition(name) for name in block.conditions]
    return [Column(first, align='left'), *(Column(', '.join(filter(None, (plain(condition.name), condition.seen_text))))
                                           for condition in conditions)]


def _footnotes(results: Results, block: Block) -> list[str]:
    notes = []
    if any(count for row in block.rows for count in row.missing.values()):
        notes.append('† Some images failed; the mean is over the others, and the differences below over the images '
                     'that both methods have.')
    infinite: dict[str, int] = {}
    for score in results.scores:
        if score.dataset == block.dataset and 'psnr' in score.metrics and score.metrics['psnr'] is None:
            place = f'{plain(score.run)} at {plain(score.condition)}'
            infinite[place] = infinite.get(place, 0) + 1
    if infinite:
        places = '; '.join(f'{place}: {count}' for place, count in infinite.items())
        notes.append(f'Images without any error, of infinite PSNR, are not in its mean ({places}).')
    return notes


def _differences(results: Results, block: Block, cells: Sequence[Cell]) -> list[str]:
    decimals = metric_decimals(results)
    found = {(cell.run, cell.condition): cell.differences for cell in cells if cell.differences}
    body: list[list[str | float | None]] = []
    for run in dict.fromkeys(run for run, _ in found):
        for metric in results.metrics:
            row = [found.get((run, condition), {}).get(metric) for condition in block.conditions]
            if any(row):
                label = f'{plain(run)} − {plain(baseline_of(results, run) or "")}, {plain(metric_title(metric))}'
                body.append([label, *(_interval(one, decimals[metric]) for one in row)])
    if not body:
        return []
    text = ('Mean differences, with 95 % bootstrap intervals over images (bold: the interval leaves out zero). They '
            'speak of other images, not of other trainings.')
    warning = few_images([one for differences in found.values() for one in differences.values()])
    return [f'{text} {warning}'.strip(), markdown_table(_columns(results, block, 'difference'), body)]


def _interval(difference: Difference | None, decimals: int) -> str | None:
    if difference is None:
        return None
    mean, low, high = (number_text(value, decimals, '+') for value in difference[:3])
    text = mean if low == MISSING else f'{mean} [{low}, {high}]'
    return f'**{text}**' if difference.significant else text


def _skipped(results: Results) -> list[str]:
    if not results.skipped:
        return []
    return ['## Not evaluated', '\n'.join(f'- {plain(one.dataset)}: {plain(one.reason)}' for one in results.skipped)]


def _failures(results: Results) -> list[str]:
    if not results.failures:
        return []
    alike: dict[tuple[str, str, str, str], list[Score]] = {}
    for score in results.failures:
        alike.setdefault((score.dataset, score.condition, score.run, score.error or ''), []).append(score)
    lines = []
    for (dataset, condition, run, error), scores in list(alike.items())[:_SHOWN_FAILURES]:
        names = ', '.join(score.image for score in scores[:3]) + (', …' if len(scores) > 3 else '')
        count = f'{len(scores)} image{"" if len(scores) == 1 else "s"}'
        lines.append(f'- {plain(dataset)}, {plain(condition)}, {plain(run)}: {count} ({plain(names)}): {plain(error)}')
    if len(alike) > _SHOWN_FAILURES:
        lines.append(f'- and {len(alike) - _SHOWN_FAILURES} more kinds; `images.csv` has them all')
    return ['## Failures', '\n'.join(lines)]
