"""Whether the moving average of the weights can forget its start before the run ends."""

import math
import sys
from collections.abc import Mapping
from typing import Any

_LEFT = 0.01
"""So large a share of the first weights in the average is none to speak of."""


def warn_of_the_start(opt: Mapping[str, Any], steps: int = 1) -> None:
    """Says on standard error that the average at the end will still be made of the first weights.

    Their share is ``ema_decay^n`` after n averages, one for each iteration in which the optimiser took a step.

    Args:
        opt: The options of a training.
        steps: Meta-gradients or plain steps of an iteration, of which ``accum_iter`` make a step of the optimiser.
    """
    train = opt['train']
    decay, total = train.get('ema_decay') or 0, int(train['total_iter'])
    if not isinstance(decay, int | float) or not 0 < decay < 1:
        return
    averages = min(total, total * steps // train.get('accum_iter', 1))
    share = decay**averages
    if share <= _LEFT * (1 + 1e-9):
        return
    counted = f'{total}' if averages == total else f'{total} (accum_iter: {averages} averages)'
    fitting = largest_fitting(averages)
    advice = f'a decay of at most {fitting:g} leaves 1 %, or 0: no average' if fitting else '0: no average'
    sys.stderr.write(f'Warning: train.ema_decay is {decay:g} and total_iter {counted}: {100 * share:.2g} % of the '
                     f'average (params_ema), which is validated and restored with, are the weights of the start; '
                     f'{advice}.\n')


def largest_fitting(averages: int) -> float:
    """The largest decay, cut to two digits of 1 - decay, that leaves 1 % of the start; 0 where there is none."""
    if averages < 1:
        return 0.0
    free = 1 - _LEFT**(1 / averages)
    unit = 10.0**(math.floor(math.log10(free)) - 1)
    return max(0.0, round(1 - math.ceil(free / unit) * unit, 12))
