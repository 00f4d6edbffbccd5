"""Restored images that are kept, to be shown."""

from collections.abc import Sequence
from pathlib import Path

from dil_plugin.evaluation.inputs import Image, write_png
from dil_plugin.evaluation.output_files import file_stem
from dil_plugin.evaluation.results import CLEAN, Picture


class PictureFolder:
    """``images/DATASET/CONDITION/IMAGE/RUN.png`` below the results.

    Args:
        results: The folder of the results.
        runs: Their names, ``input`` first; the order in which they are shown.
    """

    def __init__(self, results: Path, runs: Sequence[str]) -> None:
        self.results = results
        self.runs = list(runs)

    def add(self, dataset: str, condition: str, image: str, run: str, restored: Image, clean: Image) -> None:
        """Keeps one run's image, and the clean one beside it, which may have been replaced since; both uint8 BGR.

        Raises:
            DataError: One cannot be written.
        """
        write_png(restored, self._path(dataset, condition, image, run))
        write_png(clean, self._path(dataset, condition, image, CLEAN))

    def has(self, dataset: str, condition: str, image: str, run: str) -> bool:
        """Whether it was kept."""
        return self._path(dataset, condition, image, run).is_file()

    def picture(self, dataset: str, condition: str, image: str) -> Picture | None:
        """What was kept of an image; None if nothing was."""
        names = [name for name in (*self.runs, CLEAN) if self.has(dataset, condition, image, name)]
        files = {name: self._path(dataset, condition, image, name).relative_to(self.results).as_posix()
                 for name in names}
        return Picture(dataset=dataset, condition=condition, image=image, files=files) if CLEAN in files else None

    def _path(self, dataset: str, condition: str, image: str, run: str) -> Path:
        folder = self.results / 'images' / file_stem(dataset) / file_stem(condition) / file_stem(image)
        return folder / f'{file_stem(run)}.png'
