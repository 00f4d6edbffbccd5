"""The data sets of real-world super-resolution as their authors publish them: found, counted and listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dil_plugin.data_preparation.images import Source, find_images, read_image
from dil_plugin.data_preparation.keys import key_stem
from dil_plugin.data_preparation.pairing import shown_part
from dil_plugin.errors import DataError
from dil_plugin.missing_files import no_such

if TYPE_CHECKING:
    from dil_plugin.evaluation.benchmark_sets import BenchmarkSet


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


class PairedSet(NamedTuple):
    """A set of real pairs.

    Attributes:
        benchmark: Its name among the benchmarks.
        stem: What the names of its LMDBs begin with.
        address: Where the authors publish it.
        cameras: How many test pairs of each scale are of which camera, where their names tell.
    """

    benchmark: str
    stem: str
    address: str
    cameras: Mapping[str, int]


PAIRED_SETS = {
    'RealSR': PairedSet('RealSR V3', 'RealSR_V3', 'https://github.com/csjcai/RealSR', {'Canon': 50, 'Nikon': 50}),
    'DRealSR': PairedSet(
        'DRealSR', 'DRealSR',
        'https://github.com/xiezw5/Component-Divide-and-Conquer-for-Real-World-Image-Super-Resolution', {}),
}


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
    from dil_plugin.evaluation.benchmark_sets.patterns import find_folder  # which needs this package
    wanted = set(one.stems)
    best: dict[str, Path] = {}
    where = data
    for folder in filter(None, (find_folder(data, relative) for relative in one.folders)):
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
    try:
        return {path.stem: path for path in find_images(folder) if path.stem in wanted}
    except DataError:  # it holds no images
        return {}


def paired_images(data: Path, name: str, scale: int, allow_incomplete: bool) -> tuple[Found, Found]:
    """The clean and the distorted images of a set's test pairs, under equal stems.

    They are looked for as ``tools/reproduce.py`` does it. Of a clean image that is a few pixels larger than ``scale``
    times its partner, the upper left part of that size is taken (``Source.kept``), as BasicSR does in validation.

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
    one = PAIRED_SETS[name]
    try:
        found = open_benchmark(one.benchmark, data, scale, pairs=True)
    except MissingSet as error:
        raise DataError(f'{error}; its authors publish it at {one.address}') from None
    remark = found.remark or _camera_remark(found.names, one.cameras)
    if remark and not allow_incomplete:
        raise DataError(f'{one.benchmark}: {remark}; its authors publish it at {one.address}; --allow-incomplete packs '
                        'what is there')
    names = found.names
    if allow_incomplete:
        names = [image for image in names if len(found.files(image)) == 2]
        if alone := [image for image in found.names if image not in names]:
            some = ', '.join(alone[:5]) + (f' and {len(alone) - 5} more' if len(alone) > 5 else '')
            remark = f'{remark}; ' if remark else ''
            remark += f'{len(alone)} images without a partner are left out: {some}'
    clean, distorted = [], []
    for image in names:
        kept = _kept(found, image, scale)
        clean_path, distorted_path = found.files(image)
        stem = key_stem(image, clean_path)
        clean.append(Source(clean_path, clean_path.relative_to(found.root).as_posix(), stem, kept))
        distorted.append(Source(distorted_path, distorted_path.relative_to(found.root).as_posix(), stem))
    return Found(clean, remark), Found(distorted, remark)


def _camera_remark(names: Sequence[str], published: Mapping[str, int]) -> str | None:
    """The remark on pairs of which too few are of one camera and too many of another; None where names do not tell."""
    counts = {camera: sum(name.lower().startswith(camera.lower()) for name in names) for camera in published}
    if counts == published or sum(counts.values()) != len(names):
        return None
    there, wanted = (' and '.join(f'{count} {camera}' for camera, count in some.items())
                     for some in (counts, published))
    return f'{there} images, not the {wanted} of the published set'


def _kept(found: BenchmarkSet, image: str, scale: int) -> tuple[int, int] | None:
    """Height and width of the part of a clean image that its partner shows; None where that is all of it.

    Raises:
        DataError: A file has no partner or two, is damaged, or the sizes do not fit.
    """
    files = found.files(image)
    if len(files) == 2:
        clean, distorted = (read_image(path)[0].shape[:2] for path in files)
        shown = shown_part(clean, distorted, scale)
        if shown is not None:
            return shown if shown != clean else None
    found.read(image)  # raises, and says what is wrong with the pair
    return None


def _require_folder(data: Path) -> None:
    if not data.is_dir():
        raise DataError(f'--data: {no_such(data, "folder")}')
