"""Options of a Real-ESRNet YAML (``RealESRNetModel``, ``RealESRGANDataset``), which DILModel takes where they stand.

Their degrees stand at the top level and in the training data set's block. Here every ``RealESRGAN`` entry of the
``distortions`` block takes those that it does not give itself, so that such a YAML becomes one of DIL by two blocks.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from dil_plugin.distortions import RealESRGAN
from dil_plugin.errors import OptionError
from dil_plugin.mistakes import reworded
from dil_plugin.options import convert

DEGREES = [field.encode_name for field in msgspec.structs.fields(RealESRGAN) if field.name not in ('order', 'scale')]
"""The options that both have, by the same names."""

SECOND_PASS = [name for name in DEGREES if name.endswith('2') or name == 'second_blur_prob']
OUR_DATASET = 'DistortionAugmentedDataset'
THEIR_DATASET = 'RealESRGANDataset'
THEIR_CROP = 400  # pixels; RealESRGANDataset's crops have this side, whatever its options say


def take_flat_options(opt: dict[str, Any]) -> None:
    """Moves the degrees that stand flat in the YAML into its ``RealESRGAN`` entries, in place.

    An entry's own options come first. Entries of first order have no use for the second pass's, which is said.

    Raises:
        OptionError: There is no such entry, a degree stands in both places with different values, or another option of
            Real-ESRNet cannot be followed.
    """
    train = opt['datasets'].get('train') or {}
    flat = _flat_degrees(opt, train)
    if flat:
        entries = list(_entries(opt.get('distortions')))
        if not entries:
            raise OptionError(f'{_where(next(iter(flat)), opt)}: a degree of RealESRGAN, but the distortions block has '
                              'no entry of that type to take it; give one, as in - {type: RealESRGAN, order: 1, '
                              'draws: 4}, or remove it')
        _check_degrees(flat, opt)
        unused: set[str] = set()
        for entry in entries:
            names = set(flat) if entry.get('order') == 2 else set(flat) - set(SECOND_PASS)
            unused |= set(flat) - names
            for name in names - set(entry):
                entry[name] = flat[name]
        if unused:
            sys.stderr.write('Note: a RealESRGAN entry of order 1 has no second pass: '
                             f'{", ".join(name for name in DEGREES if name in unused)} have no effect on it.\n')
        if train.get('type') == OUR_DATASET:
            for name in set(DEGREES) & set(train):
                del train[name]
    _check_the_rest(opt, train)


def patch_size(opt: Mapping[str, Any]) -> int | None:
    """Side of the patches that are cut from the distorted ones, in pixels; None: they stay as the data set gives them.

    Raises:
        OptionError: The two options that say so contradict each other, or RealESRGANDataset lacks the one it needs.
    """
    train, size = opt['datasets'].get('train') or {}, opt.get('gt_size')
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise OptionError(f'gt_size: expected the side of a training patch in pixels, got {size!r}')
    if train.get('type') == OUR_DATASET:
        if size is not None and size != train.get('gt_size'):
            raise OptionError(f'gt_size: {size}, but datasets.train.gt_size is {train.get("gt_size")}; allowed: the '
                              'same number, or that of datasets.train alone')
        return train.get('gt_size')
    if train.get('type') == THEIR_DATASET and size is None:
        raise OptionError(f'gt_size: missing at the top level; {THEIR_DATASET} gives crops of {THEIR_CROP} pixels, '
                          'from which patches of that side are cut')
    scale = opt.get('scale', 1)
    if size is not None and size % scale:
        raise OptionError(f'gt_size: {size} is not a multiple of scale {scale}')
    return size


def _flat_degrees(opt: Mapping[str, Any], train: Mapping[str, Any]) -> dict[str, Any]:
    for name in DEGREES:
        if name in opt and name in train and opt[name] != train[name]:
            raise OptionError(f'datasets.train.{name}: {train[name]!r}, but {name} at the top level is {opt[name]!r}; '
                              'give one of them')
    return {name: opt.get(name, train.get(name)) for name in DEGREES if name in opt or name in train}


def _where(name: str, opt: Mapping[str, Any]) -> str:
    return name if name in opt else f'datasets.train.{name}'


def _check_degrees(flat: Mapping[str, Any], opt: Mapping[str, Any]) -> None:
    """Raises OptionError where a degree is wrong, naming it as it stands in the YAML."""
    try:
        convert({'order': 2, **flat}, RealESRGAN, '')
    except OptionError as error:
        raise reworded(error, lambda text: _placed(text.removeprefix('.'), opt)) from None


def _placed(text: str, opt: Mapping[str, Any]) -> str:
    """A message that begins with the name of a degree, with its place before it."""
    stem = re.match(r'\w*', text)
    assert stem is not None
    return f'{_where(stem[0], opt).removesuffix(stem[0])}{text}'


def _entries(block: Any) -> Iterator[dict[str, Any]]:
    """The RealESRGAN entries of a ``distortions`` block, also those inside of OneOf and Compose."""
    for entry in block if isinstance(block, list) else ():
        if isinstance(entry, dict) and entry.get('type') == 'RealESRGAN':
            yield entry
        elif isinstance(entry, dict):
            yield from _entries(entry.get('distortions'))


def _check_the_rest(opt: Mapping[str, Any], train: Mapping[str, Any]) -> None:
    if opt.get('high_order_degradation', True) is not True:
        raise OptionError(f'high_order_degradation: got {opt["high_order_degradation"]!r}; for data sets of pairs name '
                          'them in datasets.train; allowed: true')
    size = opt.get('queue_size')
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise OptionError(f'queue_size: expected the number of groups in the training pair pool, got {size!r}')
    if train.get('type') == THEIR_DATASET:
        sys.stderr.write(f'Note: datasets.train is of type {THEIR_DATASET}: the blur kernels that its workers compute '
                         'are not used, DILModel draws its own from the same options; '
                         f'{OUR_DATASET} spares the work.\n')
