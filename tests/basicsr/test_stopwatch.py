"""The time of a training step by part."""

import pytest
import torch
from basicsr.models import build_model

from dil_plugin.basicsr.models import stopwatch
from dil_plugin.basicsr.models.stopwatch import Stopwatch

PARTS = ('synthesis', 'inner', 'outer')


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = [100.0]
    monkeypatch.setattr(stopwatch.time, 'perf_counter', lambda: now[0])
    return now


def test_means_over_steps_by_part(clock):
    watch = Stopwatch(torch.device('cpu'), PARTS)
    for seconds in (1.0, 3.0):
        watch.start()
        for part, factor in (('synthesis', 1), ('inner', 2), ('outer', 4), ('inner', 8)):
            clock[0] += factor * seconds
            watch.mark(part)
        clock[0] += 1000  # between the steps
    assert watch.means() == {'synthesis': 2, 'inner': 20, 'outer': 8}


def test_reading_starts_anew(clock):
    watch = Stopwatch(torch.device('cpu'), PARTS)
    watch.start()
    clock[0] += 5
    watch.mark('outer')
    watch.means()
    assert watch.means() == {'synthesis': 0, 'inner': 0, 'outer': 0}


def test_many_unread_steps_take_no_memory(clock):
    watch = Stopwatch(torch.device('cpu'), PARTS)
    for _ in range(2000):
        watch.start()
        clock[0] += 0.5
        watch.mark('outer')
    assert len(watch._waiting) < 300
    assert watch.means()['outer'] == 0.5


@pytest.mark.parametrize(('variant', 'inner', 'outer'), [('sf', 5, 0), ('pf', 5, 1), ('ss', 5, 10), ('ps', 5, 6),
                                                         ('erm', 0, 5)])
def test_log_tells_where_the_time_goes(base, parsed, monkeypatch, clock, variant, inner, outer):
    """Seconds that pass in losses of inner and outer steps, and in distortions, come back in their parts.

    Each of the five products of the second order is a difference with one more gradient, in the outer part.
    """

    def lasting(function, seconds):
        def slow(*args, **kwargs):
            clock[0] += seconds
            return function(*args, **kwargs)
        return slow

    base['distortions'] = [{'type': 'GaussianNoise', 'sigma': [5, 10, 15, 20, 25]}]
    base['train']['dil'] = {'variant': variant, 'hvp': 'finite_difference'} if variant in ('ss', 'ps') else {
        'variant': variant}
    model = build_model(parsed(base))
    monkeypatch.setattr(model.sampler, 'sample', lasting(model.sampler.sample, 1))
    monkeypatch.setattr(type(model.loss), '__call__', lasting(type(model.loss).__call__, 100))
    for k in range(2):
        model.feed_data({'gt': torch.rand(5, 3, 16, 16)})
        model.optimize_parameters(k + 1)
    log = model.get_current_log()
    assert list(log)[-3:] == ['t_synthesis', 't_inner', 't_outer']
    assert (log['t_synthesis'], log['t_inner'], log['t_outer']) == (1, 100 * inner, 100 * outer)
