"""The validation blocks of SIDD (Abdelhamed et al., CVPR 2018): MATLAB 5 files of 40 images times 32 blocks."""

import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.io

from dil_plugin.data_preparation.images import Image
from dil_plugin.errors import DataError
from dil_plugin.evaluation.benchmark_sets.base import BenchmarkSet, MissingSet, Sample, count_remark
from dil_plugin.evaluation.benchmark_sets.patterns import find_matches

GT, NOISY = 'ValidationGtBlocksSrgb', 'ValidationNoisyBlocksSrgb'
PUBLISHED = 1280


class SiddValidation(BenchmarkSet):
    """SIDD's validation blocks; ``0001_01`` is the first block of the first image.

    Each file is one array (images, blocks, height, width, 3), uint8 in RGB order. A whole one takes 252 MB; it is read
    with the first block and stays in memory.

    Args:
        gt: ``ValidationGtBlocksSrgb.mat``.
        noisy: ``ValidationNoisyBlocksSrgb.mat``; None for the clean blocks alone.
        where: The folder as the remark names it.

    Raises:
        DataError: A file is damaged, has no such array, or the two do not fit.
    """

    def __init__(self, gt: Path, noisy: Path | None, where: str) -> None:
        _, shape = _array(gt)
        if noisy is not None and _array(noisy)[1] != shape:
            raise DataError(f'{noisy}: its blocks have shape {_array(noisy)[1]}, those of {gt.name} {shape}')
        names = [f'{image:04d}_{block:02d}' for image in range(1, shape[0] + 1) for block in range(1, shape[1] + 1)]
        remark = count_remark(len(names), PUBLISHED, where or gt.name)
        super().__init__('SIDD', gt.parent, names, noisy is not None, remark)
        self._gt, self._noisy = gt, noisy
        self._lock = threading.Lock()
        self._loaded: dict[Path, npt.NDArray[np.uint8]] = {}
        self._indices = {name: divmod(k, shape[1]) for k, name in enumerate(names)}

    def read(self, name: str) -> Sample:
        """One block, clean and noisy."""
        if name not in self._indices:
            raise DataError(f'{self._gt}: there is no block {name!r}')
        index = self._indices[name]
        noisy = _bgr(self._blocks(self._noisy)[index]) if self._noisy else None
        return Sample(_bgr(self._blocks(self._gt)[index]), noisy)

    def files(self, name: str) -> list[Path]:
        """The MATLAB files, which hold all blocks."""
        return [self._gt] + ([self._noisy] if self._noisy else [])

    def _blocks(self, path: Path) -> npt.NDArray[np.uint8]:
        with self._lock:  # images are read in several threads, and each file but once
            if path not in self._loaded:
                self._loaded[path] = _blocks(path)
            return self._loaded[path]


def open_sidd(root: Path, pairs: bool, where: str) -> SiddValidation | None:
    """The validation blocks in a folder, or None where neither file is there.

    Raises:
        MissingSet: One of the two files is missing.
        DataError: A file is damaged.
    """
    found = {stem: find_matches(root, stem, ('.mat', )).get('', []) for stem in (GT, NOISY)}
    if not any(found.values()):
        return None
    for stem in (GT, NOISY) if pairs else (GT, ):
        if not found[stem]:
            raise MissingSet(f'SIDD: {root} has no {stem}.mat beside {(found[NOISY] or found[GT])[0].name}')
    return SiddValidation(found[GT][0], found[NOISY][0] if pairs else None, where)


def _array(path: Path) -> tuple[str, tuple[int, ...]]:
    """Name and shape of the array in a file, from its headers."""
    try:
        arrays = scipy.io.whosmat(str(path))
    except Exception as error:  # SciPy raises many kinds of errors on damaged files
        raise _damaged(path, error) from error
    for name, shape, kind in arrays:
        if len(shape) == 5 and shape[4] == 3 and kind == 'uint8':
            return name, tuple(shape)
    there = ', '.join(f'{name} {kind} {shape}' for name, shape, kind in arrays) or 'nothing'
    raise DataError(f'{path}: expected a uint8 array (images, blocks, height, width, 3), found {there}')


def _blocks(path: Path) -> npt.NDArray[np.uint8]:
    name, _ = _array(path)
    try:
        blocks: npt.NDArray[np.uint8] = scipy.io.loadmat(str(path), variable_names=[name])[name]
    except Exception as error:
        raise _damaged(path, error) from error
    return blocks


def _damaged(path: Path, error: Exception) -> DataError:
    hint = ' (save it again without -v7.3)' if isinstance(error, NotImplementedError) else ''
    return DataError(f'{path}: not a MATLAB 5 file that can be read, or a damaged one: {error}{hint}')


def _bgr(block: npt.NDArray[np.uint8]) -> Image:
    return np.ascontiguousarray(block[..., ::-1])
