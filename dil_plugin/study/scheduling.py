"""Runs the cells of a study, several at once, each in a process of its own."""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import yaml

from dil_plugin.errors import OptionError
from dil_plugin.mistakes import prefixed
from dil_plugin.study.cells import ROOT, Cell
from dil_plugin.study.one_cell import SECONDS, Job
from dil_plugin.study.options import Study
from dil_plugin.study.results import Curve, curve_of, read_curve, write_json

_LOG_LINES = 3
_BY_SIGNAL = (128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGKILL)


class Scheduler:
    """Runs cells that have not ended yet.

    Args:
        study: The study.
        output: Its folder.
        device: Of all trainings, ``cpu`` or ``cuda``.
        jobs: Trainings at once.
        keep_checkpoints: Whether the networks of finished cells stay.
    """

    def __init__(self, study: Study, output: Path, device: str, jobs: int, keep_checkpoints: bool = False) -> None:
        self.study = study
        self.output = output
        self.device = device
        self.jobs = jobs
        self.keep_checkpoints = keep_checkpoints
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def check(self, cells: Sequence[Cell]) -> None:
        """Reads the test images, and holds the options of every arm to what ``tools/train.py`` demands.

        All of that before hours of training.

        Raises:
            DILError: They are wrong, or data are missing.
        """
        from basicsr import train

        from dil_plugin.study.test_conditions import load_conditions
        for scale in sorted({int(cell.options.get('scale', 1)) for cell in cells}):
            load_conditions(self.study.test, scale)
        seen: set[tuple[str, str]] = set()
        before = sys.argv
        for cell in cells:
            if (cell.arm, cell.group) in seen:
                continue
            seen.add((cell.arm, cell.group))
            sys.argv = ['train.py', '-opt', str(self._prepare(cell) / 'train.yml')]
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    train.parse_options(str(self._folder(cell)), is_train=True)
            except OptionError as error:
                where = ', '.join(filter(None, (cell.arm, cell.group)))
                raise prefixed(error, f'arms.{where} (with base, options and grid)') from None
            finally:
                sys.argv = before

    def run(self, cells: Sequence[Cell], ended: Callable[[Cell, Curve | None], None]) -> None:
        """Runs cells; a failure is recorded and does not stop the others.

        Args:
            cells: In the order in which they are started.
            ended: Called when a cell has ended; without a curve where a signal ended it.
        """
        with self._terminating(), ThreadPoolExecutor(self.jobs) as pool:
            futures = {pool.submit(self._run_one, cell): cell for cell in cells}
            try:
                for future in as_completed(futures):
                    ended(futures[future], future.result())
            except BaseException:
                self._stopped = True
                for process in list(self._running):
                    process.terminate()  # a training saves itself
                raise

    def _run_one(self, cell: Cell) -> Curve | None:
        if self._stopped:
            return None
        folder = self._prepare(cell)
        search_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
        environment = {**os.environ, 'PYTHONPATH': search_path, 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'}
        with (folder / 'log.txt').open('ab') as log:
            process = subprocess.Popen([sys.executable, '-m', 'dil_plugin.study.one_cell', str(folder)],
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
            self._running.add(process)
            code = process.wait()
            self._running.discard(process)
        if code < 0 or code in _BY_SIGNAL:
            return None
        if code:
            write_json(curve_of(cell, 'failed', error=_last_words(folder / 'log.txt')), folder / 'curve.json')
        elif not self.keep_checkpoints:
            for name in ('job.json', 'log.txt', 'lock', SECONDS):
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / 'experiments', ignore_errors=True)
        return read_curve(self.output, cell)

    def _folder(self, cell: Cell) -> Path:
        return self.output / 'cells' / cell.name

    def _prepare(self, cell: Cell) -> Path:
        """Writes what the process of a cell reads."""
        folder = self._folder(cell)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'train.yml').write_text(yaml.safe_dump(self._options(cell), sort_keys=False), encoding='utf-8')
        write_json(Job(cell=cell, study=self.study, device=self.device), folder / 'job.json')
        return folder

    def _options(self, cell: Cell) -> dict[str, Any]:
        """The YAML of a cell's training on this machine; on a CPU each training has one core, without data workers."""
        train = dict(cell.options['datasets']['train'])
        if self.device == 'cpu':
            train.update(num_worker_per_gpu=0, prefetch_mode=None, pin_memory=False)
        return {**cell.options, 'name': 'train', 'num_gpu': 0 if self.device == 'cpu' else 1,
                'datasets': {'train': train}}

    @contextlib.contextmanager
    def _terminating(self) -> Iterator[None]:
        """SIGTERM ends the study as Ctrl-C does."""
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGTERM, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


def _last_words(log: Path) -> str:
    """What a process that failed said last."""
    lines = [line.strip() for line in log.read_text(encoding='utf-8', errors='replace').splitlines() if line.strip()]
    errors = [line.removeprefix('error: ') for line in lines if line.startswith('error: ')]
    return errors[-1] if errors else ' / '.join(lines[-_LOG_LINES:])
