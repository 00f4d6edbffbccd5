"""Training in processes of its own, which can be killed, and what a run leaves behind, to compare it."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml

ROOT = Path(__file__).resolve().parents[3]
_LINE = re.compile(r'epoch:\s*(\d+), iter:\s*([\d,]+), lr:\((\S+?),\)\]')
_LOSS = re.compile(r'((?:l_|grad_norm)\S*): (\S+)')


class TrainingRun:
    """``tools/train.py`` in a folder of its own, by one process or by several under torchrun.

    Args:
        folder: Becomes the root that ``experiments/`` is made in.
        opt: The options.
        processes: More than one: as many with gloo.
    """

    def __init__(self, folder: Path, opt: dict[str, Any], processes: int = 1) -> None:
        self.experiment = folder / 'experiments' / opt['name']
        self.processes = processes
        (folder / 'tools').mkdir(parents=True)
        self.tool = shutil.copy(ROOT / 'tools/train.py', folder / 'tools')  # its root is the folder above it
        self.options = folder / 'options.yml'
        self.options.write_text(yaml.safe_dump(opt))
        self.output = folder / 'output.txt'
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str, **environment: str) -> None:
        several = ['-m', 'torch.distributed.run', f'--nproc_per_node={self.processes}', '--rdzv-backend=c10d',
                   '--rdzv-endpoint=localhost:0'] if self.processes > 1 else []
        launcher = ['--launcher', 'pytorch'] if several else []
        with self.output.open('wb') as output:
            self.process = subprocess.Popen(
                [sys.executable, *several, self.tool, '-opt', str(self.options), *launcher, *arguments],
                stdout=output, stderr=output, start_new_session=True,
                env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', **environment})

    def wait(self, timeout: float = 240) -> int:
        """The exit status."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def finish(self, *arguments: str, **environment: str) -> None:
        """Trains to the end."""
        self.start(*arguments, **environment)
        assert self.wait() == 0, self.output.read_text()[-4000:]

    def wait_for_iteration(self, iteration: int, timeout: float = 120) -> bool:
        """Whether the log has got that far; False where the run has ended before."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if any(number >= iteration for number, _ in self._lines()):
                return True
            if self.process.poll() is not None:
                return False
            time.sleep(0.005)
        self.kill()
        raise AssertionError(self.output.read_text()[-4000:])

    def kill(self) -> None:
        """SIGKILL to all processes of the run, data workers too, as when the machine is taken away."""
        for pid in self.pids():
            os.kill(pid, signal.SIGSTOP)  # so that none of them sees another one die
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):  # it has followed its parent already
                os.kill(pid, signal.SIGKILL)
        self.process.wait(20)

    def pids(self) -> list[int]:
        """The run's process and all that it started."""
        return self._tree(10)

    def ranks(self) -> list[int]:
        """The processes that torchrun started, without their data workers."""
        return self._tree(1)[1:] if self.processes > 1 else []

    def _tree(self, depth: int) -> list[int]:
        parents: dict[int, int] = {}
        for entry in Path('/proc').iterdir():
            if entry.name.isdigit():
                try:
                    parents[int(entry.name)] = int((entry / 'stat').read_text().rpartition(')')[2].split()[1])
                except (FileNotFoundError, ProcessLookupError):
                    continue
        found = level = [self.process.pid]
        for _ in range(depth):
            level = [child for child, parent in parents.items() if parent in level]
            found = found + level
        return found

    def losses(self) -> dict[int, str]:
        """Epoch, learning rate and losses by iteration; an iteration that was logged twice must say the same twice."""
        found: dict[int, str] = {}
        for iteration, line in self._lines():
            assert found.setdefault(iteration, line) == line
        return found

    def _lines(self) -> list[tuple[int, str]]:
        """Of every entry of the log that is whole, which ends with the line that has ``t_outer``."""
        found = []
        for path in sorted(self.experiment.glob('*.log')):
            entry: list[str] = []
            iteration = 0
            for line in path.read_text().splitlines(keepends=True):
                if head := _LINE.search(line):
                    iteration, entry = int(head[2].replace(',', '')), [f'{head[1]} {head[3]}']
                entry += [f'{name}={value}' for name, value in _LOSS.findall(line)]
                if ' t_outer: ' in line and line.endswith('\n') and entry:
                    found.append((iteration, ' '.join(entry)))
                    entry = []
        return found

    def log(self) -> str:
        return ''.join(path.read_text() for path in sorted(self.experiment.glob('*.log')))

    def files(self) -> dict[str, Any]:
        """Everything that it saved, by file name."""
        folders = (self.experiment / 'models', self.experiment / 'training_states')
        return {path.name: torch.load(path, weights_only=True)
                for folder in folders for path in sorted(folder.iterdir()) if not path.name.startswith('.')}


def differences(one: Any, other: Any, where: str = '') -> list[str]:
    """Where two nested structures differ by as much as a bit."""
    if type(one) is not type(other):
        return [f'{where}: {type(one).__name__}, {type(other).__name__}']
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape and torch.equal(
            one.contiguous().view(torch.uint8) if one.ndim else one, other.contiguous().view(torch.uint8)
            if other.ndim else other)
        return [] if same else [where]
    if isinstance(one, dict):
        found = [f'{where}: keys {sorted(map(str, set(one) ^ set(other)))}'] if set(one) != set(other) else []
        return found + [d for key in one if key in other for d in differences(one[key], other[key], f'{where}/{key}')]
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return [f'{where}: lengths {len(one)}, {len(other)}']
        return [d for k, pair in enumerate(zip(one, other, strict=True)) for d in differences(*pair, f'{where}/{k}')]
    return [] if one == other else [f'{where}: {one}, {other}']


def assert_same_runs(one: TrainingRun, other: TrainingRun) -> None:
    """Bit for bit: networks, averages, optimisers, schedulers, generators, best metrics; and all logged numbers."""
    files, others = one.files(), other.files()
    assert set(files) == set(others)
    assert not differences(files, others)
    assert one.losses() == other.losses()
