"""DND from HDF5 files as MATLAB writes them, and the submission for its server."""

import builtins
import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import scipy.io

from dil_plugin.errors import DataError, OptionError
from dil_plugin.evaluation.benchmark_sets import DndSubmission, MissingSet, open_benchmark

HEIGHT, WIDTH = 20, 30
BOXES = np.array([[1, 1, 4, 6], [3, 10, 20, 30]])  # top, left, bottom, right; from 1, the last one inside
Floats = npt.NDArray[np.float32]


def write_dnd(root: Path, images: int = 2, boxes: npt.NDArray[Any] = BOXES, refs_as_row: bool = True) -> list[Floats]:
    """Writes the set as MATLAB 7.3 does: axes in reverse order, fields of a struct array as references."""
    (root / 'images_srgb').mkdir(parents=True)
    generator = np.random.default_rng(0)
    pixels = [generator.random((HEIGHT, WIDTH, 3)).astype(np.float32) for _ in range(images)]
    for number, image in enumerate(pixels, 1):
        with h5py.File(root / 'images_srgb' / f'{number:04d}.mat', 'w') as file:
            file['InoisySRGB'] = image.transpose(2, 1, 0)
    with h5py.File(root / 'info.mat', 'w') as file:
        for number in range(images):
            file[f'#refs#/{number}'] = boxes.T.astype(float)
        references = np.array([file[f'#refs#/{number}'].ref for number in range(images)], dtype=h5py.ref_dtype)
        file['info/boundingboxes'] = references[None] if refs_as_row else references[:, None]
    return pixels


@pytest.mark.parametrize('folder', ['DND', 'dnd_2017'])
@pytest.mark.parametrize('refs_as_row', [True, False])
def test_boxes(tmp_path: Path, folder: str, refs_as_row: bool) -> None:
    pixels = write_dnd(tmp_path / folder, refs_as_row=refs_as_row)
    found = open_benchmark('DND', tmp_path, pairs=True)
    assert (found.names, found.has_gt) == (['0001_01', '0001_02', '0002_01', '0002_02'], False)
    sample = found.read('0002_02')
    expected = np.round(pixels[1].astype(float)[2:20, 9:30] * 255)[..., ::-1]
    assert sample.gt is None
    assert sample.lq.dtype == np.uint8
    np.testing.assert_array_equal(sample.lq, expected)
    assert found.read('0001_01').lq.shape == (4, 6, 3)


def test_remark(tmp_path: Path) -> None:
    write_dnd(tmp_path / 'DND', 50, np.tile(BOXES, (10, 1)))
    found = open_benchmark('DND', tmp_path, pairs=True)
    assert (len(found.names), found.names[-1], found.remark) == (1000, '0050_20', None)
    write_dnd(tmp_path / 'other' / 'DND')
    remark = open_benchmark('DND', tmp_path / 'other', pairs=True).remark
    assert remark == '4 images in DND, not the 1000 of the published set'


def test_clean_images_are_refused(tmp_path: Path) -> None:
    write_dnd(tmp_path / 'DND')
    with pytest.raises(OptionError, match='DND: its clean images are not public'):
        open_benchmark('DND', tmp_path)


def test_a_missing_and_a_damaged_image(tmp_path: Path) -> None:
    write_dnd(tmp_path / 'DND')
    found = open_benchmark('DND', tmp_path, pairs=True)
    images = tmp_path / 'DND' / 'images_srgb'
    (images / '0001.mat').write_bytes((images / '0001.mat').read_bytes()[:1000])
    (images / '0002.mat').unlink()
    with pytest.raises(DataError, match=r'0001\.mat: not a MATLAB 7\.3 file'):
        found.read('0001_01')
    with pytest.raises(DataError, match=r'0002\.mat: there is no such file'):
        found.read('0002_01')
    with pytest.raises(DataError, match="there is no box '0003_01'"):
        found.read('0003_01')


@pytest.mark.parametrize('box', [[0, 1, 4, 4], [1, 1, HEIGHT + 1, 4], [1, 5, 4, 4], [1, 1, 4, WIDTH + 1]])
def test_a_box_outside_its_image(tmp_path: Path, box: list[int]) -> None:
    write_dnd(tmp_path / 'DND', boxes=np.array([box]))
    with pytest.raises(DataError, match=r'box 0001_01 .* is not inside the 30x20'):
        open_benchmark('DND', tmp_path, pairs=True).read('0001_01')


@pytest.mark.parametrize(('lost', 'message'), [('info.mat', 'no info.mat'), ('images_srgb', r'no images_srgb/\*')])
def test_half_of_the_set(tmp_path: Path, lost: str, message: str) -> None:
    write_dnd(tmp_path / 'DND')
    (tmp_path / 'DND' / lost).rename(tmp_path / 'elsewhere')
    with pytest.raises(MissingSet, match=message):
        open_benchmark('DND', tmp_path, pairs=True)


def test_a_damaged_info_file(tmp_path: Path) -> None:
    write_dnd(tmp_path / 'DND')
    (tmp_path / 'DND' / 'info.mat').write_bytes(b'MATLAB 5.0 MAT-file')
    with pytest.raises(DataError, match=r'info\.mat: not a MATLAB 7\.3 file'):
        open_benchmark('DND', tmp_path, pairs=True)


def test_the_set_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingSet, match=r'DND: is not there; .*dnd_2017.*info\.mat \+ images_srgb'):
        open_benchmark('DND', tmp_path, pairs=True)


def test_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dnd(tmp_path / 'DND')
    load = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == 'h5py':
            raise ImportError(name)
        return load(name, *rest, **more)

    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.raises(DataError, match='needs h5py, install it: pip install h5py'):
        open_benchmark('DND', tmp_path, pairs=True)


def crop(seed: int) -> Floats:
    return np.random.default_rng(seed).random((3, 4, 3)).astype(np.float32)


@pytest.fixture(scope='module')
def all_crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all 1000 crops."""
    submission = DndSubmission(tmp_path_factory.mktemp('crops'))
    for number, name in enumerate(submission.missing):
        submission.add(name, crop(number))
    return submission.folder


@pytest.fixture
def submission(all_crops: Path, tmp_path: Path) -> DndSubmission:
    """A submission with all crops; its files are links, so replace them rather than write into them."""
    return DndSubmission(shutil.copytree(all_crops, tmp_path / 'dnd', copy_function=os.link))


def test_bundle_is_as_the_official_script_writes_it(submission: DndSubmission) -> None:
    folder = submission.bundle()
    assert folder == submission.folder / 'bundled'
    assert sorted(path.name for path in folder.iterdir()) == [f'{image:04d}.mat' for image in range(1, 51)]
    bundle = scipy.io.loadmat(folder / '0003.mat')
    assert bundle['Idenoised'].shape == (1, 20)
    assert bundle['Idenoised'].dtype == object
    for box in range(20):
        assert bundle['Idenoised'][0, box].dtype == np.float32
        np.testing.assert_array_equal(bundle['Idenoised'][0, box], crop(40 + box))
    assert scipy.io.whosmat(folder / '0003.mat') == [
        ('Idenoised', (1, 20), 'cell'), ('israw', (1, 1), 'logical'), ('eval_version', (1, ), 'char')]
    assert (bundle['israw'].item(), bundle['eval_version'].item()) == (False, '1.0')


def test_a_bundle_with_missing_crops_is_refused_and_goes_on_later(submission: DndSubmission) -> None:
    for name in ('0001_02', '0050_20'):
        (submission.folder / f'{name}.mat').unlink()
    assert not submission.has('0001_02')
    assert submission.has('0001_01')
    with pytest.raises(DataError, match='2 of 1000 crops are missing: 0001_02, 0050_20'):
        submission.bundle()
    assert not (submission.folder / 'bundled').exists()
    later = DndSubmission(submission.folder)
    assert later.missing == ['0001_02', '0050_20']
    for name in later.missing:
        later.add(name, crop(0))
    assert len(list(later.bundle().iterdir())) == 50


def test_many_missing_crops_are_counted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='1000 of 1000 crops are missing: 0001_01, .* and 990 more'):
        DndSubmission(tmp_path / 'new').bundle()


def test_a_damaged_crop_is_named(submission: DndSubmission) -> None:
    damaged = submission.folder / '0007_05.mat'
    damaged.unlink()
    damaged.write_bytes(b'')
    with pytest.raises(DataError, match=r'0007_05\.mat: damaged'):
        submission.bundle()


def test_a_write_that_fails_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: Any, variables: Any) -> None:
        file.write(b'half')
        raise OSError(28, 'No space left on device')

    submission = DndSubmission(tmp_path)
    submission.add('0001_01', crop(0))
    monkeypatch.setattr(scipy.io, 'savemat', fail)
    with pytest.raises(DataError, match=r'0001_01\.mat cannot be written \(No space left'):
        submission.add('0001_01', crop(1))
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ['0001_01.mat']
    np.testing.assert_array_equal(scipy.io.loadmat(tmp_path / '0001_01.mat')['Idenoised_crop'], crop(0))


def test_values_are_clipped_to_the_range_of_the_images(tmp_path: Path) -> None:
    submission = DndSubmission(tmp_path)
    submission.add('0001_01', np.array([[[-0.1, 0.25, 1.5]]], np.float64))
    stored = scipy.io.loadmat(tmp_path / '0001_01.mat')['Idenoised_crop']
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, np.array([[[0, 0.25, 1]]]))


@pytest.mark.parametrize('wrong', [np.zeros((3, 4, 4), np.float32), np.zeros((3, 4), np.float32),
                                   np.zeros((3, 4, 3), np.uint8), np.full((3, 4, 3), np.nan, np.float32)])
def test_what_is_not_an_image_is_refused(tmp_path: Path, wrong: npt.NDArray[Any]) -> None:
    with pytest.raises(ValueError, match='RGB|finite'):
        DndSubmission(tmp_path).add('0001_01', wrong)


@pytest.mark.parametrize('name', ['0051_01', '0001_21', '0001_00', '../0001_01', '1_1'])
def test_names_that_are_not_of_the_set(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match='there is no crop'):
        DndSubmission(tmp_path).add(name, crop(0))
