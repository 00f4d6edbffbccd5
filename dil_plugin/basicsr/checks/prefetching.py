"""What has to hold for ``prefetch_mode: cuda``, found out before training starts."""

import sys
from collections.abc import Mapping
from typing import Any

from dil_plugin.errors import OptionError


def complete_prefetching(opt: Mapping[str, Any]) -> None:
    """Switches ``prefetch_mode: cuda`` off, with a warning, where training runs on the CPU; in place.

    So one file serves both. The data workers prefetch all the same.

    Raises:
        OptionError: On a GPU the batches are not page-locked.
    """
    train = opt['datasets'].get('train', {})
    if train.get('prefetch_mode') != 'cuda':
        return
    if opt['num_gpu'] == 0:
        sys.stderr.write('Warning: datasets.train.prefetch_mode: cuda has no effect without a GPU.\n')
        train['prefetch_mode'] = None
    elif train.get('pin_memory') is not True:
        raise OptionError(f'datasets.train.pin_memory: {train.get("pin_memory", False)!r}, but prefetch_mode cuda '
                          'copies from page-locked memory; allowed: true, or prefetch_mode cpu or ~')
