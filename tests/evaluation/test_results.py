from pathlib import Path

import msgspec
import pytest

from dil_plugin.evaluation.results import (
    INPUT,
    Picture,
    Results,
    Run,
    Score,
    Skipped,
    choose_baseline,
    read_results,
    write_results,
)


def test_written_and_read_back(tmp_path: Path, make_results) -> None:
    results = make_results({('ERM', 'CBSD68', '30'): [25.123456789012345, None, 'cannot be read']},
                           skipped=[Skipped(dataset='Urban100', reason='no folder')], remarks={'CBSD68': 'a copy'},
                           pictures=[Picture(dataset='CBSD68', condition='30', image='a', files={'clean': 'a.png'})],
                           limit=3, seed=7, settings={'device': 'cpu'})
    write_results(results, tmp_path / 'results.json')
    assert read_results(tmp_path / 'results.json') == results


def test_a_failure_names_its_first_image_and_counts_the_others(make_results) -> None:
    results = make_results({('ERM', 'CBSD68', condition): [20, 'ERM: IndexError: bad size', 'ERM: IndexError: bad size',
                                                           'ERM: c: not finite'] for condition in ('15', '25')})
    assert results.failures_in_words == ['ERM: IndexError: bad size (CBSD68: b and 1 more)',
                                         'ERM: c: not finite (CBSD68: d)']


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'results.json').write_text('{"protocol": 1}')
    with pytest.raises(msgspec.ValidationError):
        read_results(tmp_path / 'results.json')


def test_order_is_the_protocols(make_results) -> None:
    results = make_results({('ERM', 'Urban100', '50'): [1], (INPUT, 'CBSD68', '5'): [1], ('ERM', 'CBSD68', '30'): [1]})
    assert results.datasets == ['CBSD68', 'Urban100']
    assert results.conditions == ['5', '30', '50']


def test_values_and_failures(make_results) -> None:
    results = make_results({('ERM', 'CBSD68', '30'): [25.0, None, 'broken', 27.0], ('DIL', 'CBSD68', '30'): [1.0]})
    assert results.values('ERM', 'CBSD68', '30', 'psnr') == {'a': 25.0, 'd': 27.0}
    assert results.values('ERM', 'CBSD68', '30', 'ssim') == {'a': 0.25, 'b': 1.0, 'd': 0.27}
    assert results.values('ERM', 'CBSD68', '40', 'psnr') == {}
    assert results.failures == [Score(run='ERM', dataset='CBSD68', condition='30', image='c', error='broken')]


def test_metrics_of_two_results_are_two_lists(make_results) -> None:
    first, second = (Results(protocol=make_results({('ERM', 'CBSD68', '30'): [1]}).protocol, runs=[], baseline='',
                             scores=[]) for _ in range(2))
    first.metrics.append('lpips')
    assert second.metrics == ['psnr', 'ssim']


@pytest.mark.parametrize(('name', 'group', 'method'), [('ERM', None, 'ERM'), ('RRDB/DIL_sf', 'RRDB', 'DIL_sf')])
def test_group_and_method(name: str, group: str | None, method: str) -> None:
    run = Run(name=name, checkpoint='x', sha256='0', network='x', parameters=1)
    assert (run.group, run.method) == (group, method)


@pytest.mark.parametrize(('names', 'wanted', 'baseline'), [
    (['DIL', 'ERM'], None, 'ERM'), (['DIL', 'erm', 'x'], None, 'erm'), (['DIL', 'other'], None, 'DIL'),
    (['DIL', 'ERM'], 'DIL', 'DIL'), (['SwinIR/DIL', 'SwinIR/ERM', 'RRDB/ERM'], None, 'SwinIR/ERM'),
])
def test_baseline(names: list[str], wanted: str | None, baseline: str) -> None:
    assert choose_baseline(names, wanted) == baseline
