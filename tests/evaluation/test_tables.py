import math

import pytest

from dil_plugin.evaluation import Column, markdown_table

COLUMNS = [Column('level', align='left'), Column('PSNR (dB)'), Column('SSIM', '.4f'), Column('gain', '+.2f')]


def parsed(table):
    """An independent reading: GitHub splits a line at every | that no backslash precedes."""
    lines = [line.replace(r'\|', '\0').strip('|').split('|') for line in table.split('\n')]
    return [[cell.strip().replace('\0', '|') for cell in line] for line in lines]


def test_cells_read_back():
    rows = [['10', 33.456, 0.91239, -0.104], ['a|b', 8.0, 1.0, 0.5], ['30', None, math.nan, math.inf]]
    header, rule, *body = parsed(markdown_table(COLUMNS, rows))
    assert header == ['level', 'PSNR (dB)', 'SSIM', 'gain']
    assert [cell.endswith(':') for cell in rule] == [False, True, True, True]
    assert all(set(cell) <= {'-', ':'} and len(cell) >= 3 for cell in rule)
    assert body == [['10', '33.46', '0.9124', '-0.10'], ['a|b', '8.00', '1.0000', '+0.50'], ['30', '–', 'nan', '+inf']]


def test_columns_line_up_in_plain_text():
    lines = markdown_table(COLUMNS, [['x', 1, 2, 3], ['a long level', 100.5, 0.1, -20]]).split('\n')
    bars = [[i for i, character in enumerate(line) if character == '|'] for line in lines]
    assert all(positions == bars[0] for positions in bars)
    assert lines[2].startswith('| x ')
    assert lines[2].endswith(' +3.00 |')


def test_a_cell_cannot_break_the_table():
    table = markdown_table([Column('a|b\nc', align='left')], [['one\ntwo']])
    assert parsed(table)[0] == ['a|b c']
    assert parsed(table)[2] == ['one two']


def test_no_rows_is_a_header_alone():
    assert len(markdown_table(COLUMNS, []).split('\n')) == 2


def test_wrong_number_of_cells():
    with pytest.raises(ValueError, match='row 2 has 3 cells, but the table has 4'):
        markdown_table(COLUMNS, [['x', 1, 2, 3], ['y', 1, 2]])
    with pytest.raises(ValueError, match='at least one column'):
        markdown_table([], [])
