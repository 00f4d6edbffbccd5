"""What ``tools/prepare_data.py`` does for the sets that it knows by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from dil_plugin.data_preparation.images import CutSettings, Source
from dil_plugin.data_preparation.packing import Summary, pack_images
from dil_plugin.data_preparation.published_sets import DIV2K, FLICKR2K, PAIRED_SETS, paired_images, training_images
from dil_plugin.data_preparation.storage import meta_path
from dil_plugin.errors import OptionError

DATASETS = ('DF2K', *PAIRED_SETS)
DF2K_SIZE = 400  # pixels, of Real-ESRGAN's sub-images; every 200, which is the default


class Packing(NamedTuple):
    """How to pack, as ``pack_images`` explains it."""

    workers: int | None = None
    overwrite: bool = False
    verify: bool = False
    on_bad_image: Literal['error', 'skip'] = 'error'


_AS_USUAL = Packing()


def prepare_df2k(data: Path, out: Path | None, settings: CutSettings, allow_incomplete: bool,
                 how: Packing = _AS_USUAL) -> list[str]:
    """Packs the sub-images of DIV2K's and Flickr2K's training images.

    Args:
        data: The folder of data sets.
        out: What to write; default: ``DF2K_sub400.lmdb`` in ``data``, with the size, and ``_multiscale`` where it is.
        settings: How to cut.
        allow_incomplete: Take what is there.
        how: See there.

    Returns:
        What to tell the user, some lines.

    Raises:
        DataError: Images are missing or damaged.
    """
    found = training_images(data, (DIV2K, FLICKR2K), allow_incomplete)
    cut = '' if settings.size is None else f'_sub{settings.size}'
    out = out or data / f'DF2K{"_multiscale" if settings.multiscale else ""}{cut}.lmdb'
    summary = pack_images(found.sources, out, settings, **how._asdict())
    lines = [found.remark] if found.remark else []
    return [*lines, *describe(out, summary, settings, how.verify), *for_yaml({'dataroot_gt': out})]


def prepare_pairs(data: Path, name: str, out: Path | None, scale: int, settings: CutSettings, allow_incomplete: bool,
                  how: Packing = _AS_USUAL) -> list[str]:
    """Packs a set's test pairs into two LMDBs with equal keys, as BasicSR's PairedImageDataset reads them.

    Args:
        data: The folder of data sets.
        name: RealSR or DRealSR.
        out: What their names begin with; default: as in ``RealSR_V3_test_x4``, in ``data``.
        scale: Clean size divided by distorted size.
        settings: How to store; images stay whole.
        allow_incomplete: Take copies that are not the published set.
        how: See there.

    Returns:
        What to tell the user, some lines.

    Raises:
        DataError: The set is not there, incomplete or damaged.
        OptionError: It has no pairs of this scale, or images were to be cut.
    """
    if settings.size is not None or settings.multiscale:
        raise OptionError(f'--{"size" if settings.size is not None else "multiscale"}: the test pairs of {name} stay '
                          'whole; remove it')
    if how.on_bad_image == 'skip':
        raise OptionError(f'--on-bad-image: skip, but the test pairs of {name} are taken whole; allowed: error')
    stem = out or data / f'{PAIRED_SETS[name].stem}_test_x{scale}'
    if stem.suffix == '.lmdb':
        raise OptionError(f'-o {stem}: two LMDBs are written; give what their names begin with, as in '
                          f'{stem.with_suffix("")}')
    sides = dict(zip(('HR', 'LR'), paired_images(data, name, scale, allow_incomplete), strict=True))
    lines = [f'{PAIRED_SETS[name].benchmark}: {sides["HR"].remark}'] if sides['HR'].remark else []
    lines += _cropped(sides['HR'].sources, scale)
    outputs = {side: stem.with_name(f'{stem.name}_{side}.lmdb') for side in sides}
    for side, found in sides.items():
        summary = pack_images(found.sources, outputs[side], settings, **how._asdict())
        lines += describe(outputs[side], summary, settings, how.verify)
    return [*lines, *for_yaml({'dataroot_gt': outputs['HR'], 'dataroot_lq': outputs['LR']})]


def _cropped(sources: Sequence[Source], scale: int) -> list[str]:
    """A line on clean images of which a part is taken, where there are some."""
    cropped = [source for source in sources if source.kept is not None]
    if not cropped:
        return []
    some = ', '.join(source.stem for source in cropped[:5])
    more = f' and {len(cropped) - 5} more' if len(cropped) > 5 else ''
    return [f'clean images a few pixels larger than {scale} times their partners, cropped to that at the right and the '
            f'bottom as BasicSR does: {len(cropped)} ({some}{more})']


def for_yaml(roots: Mapping[str, Path]) -> list[str]:
    """The lines of a data set's block that read what was written."""
    out = next(iter(roots.values()))
    lines = [f'  {key}: {root}' for key, root in roots.items()]
    if out.suffix == '.lmdb':
        return ['in the YAML:', *lines, '  io_backend: {type: lmdb}']
    return ['in the YAML:', *lines, f'  meta_info: {meta_path(out)}', '  io_backend: {type: disk}']


def describe(out: Path, summary: Summary, settings: CutSettings, verified: bool = False) -> list[str]:
    """What was written, some lines."""
    if summary.already_complete:
        checked = ', all of them verified' if verified else '; nothing to do (--verify checks it again)'
        return [f'{out} is complete: {summary.records} records{checked}', *_left_out(summary)]
    lines = [f'{out}: {summary.records} records from {summary.images} images, all read back and compared']
    if summary.resumed:
        lines.append(f'images taken over from an interrupted call: {summary.resumed}')
    if summary.small:
        treated = 'stored whole' if settings.small == 'keep' else 'left out'
        lines.append(f'images smaller than {settings.size} pixels, {treated}: {summary.small}')
    if summary.alpha:
        lines.append(f'images whose alpha channel was dropped: {summary.alpha}')
    return [*lines, *_left_out(summary)]


def _left_out(summary: Summary) -> list[str]:
    if not summary.bad:
        return []
    return [f'images that cannot be read or decoded, left out: {len(summary.bad)}',
            *(f'  {one}' for one in summary.bad)]
