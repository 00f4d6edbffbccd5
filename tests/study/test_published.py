"""docs/results/study.md prints what docs/results/study/*.json hold, and nothing else."""

import re
from pathlib import Path

import pytest

from dil_plugin.study.cells import make_cells
from dil_plugin.study.options import read_study
from dil_plugin.study.report import score_table
from dil_plugin.study.results import read_results
from dil_plugin.study.rows import Row, at_the_end, by_seed, difference, mean_over_seeds, rows_of

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / 'docs/results/study.md').read_text()
FILES = sorted((ROOT / 'docs/results/study').glob('*.json'))


def tables(name: str) -> list[str]:
    """One for every group of arms, at the last point."""
    results = read_results(ROOT / f'docs/results/study/{name}.json')
    rows = rows_of(results)
    return [score_table(results, [row for row in rows if row.group == group], at_the_end)
            for group in dict.fromkeys(row.group for row in rows)]


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_tables_are_those_of_the_results(path: Path) -> None:
    for table in tables(path.stem):
        assert table.strip() in TEXT, f'docs/results/study.md lacks this table of {path.name}:\n{table}'
    assert f'study/{path.name}' in TEXT
    assert read_results(path).question == read_study(ROOT / f'options/study/{path.stem}.yml').question


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_they_are_of_the_study_as_it_stands(path: Path) -> None:
    """All options of all trainings: who runs the file today runs what was published."""
    cells = make_cells(read_study(ROOT / f'options/study/{path.stem}.yml'))
    published = read_results(path).cells.values()
    assert ({(cell.arm, cell.group, cell.seed): cell.digest for cell in cells} ==
            {(curve.arm, curve.group, curve.seed): curve.digest for curve in published})


def test_every_table_has_its_results() -> None:
    found = re.findall(r'^\| arm .*\n(?:\|.*\n)+', TEXT, flags=re.MULTILINE)
    known = [table.strip() for path in FILES for table in tables(path.stem)]
    assert len(found) == len(known)
    assert {table.strip() for table in found} == set(known)


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_three_seeds_each(path: Path) -> None:
    results = read_results(path)
    assert len(results.cells) == results.planned
    seeds = {each: {cell.seed for cell in results.cells.values() if (cell.arm, cell.group) == each}
             for each in {(cell.arm, cell.group) for cell in results.cells.values()}}
    assert all(len(each) >= 3 for each in seeds.values()), seeds


def test_the_table_of_the_readme() -> None:
    arms = {'ERM': 'erm', 'ERM, small steps': 'erm batch 2', 'DIL `sf`': 'sf released',
            '`sf`, plain inner steps': 'sf SGD', 'ERM, 1.3 times as long': 'erm equal time'}
    lines = (ROOT / 'README.md').read_text().split('## Does it help?')[1].split('\n## ')[0].splitlines()
    study = read_study(ROOT / 'options/study/twelve_seeds.yml')
    printed = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines if line.startswith('|')][2:]
    assert [line[:2] for line in printed] == [
        *([name, 'with'] for name in arms), *([name, 'without'] for name in list(arms)[:3])]
    for name, biases, rate, steps, *scores in printed:
        twelve = biases == 'with'
        results = read_results(ROOT / f'docs/results/study/{"twelve_seeds" if twelve else "learning_rate"}.json')
        row = (Row(arms[name], '', 'theta') if twelve else
               Row(f'{arms[name]}, optim_g.lr={float(rate)}', f'network_g={biases} biases', 'theta'))
        one = next(cell for cell in results.cells.values() if (cell.arm, cell.group) == row[:2])
        if twelve:
            assert float(rate) == study.arms[row.arm].get('train.optim_g.lr', study.options['train.optim_g.lr'])
        outer = one.iterations * one.outer_steps
        assert steps == f'{outer:,} x {one.image_gradients[-1] // outer}'
        for kind, (mean, change) in zip((results.seen, results.unseen), (scores[1:3], scores[3:5]), strict=True):
            assert mean == mean_over_seeds(results, row, kind, at_the_end).text()
            paired = difference(results, row, kind, at_the_end)
            assert change.strip('*') == (paired.text(sign=True) if paired else '–')
            assert change.startswith('*') == bool(paired and paired.leaves_out_zero)
        each = by_seed(results, row, results.unseen, at_the_end)
        assert scores[0] == str(len(each)) == ('12' if twelve else '3')
        assert scores[5] == f'{sum(value > 25 for value in each.values())} of {len(each)}'
