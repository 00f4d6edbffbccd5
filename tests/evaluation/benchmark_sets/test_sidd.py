"""SIDD's validation blocks from MATLAB files that SciPy writes."""

from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import scipy.io

from dil_plugin.errors import DataError
from dil_plugin.evaluation.benchmark_sets import MissingSet, open_benchmark

GT, NOISY = 'ValidationGtBlocksSrgb', 'ValidationNoisyBlocksSrgb'
Blocks = npt.NDArray[np.uint8]


def blocks(seed: int, images: int = 3, per_image: int = 2) -> Blocks:
    return np.random.default_rng(seed).integers(0, 256, (images, per_image, 5, 4, 3), dtype=np.uint8)


def save(folder: Path, name: str, array: Blocks, **options: bool) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{name}.mat'
    scipy.io.savemat(path, {name: array}, **options)
    return path


@pytest.mark.parametrize('folder', ['SIDD', 'SIDD_Validation_sRGB', 'sidd/validation', '.'])
@pytest.mark.parametrize('compressed', [True, False])
def test_blocks(tmp_path: Path, folder: str, compressed: bool) -> None:
    gt, noisy = blocks(0), blocks(1)
    save(tmp_path / folder, GT, gt, do_compression=compressed)
    save(tmp_path / folder, NOISY, noisy, do_compression=compressed)
    found = open_benchmark('SIDD', tmp_path, pairs=True)
    assert found.names == ['0001_01', '0001_02', '0002_01', '0002_02', '0003_01', '0003_02']
    sample = found.read('0003_02')
    np.testing.assert_array_equal(sample.gt, gt[2, 1, :, :, ::-1])  # RGB in the file
    np.testing.assert_array_equal(sample.lq, noisy[2, 1, :, :, ::-1])


def test_clean_blocks_alone(tmp_path: Path) -> None:
    gt = blocks(0)
    save(tmp_path / 'SIDD', GT, gt)
    sample = open_benchmark('SIDD', tmp_path).read('0001_02')
    assert sample.lq is None
    np.testing.assert_array_equal(sample.gt, gt[0, 1, :, :, ::-1])


def test_remark(tmp_path: Path) -> None:
    for name in (GT, NOISY):
        save(tmp_path / 'SIDD', name, np.zeros((40, 32, 1, 1, 3), np.uint8))
    found = open_benchmark('SIDD', tmp_path, pairs=True)
    assert (len(found.names), found.names[-1], found.remark) == (1280, '0040_32', None)
    for name in (GT, NOISY):
        save(tmp_path / 'SIDD', name, blocks(0))
    assert open_benchmark('SIDD', tmp_path, pairs=True).remark == '6 images in SIDD, not the 1280 of the published set'


def test_the_spelling_gt_of_some_copies(tmp_path: Path) -> None:
    save(tmp_path / 'SIDD', 'ValidationGTBlocksSrgb', blocks(0))
    assert len(open_benchmark('SIDD', tmp_path).names) == 6


@pytest.mark.parametrize(('there', 'absent'), [(GT, NOISY), (NOISY, GT)])
def test_one_file_alone(tmp_path: Path, there: str, absent: str) -> None:
    save(tmp_path / 'SIDD', there, blocks(0))
    with pytest.raises(MissingSet, match=f'SIDD: .* has no {absent}.mat beside {there}.mat'):
        open_benchmark('SIDD', tmp_path, pairs=True)


def test_blocks_that_do_not_fit(tmp_path: Path) -> None:
    save(tmp_path / 'SIDD', GT, blocks(0))
    save(tmp_path / 'SIDD', NOISY, blocks(1, images=2))
    with pytest.raises(DataError, match=r'NoisyBlocksSrgb\.mat: its blocks have shape \(2, 2, 5, 4, 3\)'):
        open_benchmark('SIDD', tmp_path, pairs=True)


def test_another_array(tmp_path: Path) -> None:
    save(tmp_path / 'SIDD', GT, blocks(0)[0])
    with pytest.raises(DataError, match=r'GtBlocksSrgb\.mat: expected a uint8 array .* found .*\(2, 5, 4, 3\)'):
        open_benchmark('SIDD', tmp_path)


@pytest.mark.parametrize('kept', [0, 60, 200, 0.5, 0.99])
@pytest.mark.parametrize('compressed', [True, False])
def test_a_truncated_file(tmp_path: Path, kept: float, compressed: bool) -> None:
    path = save(tmp_path / 'SIDD', GT, blocks(0, images=20), do_compression=compressed)
    content = path.read_bytes()
    path.write_bytes(content[:kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(DataError, match=r'GtBlocksSrgb\.mat'):
        open_benchmark('SIDD', tmp_path).read('0001_01')


def test_matlab_7_3(tmp_path: Path) -> None:
    (tmp_path / 'SIDD').mkdir()
    path = tmp_path / 'SIDD' / f'{GT}.mat'
    with h5py.File(path, 'w', userblock_size=512) as file:
        file[GT] = blocks(0).T
    header = b'MATLAB 7.3 MAT-file'.ljust(124) + b'\x00\x02IM'
    path.write_bytes(header + path.read_bytes()[len(header):])
    with pytest.raises(DataError, match=r'without -v7\.3'):
        open_benchmark('SIDD', tmp_path)


def test_an_unknown_block(tmp_path: Path) -> None:
    save(tmp_path / 'SIDD', GT, blocks(0))
    with pytest.raises(DataError, match="there is no block '0004_01'"):
        open_benchmark('SIDD', tmp_path).read('0004_01')
