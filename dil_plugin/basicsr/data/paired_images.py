"""What can be wrong with the pairs of BasicSR's own data sets, found out before anything is made."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dil_plugin.basicsr.data.basicsr_sets import check_basicsr_set
from dil_plugin.basicsr.data.folders import image_files
from dil_plugin.basicsr.data.image_list import HEADERS, image_size, text_lines
from dil_plugin.basicsr.data.options import check_on_bad_image
from dil_plugin.data_preparation.pairing import pairing_remedy
from dil_plugin.data_preparation.storage import read_meta
from dil_plugin.errors import DataError, OptionError

Size = tuple[int, int]
Sided = tuple[tuple[str, Size | None], tuple[str, Size | None]]
PAIRS = ('PairedImageDataset', 'RealESRGANPairedDataset')
"""BasicSR's data sets of pairs of images."""
_SKIPPING = ('DistortionAugmentedDataset', 'PairedConfounderDataset', 'PairedImageDataset')


def check_skipping(key: str, dataset: Mapping[str, Any]) -> None:
    """Raises OptionError unless ``on_bad_image``, where a block has it, is one that its data set obeys."""
    value, kind = dataset.get('on_bad_image', 'error'), dataset.get('type')
    if value not in ('error', 'skip'):
        raise OptionError(f'{key}.on_bad_image: got {value!r}; allowed: error, skip')
    check_on_bad_image(value, dataset.get('phase', 'train'), key)
    if value == 'skip' and kind not in _SKIPPING:
        raise OptionError(f"{key}.on_bad_image: got 'skip', which {kind} does not know; allowed with type "
                          f'{", ".join(_SKIPPING)}')


def check_paired_images(key: str, dataset: Mapping[str, Any], scale: int, ours: bool = True) -> list[str]:
    """Raises unless a PairedImageDataset block, or a RealESRGANPairedDataset's, has pairs, of sizes that fit the scale.

    In training a target must be ``scale`` times its input in both directions, and hold a patch of ``gt_size``. In
    validation it may be somewhat larger, and BasicSR cuts that off, as long as ``scale`` is the nearest whole factor.
    Of a folder the first 500 pairs are looked at, of an LMDB all.

    Args:
        key: Where the block stands.
        dataset: The block.
        scale: Clean size divided by distorted size.
        ours: Whether DILModel reads them. Others may have a use for pairs that do not fit: sizes are not looked at, nor
            backends of others.

    Returns:
        The paths, or keys, of the targets.

    Raises:
        DataError: Images are missing, have no partner, or sizes do not fit.
        OptionError: An option is missing or wrong.
    """
    check_basicsr_set(key, dataset)
    backend = dataset['io_backend']['type']
    if backend not in ('disk', 'lmdb'):
        if not ours:
            return []
        raise OptionError(f'{key}.io_backend.type: got {backend!r}; allowed: disk, lmdb')
    if dataset.get('phase') == 'train':
        size = dataset.get('gt_size')
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise OptionError(f'{key}.gt_size: expected the side of a training patch in pixels, got {size!r}')
        if size % scale:
            raise OptionError(f'{key}.gt_size: {size} is not a multiple of scale {scale}')
    pairs, targets = _records(key, dataset, ours) if backend == 'lmdb' else _files(key, dataset)
    for (lq, lq_size), (gt, gt_size) in pairs if ours else ():
        reason = None if lq_size is None or gt_size is None else _problem(lq_size, gt_size, dataset, scale)
        if reason:
            raise DataError(f'{key}: {gt} of dataroot_gt has {_text(gt_size)} pixels and {lq} of dataroot_lq '
                            f'{_text(lq_size)}: {reason}')
    return targets


def _files(key: str, dataset: Mapping[str, Any]) -> tuple[list[Sided], list[str]]:
    from basicsr.data.data_util import paired_paths_from_folder, paired_paths_from_meta_info_file
    roots = [dataset['dataroot_lq'], dataset['dataroot_gt']]
    template = dataset.get('filename_tmpl', '{}')
    if dataset['type'] == 'RealESRGANPairedDataset' and dataset.get('meta_info') is not None:
        return _listed_pairs(key, dataset)
    for name in ('dataroot_lq', 'dataroot_gt') if dataset.get('meta_info_file') is None else ():
        _tell_left_out(dataset[name], f'{key}.{name}', dataset.get('on_bad_image') == 'skip')
    try:
        if dataset.get('meta_info_file') is not None:
            found = paired_paths_from_meta_info_file(roots, ['lq', 'gt'], dataset['meta_info_file'], template)
        else:
            found = paired_paths_from_folder(roots, ['lq', 'gt'], template)
    except AssertionError as error:  # BasicSR's words: how many there are, or which one has no partner
        names = [[Path(path).stem for path in image_files(root, key, skip=True)] for root in roots]
        remedy = pairing_remedy(roots, *names, dataset.get('scale', 1))
        raise DataError(f'{key}: {error} (dataroot_lq {roots[0]}, dataroot_gt {roots[1]}, filename_tmpl '
                        f"'{template}'){remedy}") from None
    except (AttributeError, IndexError, KeyError, ValueError):
        raise OptionError(f"{key}.filename_tmpl: got {template!r}; expected the input's name with {{}} for that of the "
                          'target') from None
    if not found:
        raise DataError(f'{key}.dataroot_gt: {roots[1]} holds no images')
    return _sided(key, [(pair['lq_path'], pair['gt_path']) for pair in found])


def _listed_pairs(key: str, dataset: Mapping[str, Any]) -> tuple[list[Sided], list[str]]:
    """Those of RealESRGANPairedDataset's list, with lines of the form GT, LQ."""
    pairs = []
    for number, line in enumerate(text_lines(dataset['meta_info'], f'{key}.meta_info'), 1):
        names = line.split(', ')
        if len(names) != 2:
            raise DataError(f'{key}.meta_info: {dataset["meta_info"]}, line {number}: expected TARGET, INPUT, got '
                            f'{line!r}')
        pairs.append((os.path.join(dataset['dataroot_lq'], names[1]), os.path.join(dataset['dataroot_gt'], names[0])))
    if not pairs:
        raise DataError(f'{key}.meta_info: {dataset["meta_info"]} lists no images')
    return _sided(key, pairs)


def _sided(key: str, pairs: list[tuple[str, str]]) -> tuple[list[Sided], list[str]]:
    missing = next((path for pair in pairs for path in pair if not os.path.isfile(path)), None)
    if missing is not None:
        raise DataError(f'{key}: there is no image {missing}')
    return [((lq, image_size(lq)), (gt, image_size(gt))) for lq, gt in pairs[:HEADERS]], [gt for _, gt in pairs]


def _tell_left_out(root: str, key: str, skip: bool) -> None:
    """BasicSR leaves out what has an image's name and is no file, without a word."""
    others = [path for path in image_files(root, key, skip=skip) if not os.path.isfile(path)]
    if others:
        sys.stderr.write(f'Warning: {key}: {len(others)} images are links to nothing or no files, and are left out '
                         f'(on_bad_image: skip); the first is {others[0]}.\n')


def _records(key: str, dataset: Mapping[str, Any], ours: bool) -> tuple[list[Sided], list[str]]:
    sizes: dict[str, dict[str, Size | None]] = {}
    for name in ('dataroot_lq', 'dataroot_gt'):
        root = dataset[name]
        if not ours:  # BasicSR reads no more of a line than the key
            lines = text_lines(os.path.join(root, 'meta_info.txt'), f'{key}.{name}')
            sizes[name] = {line.split('.')[0]: None for line in lines}
            continue
        try:
            sizes[name] = {record.key: (record.height, record.width) for record in read_meta(Path(root))}
        except DataError as error:
            raise DataError(f'{key}.{name}: {error}') from None
    lqs, gts = sizes['dataroot_lq'], sizes['dataroot_gt']
    alone = sorted(lqs.keys() ^ gts.keys())
    if alone:
        there, absent = ('lq', 'gt') if alone[0] in lqs else ('gt', 'lq')
        raise DataError(f"{key}: '{alone[0]}' is in dataroot_{there} {dataset[f'dataroot_{there}']}, but not in "
                        f"dataroot_{absent} {dataset[f'dataroot_{absent}']}; both LMDBs must have the same keys")
    return [((name, lqs[name]), (name, gts[name])) for name in sorted(gts)], sorted(gts)


def _problem(lq: Size, gt: Size, dataset: Mapping[str, Any], scale: int) -> str | None:
    if dataset.get('phase') == 'train':
        if gt != (lq[0] * scale, lq[1] * scale):
            return f'that is {_times(lq, gt)}, but scale is {scale}'
        small = min(gt) < dataset['gt_size'] and dataset.get('on_bad_image') != 'skip'
        return f'that is less than gt_size {dataset["gt_size"]}' if small else None
    if all(scale * small <= large and round(large / small) == scale for small, large in zip(lq, gt, strict=True)):
        return None
    swapped = '; are the two swapped?' if lq == (gt[0] * scale, gt[1] * scale) and scale > 1 else ''
    return f'that is {_times(lq, gt)}, but scale is {scale}{swapped}'


def _times(lq: Size, gt: Size) -> str:
    factors = [f'{large / small:.4g}' for small, large in zip(lq, gt, strict=True)]
    return f'{factors[0]} times' if factors[0] == factors[1] else f'{factors[0]} and {factors[1]} times (height, width)'


def _text(size: Size | None) -> str:
    return f'{size[0]}x{size[1]}' if size else '?'
