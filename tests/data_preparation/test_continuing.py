"""A killed call, a full disk, a map that is too small: what is there is taken over, nothing half is taken for whole."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

import dil_plugin.basicsr  # noqa: F401
from dil_plugin.basicsr.data.image_list import clean_images
from dil_plugin.basicsr.data.options import parse_dataset_options
from dil_plugin.data_preparation import CutSettings, prepare_data, storage
from dil_plugin.data_preparation.storage import journal_path, load_journal, open_store
from dil_plugin.errors import DataError

TOOL = Path(__file__).resolve().parents[2] / 'tools/prepare_data.py'
IMAGES = 10

# The tool as it is, but for the time between commits: by then, so few small images would be done.
COMMITTING_EACH_IMAGE = f"""
import runpy, sys
sys.path.insert(0, {str(TOOL.parent.parent)!r})
from dil_plugin.data_preparation import packing
packing._COMMIT_SECONDS = 0
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images that take the strongest compression a while, so that an interruption meets it at work."""
    folder = tmp_path / 'in'
    folder.mkdir()
    for number in range(IMAGES):
        image = np.random.default_rng(number).integers(0, 4, (240, 480, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f'{number}.png'), image)
    return folder


def records_of(out: Path) -> dict[bytes, bytes]:
    with lmdb.open(str(out), readonly=True, lock=False) as env, env.begin() as transaction:
        return dict(transaction.cursor())


def command(out: str, *first: str) -> list[str]:
    settings = ['--size', '240', '--step', '120', '--compress-level', '9', '--workers', '1']
    return [sys.executable, *first, str(TOOL), '-i', 'in', '-o', out, *settings]


def trained_on(out: Path) -> list[str]:
    """What training on it begins with."""
    block = {'name': 'a', 'type': 'DistortionAugmentedDataset', 'dataroot_gt': str(out), 'io_backend': {'type': 'lmdb'},
             'gt_size': 16}
    return clean_images(parse_dataset_options(block, 'datasets.train'), 'datasets.train')


def test_a_killed_call_continues_and_does_not_read_finished_images_again(folder: Path, tmp_path: Path) -> None:
    prepare_data(folder, tmp_path / 'whole.lmdb', CutSettings(240, 120, compress_level=9), workers=1)
    out, journal = tmp_path / 'out.lmdb', journal_path(tmp_path / 'out.lmdb')
    process = subprocess.Popen(command('out.lmdb', '-c', COMMITTING_EACH_IMAGE), cwd=tmp_path, stderr=subprocess.PIPE)
    limit = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b'\n') > 4):  # the settings and four images
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert not (out / 'meta_info.txt').exists(), 'killed too late'
    with pytest.raises(DataError, match=r'out\.lmdb has no meta_info\.txt'):
        trained_on(out)

    noted = load_journal(journal)[1]
    stored = records_of(out)
    finished = [name for name, entry in noted.items() if all(r.key.encode() in stored for r in entry.records)]
    assert 3 <= len(finished) < IMAGES
    for name in finished:  # of the same length and time, but no image any more: whoever reads it again fails
        status = (folder / name).stat()
        (folder / name).write_bytes(b'x' * status.st_size)
        os.utime(folder / name, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = subprocess.run(command('out.lmdb'), cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (again.returncode, again.stderr) == (0, '')
    assert f'images taken over from an interrupted call: {len(finished)}\n' in again.stdout
    assert records_of(out) == records_of(tmp_path / 'whole.lmdb')
    assert (out / 'meta_info.txt').read_bytes() == (tmp_path / 'whole.lmdb/meta_info.txt').read_bytes()
    assert len(trained_on(out)) == 3 * IMAGES


@pytest.mark.parametrize(('name', 'limit'), [('out.lmdb', 300_000), ('out', 2_000)])
def test_a_full_disk_is_one_line_and_leaves_nothing_that_looks_whole(folder: Path, tmp_path: Path, name: str,
                                                                      limit: int) -> None:
    """A limit on the size of a file, which meets a write in the middle as a full disk does."""

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(command(name), cwd=tmp_path, capture_output=True, text=True, timeout=60,
                          preexec_fn=small_disk)
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr.startswith(f'error: {name}: cannot be written: ')
    assert done.stderr.count('\n') == 1
    assert re.search(r'\(that disk has \d+ MiB left; what is stored stays', done.stderr)
    assert not storage.meta_path(tmp_path / name).exists()
    if name == 'out':
        return
    with pytest.raises(DataError, match=r'has no meta_info\.txt'):
        trained_on(tmp_path / name)
    again = subprocess.run(command(name), cwd=tmp_path, capture_output=True, text=True, timeout=60)  # there is room now
    assert (again.returncode, again.stderr) == (0, '')
    assert f'{name}: {3 * IMAGES} records from {IMAGES} images' in again.stdout


def test_the_map_grows_from_next_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With records of one byte and of five MiB, of which each is larger than the map and than its first growth."""
    monkeypatch.setattr(storage, '_MAP_START', 4096)
    out = tmp_path / 'out.lmdb'
    out.mkdir()
    items = [(f'{k:04d}', bytes([k % 256]) * (5 * 2**20 if k % 50 == 0 else 1)) for k in range(300)]
    with open_store(out) as store:
        for start in range(0, 300, 30):
            store.write(items[start:start + 30])
    assert records_of(out) == {key.encode(): content for key, content in items}
