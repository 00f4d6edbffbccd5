"""An image that was replaced after it was packed is noticed: by a second call, by --verify, after an interruption."""

import json
import os

import cv2
import numpy as np
import pytest

from dil_plugin.data_preparation import CutSettings, prepare_data
from dil_plugin.data_preparation.storage import journal_path
from dil_plugin.errors import DataError

SETTINGS = CutSettings(32, 32)


def write(path, seed, width=64):
    """Random pixels, stored without compression: of one width all files are of one size."""
    image = np.random.default_rng(seed).integers(0, 256, (64, width, 3), dtype=np.uint8)
    cv2.imwrite(str(path), image, [cv2.IMWRITE_PNG_COMPRESSION, 0])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'in').mkdir()
    for k in range(2):
        write(tmp_path / f'in/{k}.png', k)
    return tmp_path / 'in'


@pytest.fixture
def pack(folder, tmp_path):
    def call(**arguments):
        return prepare_data(folder, tmp_path / 'out.lmdb', SETTINGS, workers=1, **arguments)

    call()
    return call


@pytest.mark.parametrize('verify', [False, True])
def test_another_image_of_the_same_name(folder, pack, tmp_path, verify):
    for width in (64, 128):  # of the same size as before, and of twice that
        write(folder / '0.png', 7, width)
        with pytest.raises(DataError, match=r'in/0\.png: changed since it was packed into .*; start anew with'):
            pack(verify=verify)
    write(folder / '1.png', 8)
    with pytest.raises(DataError, match=r'0\.png: changed since it was packed into .*out\.lmdb \(and 1 more\)'):
        pack(verify=verify)
    assert pack(overwrite=True).records == 8 + 4
    assert pack(verify=verify).already_complete


def test_a_copy_with_another_time_is_the_same_image(folder, pack):
    os.utime(folder / '0.png', (1, 1))
    assert pack().already_complete
    assert pack(verify=True).records == 8


def test_verifying_compares_bytes_where_size_and_time_are_the_same(folder, pack):
    before = (folder / '0.png').stat()
    write(folder / '0.png', 7)
    os.utime(folder / '0.png', ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (folder / '0.png').stat().st_size == before.st_size
    assert pack().already_complete
    with pytest.raises(DataError, match=r'0\.png: changed since'):
        pack(verify=True)


def test_an_interrupted_call_goes_on_with_unchanged_images_alone(folder, pack, tmp_path):
    (tmp_path / 'out.lmdb/meta_info.txt').unlink()
    assert pack().resumed == 2
    (tmp_path / 'out.lmdb/meta_info.txt').unlink()
    write(folder / '1.png', 9)
    with pytest.raises(DataError, match=r'1\.png: changed since'):
        pack()


def test_outputs_of_earlier_versions_are_compared_by_size(folder, pack, tmp_path):
    journal = journal_path(tmp_path / 'out.lmdb')
    header, *lines = journal.read_text().splitlines()
    old = [json.dumps(json.loads(line)[:6]) for line in lines]
    journal.write_text('\n'.join([header, *old]) + '\n')
    os.utime(folder / '0.png', (1, 1))
    assert pack(verify=True).already_complete
    write(folder / '0.png', 7, 128)
    with pytest.raises(DataError, match=r'0\.png: changed since'):
        pack()


@pytest.mark.parametrize('length', [0, 100])
@pytest.mark.parametrize('verify', [False, True])
def test_an_image_that_was_damaged_and_is_mended_is_noticed(folder, tmp_path, length, verify):
    good = (folder / '0.png').read_bytes()
    (folder / '0.png').write_bytes(good[:length])

    def call():
        return prepare_data(folder, tmp_path / 'out.lmdb', SETTINGS, workers=1, on_bad_image='skip', verify=verify)

    assert len(call().bad) == 1
    assert len(call().bad) == 1
    (folder / '0.png').write_bytes(good)
    with pytest.raises(DataError, match=r'0\.png: changed since'):
        call()
