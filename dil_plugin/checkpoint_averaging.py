"""The mean of the weights of several checkpoints of a run: stochastic weight averaging after the training."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dil_plugin.checkpoints import (
    NOTES,
    load_checkpoint,
    read_notes,
    refuse_not_finite,
    save_atomically,
    select_parameters,
    selection_in_words,
)
from dil_plugin.errors import DataError, OptionError


class Average(NamedTuple):
    """The mean of checkpoints.

    Attributes:
        content: A checkpoint of BasicSR's form, with ``params`` alone.
        selection: Which parameters it is the mean of, in words.
    """

    content: dict[str, Any]
    selection: str


def average_checkpoints(paths: Sequence[str | os.PathLike[str]], param_key: str | None = None) -> Average:
    """``(1/k) sum_i theta_i``, as a checkpoint of BasicSR's form with ``params`` alone.

    With checkpoints at equal distances from some iteration on, and a learning rate that stays high, this is SWA
    (Izmailov et al., *Averaging Weights Leads to Wider Optima and Better Generalization*, UAI 2018). Sums are taken in
    double precision. The notes are those of the last checkpoint.

    Args:
        paths: Checkpoints of one network.
        param_key: Which of their parameters: ``params``, ``params_ema`` or ``params_theta``; None: what
            ``key_to_test`` takes of the first.

    Raises:
        OptionError: There are fewer than two, or one is given twice.
        DataError: One cannot be read, is not finite, is the copy of another, is of another network than the first, or
            has running statistics, which would have to be measured anew.
    """
    if len(paths) < 2:
        raise OptionError(f'input: {len(paths)} checkpoint, of which there is no mean to take; allowed: two or more')
    _check_different(paths)
    sums: dict[str, Tensor] = {}
    first: dict[str, Tensor] = {}
    seen: dict[str, str | os.PathLike[str]] = {}
    network: Any = None
    content: Any = {}
    selection = ''
    for path in paths:
        content = load_checkpoint(path, 'input')
        key, state = select_parameters(content, path, param_key)
        notes = read_notes(content, path)
        own = None if notes is None else notes.network_g
        if not first:
            first, network, param_key, selection = state, own, key or None, selection_in_words(key, {})
        _check_same(first, state, f'{path}', f'{paths[0]}')
        if own != network:
            raise DataError(f'{path}: is of {own}, {paths[0]} is of {network}; allowed: checkpoints of one network')
        refuse_not_finite(state, path)
        other = seen.setdefault(_digest(state), path)
        if other != path:
            raise DataError(f'{path}: holds the same weights as {other}; allowed: each of them once')
        for name, tensor in state.items():
            sums[name] = tensor.double() if name not in sums else sums[name] + tensor.double()
    mean = {name: (total / len(paths)).to(first[name].dtype) if first[name].is_floating_point() else first[name]
            for name, total in sums.items()}
    return Average({'params': mean, **({NOTES: content[NOTES]} if NOTES in content else {})}, selection)


def _check_different(paths: Sequence[str | os.PathLike[str]]) -> None:
    files = [Path(path).resolve() for path in paths]
    for k, file in enumerate(files):
        if file in files[:k]:
            raise OptionError(f'input: {paths[k]} is given twice (the first time as {paths[files.index(file)]}); '
                              'allowed: each checkpoint once')


def _digest(state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


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


def average_files(paths: Sequence[Path], target: Path, param_key: str | None = None,
                  overwrite: bool = False) -> str:
    """Writes the mean of checkpoints, and says which parameters it is of; the new file is whole or not there.

    Raises:
        OptionError: See ``average_checkpoints``.
        DataError: See there; or the file is there already or cannot be written.
    """
    if target.is_dir() or any(target.exists() and target.samefile(path) for path in paths if path.exists()) \
            or (target.exists() and not overwrite):
        raise DataError(f'output: {target} is there already; give another name'
                        + ('' if overwrite else ', or --overwrite to replace it'))
    average = average_checkpoints(paths, param_key)
    try:
        save_atomically(average.content, target)
    except OSError as error:
        raise DataError(f'output: {target} cannot be written ({error.strerror})') from None
    return average.selection
