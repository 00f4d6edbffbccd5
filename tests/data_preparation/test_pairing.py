"""Names and sizes of pairs, in plain values."""

import pytest

from dil_plugin.data_preparation.pairing import MOST_CUT_OFF, endings_in_words, fitting_template, shown_part


@pytest.mark.parametrize(('target', 'lq', 'scale', 'shown'), [
    ((80, 96), (20, 24), 4, (80, 96)),
    ((79, 95), (19, 23), 4, (76, 92)),  # 3 and 3 pixels that do not divide by 4
    ((80 + MOST_CUT_OFF, 96), (20, 24), 4, (80, 96)),
    ((81 + MOST_CUT_OFF, 96), (20, 24), 4, None),  # another image
    ((79, 96), (20, 24), 4, None),  # too small
    ((20, 24), (80, 96), 4, None),  # swapped
    ((20, 24), (20, 24), 1, (20, 24)),
    ((21, 24), (20, 24), 1, None),  # at scale 1 nothing is cut off
])
def test_the_part_of_a_target_that_its_input_shows(target, lq, scale, shown):
    assert shown_part(target, lq, scale) == shown


@pytest.mark.parametrize(('inputs', 'targets', 'scale', 'template'), [
    (['0', '1'], ['0', '1'], 4, '{}'),
    (['0x4', '1x4'], ['0', '1'], 4, '{}x4'),
    (['0x4', '1x4'], ['0', '1'], 2, None),
    (['a_LR3', 'b_LR3', 'c_LR3'], ['a', 'b'], 3, '{}_LR3'),
    (['a_LR', 'b_LR'], ['a', 'b'], 3, '{}_LR'),
    (['a_small', 'b_small'], ['a', 'b'], 3, None),
    (['a_LR4'], ['a_HR'], 4, None),  # which a template of the target's name cannot say
    (['a'], [], 4, None),
])
def test_the_template_that_pairs_names(inputs, targets, scale, template):
    assert fitting_template(inputs, targets, scale) == template


def test_the_words():
    assert endings_in_words(4).startswith('equal names, or names that differ in their ends: x4 beside nothing, _LR4 ')
