"""One thread: the networks are too small to share out, and sums stay in one order. Real images, where they are."""

import importlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

torch.set_num_threads(1)

BENCHMARKS = Path(__file__).parents[1] / 'benchmarks'


@pytest.fixture(autouse=True)
def _no_log_to_closed_streams() -> None:
    """BasicSR's log forgets streams of earlier tests: Python would say in this one's standard error that they are gone.
    """
    logger = logging.getLogger('basicsr')
    logger.handlers[:] = [handler for handler in logger.handlers
                          if not getattr(getattr(handler, 'stream', None), 'closed', False)]


@pytest.fixture(scope='module')
def import_benchmark() -> Iterator[Callable[[str], ModuleType]]:
    """Imports a script of benchmarks/ as a module, with its neighbours importable."""
    before, path = set(sys.modules), list(sys.path)
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], '__file__', None) or '/').parent == BENCHMARKS:
            del sys.modules[name]


@pytest.fixture(scope='session')
def run_ranks(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Any]]:
    """Runs ``worker RANK WORLD INIT_METHOD RESULT ARGUMENTS…`` as one process per rank; returns what each has saved."""

    def run(worker: Path, world: int, *arguments: object, timeout: float = 200) -> list[Any]:
        folder = tmp_path_factory.mktemp('ranks')
        path = os.pathsep.join(path for path in sys.path if path)
        results = [folder / f'{rank}.pt' for rank in range(world)]
        commands = [[sys.executable, str(worker), str(rank), str(world), (folder / 'meet').as_uri(), str(result),
                     *map(str, arguments)] for rank, result in enumerate(results)]
        processes = [subprocess.Popen(command, env={**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'},
                                      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
                     for command in commands]
        try:
            for process in processes:
                _, errors = process.communicate(timeout=timeout)
                assert process.returncode == 0, errors
        finally:
            for process in processes:
                process.kill()
        return [torch.load(result, weights_only=False) for result in results]

    return run


@pytest.fixture
def shared_data():
    """Real images, where they are at hand."""
    folder = Path(os.environ.get('DIL_TEST_DATA', Path(__file__).parents[2] / 'shared' / 'data'))
    if not folder.is_dir():
        pytest.skip(f'no real images at {folder}')
    return folder
