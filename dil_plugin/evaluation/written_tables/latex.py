"""Tables in LaTeX, in the paper's form, to be included in a manuscript."""

import re
from collections.abc import Sequence
from pathlib import Path

from dil_plugin.evaluation.output_files import write_text
from dil_plugin.evaluation.published import PAPER, published_numbers
from dil_plugin.evaluation.results import INPUT, Results
from dil_plugin.evaluation.summary import Cell, summarise
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

_SPECIAL = {
    '\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}', '<': r'\textless{}',
    '>': r'\textgreater{}', '|': r'\textbar{}', '[': '{[}', ']': '{]}',
    **{character: f'\\{character}' for character in '_%&#${}'},
}


def write_latex(results: Results, folder: Path, cells: Sequence[Cell] | None = None) -> Path:
    r"""Writes ``table.tex``: one table for PSNR and SSIM, and one for the other metrics where there are any.

    Data sets are blocks of rows, methods are rows, conditions are columns: those that the paper tabulates, or all where
    none of these was measured. Of the runs of a group the best in each column is bold (all of them where they print the
    same; none where there is one run only). Published numbers stand in rows of their own, grey and in parentheses.
    It needs the packages booktabs and xcolor; ``\input{table}`` includes it.

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
    blocks = table_blocks(results, cells)
    tables = [_table(results, blocks, metrics, 'tab:' + re.sub(r'\W', '-', results.protocol.name) + suffix)
              for metrics, suffix in zip(metric_groups(results), ('', '-more'), strict=False)]
    header = ['% Two lines for the preamble:', r'% \usepackage{booktabs}', r'% \usepackage{xcolor}']
    return write_text(folder / 'table.tex', '\n'.join(header) + '\n\n' + '\n\n'.join(tables) + '\n')


def escaped(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return ''.join(_SPECIAL.get(character, character) for character in ' '.join(text.split()))


def _table(results: Results, blocks: Sequence[Block], metrics: Sequence[str], label: str) -> str:
    conditions = _columns(results)
    seen = {name: results.protocol.condition(name).seen for name in conditions}
    mixed = len(set(seen.values())) > 1
    titles = [escaped(name) + (' (seen)' if mixed and seen[name] else '') for name in conditions]
    lines = [r'\begin{table}[t]', r'\centering', rf'\caption{{{_caption(results, blocks, metrics)}}}',
             rf'\label{{{label}}}', rf'\begin{{tabular}}{{ll{"c" * len(conditions)}}}', r'\toprule',
             _line(['Data set', 'Method', *titles])]
    for block in blocks:
        rows = [row for row in block.rows if _belongs(row, conditions, metrics)]
        lines.append(r'\midrule')
        for number, row in enumerate(rows):
            name = escaped(block.dataset) if number == 0 else ''
            lines.append(_line([name, *_row(results, row, rows, conditions, metrics)]))
    return '\n'.join([*lines, r'\bottomrule', r'\end{tabular}', r'\end{table}'])


def _columns(results: Results) -> list[str]:
    tabulated = [name for name in results.conditions if results.protocol.condition(name).table]
    return tabulated or results.conditions


def _belongs(row: Row, conditions: Sequence[str], metrics: Sequence[str]) -> bool:
    return not row.published or any(metric in row.values.get(name, {}) for name in conditions for metric in metrics)


def _row(results: Results, row: Row, rows: Sequence[Row], conditions: Sequence[str],
         metrics: Sequence[str]) -> list[str]:
    rivals = [other for other in rows if not other.published and other.group == row.group and other.label != INPUT]
    cells = [escaped(row.label)]
    for condition in conditions:
        texts = [_number(results, row, rivals, condition, metric) for metric in metrics]
        text = _dash(MISSING) if set(texts) == {_dash(MISSING)} else '/'.join(texts)
        if row.missing.get(condition):
            text += r'$^\dagger$'
        cells.append(f'({text})' if row.published and text != _dash(MISSING) else text)
    return [rf'\textcolor{{gray}}{{{cell}}}' for cell in cells] if row.published else cells


def _number(results: Results, row: Row, rivals: Sequence[Row], condition: str, metric: str) -> str:
    decimals = metric_decimals(results)[metric]
    text = number_text(row.values.get(condition, {}).get(metric), decimals)
    if text == MISSING or row not in rivals or len(rivals) < 2:
        return _dash(text)
    others = [number_text(rival.values.get(condition, {}).get(metric), decimals) for rival in rivals]
    printed = [float(other) for other in others if other != MISSING]
    best = min(printed) if metric in results.lower_is_better else max(printed)
    return rf'\textbf{{{_dash(text)}}}' if float(text) == best else _dash(text)


def _dash(text: str) -> str:
    return '--' if text == MISSING else text.replace('-', '$-$')


def _line(cells: Sequence[str]) -> str:
    return ' & '.join(cells) + r' \\'


def _caption(results: Results, blocks: Sequence[Block], metrics: Sequence[str]) -> str:
    protocol = results.protocol
    titles = '/'.join(metric_title(metric) + (', lower is better' if metric in results.lower_is_better else '')
                      for metric in metrics)
    usual = 'psnr' in metrics or 'ssim' in metrics
    parts = [f'{protocol.title}: {titles}' + (f', measured on {protocol.channel}.' if usual else '.')]
    if usual and any(row.published for block in blocks for row in block.rows):
        table = f'Table {protocol.paper_table} of ' if protocol.paper_table and published_numbers(results.task) else ''
        parts.append(f'Grey: as published, {table}{PAPER}.')
    texts: dict[str, list[str]] = {}
    for block in blocks:
        texts.setdefault(published_differ(results, block.dataset), []).append(block.dataset)
    for text, datasets in texts.items():
        if text:
            parts.append(text if len(texts) == 1 else f'{", ".join(datasets)}: {text}')
    caption = escaped(' '.join(parts))
    if any(count for block in blocks for row in block.rows for count in row.missing.values()):
        caption += r' $^\dagger$Some images failed; the mean is over the others.'
    return caption
