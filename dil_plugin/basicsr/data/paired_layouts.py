"""Lists the pairs of a set, and finds out before training starts what is wrong with them."""

import os
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from dil_plugin.basicsr.data.folders import IMAGE_SUFFIXES, image_files, require_lmdb, require_records
from dil_plugin.basicsr.data.image_list import HEADERS, image_size, no_folder
from dil_plugin.basicsr.data.paired_options import PairedDatasetOptions, PairedSet
from dil_plugin.data_preparation.pairing import pairing_remedy, shown_part
from dil_plugin.data_preparation.storage import read_meta
from dil_plugin.errors import DataError, OptionError
from dil_plugin.missing_files import no_such

Size = tuple[int, int]


class PairPaths(NamedTuple):
    """File paths or LMDB keys of an input and its target; the same twice where one file holds both."""

    lq: str
    gt: str


class _Images(NamedTuple):
    """The images of a root: paths (or LMDB keys) by sorted name without ending; their sizes where an LMDB says them."""

    paths: dict[str, str]
    sizes: dict[str, Size]


def list_pairs(one: PairedSet, options: PairedDatasetOptions) -> list[PairPaths]:
    """The pairs of a set, sorted by the input's name without its ending: alike in a folder and in an LMDB of it.

    With two roots the name of every input must be ``filename_tmpl`` of a target's name. Without a ``*`` in the template
    every target must have an input too, as in BasicSR's PairedImageDataset; with one, targets without inputs are left
    out. The endings of the two may differ.

    Raises:
        DataError: A root is missing, empty or no LMDB, an image has no partner, or (LMDB, whose ``meta_info.txt`` says
            the sizes) the sizes of a pair do not fit each other or ``gt_size``.
        OptionError: ``io_backend`` is of the wrong type.
    """
    skip = options.on_bad_image == 'skip'
    if one.order is not None:
        images = _images(one, one.lq_root, 'dataroot', skip, recursive=True)
        pairs = [PairPaths(path, path) for path in images.paths.values()]
        sizes = {path: (height, width // 2) for path, (height, width) in images.sizes.items()}
        _check_sizes(one, options, pairs, sizes, sizes)
        return pairs
    inputs, targets = _images(one, one.lq_root, 'dataroot_lq', skip), _images(one, one.gt_root, 'dataroot_gt', skip)
    chosen = targets.paths if one.meta_info_file is None else _chosen(one, targets.paths)
    pairs = _match(one, inputs.paths, targets.paths, chosen, options.scale)
    _check_sizes(one, options, pairs, inputs.sizes, targets.sizes)
    return pairs


def _match(one: PairedSet, inputs: dict[str, str], targets: dict[str, str], chosen: dict[str, str],
           scale: int) -> list[PairPaths]:
    before, after = (re.escape(part).replace(r'\*', '.+') for part in one.filename_tmpl.split('{}'))
    pattern = re.compile(f'{before}(?P<target>.+){after}')
    remedy = partial(pairing_remedy, (one.lq_root, one.gt_root), inputs, targets, scale)
    pairs, used = [], set()
    for name, path in inputs.items():
        match = pattern.fullmatch(name)
        if match is None and one.meta_info_file is None:
            raise DataError(f"{one.key}.filename_tmpl: {path} is not of the form '{one.filename_tmpl}'"
                            f'{remedy()}')
        target = match['target'] if match else ''
        if target in chosen:
            pairs.append(PairPaths(path, chosen[target]))
            used.add(target)
        elif target not in targets and one.meta_info_file is None:
            raise DataError(f"{one.key}: {path} has no partner: there is no image '{target}' in dataroot_gt "
                            f'{one.gt_root}{remedy()}')
    missing = [name for name in chosen if name not in used]
    if missing and ('*' not in one.filename_tmpl or one.meta_info_file is not None):
        raise DataError(f"{one.key}: {chosen[missing[0]]} has no partner: there is no image "
                        f"'{one.filename_tmpl.replace('{}', missing[0])}' in dataroot_lq "
                        f'{one.lq_root}{remedy()}')
    return pairs


def _chosen(one: PairedSet, targets: dict[str, str]) -> dict[str, str]:
    """The targets that ``meta_info_file`` lists."""
    path = os.path.expanduser(str(one.meta_info_file))
    if not os.path.isfile(path):
        raise DataError(f'{one.key}.meta_info_file: {no_such(path)}')
    with open(path) as file:
        names = [os.path.splitext(line.split(' (')[0].strip())[0] for line in file if line.strip()]
    missing = [name for name in names if name not in targets]
    if missing or not names:
        what = f'lists {missing[0]}, which is not in {one.gt_root}' if missing else 'lists no images'
        raise DataError(f'{one.key}.meta_info_file: {path} {what}')
    return {name: targets[name] for name in names}


def _images(one: PairedSet, root: str, option: str, skip: bool, recursive: bool = False) -> _Images:
    key = f'{one.key}.{option}'
    if not os.path.isdir(root):
        raise DataError(f'{key}: {no_folder(root)}')
    if one.io_backend['type'] == 'lmdb':
        return _records(root, key)
    paths = _by_name(image_files(root, key, recursive, skip), root, key)
    if not paths and os.path.isfile(os.path.join(root, 'data.mdb')):
        raise OptionError(f"{one.key}.io_backend.type: got 'disk', but {root} is an LMDB; allowed: lmdb")
    if not paths:
        raise DataError(f'{key}: {root} holds no images ({", ".join(IMAGE_SUFFIXES)})')
    return _Images(paths, {})


def _by_name(files: Iterable[str], root: str, key: str) -> dict[str, str]:
    paths: dict[str, str] = {}
    for path in sorted(files):
        name = os.path.splitext(os.path.relpath(path, root))[0]
        if name in paths:
            raise DataError(f'{key}: {paths[name]} and {path} differ in their endings alone; which is meant is not '
                            'clear, remove one')
        paths[name] = path
    return dict(sorted(paths.items()))


def _records(root: str, key: str) -> _Images:
    require_lmdb(root, key)
    try:
        records = read_meta(Path(root))
    except DataError as error:
        raise DataError(f'{key}: {error}') from None
    require_records(root, key, len(records))
    return _Images({key: key for key in sorted(r.key for r in records)}, {r.key: (r.height, r.width) for r in records})


def _check_sizes(one: PairedSet, options: PairedDatasetOptions, pairs: list[PairPaths], inputs: dict[str, Size],
                 targets: dict[str, Size]) -> None:
    if not inputs or options.phase != 'train':
        return
    for lq, gt in pairs:
        reason = size_problem(inputs[lq], targets[gt], options)
        if reason:
            raise DataError(f'{one.key}: {lq} in {one.lq_root} and {gt} in {one.gt_root}: {reason}')


def check_pair_sizes(one: PairedSet, pairs: list[PairPaths], options: PairedDatasetOptions) -> None:
    """Raises DataError if one of the first ``HEADERS`` pairs of files has sizes of which no patch can be cut."""
    for lq, gt in pairs[:HEADERS]:
        first, second = image_size(lq), image_size(gt)
        if first is None or second is None:
            continue
        if one.order is not None:
            first = second = (first[0], first[1] // 2)
        reason = size_problem(first, second, options)
        if reason:
            raise DataError(f'{one.key}: {lq} and {gt}: {reason}')


def size_problem(lq: Size, gt: Size, options: PairedDatasetOptions) -> str | None:
    """Says why no training patch can be cut from images of these sizes (height, width), or returns None.

    An image that is too small is no reason to stop with ``on_bad_image: skip``.
    """
    shown = lq[0] * options.scale, lq[1] * options.scale
    return misfit(lq, gt, options) or (too_small(shown, options) if options.on_bad_image == 'error' else None)


def misfit(lq: Size, gt: Size, options: PairedDatasetOptions) -> str | None:
    """Says how the sizes of a pair do not fit each other (``shown_part``), or returns None."""
    if shown_part(gt, lq, options.scale) is not None:
        return None
    return (f'the target has {gt[0]}x{gt[1]} pixels, which is not scale {options.scale} times the {lq[0]}x{lq[1]} of '
            'the input')


def too_small(gt: Size, options: PairedDatasetOptions) -> str | None:
    """Says that a target has not the size of a patch, or returns None."""
    return f'{gt[0]}x{gt[1]} pixels are less than gt_size {options.gt_size}' if min(gt) < options.gt_size else None
