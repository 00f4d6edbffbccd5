"""Holds the blocks of a DILModel YAML that are BasicSR's to their types: BasicSR itself reads what it knows."""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from dil_plugin.basicsr.data.options import DatasetOptions, refuse_options_of_others
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
from dil_plugin.basicsr.yaml_options.real_esrnet_options import DEGREES
from dil_plugin.basicsr.yaml_options.registered import (
    METRICS,
    NETWORKS,
    OPTIMIZERS,
    PERCEPTUAL_LOSSES,
    PIXEL_LOSSES,
    SCHEDULERS,
)
from dil_plugin.basicsr.yaml_options.relations import check_relations
from dil_plugin.errors import OptionError
from dil_plugin.learning.options import DILOptions
from dil_plugin.options import convert, did_you_mean, refuse_unknown


def refuse_unknown_options(opt: Mapping[str, Any]) -> None:
    """Raises OptionError for an option that nothing reads, in any of BasicSR's blocks; what is missing comes later.

    A misspelt option that is required is so named itself, and not the one that it should have been.

    Options that published YAML files of other models carry are named on standard error, with the reason why they have
    no effect here. Blocks of types that users registered are left to their constructors.

    Args:
        opt: The options of a run with ``model_type: DILModel``, as BasicSR parsed them.
    """
    for one in _blocks(opt):
        reasons = WITHOUT_EFFECT.get(one.key.split('.')[0], {})
        for name in one.options:
            if name in reasons and name not in one.cls.__struct_fields__:
                sys.stderr.write(f'Note: {one.key}{"." if one.key else ""}{name} has no effect: {reasons[name]}.\n')
        if one.cls is DatasetOptions:
            refuse_options_of_others(one.options, one.options['type'], one.key)
        with _naming_the_top_level():
            _refuse_misplaced(one)
            refuse_unknown(one.known(), one.cls, one.key)


def _refuse_misplaced(block: '_Known') -> None:
    """Raises OptionError for an option that this block does not have and others do; their names are said."""
    for name in block.known():
        if name not in block.cls.__struct_fields__ and name in _PLACES:
            near = did_you_mean(name, block.cls.__struct_fields__).partition('allowed:')[0]
            raise OptionError(f"{block.key}: unknown option '{name}'; {near}it belongs to {' or '.join(_PLACES[name])}")


def _places() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for where, cls in (('the top level', TopLevel), ('datasets.train', DatasetOptions), ('path', Path),
                       ('train', Train), ('train.dil', DILOptions), ('val', Val), ('logger', Logger)):
        for name in cls.__struct_fields__:
            found.setdefault(name, []).append(where)
    return {name: where for name, where in found.items() if name not in ('type', 'name', 'phase')}


_PLACES = _places()
"""Where the options of the blocks that are always there stand."""


def check_blocks(opt: Mapping[str, Any]) -> None:
    """Raises OptionError for an option of a wrong value in any of BasicSR's blocks; see ``refuse_unknown_options``."""
    for one in _blocks(opt):
        if one.cls not in (DatasetOptions, DILOptions):  # which are checked where they are completed
            with _naming_the_top_level():
                convert(one.known(), one.cls, one.key)
    check_relations(opt)


class _Known(NamedTuple):
    """A block, and the type that it is held to.

    Attributes:
        key: Where it stands; '' is the top level.
        options: What stands there.
        cls: The type.
        skipped: Options that are left out: of other models, BasicSR's own, the ``type`` that chose the type.
    """

    key: str
    options: Mapping[str, Any]
    cls: type[msgspec.Struct]
    skipped: frozenset[str]

    def known(self) -> dict[str, Any]:
        return {name: value for name, value in self.options.items() if name not in self.skipped}


def _blocks(opt: Mapping[str, Any]) -> Iterator[_Known]:
    """The blocks whose options are known here."""
    training = bool(opt['is_train'])
    yield from _block('', opt, TopLevel, DEGREES)
    yield from _block('path', opt.get('path'), Path)
    yield from _block('val', opt.get('val'), Val)
    yield from _block('dist_params', opt.get('dist_params'), DistParams)
    yield from _typed('network_g', opt.get('network_g'), NETWORKS)
    for name, dataset in opt['datasets'].items():
        if isinstance(dataset, Mapping) and dataset.get('type') == 'PairedImageDataset':
            yield from _block(f'datasets.{name}', dataset, PairedImages)
        elif isinstance(dataset, Mapping) and dataset.get('type') == 'DistortionAugmentedDataset':
            yield from _block(f'datasets.{name}', dataset, DatasetOptions, DEGREES)
    metrics = _inside(opt, 'val', 'metrics')
    for name, metric in metrics.items() if isinstance(metrics, Mapping) else ():
        yield from _typed(f'val.metrics.{name}', metric, METRICS)
    if training:
        yield from _block('train', opt.get('train'), Train)
        yield from _block('train.dil', _inside(opt, 'train', 'dil'), DILOptions)
        yield from _block('logger', opt.get('logger'), Logger)
        yield from _block('logger.wandb', _inside(opt, 'logger', 'wandb'), Wandb)
        for name, known in (('optim_g', OPTIMIZERS), ('scheduler', SCHEDULERS), ('pixel_opt', PIXEL_LOSSES),
                            ('perceptual_opt', PERCEPTUAL_LOSSES)):
            yield from _typed(f'train.{name}', _inside(opt, 'train', name), known)


def _inside(opt: Mapping[str, Any], block: str, name: str) -> Any:
    return opt[block].get(name) if isinstance(opt.get(block), Mapping) else None


def _block(key: str, block: Any, cls: type[msgspec.Struct], also: Sequence[str] = ()) -> Iterator[_Known]:
    if block is None:
        return
    if not isinstance(block, Mapping):
        raise OptionError(f'{key}: expected a block of options, got {block!r}')
    where = key.split('.')[0]
    skipped = {*ADDED.get(where, ()), *WITHOUT_EFFECT.get(where, {}), *also} - set(cls.__struct_fields__)
    yield _Known(key, block, cls, frozenset(skipped))


def _typed(key: str, block: Any, known: Mapping[str, type[Block]]) -> Iterator[_Known]:
    if isinstance(block, Mapping) and isinstance(block.get('type'), str) and block['type'] in known:
        yield _Known(key, block, known[block['type']], frozenset({'type'}))


@contextlib.contextmanager
def _naming_the_top_level() -> Iterator[None]:
    try:
        yield
    except OptionError as error:  # of the top level it begins with a dot, or with a colon
        message = str(error)
        raise OptionError(f'top level{message}' if message.startswith(':') else message.removeprefix('.')) from None
