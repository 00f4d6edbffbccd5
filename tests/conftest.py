"""One thread: the networks are too small to share out, and sums stay in one order. Real images, where they are."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

torch.set_num_threads(1)

BENCHMARKS = Path(__file__).parents[1] / 'benchmarks'


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


@pytest.fixture
def shared_data():
    """Real images, where they are at hand."""
    folder = Path(os.environ.get('DIL_TEST_DATA', Path(__file__).parents[2] / 'shared' / 'data'))
    if not folder.is_dir():
        pytest.skip(f'no real images at {folder}')
    return folder
