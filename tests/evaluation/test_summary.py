import math

import msgspec
import numpy as np
import pytest

from dil_plugin.evaluation.published import published_numbers
from dil_plugin.evaluation.results import INPUT
from dil_plugin.evaluation.summary import Cell, baseline_of, summarise

WHERE = ('CBSD68', '30')


def one(cells: list[Cell], run: str, dataset: str = 'CBSD68', condition: str = '30') -> Cell:
    found, = [cell for cell in cells if (cell.run, cell.dataset, cell.condition) == (run, dataset, condition)]
    return found


def test_means(make_results) -> None:
    values = np.random.default_rng(0).uniform(20, 40, 20).tolist()
    cell = one(summarise(make_results({('ERM', *WHERE): values})), 'ERM')
    assert cell.means == pytest.approx({'psnr': np.mean(values), 'ssim': np.mean(values) / 100}, rel=1e-13)
    assert (cell.images, cell.missing, cell.measured, cell.seen) == (20, 0, True, False)


def test_order(make_results) -> None:
    results = make_results({('mine', 'Urban100', '40'): [1.0], ('DIL_sf', *WHERE): [1.0], ('mine', *WHERE): [1.0],
                            (INPUT, *WHERE): [1.0]})
    assert [(cell.run, cell.dataset, cell.condition, cell.measured) for cell in summarise(results)] == [
        (INPUT, *WHERE, True), ('mine', *WHERE, True), ('DIL_sf', *WHERE, True),
        *((method, *WHERE, False) for method in ('ERM', 'DIL_pf', 'DIL_ss', 'DIL_ps')),
        *((method, 'CBSD68', '40', False) for method in ('ERM', 'DIL_sf', 'DIL_pf', 'DIL_ss', 'DIL_ps')),
        *((method, 'Urban100', '30', False) for method in ('ERM', 'DIL_sf', 'DIL_pf', 'DIL_ss', 'DIL_ps')),
        ('mine', 'Urban100', '40', True),
        *((method, 'Urban100', '40', False) for method in ('ERM', 'DIL_sf', 'DIL_pf', 'DIL_ss', 'DIL_ps')),
    ]


def test_failed_images_are_counted_and_left_out(make_results) -> None:
    results = make_results({('ERM', *WHERE): [20.0, 30.0, 40.0], ('DIL', *WHERE): [21.0, 'broken', 45.0]})
    cell = one(summarise(results), 'DIL')
    assert (cell.images, cell.missing) == (2, 1)
    assert cell.means['psnr'] == 33
    assert (cell.differences['psnr'].mean, cell.differences['psnr'].images) == (3, 2)
    assert cell.differences['ssim'].mean == pytest.approx(0.03)


def test_nothing_restored(make_results) -> None:
    cell = one(summarise(make_results({('ERM', *WHERE): [20.0], ('DIL', *WHERE): ['broken']})), 'DIL')
    assert (cell.images, cell.missing, cell.differences) == (0, 1, {})
    assert all(math.isnan(mean) for mean in cell.means.values())


def test_infinite_psnr_has_no_part_in_the_mean(make_results) -> None:
    cell = one(summarise(make_results({('ERM', *WHERE): [20.0, None, 40.0]})), 'ERM')
    assert cell.means == pytest.approx({'psnr': 30, 'ssim': (0.2 + 1 + 0.4) / 3})


def test_published_stands_beside_its_method(make_results) -> None:
    cells = summarise(make_results({('ERM', *WHERE): [20.0], ('DIL_sf', *WHERE): [20.0], ('mine', *WHERE): [20.0]}))
    assert one(cells, 'ERM').published.psnr == 24.90
    assert one(cells, 'DIL_sf').published.psnr == 30.29
    assert one(cells, 'mine').published is None
    printed = [cell for cell in cells if not cell.measured]
    assert {cell.run: cell.published.psnr for cell in printed} == {'DIL_pf': 29.92, 'DIL_ss': 27.48, 'DIL_ps': 29.14}
    assert all(cell.means == cell.differences == {} and cell.images == 0 for cell in printed)


def test_levels_that_the_paper_does_not_tabulate(make_results) -> None:
    cell, = summarise(make_results({('ERM', 'CBSD68', '10'): [33.0]}))
    assert cell.published is None
    assert cell.seen


def test_every_published_number_has_a_cell(make_results) -> None:
    """Whatever was run, none is lost and none stands there twice."""
    numbers = published_numbers('backbones')
    results = make_results({(run, dataset, '30'): [30.0] for run in ('RRDB/ERM', 'SwinIR/DIL_sf')
                            for dataset in ('CBSD68', 'Kodak24', 'Urban100')}, 'backbones')
    found = [cell.published for cell in summarise(results)]
    assert sorted(found) == sorted(numbers)


def test_groups_that_were_not_run_are_left_out(make_results) -> None:
    cells = summarise(make_results({('SwinIR/ERM', *WHERE): [30.0]}, 'backbones'))
    assert [(cell.run, cell.group, cell.method) for cell in cells] == [('SwinIR/ERM', 'SwinIR', 'ERM'),
                                                                      ('SwinIR/DIL', 'SwinIR', 'DIL')]


def test_a_run_is_compared_within_its_group(make_results) -> None:
    base = {'RRDB/ERM': 20.0, 'SwinIR/ERM': 30.0, 'RRDB/DIL': 21.0, 'SwinIR/DIL': 33.0}
    results = make_results({(run, *WHERE): [value, value] for run, value in base.items()}, 'backbones')
    cells = summarise(results)
    gains = {run: one(cells, run).differences for run in base}
    assert gains['RRDB/ERM'] == gains['SwinIR/ERM'] == {}
    assert gains['RRDB/DIL']['psnr'].mean == 1
    assert gains['SwinIR/DIL']['psnr'].mean == 3


@pytest.mark.parametrize(('run', 'baseline'), [('DIL', 'ERM'), ('ERM', None), (INPUT, None)])
def test_baseline_of(make_results, run: str, baseline: str | None) -> None:
    results = make_results({('ERM', *WHERE): [1.0], ('DIL', *WHERE): [1.0], (INPUT, *WHERE): [1.0]})
    assert baseline_of(results, run) == baseline
    assert bool(one(summarise(results), run).differences) == (baseline is not None)


def test_no_baseline_in_the_group(make_results) -> None:
    results = make_results({('RRDB/ERM', *WHERE): [1.0], ('SwinIR/DIL', *WHERE): [1.0]}, 'backbones')
    assert baseline_of(results, 'SwinIR/DIL') is None


def test_a_protocol_of_ones_own_has_no_published_numbers(make_results) -> None:
    results = make_results({('ERM', *WHERE): [20.0]})
    own = msgspec.structs.replace(results, protocol=msgspec.structs.replace(results.protocol, paper_table=None))
    cell, = summarise(own)
    assert cell.published is None
