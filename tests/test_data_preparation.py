"""Cutting and packing: boxes, formats, what is stored, and what an interrupted call leaves."""

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import pytest

from dil_plugin.data_preparation import (
    CutSettings,
    find_images,
    incomplete_reason,
    prepare_data,
    read_image,
    storage,
    subimage_boxes,
    verify_data,
)
from dil_plugin.data_preparation.workers import in_order
from dil_plugin.errors import DataError, OptionError

TOOL = Path(__file__).resolve().parent.parent / 'tools' / 'prepare_data.py'

# The tool as it is, but for the time between commits: by then, so few small images would be done.
COMMITTING_EACH_IMAGE = f"""
import runpy, signal, sys
sys.path.insert(0, {str(TOOL.parent.parent)!r})
from dil_plugin.data_preparation import packing
packing._COMMIT_SECONDS = 0
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started with it ignored
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def noise(*shape: int, seed: int = 0, dtype: Any = np.uint8, high: int | None = None) -> np.ndarray:
    high = high or int(np.iinfo(dtype).max) + 1
    return np.random.default_rng(seed).integers(0, high, shape, dtype)


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def records_of(path: Path) -> dict[str, bytes]:
    if path.suffix != '.lmdb':
        return {file.stem: file.read_bytes() for file in path.glob('*.png')}
    with lmdb.open(str(path), readonly=True, lock=False) as env, env.begin() as transaction:
        return {key.decode('ascii'): value for key, value in transaction.cursor()}


def decode(content: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image


def pixels_of(path: Path) -> dict[str, np.ndarray]:
    return {key: decode(content) for key, content in records_of(path).items()}


def with_orientation(jpeg: bytes, orientation: int, thumbnail: bytes = b'') -> bytes:
    tiff = b'MM\0*' + struct.pack('>IHHHIHHI', 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    segment = b'Exif\0\0' + tiff + thumbnail
    return jpeg[:2] + b'\xff\xe1' + struct.pack('>H', len(segment) + 2) + segment + jpeg[2:]


# Boxes


@pytest.mark.parametrize('thresh', [0, 3])
@pytest.mark.parametrize(('size', 'step'), [(8, 8), (8, 4), (8, 5), (7, 1), (1, 1)])
def test_boxes_cover_every_pixel_up_to_thresh(size: int, step: int, thresh: int) -> None:
    for height in range(size, size + 14):
        for width in (size, size + 1, size + 9, 30):
            covered = np.zeros((height, width), bool)
            boxes = subimage_boxes(height, width, size, step, thresh)
            for top, bottom, left, right in boxes:
                assert min(top, left) >= 0
                assert bottom <= height
                assert right <= width
                assert (bottom - top, right - left) == (size, size)
                covered[top:bottom, left:right] = True
            assert len(set(boxes)) == len(boxes)
            assert boxes == sorted(boxes)
            assert covered[: height - thresh, : width - thresh].all()


def test_boxes_on_the_border_only_above_thresh() -> None:
    assert [box[2] for box in subimage_boxes(8, 21, 8, 6, thresh=1)] == [0, 6, 12]
    assert [box[2] for box in subimage_boxes(8, 21, 8, 6, thresh=0)] == [0, 6, 12, 13]
    with pytest.raises(DataError, match='7x9 pixels'):
        subimage_boxes(7, 9, 8, 4)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'size': 0}, 'size: must be at least 1 pixel, not 0'),
        ({'size': 8, 'step': -1}, 'step: must be at least 1 pixel, not -1'),
        ({'step': 4}, 'need a size'),
        ({'size': 8, 'thresh': -1}, 'thresh'),
        ({'small': 'drop'}, "keep, skip or error, not 'drop'"),
        ({'compress_level': 10}, 'from 0 to 9, not 10'),
    ],
)
def test_settings_outside_their_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        CutSettings(**options)


# Source files


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.bmp', '.webp'])
@pytest.mark.parametrize('channels', [1, 3])
def test_every_truncation_is_noticed(suffix: str, channels: int) -> None:
    image = noise(9, 13, channels)
    content = cv2.imencode(suffix, image)[1].tobytes()
    assert incomplete_reason(content) is None
    assert incomplete_reason(content + b'appended') is None
    assert incomplete_reason(b'') == 'the file is empty'
    # A shorter start could be that of any file and has no format yet; the decoder refuses it.
    for length in range(12, len(content)):
        assert 'truncated' in str(incomplete_reason(content[:length])), length


def test_progressive_jpeg_and_thumbnail() -> None:
    progressive = cv2.imencode('.jpg', noise(40, 50, 3), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    thumbnail = cv2.imencode('.jpg', noise(8, 8, 3))[1].tobytes()
    content = with_orientation(progressive, 1, thumbnail)
    assert incomplete_reason(content) is None
    assert b'\xff\xd9' in content[:-2]
    assert 'FFD9' in str(incomplete_reason(content[:-1]))
    assert 'FFD9' in str(incomplete_reason(content[: len(content) // 2]))


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.bmp', '.tiff', '.webp'])
def test_truncated_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f'broken{suffix}', noise(40, 50, 3))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=f'broken{suffix}'):
        read_image(path)


def test_corrupt_and_unsupported_files_are_named(tmp_path: Path) -> None:
    flipped = bytearray(cv2.imencode('.png', noise(40, 50, 3))[1].tobytes())
    flipped[len(flipped) // 2] ^= 0x55
    (tmp_path / 'flipped.png').write_bytes(flipped)
    (tmp_path / 'text.png').write_text('version https://example.org/pointer')
    save(tmp_path / 'float.tiff', noise(8, 8, 3).astype(np.float32))
    for name, message in [('flipped.png', 'corrupt'), ('text.png', 'not an image'), ('float.tiff', 'float32')]:
        with pytest.raises(DataError, match=rf'{name}.*{message}'):
            read_image(tmp_path / name)


def test_formats_are_stored_as_they_are(tmp_path: Path) -> None:
    colour, deep, grey = noise(20, 30, 3), noise(20, 30, 3, dtype=np.uint16), noise(20, 30)
    expected = {'colour8': colour, 'colour16': deep, 'grey8': grey, 'grey16': deep[..., 0], 'bitmap': colour}
    expected |= {'tagged16': deep, 'with_alpha': colour, 'with_alpha16': deep}
    folder = tmp_path / 'in'
    for name, image in expected.items():
        suffix = {'bitmap': '.bmp', 'tagged16': '.tiff'}.get(name, '.png')
        if name.startswith('with_alpha'):
            image = np.concatenate([image, noise(20, 30, 1, dtype=image.dtype.type)], axis=2)
        save(folder / f'{name}{suffix}', image)
    jpeg = cv2.imencode('.jpg', colour)[1].tobytes()
    (folder / 'turned.JPEG').write_bytes(with_orientation(jpeg, 6))
    expected['turned'] = np.rot90(decode(jpeg), k=-1)
    out = tmp_path / 'out.lmdb'
    summary = prepare_data(folder, out, CutSettings(), workers=1)
    assert (summary.images, summary.records, summary.alpha) == (9, 9, 2)
    stored = pixels_of(out)
    assert stored.keys() == expected.keys()
    for name, image in expected.items():
        assert stored[name].dtype == image.dtype
        np.testing.assert_array_equal(stored[name], image, err_msg=name)
    lines = (out / 'meta_info.txt').read_text().splitlines()
    assert 'grey8.png (20,30,1) 1' in lines
    assert 'turned.png (30,20,3) 1' in lines


# Names


@pytest.mark.parametrize('names', [('a.b.png', 'a_b.png'), ('a.png', 'a.jpg'), ('a b.png', 'a_b.png')])
def test_same_key_names_both_files(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        save(tmp_path / 'in' / name, noise(8, 8))
    with pytest.raises(DataError) as error:
        prepare_data(tmp_path / 'in', tmp_path / 'out.lmdb', CutSettings())
    assert all(name in str(error.value) for name in names)
    assert not (tmp_path / 'out.lmdb').exists()


def test_names_that_cannot_be_keys(tmp_path: Path) -> None:
    save(tmp_path / 'in' / 'bücher.png', noise(8, 8))
    with pytest.raises(DataError, match=r'bücher\.png.*ASCII'):
        prepare_data(tmp_path / 'in', tmp_path / 'out.lmdb', CutSettings())


def test_finding_images(tmp_path: Path) -> None:
    for name in ('b.png', 'a.JPG', 'sub/c.tif', '.hidden.png', '.cache/d.png', 'notes.txt'):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert find_images(tmp_path) == [tmp_path / 'a.JPG', tmp_path / 'b.png']
    assert find_images(tmp_path, recursive=True)[-1] == tmp_path / 'sub' / 'c.tif'
    (tmp_path / '.cache' / 'd.png').unlink()
    with pytest.raises(DataError, match=r'\.cache: no image'):
        find_images(tmp_path / '.cache')
    with pytest.raises(DataError, match='no such folder'):
        find_images(tmp_path / 'missing')


# What is stored


def test_pixels_equal_to_slices_in_lmdb_and_folder(tmp_path: Path) -> None:
    first, second = noise(40, 50, 3, seed=1), noise(33, 32, seed=2)
    save(tmp_path / 'in' / 'one.two.png', first)
    save(tmp_path / 'in' / 'sub' / 'grey.png', second)
    expected = {
        **{
            f'one_two_s{4 * row + column + 1:03d}': first[top : top + 32, left : left + 32]
            for row, top in enumerate([0, 8])
            for column, left in enumerate([0, 8, 16, 18])
        },
        'sub_grey_s001': second[:32, :32],
        'sub_grey_s002': second[1:, :32],
    }
    for out in (tmp_path / 'out.lmdb', tmp_path / 'out'):
        prepare_data(tmp_path / 'in', out, CutSettings(size=32, step=8), recursive=True, workers=1)
        stored = pixels_of(out)
        assert stored.keys() == expected.keys()
        assert all(np.array_equal(stored[key], image) for key, image in expected.items())
    lines = (tmp_path / 'out.lmdb' / 'meta_info.txt').read_text().splitlines()
    assert lines[0] == 'one_two_s001.png (32,32,3) 1'
    assert lines[-1] == 'sub_grey_s002.png (32,32,1) 1'
    assert [line.split('.')[0] for line in lines] == list(expected)


def test_basicsr_reads_the_result(tmp_path: Path) -> None:
    # Makes BasicSR importable on a current torchvision.
    import dil_plugin.basicsr  # noqa: F401, I001
    from basicsr.data.data_util import paths_from_folder, paths_from_lmdb
    from basicsr.utils import FileClient, imfrombytes

    image = noise(24, 40, 3)
    save(tmp_path / 'in' / 'v1.0 a.png', image)
    out = tmp_path / 'out.lmdb'
    prepare_data(tmp_path / 'in', out, CutSettings(size=24, step=16), workers=1)
    keys = paths_from_lmdb(str(out))
    assert keys == ['v1_0_a_s001', 'v1_0_a_s002']
    client = FileClient('lmdb', db_paths=[str(out)], client_keys=['gt'])
    for key, left in zip(keys, (0, 16), strict=True):
        read = imfrombytes(client.get(key, 'gt'), float32=False)
        np.testing.assert_array_equal(read, image[:, left : left + 24])
    prepare_data(tmp_path / 'in', tmp_path / 'folder', CutSettings(size=24, step=16), workers=1)
    assert {Path(path).stem for path in paths_from_folder(str(tmp_path / 'folder'))} == set(keys)


def test_small_images(tmp_path: Path) -> None:
    save(tmp_path / 'in' / 'large.png', noise(16, 16))
    save(tmp_path / 'in' / 'small.png', noise(16, 9))
    kept = prepare_data(tmp_path / 'in', tmp_path / 'keep.lmdb', CutSettings(16), workers=1)
    assert (kept.records, kept.small) == (2, 1)
    assert pixels_of(tmp_path / 'keep.lmdb')['small_s001'].shape == (16, 9)
    skipped = prepare_data(tmp_path / 'in', tmp_path / 'skip.lmdb', CutSettings(16, small='skip'), workers=1)
    assert (skipped.records, skipped.small) == (1, 1)
    with pytest.raises(DataError, match=r'small\.png: its 16x9 pixels'):
        prepare_data(tmp_path / 'in', tmp_path / 'error.lmdb', CutSettings(16, small='error'), workers=1)
    with pytest.raises(DataError, match='none of the 2 images was stored: all are smaller than the size 17'):
        prepare_data(tmp_path / 'in', tmp_path / 'none.lmdb', CutSettings(17, small='skip'), workers=1)


def test_map_grows_and_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, '_MAP_START', 64 * 1024)
    for number in range(3):
        save(tmp_path / 'in' / f'{number}.png', noise(512, 512, 3, seed=number))
    out = tmp_path / 'out.lmdb'
    assert prepare_data(tmp_path / 'in', out, CutSettings(size=256), workers=1).records == 27
    assert 27 * 256 * 256 * 3 < (out / 'data.mdb').stat().st_size < 16 * 1024 * 1024


def test_results_do_not_pile_up() -> None:
    taken = 0

    def tasks() -> Iterator[tuple[int]]:
        nonlocal taken
        for taken in range(20):
            yield (-taken,)

    for number, result in enumerate(in_order(abs, tasks(), workers=1)):
        assert result == number
        assert taken - number <= 3


# Complete, foreign and damaged outputs


def test_complete_output_is_left_alone_and_verified(tmp_path: Path) -> None:
    save(tmp_path / 'in' / 'a.png', noise(16, 24))
    out = tmp_path / 'out.lmdb'
    prepare_data(tmp_path / 'in', out, CutSettings(size=16), workers=1)
    before = (out / 'data.mdb').stat().st_mtime_ns
    again = prepare_data(tmp_path / 'in', out, CutSettings(size=16))
    assert again.already_complete
    assert again.records == 2
    assert (out / 'data.mdb').stat().st_mtime_ns == before
    with pytest.raises(DataError, match='size was 16, now 12'):
        prepare_data(tmp_path / 'in', out, CutSettings(size=12))

    with lmdb.open(str(out)) as env, env.begin(write=True) as transaction:
        transaction.put(b'a_s002', cv2.imencode('.png', noise(16, 16, seed=9))[1].tobytes())
    with pytest.raises(DataError, match='record a_s002 has other pixels'):
        prepare_data(tmp_path / 'in', out, CutSettings(size=16), workers=1, verify=True)
    with lmdb.open(str(out)) as env, env.begin(write=True) as transaction:
        transaction.delete(b'a_s002')
    with pytest.raises(DataError, match='holds 1 records, expected are 2'):
        verify_data(out, workers=1)

    prepare_data(tmp_path / 'in', out, CutSettings(size=12), workers=1, overwrite=True)
    assert verify_data(out, workers=1) == 6


def test_other_folders_are_not_touched(tmp_path: Path) -> None:
    save(tmp_path / 'in' / 'a.png', noise(16, 24))
    precious = save(tmp_path / 'other' / 'photo.png', noise(8, 8))
    for overwrite in (False, True):
        with pytest.raises(DataError, match='was not written by this tool'):
            prepare_data(tmp_path / 'in', precious.parent, CutSettings(), overwrite=overwrite)
    with pytest.raises(OptionError, match='must not lie'):
        prepare_data(tmp_path / 'in', tmp_path / 'in', CutSettings())
    with pytest.raises(OptionError, match='must not lie'):
        prepare_data(tmp_path / 'in', tmp_path / 'in' / 'out', CutSettings(), recursive=True)
    assert precious.exists()


# Interruptions


def test_settings_may_change_while_nothing_is_stored(tmp_path: Path) -> None:
    save(tmp_path / 'in' / 'a.png', noise(16, 24))
    with pytest.raises(DataError, match=r'a\.png'):
        prepare_data(tmp_path / 'in', tmp_path / 'out.lmdb', CutSettings(size=32, small='error'), workers=1)
    summary = prepare_data(tmp_path / 'in', tmp_path / 'out.lmdb', CutSettings(size=32, small='keep'), workers=1)
    assert summary.records == 1


def test_an_lmdb_of_another_tool_is_neither_complete_nor_overwritten(tmp_path: Path) -> None:
    save(tmp_path / 'in' / 'a.png', noise(16, 24))
    out = tmp_path / 'out.lmdb'
    prepare_data(tmp_path / 'in', out, CutSettings(), workers=1)
    (out / 'preparation.jsonl').unlink()
    for overwrite in (False, True):
        with pytest.raises(DataError, match='was not written by this tool'):
            prepare_data(tmp_path / 'in', out, CutSettings(), workers=1, overwrite=overwrite)
    assert verify_data(out) == 1


def test_continuing_after_a_corrupt_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('dil_plugin.data_preparation.packing._COMMIT_SECONDS', 0.0)
    for name in 'abc':
        save(tmp_path / 'in' / f'{name}.png', noise(16, 24, seed=ord(name)))
    corrupt = tmp_path / 'in' / 'b.png'
    whole = corrupt.read_bytes()
    corrupt.write_bytes(whole[:-7])
    out = tmp_path / 'out'
    with pytest.raises(DataError, match=r'b\.png: the PNG file is truncated'):
        prepare_data(tmp_path / 'in', out, CutSettings(size=16), workers=1)
    assert not (out / '.meta_info.txt').exists()

    for settings, message in [
        (CutSettings(size=12), 'size was 16, now 12; step was 8, now 6'),
        (CutSettings(size=16, step=16), 'step was 8, now 16'),
        (CutSettings(size=16, compress_level=2), 'compress_level was 1, now 2'),
    ]:
        with pytest.raises(DataError, match=message):
            prepare_data(tmp_path / 'in', out, settings)
    added = save(tmp_path / 'in' / 'd.png', noise(16, 16))
    with pytest.raises(DataError, match='number of images was 3, now 4; the names of the images changed'):
        prepare_data(tmp_path / 'in', out, CutSettings(size=16))

    added.unlink()
    corrupt.write_bytes(whole)
    assert prepare_data(tmp_path / 'in', out, CutSettings(size=16), workers=1).records == 6


def test_torn_journal_line_and_unstored_records(tmp_path: Path) -> None:
    for name in 'abc':
        save(tmp_path / 'in' / f'{name}.png', noise(16, 24, seed=ord(name)))
    out = tmp_path / 'out.lmdb'
    prepare_data(tmp_path / 'in', out, CutSettings(size=16), workers=1)
    expected, meta = records_of(out), (out / 'meta_info.txt').read_text()
    # As killed at the worst moments: the line of b came before its records, that of c did not come to its end.
    (out / 'meta_info.txt').unlink()
    journal = out / 'preparation.jsonl'
    journal.write_bytes(journal.read_bytes()[:-20])
    with lmdb.open(str(out)) as env, env.begin(write=True) as transaction:
        transaction.delete(b'b_s001')
    summary = prepare_data(tmp_path / 'in', out, CutSettings(size=16), workers=1)
    assert summary.resumed == 1
    assert records_of(out) == expected
    assert (out / 'meta_info.txt').read_text() == meta


@pytest.fixture(scope='module')
def many_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that take the strongest compression a second or two, so that an interruption meets it at work."""
    folder = tmp_path_factory.mktemp('many') / 'in'
    for number in range(12):
        save(folder / f'{number:02d}.png', noise(240, 480, 3, seed=number, high=4))
    return folder


@pytest.fixture(scope='module')
def uninterrupted(many_images: Path) -> Path:
    out = many_images.parent / 'whole.lmdb'
    prepare_data(many_images, out, CutSettings(size=240, step=240, compress_level=9), workers=1)
    return out


@pytest.mark.skipif(os.name != 'posix', reason='needs signals')
@pytest.mark.parametrize(('sent', 'name'), [(signal.SIGKILL, 'out.lmdb'), (signal.SIGINT, 'out')])
def test_interrupted_tool_continues(
    many_images: Path, uninterrupted: Path, tmp_path: Path, sent: signal.Signals, name: str
) -> None:
    out = tmp_path / name
    arguments = [str(TOOL), '-i', str(many_images), '-o', str(out), '--workers', '1']
    arguments += ['--size', '240', '--step', '240', '--compress-level', '9']
    journal, meta = storage.journal_path(out), storage.meta_path(out)
    command = [sys.executable, '-c', COMMITTING_EACH_IMAGE, *arguments]
    process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 60
    # The third line, after the settings and the first image, says that the first image is stored.
    while not (journal.exists() and journal.read_bytes().count(b'\n') > 2):
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)
    if sent == signal.SIGKILL:
        process.kill()
    else:
        # As a terminal does it: every process of the group gets the signal.
        os.killpg(process.pid, sent)
    # The worker has the same stderr: this also waits until it has noticed the death of its parent.
    _, said = process.communicate(timeout=60)
    assert not meta.exists(), 'interrupted too late'
    if sent == signal.SIGINT:
        assert (process.returncode, said) == (130, 'interrupted; give the same command again to continue\n')

    again = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (again.returncode, again.stderr) == (0, '')
    assert 'images taken over from an interrupted call: ' in again.stdout
    assert records_of(out) == records_of(uninterrupted)
    assert meta.read_text() == (uninterrupted / 'meta_info.txt').read_text()


def test_tool_reports_mistakes_in_one_line(tmp_path: Path) -> None:
    save(tmp_path / 'in' / 'a.png', noise(16, 24))
    for arguments, message in [
        (['-i', 'missing', '-o', 'out.lmdb'], f'error: missing: there is no such folder (looked in {tmp_path})\n'),
        (['-i', 'in', '-o', 'out.lmdb', '--size', '0'], 'error: size: must be at least 1 pixel, not 0\n'),
        (['-i', 'in', '-o', 'out.lmdb', '--workers', '0'], 'error: workers: must be at least 1, not 0\n'),
    ]:
        done = subprocess.run(
            [sys.executable, str(TOOL), *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout, done.stderr) == (2, '', message)
