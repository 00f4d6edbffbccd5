"""Counters of steps that were left out."""

import torch

from dil_plugin.learning import MetaGradient
from dil_plugin.training.skipped_steps import SkippedSteps


def test_counting_in_a_row():
    skipped = SkippedSteps(['a', 'b'], 3, torch.device('cpu'))

    def count(inner, outer, faulty):
        skipped.count(MetaGradient([], torch.tensor(inner), torch.tensor(outer)), torch.tensor(faulty))
        return skipped.too_many()

    nan = float('nan')
    assert not count([nan, 1.], 1., True)
    assert not count([nan, nan], nan, True)
    assert not count([1., 1.], 1., False)
    assert not count([1., 1.], 1., True)
    assert not count([1., 1.], nan, True)
    total, message = skipped.read()
    assert total == 4
    assert message == ('4 steps were skipped since the last line of the log; not finite: inner loss of a (2), '
                       'inner loss of b (1), outer loss (2), gradient alone (1).')
    assert skipped.read() == (4, '')
    assert count([1., nan], 1., True)
    assert skipped.read() == (5, '1 steps were skipped since the last line of the log; not finite: '
                                 'inner loss of b (1).')
    assert not count([1., 1.], 1., False)


def test_the_parts_of_an_accumulated_step_count_together():
    skipped, nan, bad = SkippedSteps(['a', 'b'], 3, torch.device('cpu')), float('nan'), torch.tensor(True)

    def count(inner, faulty):
        skipped.count(MetaGradient([], torch.tensor(inner), torch.tensor(1.)), faulty)

    for first, second in (([nan, 1.], [1., 1.]), ([1., 1.], [1., nan])):
        count(first, None)
        assert skipped.read() == (0, '')
        count(second, bad)
        assert skipped.read()[1].endswith(f'inner loss of {"b" if first[0] == 1 else "a"} (1).')
        skipped = SkippedSteps(['a', 'b'], 3, torch.device('cpu'))
    count([nan, 1.], None)
    count([1., 1.], bad)
    count([1., 1.], None)
    count([1., 1.], bad)  # another step
    assert skipped.read()[1].endswith('inner loss of a (1), gradient alone (1).')
