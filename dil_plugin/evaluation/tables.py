"""Tables in Markdown."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

Cell = str | float | None


class Column(NamedTuple):
    """One column of a table.

    Attributes:
        title: What stands above it, with the unit where there is one, as in ``'PSNR (dB)'``.
        format: How numbers are written, a format specification such as ``'.2f'``, or ``'+.2f'`` for differences.
        align: Where the cells stand.
    """

    title: str
    format: str = '.2f'
    align: Literal['left', 'right'] = 'right'


def markdown_table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], missing: str = '–') -> str:
    """A table in GitHub's Markdown, padded so that it can be read as plain text too.

    Args:
        columns: The columns, from left to right.
        rows: The cells, row by row. Text is taken as it is (with ``|`` escaped), numbers are formatted as their column
            says, None is written as ``missing``.
        missing: What stands where there is no value.

    Returns:
        The lines of the table, the last one without a line break.

    Raises:
        ValueError: There are no columns, or a row has another number of cells than there are columns.
    """
    if not columns:
        raise ValueError('a table needs at least one column')
    for number, row in enumerate(rows, 1):
        if len(row) != len(columns):
            raise ValueError(f'row {number} has {len(row)} cells, but the table has {len(columns)} columns')
    texts = [[_escaped(column.title) for column in columns]]
    texts += [[_text(cell, column, missing) for cell, column in zip(row, columns, strict=True)] for row in rows]
    widths = [max(3, *(len(cell) for cell in column)) for column in zip(*texts, strict=True)]
    rule = [_rule(column, width) for column, width in zip(columns, widths, strict=True)]
    padded = [[_padded(*item) for item in zip(line, columns, widths, strict=True)] for line in texts]
    return '\n'.join(f'| {" | ".join(line)} |' for line in (padded[0], rule, *padded[1:]))


def _text(cell: Cell, column: Column, missing: str) -> str:
    if cell is None:
        return missing
    return _escaped(cell) if isinstance(cell, str) else format(cell, column.format)


def _escaped(text: str) -> str:
    return text.replace('|', r'\|').replace('\n', ' ')


def _rule(column: Column, width: int) -> str:
    return '-' * width if column.align == 'left' else '-' * (width - 1) + ':'


def _padded(text: str, column: Column, width: int) -> str:
    return text.ljust(width) if column.align == 'left' else text.rjust(width)
