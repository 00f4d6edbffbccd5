"""What DND's server wants: one MATLAB file per image with its 20 restored crops.

As in ``bundle_submission_srgb.m`` of the authors' submission kit: ``bundled/0001.mat`` to ``bundled/0050.mat``, each
with a 1x20 cell ``Idenoised`` of single precision crops, ``israw`` (false) and ``eval_version`` ('1.0').
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.io

from dil_plugin.atomic import whole_file
from dil_plugin.errors import DataError
from dil_plugin.evaluation.benchmark_sets.dnd import BOXES, IMAGES

NAMES = tuple(f'{image:04d}_{box:02d}' for image in range(1, IMAGES + 1) for box in range(1, BOXES + 1))
"""The names of all crops of a submission."""


class DndSubmission:
    """Collects restored crops, each in a file of its own, so that a run that was stopped can go on.

    Args:
        folder: Where ``0001_01.mat`` and so on are written, and ``bundled/`` in the end; made if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def has(self, name: str) -> bool:
        """Whether the crop of that name was added."""
        return name in NAMES and self._path(name).is_file()

    @property
    def missing(self) -> list[str]:
        """The names of the crops that are still to be added."""
        return [name for name in NAMES if not self.has(name)]

    def add(self, name: str, restored: npt.NDArray[np.floating[Any]]) -> None:
        """Writes one crop; one of the same name is replaced.

        Args:
            name: ``0001_01`` to ``0050_20``.
            restored: RGB of shape (H, W, 3) in [0, 1]; values outside are clipped, as the server's measure expects.

        Raises:
            DataError: There is no crop of that name, or the file cannot be written.
            ValueError: The array has another shape or type, or values that are not finite.
        """
        if name not in NAMES:
            raise DataError(f'DND: there is no crop {name!r}; they are {NAMES[0]} to {NAMES[-1]}')
        if restored.ndim != 3 or restored.shape[2] != 3 or not np.issubdtype(restored.dtype, np.floating):
            raise ValueError(f'expected floating-point RGB (H, W, 3), got {restored.dtype} {restored.shape}')
        if not np.isfinite(restored).all():
            raise ValueError(f'{name}: the restored crop has values that are not finite')
        _write(self._path(name), {'Idenoised_crop': np.clip(restored, 0, 1).astype(np.float32)})

    def bundle(self) -> Path:
        """Writes the files to upload and returns their folder, ``bundled``.

        Raises:
            DataError: Crops are missing or damaged (the message names them), or a file cannot be written.
        """
        if missing := self.missing:
            shown = ', '.join(missing[:10]) + (f' and {len(missing) - 10} more' if len(missing) > 10 else '')
            raise DataError(f'{self.folder}: {len(missing)} of {len(NAMES)} crops are missing: {shown}')
        target = self.folder / 'bundled'
        for start in range(0, len(NAMES), BOXES):
            cell = np.empty((1, BOXES), dtype=object)
            for k, name in enumerate(NAMES[start:start + BOXES]):
                cell[0, k] = self._read(name)
            _write(target / f'{NAMES[start][:4]}.mat', {'Idenoised': cell, 'israw': False, 'eval_version': '1.0'})
        return target

    def _path(self, name: str) -> Path:
        return self.folder / f'{name}.mat'

    def _read(self, name: str) -> npt.NDArray[np.float32]:
        path = self._path(name)
        try:
            crop: npt.NDArray[np.float32] = scipy.io.loadmat(str(path))['Idenoised_crop']
        except Exception as error:  # SciPy raises many kinds of errors on damaged files
            raise DataError(f'{path}: damaged, remove it and restore this crop again: {error}') from error
        return crop


def _write(path: Path, variables: Mapping[str, Any]) -> None:
    """Writes a MATLAB 5 file so that it is whole or not there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            scipy.io.savemat(file, dict(variables))
    except OSError as error:
        raise DataError(f'--output: {path} cannot be written ({error.strerror})') from error
