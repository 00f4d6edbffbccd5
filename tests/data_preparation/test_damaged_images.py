"""Truncated and bit-flipped images of every format, in folders and LMDBs, in training and packing: named or skipped."""

import subprocess
import sys
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

import dil_plugin.basicsr  # noqa: F401
from dil_plugin.basicsr.data.image_reader import ImageReader
from dil_plugin.data_preparation import CutSettings, prepare_data
from dil_plugin.data_preparation.cutting import cut_image
from dil_plugin.errors import DataError, OptionError, UnusableImage

TOOL = Path(__file__).resolve().parents[2] / 'tools/prepare_data.py'
FORMATS = ['.png', '.jpg', '.webp', '.bmp', '.tif']
RANDOM = np.random.default_rng(1)


def photograph(suffix: str) -> bytes:
    """A smooth image with some noise, so that every format has something to compress."""
    ramp = np.add.outer(np.arange(40), 2 * np.arange(50))[..., None] + np.array([0, 30, 60])
    return cv2.imencode(suffix, (ramp + RANDOM.integers(0, 20, ramp.shape)).astype(np.uint8))[1].tobytes()


def in_lmdb(root: Path, contents: dict[str, bytes]) -> Path:
    with lmdb.open(str(root), map_size=2**24) as env, env.begin(write=True) as transaction:
        for key, content in contents.items():
            transaction.put(key.encode(), content)
    return root


def lengths(content: bytes) -> list[int]:
    """Nothing at all, the first byte, within the header, the middle, all but the last bytes."""
    return [0, 1, 20, len(content) // 2, len(content) - 12]


@pytest.mark.parametrize('suffix', FORMATS)
def test_truncated_images_are_named(suffix: str, tmp_path: Path) -> None:
    content = photograph(suffix)
    parts = {f'cut{length}': content[:length] for length in lengths(content)}
    packed, reader = in_lmdb(tmp_path / 'a.lmdb', {**parts, 'whole': content}), ImageReader()
    assert reader.read('whole', str(packed), {'type': 'lmdb'}, 'datasets.train').shape == (40, 50, 3)
    for key, part in parts.items():
        path = tmp_path / f'{key}{suffix}'
        path.write_bytes(part)
        for read, names in (
            (lambda key=key: reader.read(key, str(packed), {'type': 'lmdb'}, 'datasets.train'), (key, str(packed))),
            (lambda path=path: reader.read(str(path), str(tmp_path), {'type': 'disk'}, 'here'), (str(path), )),
            (lambda path=path: cut_image(path, path.name, path.stem, None, CutSettings()), (str(path), )),
        ):
            with pytest.raises(UnusableImage) as error:
                read()
            assert all(name in str(error.value) for name in names)
            if len(part) >= 20 and suffix != '.tif':  # some versions of the decoder fill up with grey
                assert 'truncated' in error.value.reason


def flipped(content: bytes) -> bytes:
    damaged = bytearray(content)
    damaged[RANDOM.integers(len(content))] ^= 1 << int(RANDOM.integers(8))
    return bytes(damaged)


def test_every_flipped_bit_of_a_png_is_named(tmp_path: Path) -> None:
    """Which is the format of all records that prepare_data.py writes."""
    content, reader = photograph('.png'), ImageReader()
    damaged = {f'{k}': flipped(content) for k in range(120)}
    packed = in_lmdb(tmp_path / 'a.lmdb', damaged)
    for key in damaged:
        with pytest.raises(UnusableImage, match=rf"image '{key}' in .*a\.lmdb: cannot be decoded"):
            reader.read(key, str(packed), {'type': 'lmdb'}, 'datasets.train')


@pytest.mark.parametrize('suffix', FORMATS[1:])
def test_flipped_bits_of_other_formats_do_no_harm(suffix: str, tmp_path: Path) -> None:
    """They have no checksum: what can still be decoded is an image, and all else is named."""
    content, reader, path = photograph(suffix), ImageReader(), tmp_path / f'a{suffix}'
    named = 0
    for _ in range(80):
        path.write_bytes(flipped(content))
        said = None
        try:
            image = reader.read(str(path), str(tmp_path), {'type': 'disk'}, 'datasets.train')
        except UnusableImage as error:
            said = str(error)
        assert said is None and image.dtype == np.uint8 and image.shape[2:] == (3, ) or str(path) in str(said)
        named += said is not None
    assert named < 80


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good images, and two that are damaged."""
    (tmp_path / 'in').mkdir()
    for name in 'abcde':
        content = photograph('.png')
        (tmp_path / 'in' / f'{name}.png').write_bytes({'b': content[:-20], 'd': b'text'}.get(name, content))
    return tmp_path / 'in'


def keys(out: Path) -> list[str]:
    with lmdb.open(str(out), readonly=True, lock=False) as env, env.begin() as transaction:
        return [key.decode() for key, _ in transaction.cursor()]


def test_packing_stops_at_a_damaged_image_or_leaves_it_out(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(TOOL), '-i', 'in', '-o', 'out.lmdb', '--workers', '1']
    stopped = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (stopped.returncode, stopped.stdout) == (2, '')
    assert stopped.stderr == 'error: in/b.png: the PNG file is truncated: it ends before its IEND chunk\n'
    assert not (tmp_path / 'out.lmdb/meta_info.txt').exists()

    command += ['--on-bad-image', 'skip']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, '')
    assert 'images that cannot be read or decoded, left out: 2\n' in done.stdout
    assert '  b.png: the PNG file is truncated' in done.stdout
    assert '  d.png: not an image that OpenCV can decode' in done.stdout
    assert keys(tmp_path / 'out.lmdb') == ['a', 'c', 'e']
    assert (tmp_path / 'out.lmdb/meta_info.txt').read_text().count('\n') == 3


def test_a_call_that_continues_tries_bad_images_again(folder: Path, tmp_path: Path) -> None:
    out, good = tmp_path / 'out.lmdb', photograph('.png')
    first = prepare_data(folder, out, CutSettings(), workers=1, on_bad_image='skip')
    assert [line.split(':')[0] for line in first.bad] == ['b.png', 'd.png']
    assert prepare_data(folder, out, CutSettings(), workers=1).bad == first.bad  # complete: told once more
    (out / 'meta_info.txt').unlink()  # as if it had been killed before its end
    (folder / 'b.png').write_bytes(good)
    second = prepare_data(folder, out, CutSettings(), workers=1, on_bad_image='skip')
    assert (second.resumed, second.records, [line.split(':')[0] for line in second.bad]) == (3, 4, ['d.png'])
    (out / 'meta_info.txt').unlink()
    with pytest.raises(DataError, match=r'd\.png: not an image'):
        prepare_data(folder, out, CutSettings(), workers=1)


def test_nothing_but_damaged_images(tmp_path: Path) -> None:
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in/a.png').write_bytes(b'text')
    with pytest.raises(DataError, match=r'none of the 1 images was stored: 1 cannot .* first is a\.png: not an image'):
        prepare_data(tmp_path / 'in', tmp_path / 'out.lmdb', CutSettings(), workers=1, on_bad_image='skip')


def test_pairs_stay_whole(tmp_path: Path) -> None:
    from dil_plugin.data_preparation.tool import Packing, prepare_pairs
    with pytest.raises(OptionError, match=r'--on-bad-image: skip, .* allowed: error'):
        prepare_pairs(tmp_path, 'RealSR', None, 4, CutSettings(), False, Packing(on_bad_image='skip'))
