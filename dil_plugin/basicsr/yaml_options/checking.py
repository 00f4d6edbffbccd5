"""Holds the blocks of a DILModel YAML that are BasicSR's to their types: BasicSR itself reads what it knows."""

import sys
from collections.abc import Mapping
from typing import Any

from dil_plugin.basicsr.real_esrnet_options import DEGREES
from dil_plugin.basicsr.yaml_options.blocks import (
    ADDED,
    WITHOUT_EFFECT,
    Block,
    DistParams,
    Logger,
    PairedImages,
    Path,
    TopLevel,
    Train,
    Val,
    Wandb,
)
from dil_plugin.basicsr.yaml_options.registered import LOSSES, METRICS, NETWORKS, OPTIMIZERS, SCHEDULERS
from dil_plugin.errors import OptionError
from dil_plugin.options import convert

# blocks of these names belong to one phase; the other may have them too, without reading them
_TRAINING = ('train', 'logger')


def check_blocks(opt: Mapping[str, Any]) -> None:
    """Raises OptionError for an option that nothing reads, or that has a wrong value, in any of BasicSR's blocks.

    Options that published YAML files of other models carry are named on standard error, with the reason why they have
    no effect here. Blocks of types that users registered are left to their constructors.

    Args:
        opt: The options of a run with ``model_type: DILModel``, as BasicSR parsed them.
    """
    _check('', opt, TopLevel, DEGREES)
    _check('path', opt.get('path'), Path)
    _check('val', opt.get('val'), Val)
    _check('dist_params', opt.get('dist_params'), DistParams)
    _check_typed('network_g', opt.get('network_g'), NETWORKS)
    for name, metric in ((opt.get('val') or {}).get('metrics') or {}).items():
        _check_typed(f'val.metrics.{name}', metric, METRICS)
    for name, dataset in opt['datasets'].items():
        if dataset.get('type') == 'PairedImageDataset':
            _check(f'datasets.{name}', dataset, PairedImages)
    if not opt['is_train']:
        return
    _check('train', opt['train'], Train)
    _check('logger', opt['logger'], Logger)
    _check('logger.wandb', opt['logger'].get('wandb'), Wandb)
    train = opt['train']
    for key, block, known in (('optim_g', train.get('optim_g'), OPTIMIZERS),
                              ('scheduler', train.get('scheduler'), SCHEDULERS),
                              ('pixel_opt', train.get('pixel_opt'), LOSSES),
                              ('perceptual_opt', train.get('perceptual_opt'), LOSSES)):
        _check_typed(f'train.{key}', block, known)


def _check(key: str, block: Any, cls: type[Block], also: list[str] | None = None) -> None:
    if block is None:
        return
    if not isinstance(block, Mapping):
        raise OptionError(f'{key}: expected a block of options, got {block!r}')
    where = key.split('.')[0]
    reasons = WITHOUT_EFFECT.get(where, {})
    for name in block:
        if name in reasons and name not in cls.__struct_fields__:
            sys.stderr.write(f'Note: {key}{"." if key else ""}{name} has no effect: {reasons[name]}.\n')
    skipped = {*ADDED.get(where, ()), *reasons, *(also or ())} - set(cls.__struct_fields__)
    _convert({name: value for name, value in block.items() if name not in skipped}, cls, key)


def _check_typed(key: str, block: Any, known: Mapping[str, type[Block]]) -> None:
    if isinstance(block, Mapping) and block.get('type') in known:
        options = {name: value for name, value in block.items() if name != 'type'}
        _convert(options, known[block['type']], key)


def _convert(options: Mapping[str, Any], cls: type[Block], key: str) -> None:
    try:
        convert(options, cls, key)
    except OptionError as error:  # of the top level it begins with a dot, or with a colon
        message = str(error)
        raise OptionError(f'top level{message}' if message.startswith(':') else message.removeprefix('.')) from None
