"""The Darmstadt Noise Dataset (Plötz and Roth, CVPR 2017): 50 noisy images with 20 boxes each, clean ones secret."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dil_plugin.errors import DataError
from dil_plugin.evaluation.benchmark_sets.base import BenchmarkSet, MissingSet, Sample, count_remark
from dil_plugin.evaluation.benchmark_sets.patterns import find_matches

IMAGES, BOXES = 50, 20


class DndImages(BenchmarkSet):
    """The boxes of DND's sRGB images; ``0001_01`` is the first box of the first image, ``gt`` is None.

    The files hold single precision in [0, 1]; it is rounded to 8 bits here.

    Args:
        root: The folder with ``info.mat`` and ``images_srgb/``.
        where: The folder as the remark names it.

    Raises:
        DataError: h5py is not installed, or ``info.mat`` is damaged.
    """

    has_gt = False

    def __init__(self, root: Path, where: str) -> None:
        boxes = _read_boxes(root / 'info.mat')
        self._boxes = {f'{image:04d}_{k:02d}': box
                       for image, rows in enumerate(boxes, 1) for k, box in enumerate(rows, 1)}
        super().__init__('DND', root, list(self._boxes), True, count_remark(len(self._boxes), IMAGES * BOXES, where))

    def files(self, name: str) -> list[Path]:
        """The image's file, and the list of boxes."""
        paths = [self.root / 'images_srgb' / f'{name[:4]}.mat', self.root / 'info.mat']
        return [path for path in paths if path.is_file()]

    def read(self, name: str) -> Sample:
        """One box of a noisy image."""
        if name not in self._boxes:
            raise DataError(f'{self.root}: there is no box {name!r}')
        path = self.root / 'images_srgb' / f'{name[:4]}.mat'
        if not path.is_file():
            raise DataError(f'{path}: there is no such file')
        top, left, bottom, right = self._boxes[name]
        with _hdf5(path) as file:
            stored = file['InoisySRGB']  # MATLAB's columns come first in HDF5: (3, width, height)
            if stored.ndim != 3 or stored.shape[0] != 3:
                raise DataError(f'{path}: InoisySRGB has shape {stored.shape[::-1]}, expected (height, width, 3)')
            width, height = stored.shape[1:]
            if not (0 < top <= bottom <= height and 0 < left <= right <= width):
                raise DataError(f'{path}: box {name} (rows {top} to {bottom}, columns {left} to {right}) is not inside '
                                f'the {width}x{height} (width x height) image')
            crop: npt.NDArray[Any] = stored[:, left - 1:right, top - 1:bottom]
        rounded = np.round(np.clip(crop, 0, 1) * 255).astype(np.uint8)
        return Sample(None, np.ascontiguousarray(rounded.transpose(2, 1, 0)[..., ::-1]))


def open_dnd(root: Path, pairs: bool, where: str) -> DndImages | None:
    """The boxes of the images in a folder, or None where neither ``info.mat`` nor images are there.

    Raises:
        MissingSet: Only one of them is there.
        DataError: h5py is not installed, or ``info.mat`` is damaged.
    """
    info = (root / 'info.mat').is_file()
    images = find_matches(root, 'images_srgb/<number>', ('.mat', ))
    if not info and not images:
        return None
    if not info or not images:
        raise MissingSet(f'DND: {root} has ' + ('info.mat, but no images_srgb/*.mat' if info
                                                else 'images_srgb/*.mat, but no info.mat'))
    return DndImages(root, where)


def _read_boxes(path: Path) -> list[list[tuple[int, int, int, int]]]:
    """Of each image its boxes (top, left, bottom, right), counted from 1, the last row and column inside."""
    with _hdf5(path) as file:
        references = np.ravel(file['info']['boundingboxes'])
        boxes = [np.asarray(file[reference]).T.astype(int) for reference in references]
    for image, rows in enumerate(boxes, 1):
        if rows.ndim != 2 or rows.shape[1] != 4:
            raise DataError(f'{path}: the boxes of image {image} have shape {rows.shape}, expected ({BOXES}, 4)')
    return [[(int(row[0]), int(row[1]), int(row[2]), int(row[3])) for row in rows] for rows in boxes]


@contextmanager
def _hdf5(path: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError as error:
        raise DataError(f'{path}: reading MATLAB 7.3 files (DND) needs h5py, install it: pip install h5py') from error
    try:
        with h5py.File(path, 'r') as file:
            yield file
    except DataError:
        raise
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise DataError(f'{path}: not a MATLAB 7.3 file of DND, or a damaged one: {error}') from error
