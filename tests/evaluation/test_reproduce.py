"""The files of a report as a whole."""

import json

import pytest

from dil_plugin.errors import DataError
from dil_plugin.evaluation.reproduce import reproduce, write_report
from dil_plugin.evaluation.reproduce_options import make_plan, read_options
from dil_plugin.evaluation.results import read_results


@pytest.fixture
def plan(data, tmp_path, save_network):
    runs = {'ERM': str(save_network('erm.pth')), 'DIL_sf': str(save_network('sf.pth', seed=1))}

    def make(**options):
        return make_plan(read_options(None, {'table': 'deblurring', 'data': str(data), 'runs': runs, 'device': 'cpu',
                                             'output': str(tmp_path / 'out'), 'datasets': ['Set5'], 'pictures': 1,
                                             'conditions': ['1.0', '2.0', '4.2'], **options}))

    return make


def written(plan):
    return {path.relative_to(plan.output).as_posix() for path in write_report(reproduce(plan), plan.output)}


def test_all_files(plan):
    files = written(plan(conditions=['1.0', '4.2']))
    assert files == {'results.json', 'table.md', 'table.tex', 'summary.csv', 'images.csv', 'report.html',
                     'curve_Set5.png', 'curve_Set5.pdf', 'crops/Set5_4.2_img_1.png'}
    assert all((plan().output / file).stat().st_size for file in files)
    assert json.loads((plan().output / 'results.json').read_text())['settings']['device'] == 'CPU'


def test_results_are_read_back(plan):
    results = reproduce(plan())
    list(write_report(results, plan().output))
    assert read_results(plan().output / 'results.json') == results


def test_figures_of_what_is_no_longer_in_the_report_are_removed(plan):
    written(plan())
    out = plan().output
    (out / 'crops' / 'notes.txt').write_text('mine')
    files = written(plan(conditions=['1.0'], overwrite=True))
    assert not any('crops' in file or 'curve' in file for file in files)
    assert [path.name for path in (out / 'crops').iterdir()] == ['notes.txt']
    assert not list(out.glob('curve_*'))


def test_a_folder_that_cannot_be_written_to(plan):
    results = reproduce(plan())
    (plan().output / 'results.json').mkdir()
    with pytest.raises(DataError, match='--output: .* cannot be written'):
        list(write_report(results, plan().output))
