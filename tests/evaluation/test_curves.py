import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dil_plugin.errors import DataError
from dil_plugin.evaluation.curves import degree_curves, write_curves
from dil_plugin.evaluation.plots import degree_curve
from dil_plugin.evaluation.published import published_numbers
from dil_plugin.evaluation.results import INPUT, Results

LEVELS = ['50', '10', '30']


@pytest.fixture
def results(make_results) -> Results:
    return make_results({(run, dataset, level): [first - int(level) / 10, first - int(level) / 5]
                         for run, first in ((INPUT, 30.0), ('ERM', 40.0), ('DIL_sf', 39.0))
                         for dataset in ('CBSD68', 'Urban100') for level in LEVELS})


def lines(figure: Figure) -> dict[str, tuple[list[float], list[float]]]:
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in figure.axes[0].lines
            if not line.get_label().startswith('_') and line.get_label() != 'published'}


def hollow(figure: Figure) -> dict[str, list[float]]:
    """The published points by the name of the line of their colour and marker."""
    axes = figure.axes[0]
    names = {(line.get_color(), line.get_marker()): line.get_label() for line in axes.lines
             if line.get_linestyle() == '-'}
    points = [line for line in axes.lines if line.get_linestyle() == 'None' and len(line.get_xdata())]
    assert all(line.get_markerfacecolor() == 'none' for line in points)
    return {names[line.get_color(), line.get_marker()]: list(line.get_ydata()) for line in points}


def test_lines_are_the_means(results: Results) -> None:
    figures = degree_curves(results)
    assert list(figures) == ['CBSD68', 'Urban100']
    for figure in figures.values():
        assert lines(figure) == {name: ([10, 30, 50], pytest.approx([first - 1.5, first - 4.5, first - 7.5]))
                                 for name, first in ((INPUT, 30), ('ERM', 40), ('DIL_sf', 39))}
        axes = figure.axes[0]
        assert 'sigma (0-255 scale)' in axes.get_xlabel()
        assert axes.get_ylabel() == 'PSNR (dB), RGB'
    assert figures['CBSD68'].axes[0].get_title() == 'Gaussian denoising, CBSD68'


def test_degrees_ascend_whatever_the_protocols_order(results: Results) -> None:
    turned = msgspec.structs.replace(results.protocol, conditions=results.protocol.conditions[::-1])
    figure = degree_curves(msgspec.structs.replace(results, protocol=turned))['CBSD68']
    assert lines(figure)['ERM'] == ([10, 30, 50], pytest.approx([38.5, 35.5, 32.5]))


def test_training_range_is_shaded(results: Results) -> None:
    for figure in degree_curves(results).values():
        shade, = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
        assert (shade.get_x(), shade.get_x() + shade.get_width()) == (5, 20)


def test_published_points(results: Results) -> None:
    figure = degree_curves(results)['CBSD68']
    printed = {(n.method, n.condition): n.psnr for n in published_numbers('denoising') if n.dataset == 'CBSD68'}
    found = hollow(figure)
    assert set(found) == {'ERM', 'DIL_sf'}
    for method, values in found.items():
        assert values == pytest.approx([math.nan, printed[method, '30'], printed[method, '50']], nan_ok=True)
    texts = [text.get_text() for text in figure.axes[0].get_legend().texts]
    assert sorted(texts) == ['DIL_sf', 'ERM', 'input', 'published', 'seen in training']


def test_runs_that_the_paper_does_not_have(make_results) -> None:
    figure = degree_curves(make_results({('mine', 'CBSD68', level): [30.0] for level in LEVELS}))['CBSD68']
    assert hollow(figure) == {}
    assert 'published' not in [text.get_text() for text in figure.axes[0].get_legend().texts]


def test_failed_level_is_a_gap(make_results) -> None:
    results = make_results({('ERM', 'CBSD68', '10'): [30.0], ('ERM', 'CBSD68', '30'): ['broken'],
                            ('ERM', 'CBSD68', '50'): [20.0], ('mine', 'CBSD68', '10'): [31.0]})
    found = lines(degree_curves(results)['CBSD68'])
    assert found['ERM'][1] == pytest.approx([30, math.nan, 20], nan_ok=True)
    assert found['mine'][1] == pytest.approx([31, math.nan, math.nan], nan_ok=True)


def test_one_level_is_no_curve(make_results) -> None:
    results = make_results({('ERM', 'CBSD68', '30'): [30.0], ('ERM', 'Urban100', '30'): [30.0],
                            ('ERM', 'Urban100', '40'): [29.0]})
    assert list(degree_curves(results)) == ['Urban100']


def test_no_degrees(make_results, tmp_path: Path) -> None:
    results = make_results({('ERM', 'BSD100', level): [30.0] for level in ('mild', 'severe')}, 'hybrid')
    assert degree_curves(results) == {}
    assert write_curves(results, tmp_path) == []


def test_input_alone(make_results) -> None:
    results = make_results({('ERM', 'CBSD68', '10'): [30.0], (INPUT, 'Urban100', '10'): [30.0],
                            (INPUT, 'Urban100', '30'): [30.0]})
    assert degree_curves(results) == {}


def test_more_runs_than_colours(make_results) -> None:
    names = ['first', 'second', 'ERM', *'defghijkl']
    results = make_results({(name, 'CBSD68', level): [20.0 + k + int(level)] for k, name in enumerate(names)
                            for level in LEVELS}, baseline='ERM')
    figures = degree_curves(results)
    assert list(figures) == ['CBSD68, part 1', 'CBSD68, part 2', 'CBSD68, part 3']
    shown = [list(lines(figure)) for figure in figures.values()]
    assert [part[0] for part in shown] == ['ERM'] * 3
    assert [name for part in shown for name in part[1:]] == [name for name in names if name != 'ERM']
    assert max(map(len, shown)) == 6
    assert len({figure.axes[0].get_ylim() for figure in figures.values()}) == 1
    low, high = figures['CBSD68, part 1'].axes[0].get_ylim()
    assert low < 30
    assert high > 20 + 11 + 50


@pytest.mark.parametrize(('changes', 'title'), [
    ({'limit': 5}, 'first 5 images (published: full set)'), ({'limit': 1}, 'first image (published: full set)'),
    ({'remarks': {'CBSD68': 'a JPEG'}}, 'CBSD68 (published: full set)'),
])
def test_title_says_that_the_images_are_others(results: Results, changes: dict, title: str) -> None:
    figure = degree_curves(msgspec.structs.replace(results, **changes))['CBSD68']
    assert figure.axes[0].get_title().endswith(title)


def test_files(results: Results, tmp_path: Path) -> None:
    paths = write_curves(results, tmp_path / 'new')
    assert [path.name for path in paths] == ['curve_CBSD68.png', 'curve_CBSD68.pdf', 'curve_Urban100.png',
                                             'curve_Urban100.pdf']
    assert [path.read_bytes()[:4] for path in paths] == [b'\x89PNG', b'%PDF'] * 2
    again = write_curves(results, tmp_path / 'again')
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]


def test_file_that_cannot_be_written(results: Results, tmp_path: Path) -> None:
    (tmp_path / 'curve_CBSD68.pdf').mkdir()
    with pytest.raises(DataError, match='curve_CBSD68.pdf cannot be written'):
        write_curves(results, tmp_path)


class TestPlot:
    """What ``degree_curve`` draws for published numbers and long legends."""

    def test_published_of_no_curve(self) -> None:
        with pytest.raises(ValueError, match='other: published, but of no curve; there are a'):
            degree_curve([1, 2], {'a': [1, 2]}, published={'other': [1, 2]})
        with pytest.raises(ValueError, match='a: 1 published values for 2 degrees'):
            degree_curve([1, 2], {'a': [1, 2]}, published={'a': [1]})

    @pytest.mark.parametrize('count', [1, 2, 4, 6])
    def test_a_long_legend_hides_no_point(self, count: int) -> None:
        values = np.linspace(20, 40, 9)
        curves = {f'method {k}': list(values + k) for k in range(count)}
        figure = degree_curve(range(9), curves, training_range=(0, 3), references={INPUT: list(values - 3)},
                              published={name: [40.0] * 9 for name in curves}, title='title')
        figure.canvas.draw()
        axes = figure.axes[0]
        box, frame = axes.get_legend().get_window_extent(), axes.get_window_extent()
        title = axes.title.get_window_extent()
        outside = box.y0 >= frame.y1 - 1
        assert outside == (count + 3 > 5)
        assert frame.height == pytest.approx(308, abs=1)  # the axes do not pay for it
        if outside:
            assert title.y0 >= box.y1 - 8  # of the legend's own padding
            assert title.y1 <= figure.bbox.y1
            assert box.x1 <= figure.bbox.x1

    def test_dollars_are_no_mathematics(self) -> None:
        figure = degree_curve([1, 2], {r'$a^$': [1, 2]}, title='$b^$')
        figure.canvas.draw()
        assert figure.axes[0].get_title() == '$b^$'
