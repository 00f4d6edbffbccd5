"""The mean of the weights of several checkpoints of a run: stochastic weight averaging after the training."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dil_plugin.checkpoints import NOTES, load_checkpoint, read_notes, save_atomically, select_parameters
from dil_plugin.errors import DataError, OptionError


def average_checkpoints(paths: Sequence[str | os.PathLike[str]], param_key: str = 'params') -> dict[str, Any]:
    """``(1/k) sum_i theta_i``, as a checkpoint of BasicSR's form with ``params`` alone.

    With checkpoints at equal distances from some iteration on, and a learning rate that stays high, this is SWA
    (Izmailov et al., *Averaging Weights Leads to Wider Optima and Better Generalization*, UAI 2018). Sums are taken in
    double precision. The notes are those of the last checkpoint.

    Args:
        paths: Checkpoints of one network.
        param_key: Which of their parameters: ``params``, ``params_ema`` or ``params_theta``.

    Raises:
        OptionError: There are fewer than two.
        DataError: One cannot be read, is of another network than the first, or has running statistics, which would have
            to be measured anew.
    """
    if len(paths) < 2:
        raise OptionError(f'input: {len(paths)} checkpoint, of which there is no mean to take; allowed: two or more')
    sums: dict[str, Tensor] = {}
    first: dict[str, Tensor] = {}
    network: Any = None
    content: Any = {}
    for path in paths:
        content = load_checkpoint(path, 'input')
        _, state = select_parameters(content, path, param_key)
        notes = read_notes(content, path)
        own = None if notes is None else notes.network_g
        if not first:
            first, network = state, own
        _check_same(first, state, f'{path}', f'{paths[0]}')
        if own != network:
            raise DataError(f'{path}: is of {own}, {paths[0]} is of {network}; allowed: checkpoints of one network')
        for name, tensor in state.items():
            sums[name] = tensor.double() if name not in sums else sums[name] + tensor.double()
    mean = {name: (total / len(paths)).to(first[name].dtype) if first[name].is_floating_point() else first[name]
            for name, total in sums.items()}
    return {'params': mean, **({NOTES: content[NOTES]} if NOTES in content else {})}


def _check_same(first: dict[str, Tensor], state: dict[str, Tensor], path: str, where: str) -> None:
    differing = sorted(set(first) ^ set(state)) or [name for name in first if first[name].shape != state[name].shape]
    if differing:
        raise DataError(f'{path}: its parameters are not those of {where}: {differing[0]}; allowed: checkpoints of one '
                        'network')
    for name, tensor in state.items():
        if name.endswith(('running_mean', 'running_var')) and not torch.equal(tensor, first[name]):
            raise DataError(f'{path}: {name} is a running statistic, and those of the mean of the weights are not the '
                            'mean of these; allowed: networks without BatchNorm')
        if not tensor.is_floating_point() and not torch.equal(tensor, first[name]):
            raise DataError(f'{path}: {name} differs from that of {where} and is no number to take a mean of')


def average_files(paths: Sequence[Path], target: Path, param_key: str = 'params', overwrite: bool = False) -> None:
    """Writes the mean of checkpoints; the new file is whole or not there.

    Raises:
        OptionError: See ``average_checkpoints``.
        DataError: See there; or the file is there already or cannot be written.
    """
    if target.is_dir() or any(target.exists() and target.samefile(path) for path in paths if path.exists()) \
            or (target.exists() and not overwrite):
        raise DataError(f'output: {target} is there already; give another name'
                        + ('' if overwrite else ', or --overwrite to replace it'))
    content = average_checkpoints(paths, param_key)
    try:
        save_atomically(content, target)
    except OSError as error:
        raise DataError(f'output: {target} cannot be written ({error.strerror})') from None
