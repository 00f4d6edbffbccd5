"""Restores image files of any kind with a trained network; behind ``tools/restore.py``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from dil_plugin.data_preparation import find_images
from dil_plugin.data_preparation.images import IMAGE_SUFFIXES
from dil_plugin.errors import DataError, DILError, OptionError, reason_of
from dil_plugin.evaluation.far_pixels import tile_warning
from dil_plugin.evaluation.image_files import RestorableImage, losses, read_restorable, write_image
from dil_plugin.evaluation.tiling import TileableNetwork, check_tiles, restore_tiled
from dil_plugin.missing_files import no_such

_WRITTEN_AS_PNG = ('.jpg', '.jpeg')


class Restorer(TileableNetwork, Protocol):
    """What is needed of a network; ``RestorationNetwork`` is one."""

    @property
    def channels(self) -> int:
        """Of the input, 3 or 1."""


class Job(NamedTuple):
    """An image and the file that it becomes."""

    source: Path
    target: Path


class Plan(NamedTuple):
    """What is to be done, and the images that are left out because an earlier call wrote them."""

    jobs: list[Job]
    left_out: list[Path]


@dataclass
class Summary:
    """What was done.

    Attributes:
        written: Images written.
        skipped: Images whose result was there already.
        reduced: Written files that could not keep something, and what.
        failed: Images that could not be restored, and why.
    """

    written: int = 0
    skipped: int = 0
    reduced: list[tuple[Path, str]] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)


def plan_outputs(source: Path, output: Path, suffix: str = '', ext: str = 'auto', recursive: bool = False) -> Plan:
    """Which file every image becomes; nothing is read or written.

    Args:
        source: An image file, or a folder, whose structure is kept.
        output: A folder.
        suffix: Put behind the names.
        ext: Ending of the results, as in ``png``; ``auto``: that of the source, but ``png`` for JPEG, which would lose
            anew.
        recursive: Also images of folders below ``source``; ``output`` may be one of them, and is left out.

    Raises:
        OptionError: An option cannot be, or results would lie among their sources under the same names.
        DataError: There are no images, or two would become the same file.
    """
    ending = '' if ext == 'auto' else f'.{ext.lower().lstrip(".")}'
    if ending and ending not in IMAGE_SUFFIXES:
        allowed = ', '.join(known.lstrip('.') for known in IMAGE_SUFFIXES)
        raise OptionError(f"--ext: unknown ending '{ext}'; allowed: auto, {allowed}")
    if Path(f'a{suffix}').name != f'a{suffix}':
        raise OptionError(f"--suffix: '{suffix}' cannot be part of a file's name")
    if output.exists() and not output.is_dir():
        raise OptionError(f'--output: {output} is not a folder')
    if output.suffix.lower() in IMAGE_SUFFIXES and not output.is_dir():
        raise OptionError(f'--output: {output} is the name of an image; give a folder')
    folder, sources = _sources(source, recursive)
    here, there = folder.resolve(), output.resolve()
    if here == there and not suffix:
        raise OptionError(f'--output: {output} is the folder of the input; take another, or give a --suffix')
    if here in there.parents:
        sources = [path for path in sources if there not in path.resolve().parents]
    jobs = [Job(path, output / path.relative_to(folder).parent / _target_name(path, suffix, ending))
            for path in sources]
    _check_targets(jobs)
    earlier = {job.target.resolve() for job in jobs}
    left_out = [path for path in sources if path.resolve() in earlier]
    return Plan([job for job in jobs if job.source not in left_out], left_out)


def restore_files(network: Restorer, jobs: list[Job], tile: int = 512, overlap: int = 32,
                  overwrite: bool = False) -> Summary:
    """Restores images one by one, with a progress bar; one that cannot be restored does not stop the others.

    Args:
        network: The network.
        jobs: From ``plan_outputs``.
        tile: See ``restore_tiled``, as for ``overlap``.
        overwrite: Write results anew that are there already.

    Raises:
        OptionError: ``tile`` or ``overlap`` is wrong, or the network is for neither colour nor grey images; or it
            returns another size than its scale says, or other channels, for each image, of which two suffice.
    """
    check_tiles(tile, overlap)
    if network.channels not in (1, 3):
        raise OptionError(f'--checkpoint: the network takes images of {network.channels} channels; allowed: 3, 1')
    summary = Summary()
    bar = tqdm(jobs, desc='restore', unit='image', disable=None)
    probed, mistakes = False, list[OptionError]()
    for source, target in bar:
        if target.exists() and not overwrite:
            summary.skipped += 1
            continue
        try:
            image = read_restorable(source)
            if not probed and 0 < tile < max(image.rgb.shape[-2:]):
                probed = True
                if warning := tile_warning(network, image.rgb[:, :network.channels], tile, overlap):
                    bar.write(f'warning: {warning}', file=sys.stderr)
            restored = restore_image(network, image, tile, overlap, _tile_counter(bar, source))
            make_folder(target.parent)
            write_image(target, restored)
        except (DataError, OptionError) as error:
            summary.failed.append((source, str(error).removeprefix(f'{source}: ')))
            mistakes += [error] if isinstance(error, OptionError) else []
            if len(mistakes) > 1 and not summary.written + summary.skipped:
                break
            continue
        summary.written += 1
        if lost := losses(image, target.suffix):
            summary.reduced.append((target, ' and '.join(lost)))
    if mistakes and not summary.written + summary.skipped:  # they are not of an image
        raise mistakes[0]
    return summary


def restore_image(network: Restorer, image: RestorableImage, tile: int = 512, overlap: int = 32,
                  progress: Callable[[int, int], None] | None = None) -> RestorableImage:
    """Restores one image; the result lies on the CPU.

    A network for grey images is given one plane.

    Args:
        network: The network.
        image: The image, on any device.
        tile: See ``restore_tiled``, as for ``overlap`` and ``progress``.

    Raises:
        DataError: The network fails on the image, takes no colour, needs more memory than there is, or returns numbers
            that are not finite.
    """
    if network.channels == 1 and not image.grey:
        raise DataError('is in colour, and the network takes grey images')
    height, width = image.rgb.shape[-2:]
    size = f'{height}x{width} pixels (height x width)'
    advice = f'--tile {tile} needs too much; take a smaller one' if tile else 'give a --tile, such as 512'
    try:
        restored = restore_tiled(network, image.rgb[:, :network.channels], tile, overlap, progress)
    except (torch.cuda.OutOfMemoryError, MemoryError):
        raise DataError(f'not enough memory for {size}: {advice}') from None
    except DILError:
        raise
    except Exception as error:  # networks raise many kinds; another image may be restored all the same
        reason = f'not enough memory: {advice}' if "can't allocate memory" in str(error) else reason_of(error)
        raise DataError(f'the network fails on {size}: {reason}') from None
    if not torch.isfinite(restored).all():
        raise DataError('the network returns numbers that are not finite (NaN or infinite)')
    return image.with_restored(_three_planes(restored.float().cpu()))


def _three_planes(restored: Tensor) -> Tensor:
    if restored.shape[1] not in (1, 3):
        raise OptionError(f'--checkpoint: the network returns {restored.shape[1]} channels; allowed: 3, 1')
    return restored.expand(-1, 3, -1, -1)


def _sources(source: Path, recursive: bool) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the images."""
    if source.is_dir():
        return source, find_images(source, recursive)
    if not source.is_file():
        raise DataError(f'--input: {no_such(source, "file or folder")}')
    if source.suffix.lower() not in IMAGE_SUFFIXES:
        raise DataError(f'--input: {source} is neither a folder nor an image ({", ".join(IMAGE_SUFFIXES)})')
    return source.parent, [source]


def _target_name(source: Path, suffix: str, ending: str) -> str:
    if not ending:
        ending = '.png' if source.suffix.lower() in _WRITTEN_AS_PNG else source.suffix
    return f'{source.stem}{suffix}{ending}'


def _check_targets(jobs: list[Job]) -> None:
    owners: dict[Path, Path] = {}
    for source, target in jobs:
        if target.resolve() == source.resolve():
            raise OptionError(f'--output: {source} would be overwritten by its own result; take another folder, or a '
                              '--suffix')
        other = owners.setdefault(target, source)
        if other != source:
            raise DataError(f'{other} and {source} would both become {target}; rename one of them, or give another '
                            '--ext')


def make_folder(folder: Path) -> None:
    """Makes a folder for results, and those above it; raises DataError where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f'--output: {folder}: cannot be made ({error.strerror})') from None


def _tile_counter(bar: tqdm, source: Path) -> Callable[[int, int], None]:
    def show(done: int, count: int) -> None:
        bar.set_postfix_str(source.name if count == 1 else f'{source.name}, tile {done} of {count}')

    return show
