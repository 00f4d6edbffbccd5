"""An average that still holds the start of the training is warned of, with a decay that fits."""

import pytest

from dil_plugin.basicsr.checks.moving_average import largest_fitting, warn_of_the_start


def share_of_the_start(decay, total, steps, accumulated):
    """By a loop as ``DILModel``'s: in iterations that took a step of the optimiser."""
    share, waiting = 1.0, 0
    for _ in range(total):
        stepped = False
        for _ in range(steps):
            waiting += 1
            if waiting == accumulated:
                waiting, stepped = 0, True
        share *= decay if stepped else 1
    return share


def said(capsys, **train):
    steps = train.pop('steps', 1)
    warn_of_the_start({'train': train}, steps)
    return capsys.readouterr().err


@pytest.mark.parametrize(('decay', 'total', 'steps', 'accumulated'), [
    (0.999, 300, 1, 1), (0.999, 5000, 1, 1), (0.99, 900, 1, 1), (0.99, 900, 1, 4), (0.99, 450, 4, 2),
    (0.9, 50, 3, 4), (0.9, 60, 3, 4), (0.5, 4, 1, 5)])
def test_the_share_is_that_of_a_loop(capsys, decay, total, steps, accumulated):
    share = share_of_the_start(decay, total, steps, accumulated)
    text = said(capsys, ema_decay=decay, total_iter=total, accum_iter=accumulated, steps=steps)
    assert (f'{100 * share:.2g} % of the average' in text) if share > 0.01 else text == ''


def test_the_example(capsys):
    text = said(capsys, ema_decay=0.999, total_iter=300)
    assert 'train.ema_decay is 0.999 and total_iter 300: 74 %' in text
    assert 'at most 0.984 leaves' in text
    assert not said(capsys, ema_decay=0.984, total_iter=300)
    assert said(capsys, ema_decay=0.985, total_iter=300)


@pytest.mark.parametrize('averages', [2, 7, 100, 4605, 100000])
def test_the_advice_fits_and_is_the_largest(averages):
    decay = largest_fitting(averages)
    assert decay**averages <= 0.01 * (1 + 1e-9)
    exact = 0.01**(1 / averages)
    assert 1 - exact <= 1 - decay <= 1.1 * (1 - exact)  # to two digits


def test_it_is_said_before_a_run(base, parsed, capsys):
    """Of erm each iteration takes as many steps as there are confounders, and makes one average."""
    base['train'] |= {'dil': {'variant': 'erm'}, 'ema_decay': 0.99, 'total_iter': 100, 'accum_iter': 8}
    parsed(base)
    assert 'total_iter 100 (accum_iter: 50 averages): 61 % of the average' in capsys.readouterr().err
    base |= {'model_type': 'SRModel'}
    base['train'] = {name: value for name, value in base['train'].items() if name not in ('dil', 'accum_iter')}
    parsed(base)
    assert 'total_iter 100: 37 % of the average' in capsys.readouterr().err
