"""Benchmarks that are folders of image files."""

import os
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from dil_plugin.data_preparation.images import Image
from dil_plugin.data_preparation.pairing import shown_part
from dil_plugin.errors import DataError
from dil_plugin.evaluation.benchmark_sets.base import BenchmarkSet, Sample, count_remark, read_bgr
from dil_plugin.evaluation.benchmark_sets.catalogue import Layout
from dil_plugin.evaluation.benchmark_sets.patterns import find_matches, readable

Files = dict[str, list[Path]]


class CleanFolder(BenchmarkSet):
    """Clean images in one folder (or several, told apart by their names).

    Args:
        name: Of the set.
        root: Its folder.
        layout: Where the clean images are; of a layout of pairs that share files the left halves are taken.
        files: What ``find_matches`` found for ``layout.gt``.
        remark: What sets this copy apart.
    """

    def __init__(self, name: str, root: Path, layout: Layout, files: Files, remark: str | None = None) -> None:
        super().__init__(name, root, list(files), False, remark)
        self._files = files
        self._halves = layout.lq is None

    def files(self, name: str) -> list[Path]:
        """The clean image's file."""
        return self._files.get(name, [])

    def read(self, name: str) -> Sample:
        """The clean image; ``lq`` is None."""
        path = _only(self.root, name, self._files)
        return Sample(halves(path)[0] if self._halves else read_bgr(path), None)


class PairFolders(BenchmarkSet):
    """Pairs of files, one clean and one distorted.

    Args:
        name: Of the set.
        root: Its folder.
        layout: Where the files are.
        gt: What ``find_matches`` found for ``layout.gt``.
        lq: What it found for ``layout.lq``.
        scale: Clean size divided by distorted size.
        remark: What sets this copy apart.
    """

    def __init__(self, name: str, root: Path, layout: Layout, gt: Files, lq: Files, scale: int,
                 remark: str | None = None) -> None:
        super().__init__(name, root, list(gt.keys() | lq.keys()), True, remark)
        self._layout, self._gt, self._lq, self._scale = layout, gt, lq, scale

    def files(self, name: str) -> list[Path]:
        """The clean image's file, then the distorted one's."""
        return self._gt.get(name, []) + (self._lq.get(name, []) if self._layout.lq is not None else [])

    def read(self, name: str) -> Sample:
        """The pair of that name; of a clean image that is a few pixels larger, the part that the other shows.

        Raises:
            DataError: There is none of that name, a file has no partner or two, is damaged, or the sizes do not fit.
        """
        if name in self._gt.keys() ^ self._lq.keys():
            there = (self._gt.get(name) or self._lq[name])[0]
            absent = self._layout.lq if name in self._gt else self._layout.gt
            raise DataError(f'{there}: has no partner in {self.root / readable(absent or "")}')
        if self._layout.lq is None:
            return Sample(*halves(_only(self.root, name, self._gt)))
        gt_path, lq_path = _only(self.root, name, self._gt), _only(self.root, name, self._lq)
        gt, lq = read_bgr(gt_path), read_bgr(lq_path)
        shown = shown_part(gt.shape[:2], lq.shape[:2], self._scale)
        if shown is None:
            times = '' if self._scale == 1 else f'{self._scale} times '
            raise DataError(f'{gt_path} is {_size(gt)}, which is not {times}the {_size(lq)} of {lq_path}')
        return Sample(np.ascontiguousarray(gt[:shown[0], :shown[1]]), lq)


def open_clean(name: str, root: Path, pattern: str | Layout, published: int | None, where: str,
               crops: bool = False) -> CleanFolder | None:
    """The clean images that fit a pattern (or the clean side of a layout) below ``root``; None where there are none."""
    layout = pattern if isinstance(pattern, Layout) else Layout(pattern, '')
    files = find_matches(root, layout.gt)
    if not files:
        return None
    place = _place(where, layout.gt)
    remark = crop_remark(files, published, place) if crops else None
    return CleanFolder(name, root, layout, files, remark or count_remark(len(files), published, place))


def open_pairs(name: str, root: Path, layout: Layout, scale: int, published: int | None, where: str,
               crops: bool) -> PairFolders | None:
    """The pairs of a layout below ``root``; None unless at least one pair is whole."""
    gt = find_matches(root, layout.gt)
    lq = gt if layout.lq is None else find_matches(root, layout.lq) if gt else {}
    if not gt.keys() & lq.keys():
        return None
    place = _place(where, layout.gt, layout.lq)
    remark = crop_remark(gt, published, place) if crops else None
    remark = remark or count_remark(len(gt.keys() | lq.keys()), published, place)
    return PairFolders(name, root, layout, gt, lq, scale, remark)


def crop_remark(gt: Files, published: int | None, where: str) -> str | None:
    """The remark on a copy of equal square crops; None where the clean images differ in size."""
    side = _common_side([paths[0] for paths in gt.values()])
    if side is None:
        return None
    return (f'{len(gt)} images in {where}, crops of {side}x{side} pixels, '
            f'not the {published} whole images of the published set')


def halves(path: Path) -> tuple[Image, Image]:
    """The left and the right half of an image.

    Raises:
        DataError: The file is damaged, or its width is odd.
    """
    both = read_bgr(path)
    middle, odd = divmod(both.shape[1], 2)
    if odd:
        raise DataError(f'{path}: expected two images side by side, but its width is odd: {_size(both)}')
    return both[:, :middle].copy(), both[:, middle:].copy()


def _only(root: Path, name: str, files: Files) -> Path:
    paths = files.get(name)
    if paths is None:
        raise DataError(f'{root}: there is no image {name!r}')
    if len(paths) > 1:
        raise DataError(f'{paths[0]}: stands beside {paths[1].name}, and both would be {name!r}; remove one')
    return paths[0]


def _size(image: Image) -> str:
    return f'{image.shape[1]}x{image.shape[0]} (width x height)'


def _place(where: str, *patterns: str | None) -> str:
    """Where the images are: ``RealSR/{HR,LR}``."""
    parents = [os.path.dirname(readable(pattern)) for pattern in patterns if pattern]
    if len(set(parents)) > 1:
        common = os.path.commonpath(parents)
        rests = [os.path.relpath(parent or '.', common or '.') for parent in parents]
        return '/'.join(filter(None, (where, common, '{' + ','.join(rests) + '}')))
    return '/'.join(filter(None, (where, parents[0])))


def _common_side(paths: list[Path]) -> int | None:
    """The side of the images where all are squares of one size; None where they differ or cannot be read."""
    sides: set[int] = set()
    for path in paths:
        try:
            with PillowImage.open(path) as image:  # reads the header alone
                sides.update(image.size)
        except (OSError, ValueError, SyntaxError):
            return None
        if len(sides) > 1:
            return None
    return sides.pop() if len(paths) > 1 else None
