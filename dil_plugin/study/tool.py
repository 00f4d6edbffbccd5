"""From a study's file to its table and plot; behind ``tools/study.py``."""

import fnmatch
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dil_plugin.errors import DataError, DILError, OptionError
from dil_plugin.evaluation.devices import choose_device
from dil_plugin.evaluation.tables import Column, markdown_table
from dil_plugin.mistakes import prefixed
from dil_plugin.study.cells import Cell, baseline_of, make_cells
from dil_plugin.study.options import Study, read_study
from dil_plugin.study.report import write_report
from dil_plugin.study.results import (
    Curve,
    Results,
    curve_path,
    forget_failures,
    matching,
    read_curve,
    read_results,
    write_json,
)
from dil_plugin.study.rows import at_the_end, series


class StudyRun:
    """A study in its folder.

    Args:
        file: The study's file.
        output: Its folder; None: ``studies/NAME``, with the file's name.
        given: Options that take the place of the file's.
        train_data: LMDB or folder of training images; None: as the options say.
        test_data: Folder of clean test images; None: as the file says.

    Raises:
        DILError: The file or the options of a cell are wrong.
    """

    def __init__(self, file: Path, output: Path | None = None, given: dict[str, Any] | None = None,
                 train_data: str | None = None, test_data: str | None = None) -> None:
        self.study: Study = read_study(file, given, test_data)
        try:
            self.cells: list[Cell] = make_cells(self.study, train_data)
        except OptionError as error:
            raise prefixed(error, str(file)) from None
        self.file = file
        self.output = (output or Path('studies') / file.stem).resolve()

    def run(self, device: str = 'auto', jobs: int = 1, only: str | None = None, keep_checkpoints: bool = False,
            retry: bool = False) -> bool:
        """Runs all cells that have not ended yet; returns whether all of them ended, well or not.

        Args:
            device: ``auto``, ``cpu`` or ``cuda``.
            jobs: Trainings at once.
            only: Runs the cells that match this pattern alone, as ``sf*`` or ``*_seed0``.
            keep_checkpoints: Whether the networks of finished cells stay.
            retry: Runs failed cells again, from their last checkpoints on.
        """
        from dil_plugin.study.images import check_images_now
        from dil_plugin.study.scheduling import Scheduler  # which needs BasicSR and torch
        chosen = self._chosen(only)
        self._keep_results()
        if retry:
            forget_failures(self.output, chosen)
        curves = {cell.name: read_curve(self.output, cell) for cell in self.cells}
        waiting = [cell for cell in chosen if curves[cell.name] is None]
        say(f'{len(chosen)} cells, {len(chosen) - len(waiting)} of them have ended')
        if keep_checkpoints:
            self._tell_of_deleted([cell for cell in chosen if cell not in waiting])
        if not waiting:
            return True
        scheduler = Scheduler(self.study, self.output, choose_device(device).split(':')[0], jobs, keep_checkpoints)
        try:
            scheduler.check(waiting)
            check_images_now(self.study, [(cell, curve) for cell in self.cells
                                          if (curve := curves[cell.name]) is not None])
        except DILError as error:
            raise type(error)(f'{self.file}: {error}') from None
        ended = 0

        def tell(cell: Cell, curve: Curve | None) -> None:
            nonlocal ended
            ended += curve is not None
            say(f'[{ended}/{len(waiting)}] {cell.name}: {self._outcome(curve)}')
            self._write_results()

        scheduler.run(waiting, tell)
        return ended == len(waiting)

    def listing(self, only: str | None = None) -> str:
        """What would be trained, and what has ended, without training it."""
        columns = [Column('cell', align='left'),
                   *map(Column, ('iterations', 'outer steps', 'image gradients', 'ended'))]
        lines = []
        for cell in self._chosen(only):
            curve = read_curve(self.output, cell)
            lines.append([cell.name, f'{cell.iterations:,}', f'{cell.iterations * cell.outer_steps:,}',
                          f'{cell.image_gradients[-1]:,}', curve.status if curve else None])
        return markdown_table(columns, lines)

    def merge(self, paths: Sequence[Path]) -> None:
        """Takes over cells that ended elsewhere.

        Raises:
            OptionError: A file has none that this study has, or they are of other images than what is here.
            DataError: It is no ``results.json``.
        """
        from dil_plugin.study.images import check_one_set
        self._keep_results()
        for path in paths:
            try:
                there = read_results(path).cells
            except DataError as error:
                raise DataError(f'--merge: {error}') from None
            found = matching(there, self.cells)
            if not found:
                raise OptionError(f'--merge: none of the {len(there)} cells of {path} has the settings of a cell of '
                                  'this study: its options, image gradients, points and test')
            here = self.results().cells
            new = {name: curve for name, curve in found.items() if name not in here}
            check_one_set({**here, **new})
            self._write_curves(new)
            others = f'; {len(there) - len(found)} more there are of other settings' if len(there) > len(found) else ''
            say(f'{len(new)} cells of {path} taken over{others}')

    def report(self) -> list[Path]:
        """Writes ``results.json``, ``study.md`` and ``study.png`` of what has ended; returns the files.

        Raises:
            OptionError: Nothing has ended, or what has is of different images.
        """
        from dil_plugin.study.images import check_one_set
        self._keep_results()
        results = self.results()
        if not results.cells:
            raise OptionError(f'--output: no cell of this study has ended in {self.output}')
        check_one_set(results.cells)
        return [self._write_results(), *write_report(results, self.output, self.study.test.metrics)]

    def _keep_results(self) -> None:
        """Makes ``cells/`` from a ``results.json`` that was copied without it.

        Raises:
            OptionError: That has cells of other settings, which would be lost when it is written anew.
        """
        path = self.output / 'results.json'
        if not path.is_file() or (self.output / 'cells').is_dir():
            return
        there = read_results(path).cells
        found = matching(there, self.cells)
        if len(found) < len(there):
            raise OptionError(f'--output: {path} alone is there, without cells, and {len(there) - len(found)} in it '
                              'are of settings that this study has not; allowed: another folder')
        self._write_curves(found)

    def _write_curves(self, curves: Mapping[str, Curve]) -> None:
        for cell in self.cells:
            if cell.name in curves:
                write_json(curves[cell.name], curve_path(self.output, cell))

    def results(self) -> Results:
        """All cells that have ended."""
        curves = {cell.name: read_curve(self.output, cell) for cell in self.cells}
        return Results(question=self.study.question, baseline=baseline_of(self.study, self.cells),
                       seen=list(self.study.test.seen), unseen=list(self.study.test.unseen), planned=len(self.cells),
                       cells={name: curve for name, curve in curves.items() if curve is not None})

    def _write_results(self) -> Path:
        path = self.output / 'results.json'
        write_json(self.results(), path)
        return path

    def _chosen(self, only: str | None) -> list[Cell]:
        chosen = [cell for cell in self.cells if only is None or fnmatch.fnmatch(cell.name, only)]
        if not chosen:
            names = ', '.join(cell.name for cell in self.cells)
            raise OptionError(f"--only: no cell matches '{only}'; there are {names}")
        return chosen

    def _tell_of_deleted(self, cells: Sequence[Cell]) -> None:
        """Says which cells have ended without their checkpoints, which nothing brings back but another training."""
        gone = [cell.name for cell in cells if not (curve_path(self.output, cell).parent / 'experiments').is_dir()]
        if gone:
            say(f'--keep-checkpoints: {len(gone)} cells ended without it and have none ({", ".join(gone)}); another '
                '--output trains them again')

    def _outcome(self, curve: Curve | None) -> str:
        if curve is None:
            return 'interrupted'
        if curve.status == 'failed':
            return f'failed: {curve.error}'
        parts = [f'{parameters}: ' + ', '.join(f'{name} {at_the_end(series(curve, parameters, conditions)):.2f} dB'
                                               for name, conditions in (('seen', list(self.study.test.seen)),
                                                                        ('unseen', list(self.study.test.unseen)))
                                               if conditions) for parameters in curve.scores]
        return '; '.join(parts) + (f'; {curve.seconds} s' if curve.seconds is not None else '')


def say(text: str) -> None:
    """Prints a line at once, even into a pipe."""
    sys.stdout.write(text + '\n')
    sys.stdout.flush()
