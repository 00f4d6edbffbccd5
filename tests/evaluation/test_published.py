import json
from pathlib import Path

import pytest

from dil_plugin.evaluation.protocols import load_protocol, table_names
from dil_plugin.evaluation.published import find_published, published_numbers

TRANSCRIPT = Path(__file__).parents[3] / 'shared' / 'paper' / 'tables.json'


@pytest.mark.parametrize(('where', 'psnr', 'ssim', 'table'), [
    (('denoising', None, 'CBSD68', '30', 'ERM'), 24.90, 0.581, '1'),
    (('denoising', None, 'Manga109', '50', 'DIL_ps'), 24.47, 0.564, '1'),
    (('deblurring', None, 'Set5', '5.0', 'DIL'), 23.46, 0.671, '2'),
    (('hybrid', None, 'DIV2K', 'mild', 'DIL'), 27.84, 0.785, '3'),
    (('deraining', None, 'Rain12', None, 'DIL_ps'), 33.07, 0.9266, '4'),
    (('realsr', None, 'DRealSR', None, 'BSRNet'), 29.45, 0.8579, '5'),
    (('backbones', 'SwinIR', 'Urban100', None, 'DIL'), 29.72, 0.834, '6'),
    (('augmentation', 'D2', 'RealSR V3', None, 'ERM'), 27.39, 0.8077, '7'),
])
def test_numbers_of_every_table(where: tuple[str, str, str, str, str], psnr: float, ssim: float, table: str) -> None:
    number = find_published(*where)
    assert number is not None
    assert (number.psnr, number.ssim, number.table) == (psnr, ssim, table)


@pytest.mark.skipif(not TRANSCRIPT.is_file(), reason='the transcript of the paper is not there')
def test_all_numbers_of_the_transcript() -> None:
    def leaves(block: dict, path: tuple[str, ...]) -> dict[tuple[str, ...], tuple[float, float]]:
        if 'psnr' in block:
            return {path: (block['psnr'], block['ssim'])}
        return {place: pair for key, inner in block.items() for place, pair in leaves(inner, (*path, key)).items()}

    transcript = json.loads(TRANSCRIPT.read_text())
    assert set(transcript) == set(table_names())
    for task, table in transcript.items():
        found = {tuple(part for part in (n.group, n.dataset, n.condition, n.method) if part is not None):
                 (n.psnr, n.ssim) for n in published_numbers(task)}
        assert found == leaves(table['results'], ())


@pytest.mark.parametrize('task', table_names())
def test_they_fit_the_protocol(task: str) -> None:
    """Every column of the paper's table has its condition, and the other way round; Nam alone is not in the paper."""
    protocol = load_protocol(task)
    numbers = published_numbers(task)
    assert {number.table for number in numbers} == {protocol.paper_table}
    assert {number.dataset for number in numbers} == set(protocol.datasets) - {'Nam'}
    assert {number.group for number in numbers} == (set(protocol.groups) or {None})
    tabulated = {condition.name for condition in protocol.conditions if condition.table}
    assert {number.condition for number in numbers} in (tabulated, {None})
    assert None not in {number.condition for number in numbers} or len(tabulated) == 1


@pytest.mark.parametrize('task', table_names())
def test_values_are_plausible(task: str) -> None:
    assert all(15 < number.psnr < 45 and 0.2 < number.ssim < 1 for number in published_numbers(task))


def test_case_does_not_matter() -> None:
    assert find_published('denoising', None, 'CBSD68', '30', 'dil_SF') == find_published('denoising', None, 'CBSD68',
                                                                                         '30', 'DIL_sf')
    assert find_published('denoising', None, 'CBSD68', '30', 'erm').psnr == 24.90


def test_any_variant_finds_dil_where_the_table_names_none() -> None:
    assert find_published('deblurring', None, 'Set5', '4.2', 'DIL_sf').method == 'DIL'
    assert find_published('denoising', None, 'CBSD68', '30', 'DIL_sf').method == 'DIL_sf'
    assert find_published('denoising', None, 'CBSD68', '30', 'DIL') is None


@pytest.mark.parametrize('where', [
    ('denoising', None, 'CBSD68', '20', 'ERM'),  # not tabulated
    ('denoising', None, 'CBSD68', '30', 'mine'),
    ('denoising', 'RRDB', 'CBSD68', '30', 'ERM'),
    ('backbones', None, 'CBSD68', '30', 'ERM'),
    ('realsr', None, 'RealSR V3', 'x4', 'DIL_ss'),
    ('real_denoising', None, 'Nam', 'real', 'ERM'),
    ('no such task', None, 'CBSD68', '30', 'ERM'),
])
def test_what_is_not_printed_is_not_found(where: tuple[str, str, str, str, str]) -> None:
    assert find_published(*where) is None


def test_one_condition_of_any_name_finds_a_table_without_conditions() -> None:
    assert find_published('realsr', None, 'DRealSR', 'x4', 'DIL_ps').psnr == 30.58
    assert find_published('backbones', 'RRDB', 'CBSD68', '30', 'DIL_sf').psnr == 30.28
