"""Averages of the weights: who averages ``generator_ema``, from which weights on, and when."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

from mmagic.engine.hooks import ExponentialMovingAverageHook
from mmengine.hooks import EMAHook, Hook
from torch import Tensor

from dil_plugin.errors import OptionError
from dil_plugin.mmagic.compat import run_only_where
from dil_plugin.mmagic.wording import say

AVERAGE = 'generator_ema'

_ADVICE = f"dict(type='ExponentialMovingAverageHook', module_keys='{AVERAGE}', interval=1)"
_PACKAGES = ('mmengine', 'mmagic', 'dil_plugin')


def check_averages(hooks: Iterable[Hook], used: bool) -> None:
    """Has ``generator_ema`` averaged by a hook that does so.

    Args:
        hooks: Of the run.
        used: Whether the model restores with ``generator_ema``.

    Raises:
        OptionError: No hook averages it, or one that never does.
    """
    hooks = list(hooks)
    keepers = [hook for hook in hooks if AVERAGE in getattr(hook, 'module_keys', ())]
    for hook in keepers:
        interval = getattr(hook, 'interval', 1)
        if interval <= 0:
            raise OptionError(f'custom_hooks: {type(hook).__name__}.interval: {interval}, with which it averages '
                              f'nothing, and {AVERAGE} keeps its first weights; allowed: 1 or more, as in {_ADVICE}')
    if not used or keepers:
        return
    missing = f'model.is_use_ema: True, but no hook of mmengine or mmagic averages {AVERAGE}'
    if any(type(hook).__module__.split('.')[0] not in _PACKAGES for hook in hooks):
        say(f'{missing}; where your own hook does not either, validation measures the first weights.', logging.WARNING)
        return
    raise OptionError(f'{missing}, which would keep its first weights, and validation would measure them; add to '
                      f'custom_hooks: {_ADVICE}, or remove is_use_ema')


def average_after_steps_alone(hooks: Iterable[Hook], stepped: Callable[[], bool]) -> None:
    """Has the hooks that average weights do so after iterations that took a step of the optimiser.

    With ``accumulative_counts: n`` they would average the same weights n times, which makes of a momentum m one of
    ``1 - (1 - m)^n``.
    """
    for hook in hooks:
        if isinstance(hook, EMAHook | ExponentialMovingAverageHook):
            run_only_where(hook, 'after_train_iter', stepped)


def begin_average(state_dict: dict[str, Any], prefix: str) -> None:
    """Has the average start at the generator's weights, where what is loaded has no average; ``state_dict`` is changed.

    Args:
        state_dict: Of a model with ``generator_ema``, about to be loaded.
        prefix: Of the model's names in it.
    """
    source, target = f'{prefix}generator.', f'{prefix}{AVERAGE}.'
    if any(name.startswith(target) for name in state_dict):
        return
    weights: dict[str, Tensor] = {name: value for name, value in state_dict.items() if name.startswith(source)}
    if weights:
        state_dict.update({target + name.removeprefix(source): value for name, value in weights.items()})
        say(f'The checkpoint has no {AVERAGE}: the average starts at the weights of its generator.', logging.WARNING)
