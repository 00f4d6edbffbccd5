"""From BasicSR's form, ``params`` and ``params_ema``, to mmagic's, ``state_dict`` and ``ema_state_dict``, and back."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor

import dil_plugin
from dil_plugin.checkpoint_conversion.architectures import Architecture, find_architecture
from dil_plugin.checkpoint_conversion.mmengine_files import load_inert, model_of_config, split_by_module
from dil_plugin.checkpoints import (
    NOTES,
    NetworkNotes,
    read_notes,
    refuse_not_finite,
    save_atomically,
    select_parameters,
)
from dil_plugin.distortions import parse_distortions
from dil_plugin.errors import DataError, OptionError

EMA_PLACES = ('hook', 'generator_ema')
EmaPlace = Literal['hook', 'generator_ema']

_GENERATOR, _EMA = 'generator', 'generator_ema'
_SILENT = 'the file does not say what options its network has'
_KEPT_KEY = 'basicsr_key'  # in meta: what the only parameters were called, for the way back


@dataclass(frozen=True)
class Conversion:
    """What was converted.

    Attributes:
        content: Of the new file.
        to: Whose form it has, ``mmagic`` or ``BasicSR``.
        architecture: Of the network.
        network: Its block for the config of ``to`` (``generator`` or ``network_g``); None where the file does not say.
        parameters: ``params``, ``params_ema`` or both, as BasicSR calls them.
        left_out: What the file holds beside the network and the new one does not.
        remark: Why there is no ``network``; empty where there is.
    """

    content: dict[str, Any]
    to: Literal['mmagic', 'BasicSR']
    architecture: Architecture
    network: dict[str, Any] | None
    parameters: tuple[str, ...]
    left_out: tuple[str, ...]
    remark: str = ''


def convert_file(source: str | os.PathLike[str],
                 target: str | os.PathLike[str],
                 arch: str | None = None,
                 ema: EmaPlace | None = None,
                 overwrite: bool = False) -> Conversion:
    """Converts a file; the new one is whole or not there.

    Args:
        source: A checkpoint of BasicSR or of mmagic.
        target: The file to write.
        arch: See ``convert``; so does ``ema``.
        ema: Where mmagic keeps averaged parameters.
        overwrite: Replace ``target`` if it is there.

    Raises:
        DataError: ``source`` is not such a checkpoint, or ``target`` is there or cannot be written.
        OptionError: As ``convert``.
    """
    content = load_inert(source, 'input')
    target = Path(target)
    if target.exists() and (not overwrite or target.is_dir() or target.samefile(source)):
        raise DataError(f'output: {target} is there already; give another name'
                        + ('' if overwrite else ', or --overwrite to replace it'))
    conversion = convert(content, str(source), arch, ema)
    try:
        save_atomically(conversion.content, target)
    except OSError as error:
        raise DataError(f'output: {target} cannot be written ({error.strerror})') from None
    return conversion


def convert(content: Any, source: str, arch: str | None = None, ema: EmaPlace | None = None) -> Conversion:
    """Converts what a checkpoint holds; whose form it has is seen from its keys.

    Args:
        content: What ``torch.load`` gives.
        source: Its file, for messages.
        arch: The network by its name in BasicSR or mmagic; None finds it by the names of the parameters.
        ema: Where mmagic keeps averaged parameters. ``hook``: as mmengine's ``EMAHook`` writes them, in
            ``state_dict``, the others in ``ema_state_dict``. ``generator_ema``: as models with ``is_use_ema=True`` have
            them, in a network of its own; where BasicSR's file has one kind of parameters, both networks get them. None
            takes what is there, and writes ``hook``.

    Raises:
        DataError: It is no such checkpoint, or of a network that does not convert.
        OptionError: An argument is not among those allowed, or ``ema`` is needed to choose.
    """
    if ema not in (None, *EMA_PLACES):
        raise OptionError(f'--ema: {ema!r} is not allowed; allowed: {", ".join(EMA_PLACES)}')
    if isinstance(content, Mapping) and _is_state(content.get('state_dict')):
        return _to_basicsr(content, source, arch, ema)
    return _to_mmagic(content, source, arch, ema)


# BasicSR to mmagic


def _to_mmagic(content: Any, source: str, arch: str | None, ema: EmaPlace | None) -> Conversion:
    notes = read_notes(content, source)
    keys = [key for key in ('params', 'params_ema') if isinstance(content, Mapping) and key in content]
    left_out = [str(key) for key in content if key not in (*keys, NOTES)] if keys else []
    states = {key: select_parameters(content, source, key)[1] for key in keys}
    if not keys:  # a bare state dict
        keys, states = ['params'], {'params': select_parameters(content, source, None)[1]}
    architecture = _architecture(arch, states, source)
    for state in states.values():
        refuse_not_finite(state, source)
    meta: dict[str, Any] = {'experiment_name': notes.name if notes else '', 'epoch': 0,
                            'iter': (notes.iteration if notes else None) or 0}
    written: dict[str, Any] = {'meta': meta}
    if len(keys) == 1:
        meta[_KEPT_KEY] = keys[0]
    first, averaged = states[keys[0]], states[keys[-1]]
    if ema == 'generator_ema':
        written['state_dict'] = {**_prefixed(first, f'{_GENERATOR}.'), **_prefixed(averaged, f'{_EMA}.')}
    else:  # EMAHook exchanges the two when it saves, so that what is loaded for testing is the average
        written['state_dict'] = _prefixed(averaged, f'{_GENERATOR}.')
        if len(keys) == 2:
            written['ema_state_dict'] = {'steps': torch.tensor(meta['iter']),
                                         **_prefixed(first, f'module.{_GENERATOR}.')}
    network, remark = None, _SILENT
    if notes is not None:
        meta[NOTES] = content[NOTES]
        network, remark = _translated(notes.network_g, architecture.basicsr, architecture.mmagic_generator)
    return Conversion(written, 'mmagic', architecture, network, tuple(keys), tuple(left_out), remark)


def _prefixed(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


# mmagic to BasicSR


def _to_basicsr(content: Mapping[str, Any], source: str, arch: str | None, ema: EmaPlace | None) -> Conversion:
    children = split_by_module(content['state_dict'])
    if _GENERATOR not in children:
        raise DataError(f"{source}: 'state_dict' has no generator, only {', '.join(list(children)[:5])}; expected a "
                        "checkpoint of one of mmagic's restorers")
    averaged = content.get('ema_state_dict', {})
    hooked = split_by_module(averaged).get(_GENERATOR) if _is_state(averaged) else None
    if hooked and _EMA in children and ema is None:
        raise OptionError(f"{source}: has averaged parameters in 'ema_state_dict' and in 'generator_ema'; give --ema "
                          'hook or --ema generator_ema')
    meta = content.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    kept = meta.get(_KEPT_KEY)
    if kept in ('params', 'params_ema'):
        states = {kept: children[_GENERATOR]}
    elif hooked and ema != 'generator_ema':  # exchanged by EMAHook, see above
        states = {'params': hooked, 'params_ema': children[_GENERATOR]}
    elif _EMA in children and ema != 'hook':
        states = {'params': children[_GENERATOR], 'params_ema': children[_EMA]}
    elif ema is not None:
        raise DataError(f'{source}: has no averaged parameters where --ema {ema} says')
    else:
        states = {'params': children[_GENERATOR]}
    architecture = _architecture(arch, states, source)
    for state in states.values():
        refuse_not_finite(state, source)
    written: dict[str, Any] = dict(states)
    notes, network, remark = _notes(meta, architecture, source)
    if notes is not None:
        written[NOTES] = notes
    used = {'meta', 'state_dict', *(['ema_state_dict'] if hooked else [])}
    left_out = [*(child for child in children if child != _GENERATOR and not (child == _EMA and ema != 'hook')),
                *(str(key) for key in content if key not in used)]
    return Conversion(written, 'BasicSR', architecture, network, tuple(states), tuple(left_out), remark)


def _notes(meta: Mapping[str, Any], architecture: Architecture,
           source: str) -> tuple[dict[str, Any] | None, dict[str, Any] | None, str]:
    """The notes for BasicSR's file, the network's options in them, and why there are none."""
    found = read_notes(meta, source)
    if found is not None:
        return meta[NOTES], found.network_g, ''
    text = meta.get('cfg')
    model = model_of_config(text) if isinstance(text, str) else None
    if model is None:
        return None, None, _SILENT
    network, remark = _translated(model['generator'], architecture.mmagic, architecture.basicsr_network)
    if network is None:
        return None, None, remark
    name, iteration = meta.get('experiment_name'), meta.get('iter')
    notes = NetworkNotes(version=dil_plugin.__version__, name=name if isinstance(name, str) else '',
                         network_g=network, scale=architecture.scale_of(network),
                         iteration=iteration if isinstance(iteration, int) else None, **_training(model))
    plain: dict[str, Any] = msgspec.to_builtins(notes)
    return plain, network, ''


def _training(model: Mapping[str, Any]) -> dict[str, Any]:
    """What the notes say about a training by DIL; nothing where it was another."""
    dil, distortions = model.get('dil'), model.get('distortions')
    if not isinstance(dil, dict) or not isinstance(distortions, list):
        return {}
    try:
        labels = parse_distortions(distortions, 'model.distortions').labels
    except OptionError:  # made by another version of the plugin
        return {}
    return {'dil': dil, 'distortions': distortions, 'confounders': list(labels)}


# Both


def _architecture(arch: str | None, states: Mapping[str, Mapping[str, Tensor]], source: str) -> Architecture:
    found = [find_architecture(arch, state, source if len(states) == 1 else f'{source}, {key}')
             for key, state in states.items()]
    if found[0] != found[-1]:
        raise DataError(f'{source}: params are of {found[0].basicsr}, params_ema of {found[-1].basicsr}')
    return found[0]


def _translated(block: Mapping[str, Any], name: str,
                translate: Callable[[Mapping[str, Any]], dict[str, Any]]) -> tuple[dict[str, Any] | None, str]:
    """The network's block for the other package, or None and why it cannot be given; the parameters convert anyway."""
    kind = str(block.get('type', '')).rpartition('.')[2]
    if kind != name:
        return None, f'the file says that its network is {kind}, with parameters of {name}'
    try:
        return translate(block), ''
    except DataError as error:
        return None, str(error)


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(v, Tensor) for v in value.values())
