"""LMDBs that are read: by several data sets of a process, after a fork and a spawn, by several processes at once."""

import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from dil_plugin.data_preparation import CutSettings, prepare_data
from dil_plugin.data_preparation.lmdb_reading import LmdbReader
from dil_plugin.data_preparation.storage import open_store
from dil_plugin.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 24


@pytest.fixture(scope='module')
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An LMDB of small images, each of one colour, its number."""
    folder = tmp_path_factory.mktemp('reading') / 'in'
    folder.mkdir()
    for number in range(IMAGES):
        cv2.imwrite(str(folder / f'{number:02d}.png'), np.full((16, 16, 3), number, np.uint8))
    prepare_data(folder, folder.parent / 'out.lmdb', CutSettings(), workers=1)
    return folder.parent / 'out.lmdb'


def number_of(content: bytes | None) -> int:
    assert content is not None
    return int(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[0, 0, 0])


class Numbers(Dataset[tuple[int, int, bool]]):
    """What is read of each record, the process that read it, and whether its environment was opened there."""

    def __init__(self, root: Path) -> None:
        self.reader = LmdbReader(root)

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> tuple[int, int, bool]:
        number = number_of(self.reader.get(f'{index:02d}'))
        assert self.reader._environment is not None
        return number, os.getpid(), self.reader._environment.process == os.getpid()


@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_data_workers_after_the_parent_has_read(packed: Path, method: str) -> None:
    dataset = Numbers(packed)
    assert dataset[3][0] == 3  # the parent's environment is open when the workers start
    loader = DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context=method)
    for _ in range(2 if method == 'fork' else 1):
        numbers, processes, own = (torch.cat(column).tolist() for column in zip(*loader, strict=True))
        assert numbers == list(range(IMAGES))
        assert len(set(processes) - {os.getpid()}) == 2
        assert all(own)
        assert dataset[5] == (5, os.getpid(), True)  # the parent goes on with its own


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_the_environment_of_the_parent_is_not_used_in_a_child(packed: Path) -> None:
    """Planted: the parent's environment says so when it is asked for a transaction in another process."""
    reader = LmdbReader(packed)
    reader.get('00')
    environment = reader._environment

    class Watched:
        def __init__(self, env: lmdb.Environment) -> None:
            self.env = env

        def begin(self, *arguments: object, **options: object) -> object:
            os._exit(7)  # reached in the child alone, see below

        def close(self) -> None:
            self.env.close()

    assert environment is not None
    real, environment.env = environment.env, Watched(environment.env)  # type: ignore[assignment]
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if number_of(reader.get('04')) == 4 else 1)
        except BaseException:
            os._exit(2)
    environment.env = real
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert number_of(reader.get('05')) == 5


def test_independent_processes_at_once(packed: Path) -> None:
    code = ('import sys; from dil_plugin.data_preparation.lmdb_reading import LmdbReader; r = LmdbReader(sys.argv[1]); '
            'print(sum(len(r.get(f"{n:02d}")) for _ in range(200) for n in range(24)))')
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path])}
    processes = [subprocess.Popen([sys.executable, '-c', code, str(packed)], stdout=subprocess.PIPE, text=True,
                                  env=environment) for _ in range(3)]
    reader = LmdbReader(packed)
    expected = 200 * sum(len(reader.get(f'{n:02d}') or b'') for n in range(IMAGES))
    assert [int(process.communicate(timeout=60)[0]) for process in processes] == [expected] * 3


def test_two_readers_and_a_store_share_one_environment(packed: Path) -> None:
    first, second = LmdbReader(packed), LmdbReader(str(packed) + '/')
    first.get('00')
    assert first.env is second.env
    with open_store(packed, readonly=True) as store:  # as another data set of it is built while one is read
        assert store.count() == IMAGES
    assert number_of(second.get('01')) == 1


def test_a_reader_lets_go(packed: Path) -> None:
    """Whoever writes needs it for himself, and a pickled reader opens anew."""
    reader = LmdbReader(packed)
    reader.get('00')
    copy = pickle.loads(pickle.dumps(reader))
    with pytest.raises(DataError, match='already open'), open_store(packed):
        pass
    del reader
    gc.collect()
    with open_store(packed) as store:
        assert store.count() == IMAGES
    assert number_of(copy.get('02')) == 2


def test_missing_lmdb_and_missing_key(packed: Path, tmp_path: Path) -> None:
    assert LmdbReader(packed).get('nothing') is None
    with pytest.raises(lmdb.Error):
        LmdbReader(tmp_path / 'nowhere.lmdb').get('a')


def test_pool_of_forked_processes(packed: Path) -> None:
    reader = LmdbReader(packed)
    reader.get('00')
    with multiprocessing.get_context('fork').Pool(2) as pool:
        found = pool.map(reader.get, [f'{n:02d}' for n in range(IMAGES)])
    assert [number_of(content) for content in found] == list(range(IMAGES))
