"""Holds the blocks of a DILModel YAML that are BasicSR's to their types: BasicSR itself reads what it knows."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from dil_plugin.errors import OptionError
from dil_plugin.learning.options import DILOptions
from dil_plugin.mistakes import Mistakes, raise_all, reworded
from dil_plugin.options import TOP_LEVEL, check_known, refuse_unknown, unknown_option


def refuse_unknown_options(opt: Mapping[str, Any]) -> None:
    """Raises OptionError for an option that nothing reads, in any of BasicSR's blocks; what is missing comes later.

    A misspelt option that is required is so named itself, and not the one that it should have been.

    Options that published YAML files of other models carry are named on standard error, with the reason why they have
    no effect here. Blocks of types that users registered are left to their constructors.

    Args:
        opt: The options of a run with ``model_type: DILModel``, as BasicSR parsed them.
    """
    mistakes = Mistakes()
    for one in _blocks(opt):
        if not isinstance(one.options, Mapping):
            mistakes.add(OptionError(f'{one.key}: expected a block of options, got {one.options!r}'))
            continue
        reasons = WITHOUT_EFFECT.get(one.key.split('.')[0], {})
        for name in one.options:
            if name in reasons and name not in one.cls.__struct_fields__:
                sys.stderr.write(f'Note: {one.key}{"." if one.key else ""}{name} has no effect: {reasons[name]}.\n')
        with mistakes, _naming_the_top_level():
            _refuse_unknown(one)
    mistakes.end()


def _refuse_unknown(block: '_Known') -> None:
    """Raises OptionError for options that this block does not have; where others do, their names are said."""
    known, fields = block.known(), block.cls.__struct_fields__
    mistakes = Mistakes()
    if block.cls is DatasetOptions:
        with mistakes:
            refuse_options_of_others(known, 'DistortionAugmentedDataset', block.key)
    with mistakes:
        raise_all(unknown_option(block.key, name, fields, _PLACES[name]) for name in known
                  if name not in fields and name in _PLACES)
    with mistakes:
        refuse_unknown(known, block.cls, block.key)
    mistakes.end()


def _places() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for where, cls in ((TOP_LEVEL, TopLevel), ('datasets.train', DatasetOptions), ('path', Path),
                       ('train', Train), ('train.dil', DILOptions), ('val', Val), ('logger', Logger)):
        for name in cls.__struct_fields__:
            found.setdefault(name, []).append(where)
    return {name: where for name, where in found.items() if name not in ('type', 'name', 'phase')}


_PLACES = _places()
"""Where the options of the blocks that are always there stand."""


def check_blocks(opt: Mapping[str, Any], spare: Callable[..., bool]) -> None:
    """Raises OptionError for options of wrong values in any of BasicSR's blocks; see ``refuse_unknown_options``.

    Args:
        opt: The options.
        spare: Says of blocks whether nothing is known to be wrong with them: two are checked where they are completed,
            unless something is.
    """
    mistakes = Mistakes()
    for one in _blocks(opt):
        if isinstance(one.options, Mapping) and not (one.cls in (DatasetOptions, DILOptions) and spare(one.key)):
            with mistakes, _naming_the_top_level():
                known = one.known()
                if one.key.startswith('datasets.') and not spare('scale'):
                    known.pop('scale', None)  # BasicSR copies that of the top level
                check_known(known, one.cls, one.key)
    mistakes.end()


class _Known(NamedTuple):
    """A block, and the type that it is held to.

    Attributes:
        key: Where it stands; '' is the top level.
        options: What stands there, a block if it is right.
        cls: The type.
        skipped: Options that are left out: of other models, BasicSR's own, the ``type`` that chose the type.
    """

    key: str
    options: Any
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
        raise reworded(error, lambda text: f'top level{text}' if text.startswith(':') else text.removeprefix('.')) \
            from None
