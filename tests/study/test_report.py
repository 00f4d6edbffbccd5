"""The tables and the plot of a study, from made results: means, intervals and paired differences against SciPy."""

import re

import msgspec
import numpy as np
import pytest
from scipy import stats

from dil_plugin.study.plot import study_figure
from dil_plugin.study.report import study_report
from dil_plugin.study.results import Curve, Results
from dil_plugin.study.rows import Row, at_the_end, baseline_row, difference, over_the_last_third, rows_of

SEEN, UNSEEN = ['10', '20'], ['50']
POINTS = 7


def curve(arm: str, seed: int, group: str = '', parameters: tuple[str, ...] = ('theta', ), shift: float = 0) -> Curve:
    rng = np.random.default_rng([seed, *arm.encode(), *group.encode()])
    scores = {name: {condition: {'psnr': (25 + shift + rng.normal(0, 1, POINTS)).tolist()}
                     for condition in SEEN + UNSEEN} for name in parameters}
    return Curve(arm=arm, group=group, seed=seed, digest='', cost={'inner': 4, 'query': 1, 'hessian': 2}, outer_steps=1,
                 iterations=70, image_gradients=[70 * (k + 1) for k in range(POINTS)], status='done', scores=scores,
                 seconds=2.0 + seed, invariance={'ratio': 1 / (30 + shift + seed)})


def results(*curves: Curve, planned: int = 9) -> Results:
    return Results(question='Which?', baseline='erm', seen=SEEN, unseen=UNSEEN, planned=planned,
                   cells={f'{one.arm}{one.group}{one.seed}': one for one in curves})


def value(one: Curve, conditions: list[str], points: slice, parameters: str = 'theta') -> float:
    return float(np.mean([one.scores[parameters][condition]['psnr'][points] for condition in conditions]))


@pytest.mark.parametrize(('reduce', 'points'), [(at_the_end, slice(-1, None)), (over_the_last_third, slice(-3, None))])
def test_paired_differences_over_equal_seeds(reduce, points) -> None:
    erm, sf = [curve('erm', seed) for seed in (0, 1, 2)], [curve('sf', seed, shift=1) for seed in (0, 2, 3)]
    interval = difference(results(*erm, *sf), Row('sf', '', 'theta'), SEEN, reduce)
    low, high = stats.ttest_rel([value(one, SEEN, points) for one in (sf[0], sf[1])],
                                [value(one, SEEN, points) for one in (erm[0], erm[2])]).confidence_interval()
    assert (interval.mean - interval.half, interval.mean + interval.half) == pytest.approx((low, high))
    assert interval.seeds == 2


def table(text: str, title: str) -> dict[str, list[str]]:
    lines = [line for line in text.split(title)[1].strip().split('\n\n')[0].splitlines() if line.startswith('|')]
    return {cells[0]: cells[1:] for cells in ([cell.strip() for cell in line.strip('|').split('|')] for line in lines)}


def test_the_table() -> None:
    erm, sf = [curve('erm', seed) for seed in (0, 1, 2)], [curve('sf', seed, shift=9) for seed in (0, 1, 2)]
    text = study_report(results(*erm, *sf), 'study.png')
    rows = table(text, 'mean over the last third of the points:')
    assert rows['arm'] == ['n', '10, seen', '20, seen', '50, unseen', 'mean seen', 'mean unseen', 'Δ seen', 'Δ unseen',
                           'unseen, by seed']
    unseen = [value(one, UNSEEN, slice(-3, None)) for one in sf]
    half = stats.t.interval(0.95, 2, scale=stats.sem(unseen))[1]
    assert rows['sf'][0] == '3'
    assert rows['sf'][3] == f'{np.mean(unseen):.2f}'
    assert rows['sf'][5] == f'{np.mean(unseen):.2f} ± {half:.2f}'
    assert re.fullmatch(r'\*\*\+\d+\.\d\d ± \d+\.\d\d\*\*', rows['sf'][7])  # 9 dB are beyond any doubt
    assert rows['erm'][7] == '–'
    assert rows['sf'][8] == ' / '.join(f'{one:.1f}' for one in unseen)
    costs = table(text, 'What it cost:')
    assert costs['sf'] == ['70', '70', '280', '70', '140', '3', '0']
    assert '6 of 9 trainings have ended; 490 image gradients each' in text


def test_averages_are_compared_with_averages_and_phi_with_theta() -> None:
    content = results(curve('erm', 0, parameters=('theta', 'ema')),
                      curve('ps', 0, parameters=('theta', 'ema', 'phi 0.1')))
    assert [row.label for row in rows_of(content)] == ['erm', 'erm, ema', 'ps', 'ps, ema', 'ps, phi 0.1']
    compared = {row.label: baseline_row(content, row).parameters for row in rows_of(content)}
    assert compared['ps'] == compared['ps, phi 0.1'] == 'theta'
    assert compared['ps, ema'] == 'ema'


def test_groups_are_compared_within() -> None:
    content = results(*(curve(arm, 0, group) for group in ('n=2', 'n=4') for arm in ('erm', 'sf')))
    text = study_report(content, 'study.png')
    assert text.index('### n=2') < text.index('### n=4')
    interval = difference(content, Row('sf', 'n=4', 'theta'), UNSEEN, at_the_end)
    cells = content.cells
    assert interval.mean == pytest.approx(value(cells['sfn=40'], UNSEEN, slice(-1, None))
                                          - value(cells['ermn=40'], UNSEEN, slice(-1, None)))
    assert len(study_figure(content).axes) == 4


def test_without_a_baseline_nothing_is_compared() -> None:
    rows = table(study_report(results(curve('sf', 0)), 'study.png'), 'at the last point:')
    assert rows['sf'][-3:-1] == ['–', '–']


def test_rank_correlation_of_the_invariance_report() -> None:
    curves = [curve('erm', 0), *(curve(f'arm{k}', 0, shift=5 * k) for k in range(4))]  # the better, the lower the ratio
    assert '* ratio and unseen PSNR: -1.00' in study_report(results(*curves), 'study.png')
    assert 'over 4 trainings' in study_report(results(*curves, curve('arm0', 1)), 'study.png')  # of no equal seed
    assert 'Too few trainings' in study_report(results(*curves[:2]), 'study.png')


def test_the_plot_has_a_line_for_every_row_and_the_baseline_in_black() -> None:
    content = results(*(curve(arm, seed) for arm in ('sf', 'erm', 'ps') for seed in (0, 1)))
    figure = study_figure(content)
    for axes in figure.axes:
        assert len(axes.lines) == 3
        assert len(axes.collections) == 3  # the bands
        black, = (line for line in axes.lines if line.get_color() == '#000000')
        assert black.get_label() == 'erm (n = 2)'
        assert black.get_xdata()[-1] == 0.49  # thousands


def test_the_plot_of_many_arms_has_room_for_its_legend() -> None:
    figure = study_figure(results(*(curve(arm, seed) for arm in ('erm', *map(str, range(45))) for seed in (0, 1))))
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert len(axes.lines) == 46
        assert [line.get_color() for line in axes.lines].count('#000000') == 1  # the baseline's alone
        assert not axes.collections  # their bands would hide each other
        assert axes.get_window_extent().height > 300
    legend = figure.axes[-1].get_legend()
    assert legend is not None
    assert legend.get_window_extent().y0 >= 0


def test_three_points_have_one_table_and_ssim_three_decimals() -> None:
    cells = []
    for seed in (0, 1):
        one = curve('erm', seed)
        scores = {'theta': {name: {'psnr': values['psnr'][:3], 'ssim': [0.8, 0.81, 0.81 + seed / 100]}
                            for name, values in one.scores['theta'].items()}}
        cells.append(msgspec.structs.replace(one, scores=scores, image_gradients=one.image_gradients[:3], device='cpu',
                                             torch='2.13'))
    text = study_report(results(*cells), 'study.png', ('psnr', 'ssim'))
    assert 'last third' not in text
    assert text.startswith('# Which?')
    assert 'Trained on cpu with torch 2.13.' in text
    row = table(text, 'SSIM at the last point:')['erm']
    assert row[1] == '0.815'
    assert row[-1] == '0.810 / 0.820'


def test_an_arm_below_the_panel_is_said_to_be() -> None:
    figure = study_figure(results(curve('erm', 0), curve('sf', 0, shift=-20)))
    assert [line.get_label() for line in figure.axes[1].lines] == ['erm (n = 1)', 'sf (n = 1), below']
