"""The data sets of real-world super-resolution as their authors publish them: found, counted and listed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dil_plugin.data_preparation.images import Source, find_images
from dil_plugin.errors import DataError


class TrainingSet(NamedTuple):
    """A set of clean training images with numbered names.

    Attributes:
        name: Of the set.
        images: How many were published.
        digits: Of their numbers, which begin at 1 and are the file names.
        folders: Where the images may be, below the folder of data sets.
        archive: What is downloaded.
        address: Where the authors publish it.
    """

    name: str
    images: int
    digits: int
    folders: tuple[str, ...]
    archive: str
    address: str

    @property
    def stems(self) -> list[str]:
        """The names of all images, without their endings."""
        return [f'{number:0{self.digits}d}' for number in range(1, self.images + 1)]


# Last those where people keep both sets together.
_MERGED = ('DF2K/HR', 'DF2K/DF2K_HR', 'DF2K/DF2K_train_HR', 'DF2K/train/HR', 'DF2K_HR', 'DF2K_train_HR', 'DF2K')
DIV2K = TrainingSet(
    'DIV2K', 800, 4,
    ('DIV2K/DIV2K_train_HR', 'DIV2K_train_HR', 'DF2K/DIV2K_train_HR', 'DIV2K/train/HR', 'DIV2K/HR', 'DIV2K', *_MERGED),
    'DIV2K_train_HR.zip', 'https://data.vision.ee.ethz.ch/cvl/DIV2K/')
FLICKR2K = TrainingSet(
    'Flickr2K', 2650, 6,
    ('Flickr2K/Flickr2K_HR', 'Flickr2K_HR', 'DF2K/Flickr2K_HR', 'DF2K/Flickr2K/Flickr2K_HR', 'Flickr2K/HR', 'Flickr2K',
     *_MERGED),
    'Flickr2K.tar', 'https://cv.snu.ac.kr/research/EDSR/Flickr2K.tar')

PAIRED_SETS = {
    'RealSR': ('RealSR V3', 'RealSR_V3', 'https://github.com/csjcai/RealSR'),
    'DRealSR': ('DRealSR', 'DRealSR',
                'https://github.com/xiezw5/Component-Divide-and-Conquer-for-Real-World-Image-Super-Resolution'),
}
"""Sets of real pairs: the benchmark's name, that of the packed LMDBs, and where the authors publish it."""


class Found(NamedTuple):
    """The images of a set, and a sentence on what sets this copy apart from the published set, or None."""

    sources: list[Source]
    remark: str | None


def training_images(data: Path, sets: Sequence[TrainingSet], allow_incomplete: bool) -> Found:
    """The images of several training sets below the folder ``data``, in the order of the sets.

    Args:
        data: The folder of data sets.
        sets: Which ones.
        allow_incomplete: Take what is there; else each set must be complete.

    Raises:
        DataError: A set is not there or incomplete; the message says what is missing, where it was looked for and where
            its authors publish it.
    """
    _require_folder(data)
    sources: list[Source] = []
    remarks = []
    for one in sets:
        found, remark = _numbered(data, one)
        sources += found
        remarks += [f'{remark}; its authors publish it at {one.address}'] if remark else []
    if remarks and (not allow_incomplete or not sources):
        hint = '; --allow-incomplete packs what is there' if sources else ''
        raise DataError('; '.join(remarks) + hint)
    return Found(sources, '; '.join(remarks) or None)


def _numbered(data: Path, one: TrainingSet) -> tuple[list[Source], str | None]:
    """The images of a set in the folder that holds most of them, and what is missing."""
    wanted = set(one.stems)
    best: dict[str, Path] = {}
    where = data
    for folder in (data / relative for relative in one.folders):
        images = _images_in(folder, wanted)
        if len(images) > len(best):
            best, where = images, folder
    sources = [Source(best[stem], f'{one.name}/{best[stem].name}', stem) for stem in one.stems if stem in best]
    missing = [stem for stem in one.stems if stem not in best]
    if not missing:
        return sources, None
    if not best:
        archive = next(iter(sorted(data.rglob(one.archive))), None)
        hint = f' ({archive} is there: unpack it first)' if archive else ''
        return [], f'{one.name}: is not there{hint}; looked in {data} for {", ".join(one.folders)}'
    some = ', '.join(missing[:5]) + (f' and {len(missing) - 5} more' if len(missing) > 5 else '')
    return sources, f'{one.name}: {len(best)} of its {one.images} training images are in {where}, missing are {some}'


def _images_in(folder: Path, wanted: set[str]) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    try:
        return {path.stem: path for path in find_images(folder) if path.stem in wanted}
    except DataError:  # it holds no images
        return {}


def paired_images(data: Path, name: str, scale: int, allow_incomplete: bool) -> tuple[Found, Found]:
    """The clean and the distorted images of a set's test pairs, under equal stems.

    They are looked for as ``tools/reproduce.py`` does it.

    Args:
        data: The folder of data sets.
        name: One of ``PAIRED_SETS``.
        scale: Clean size divided by distorted size.
        allow_incomplete: Take copies with another number of images, or crops.

    Raises:
        DataError: The set is not there, incomplete, or a pair is damaged or of sizes that do not fit the scale.
        OptionError: It has no pairs of this scale.
    """
    from dil_plugin.evaluation.benchmark_sets import MissingSet, open_benchmark  # which needs this package
    _require_folder(data)
    benchmark, _, address = PAIRED_SETS[name]
    try:
        found = open_benchmark(benchmark, data, scale, pairs=True)
    except MissingSet as error:
        raise DataError(f'{error}; its authors publish it at {address}') from None
    if found.remark and not allow_incomplete:
        raise DataError(f'{benchmark}: {found.remark}; its authors publish it at {address}; --allow-incomplete packs '
                        'what is there')
    sides: tuple[list[Source], list[Source]] = ([], [])
    for image in found.names:
        found.read(image)  # raises where the pair is not whole
        stem = image.replace('/', '_').replace('.', '_').replace(' ', '_')
        for side, path in zip(sides, found.files(image), strict=True):
            side.append(Source(path, path.relative_to(found.root).as_posix(), stem))
    return Found(sides[0], found.remark), Found(sides[1], found.remark)


def _require_folder(data: Path) -> None:
    if not data.is_dir():
        raise DataError(f'--data: there is no folder {data}')
