"""Multi-scale versions on their way into an LMDB: small ones, clashing names, grey images and a killed call."""

import json
import subprocess
import sys
import time
from pathlib import Path

import cv2
import lmdb
import numpy as np
import PIL.Image
import pytest

from dil_plugin.data_preparation import CutSettings, Source, pack_images, prepare_data
from dil_plugin.data_preparation.storage import journal_path, meta_path
from dil_plugin.errors import DataError

TOOL = Path(__file__).resolve().parents[2] / 'tools/prepare_data.py'

# The tool as it is, but for the time between commits: by then, so few small images would be done.
COMMITTING_EACH_IMAGE = f"""
import runpy, sys
sys.path.insert(0, {str(TOOL.parent.parent)!r})
from dil_plugin.data_preparation import packing
packing._COMMIT_SECONDS = 0
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def save(path: Path, *shape: int, seed: int = 0) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return image


def records(path: Path) -> dict[str, bytes]:
    with lmdb.open(str(path), readonly=True, lock=False) as env, env.begin() as transaction:
        return {key.decode(): bytes(value) for key, value in transaction.cursor()}


def test_small_versions_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    """Of 96x96 pixels cut into 40x40, the third (32x32) is too small; a small image itself is treated alike."""
    save(tmp_path / 'in/a.png', 96, 96, 3)
    save(tmp_path / 'in/b.png', 30, 30, 3)
    found = {}
    for small in (None, 'skip', 'keep'):
        settings = CutSettings(40, 40, small=small, multiscale=True)
        prepare_data(tmp_path / 'in', tmp_path / f'{small}.lmdb', settings, workers=1)
        found[small] = {key.split('_')[0] for key in records(tmp_path / f'{small}.lmdb')}
    assert found[None] == found['skip'] == {'a', 'aT0', 'aT1'}
    assert found['keep'] == {'a', 'aT0', 'aT1', 'aT2', 'b', 'bT0', 'bT1', 'bT2'}
    assert CutSettings(40).small == 'keep'


def test_the_tool_keeps_small_versions_where_it_is_told_to(tmp_path: Path) -> None:
    save(tmp_path / 'datasets/DIV2K/DIV2K_train_HR/0001.png', 420, 420, 3)
    command = [sys.executable, str(TOOL), '--dataset', 'DF2K', '--multiscale', '--allow-incomplete', '--workers', '1']
    for arguments, count in (([], 4 + 1), (['--small', 'keep', '--overwrite'], 4 + 3 + 1)):
        subprocess.run(command + arguments, cwd=tmp_path, check=True, capture_output=True)
        assert len(records(tmp_path / 'datasets/DF2K_multiscale_sub400.lmdb')) == count


def test_whole_images_have_all_their_versions(tmp_path: Path) -> None:
    image = save(tmp_path / 'in/a.png', 402, 500)
    prepare_data(tmp_path / 'in', tmp_path / 'out.lmdb', CutSettings(multiscale=True), workers=1)
    stored = {key: cv2.imdecode(np.frombuffer(value, np.uint8), cv2.IMREAD_UNCHANGED)
              for key, value in records(tmp_path / 'out.lmdb').items()}
    sizes = {'aT0': (375, 301), 'aT1': (250, 201), 'aT2': (166, 134), 'aT3': (497, 400)}
    assert stored.keys() == {'a', *sizes}
    for key, size in sizes.items():
        expected = PIL.Image.fromarray(image).resize(size, PIL.Image.Resampling.LANCZOS)
        assert np.array_equal(stored[key], np.asarray(expected)), key


@pytest.mark.parametrize('size', [None, 16])
def test_versions_that_are_there_already(tmp_path: Path, size: int | None) -> None:
    """As in a folder that Real-ESRGAN's script has filled: refused before anything is written."""
    save(tmp_path / 'in/a.png', 64, 64, 3)
    save(tmp_path / 'in/aT1.png', 32, 32, 3)
    with pytest.raises(DataError, match=r"aT1\.png and a smaller version of .*a\.png .* 'aT1'; .* --multiscale"):
        prepare_data(tmp_path / 'in', tmp_path / 'out.lmdb', CutSettings(size, multiscale=True), workers=1)
    assert not (tmp_path / 'out.lmdb').exists()
    assert prepare_data(tmp_path / 'in', tmp_path / 'out.lmdb', CutSettings(size), workers=1).images == 2


def test_the_part_that_is_kept(tmp_path: Path) -> None:
    """The upper left one; a call with another part does not go on with the output."""
    image = save(tmp_path / 'a.png', 20, 30, 3)
    pack_images([Source(tmp_path / 'a.png', 'a.png', 'a', (16, 24))], tmp_path / 'out.lmdb', CutSettings(), workers=1)
    stored = cv2.imdecode(np.frombuffer(records(tmp_path / 'out.lmdb')['a'], np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(stored, image[:16, :24])
    for kept in (None, (16, 28)):
        with pytest.raises(DataError, match='other settings'):
            pack_images([Source(tmp_path / 'a.png', 'a.png', 'a', kept)], tmp_path / 'out.lmdb', CutSettings())


def test_a_killed_call_goes_on_with_what_it_had(tmp_path: Path) -> None:
    for k in range(8):
        save(tmp_path / f'in/{k}.png', 420, 440, 3, seed=k)
    arguments = [str(TOOL), '-i', 'in', '-o', 'out.lmdb', '--size', '200', '--multiscale', '--workers', '1']
    journal, meta = journal_path(tmp_path / 'out.lmdb'), meta_path(tmp_path / 'out.lmdb')
    process = subprocess.Popen([sys.executable, '-c', COMMITTING_EACH_IMAGE, *arguments], cwd=tmp_path,
                               start_new_session=True, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 60
    # The third line, after the settings and the first image, says that the first image is stored.
    while not (journal.exists() and journal.read_bytes().count(b'\n') > 2):
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.005)
    process.kill()
    process.communicate(timeout=60)  # the worker has the same stderr: waits for its end too
    assert not meta.exists(), 'killed too late'
    assert json.loads(journal.read_text().splitlines()[0])['multiscale'] is True
    plain = [sys.executable, *(word for word in arguments if word != '--multiscale')]
    refused = subprocess.run(plain, cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 2
    assert 'multiscale was True, now None' in refused.stderr
    again = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert (again.returncode, again.stderr) == (0, '')
    assert 'images taken over from an interrupted call: ' in again.stdout
    prepare_data(tmp_path / 'in', tmp_path / 'whole.lmdb', CutSettings(200, multiscale=True), workers=1)
    assert records(tmp_path / 'out.lmdb') == records(tmp_path / 'whole.lmdb')
    assert meta.read_text() == meta_path(tmp_path / 'whole.lmdb').read_text()
