import subprocess
import sys
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
from matplotlib.patches import Rectangle

from dil_plugin.evaluation import Panel, degree_curve, save_png, side_by_side

DEGREES = [10, 20, 30]
CURVES = {'ERM': [30.0, 27.5, 20.25], 'DIL': [29.5, 27.0, 22.0]}


def image(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def written(figure, path):
    save_png(figure, path)
    return cv2.imread(str(path))[:, :, ::-1]


def occurrences(canvas, part):
    """Every (y, x) at which ``part`` stands in ``canvas``, pixel by pixel."""
    height, width = part.shape[:2]
    starts = np.argwhere((canvas == part[0, 0]).all(2)).tolist()
    return [[y, x] for y, x in starts if np.array_equal(canvas[y:y + height, x:x + width], part)]


def test_lines_are_the_data():
    axes = degree_curve(DEGREES, CURVES, references={'noisy': [28.0, 22.0, 18.0]}).axes[0]
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
    assert lines == {'ERM': (DEGREES, CURVES['ERM']), 'DIL': (DEGREES, CURVES['DIL']), 'noisy': (DEGREES, [28, 22, 18])}
    assert {text.get_text() for text in axes.get_legend().texts} == {'ERM', 'DIL', 'noisy'}
    assert len({line.get_color() for line in axes.lines}) == len({line.get_marker() for line in axes.lines}) == 3


def test_shade_is_the_training_range():
    axes = degree_curve(DEGREES, CURVES, training_range=(5, 20)).axes[0]
    (shade, ) = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == (5, 20)
    assert shade.get_label() == 'seen in training'
    assert not degree_curve(DEGREES, CURVES).axes[0].patches


def test_units_are_named():
    axes = degree_curve(DEGREES, CURVES).axes[0]
    assert 'dB' in axes.get_ylabel()
    assert '0-255' in axes.get_xlabel()


@pytest.mark.parametrize(('arguments', 'message'), [
    (([], {'ERM': []}), 'nothing to draw'),
    ((DEGREES, {}), 'nothing to draw'),
    ((DEGREES, {'ERM': [1.0, 2.0]}), 'ERM: 2 values for 3 degrees'),
    ((DEGREES, {str(k): [1, 2, 3] for k in range(7)}), '7 curves are more than'),
])
def test_wrong_curves(arguments, message):
    with pytest.raises(ValueError, match=message):
        degree_curve(*arguments)


def test_wrong_range_and_twofold_name():
    with pytest.raises(ValueError, match='20 is above 5'):
        degree_curve(DEGREES, CURVES, training_range=(20, 5))
    with pytest.raises(ValueError, match='both a curve and a reference: ERM'):
        degree_curve(DEGREES, CURVES, references={'ERM': [1, 2, 3]})


@pytest.mark.parametrize('zoom', [1, 3])
def test_every_pixel_is_written(tmp_path, zoom):
    rows = [[image(40, 50, 3), image(33, 21, 3, seed=1)], [image(17, 60, seed=2)]]
    figure = side_by_side([[Panel(one, 'a\nb') for one in row] for row in rows], zoom=zoom, title='all')
    canvas = written(figure, tmp_path / 'crops.png')
    places = []
    for one in (one for row in rows for one in row):
        colour = one if one.ndim == 3 else cv2.cvtColor(one, cv2.COLOR_GRAY2RGB)
        enlarged = np.kron(colour, np.ones((zoom, zoom, 1), np.uint8))
        (place, ) = occurrences(canvas, enlarged)
        places.append(place)
    (first_y, first_x), (second_y, second_x), (third_y, third_x) = places
    assert first_y == second_y
    assert first_x == third_x
    assert second_x >= first_x + 60 * zoom  # the column is as wide as its widest image
    assert third_y > first_y + 40 * zoom


def test_rows_may_differ_in_length(tmp_path):
    ones = [image(12, 12, 3, seed=seed) for seed in range(4)]
    canvas = written(side_by_side([[Panel(ones[0])], [Panel(one) for one in ones[1:]]]), tmp_path / 'a.png')
    assert all(len(occurrences(canvas, one)) == 1 for one in ones)


def test_users_settings_do_not_move_pixels(tmp_path):
    one = image(30, 30, 3)
    with matplotlib.rc_context({'savefig.dpi': 50, 'savefig.bbox': 'tight', 'image.origin': 'lower',
                                'savefig.facecolor': 'black'}):
        canvas = written(side_by_side([[Panel(one, 'title')]], zoom=2), tmp_path / 'a.png')
    assert len(occurrences(canvas, one.repeat(2, 0).repeat(2, 1))) == 1
    assert (canvas[0] == 255).all()


@pytest.mark.parametrize('wrong', [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8)])
def test_wrong_image(wrong):
    with pytest.raises(ValueError, match='expected uint8'):
        side_by_side([[Panel(wrong)]])


def test_nothing_to_show():
    with pytest.raises(ValueError, match='0 panels'):
        side_by_side([[]])
    with pytest.raises(ValueError, match='zoom 0'):
        side_by_side([[Panel(image(4, 4))]], zoom=0)


def test_needs_neither_pyplot_nor_basicsr():
    code = ('import sys, dil_plugin.evaluation as e; e.degree_curve([1], {"a": [2]}); '
            'assert not {"matplotlib.pyplot", "basicsr", "torch"} & set(sys.modules), sorted(sys.modules)')
    subprocess.run([sys.executable, '-c', code], check=True, cwd=Path(__file__).parents[2])
