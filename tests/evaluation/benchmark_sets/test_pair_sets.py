"""Benchmarks of pairs of files: layouts, names, pixels, remarks, and what can be wrong with a pair."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from dil_plugin.errors import DataError, OptionError
from dil_plugin.evaluation.benchmark_sets import MissingSet, open_benchmark

Write = Callable[..., npt.NDArray[np.uint8]]

# set, scale, clean file, distorted file, name
LAYOUTS = [
    ('RealSR V3', 4, 'RealSR(V3)/Canon/Test/4/Canon_001_HR.png', 'RealSR(V3)/Canon/Test/4/Canon_001_LR4.png',
     'Canon/001'),
    ('RealSR V3', 2, 'RealSR_V3/Nikon/Test/2/Nikon_050_HR.png', 'RealSR_V3/Nikon/Test/2/Nikon_050_LR2.png',
     'Nikon/050'),
    ('RealSR V3', 3, 'RealSR/Nikon/Test/3/007_HR.png', 'RealSR/Nikon/Test/3/007_LR3.png', 'Nikon/007'),
    ('RealSR V3', 4, 'RealSR(V3)/Canon_Nikon/Test/4/Nikon_002_HR.png',
     'RealSR(V3)/Canon_Nikon/Test/4/Nikon_002_LR4.png', 'Nikon/002'),
    ('RealSR V3', 4, 'RealSR/HR/Canon_003_LR4.png', 'RealSR/LR/Canon_003_LR4.png', 'Canon_003_LR4'),
    ('RealSR V3', 4, 'RealSR/test_HR/a.png', 'RealSR/test_LR/a.png', 'a'),
    ('DRealSR', 4, 'DRealSR/Test_x4/test_HR/panasonic_103_x4.png', 'DRealSR/Test_x4/test_LR/panasonic_103_x1.png',
     'panasonic_103'),
    ('DRealSR', 2, 'DRealSR/x2/Test_x2/test_HR/sony_1_x2.png', 'DRealSR/x2/Test_x2/test_LR/sony_1_x1.png', 'sony_1'),
    ('DRealSR', 3, 'DRealSR/x3/Test_x3/Test_x3/test_HR/sony_1_x3.png',
     'DRealSR/x3/Test_x3/Test_x3/test_LR/sony_1_x1.png', 'sony_1'),
    ('DRealSR', 4, 'DRealSR/HR/sony_1_x1.png', 'DRealSR/LR/sony_1_x1.png', 'sony_1_x1'),
    ('Nam', 1, 'Nam/gt/01_gt.png', 'Nam/noisy/01_noise.png', '01'),
    ('Nam', 1, 'CC15/d600_iso3200_1_mean.png', 'CC15/d600_iso3200_1_real.png', 'd600_iso3200_1'),
    ('SIDD', 1, 'SIDD/gt_crops/0_1.png', 'SIDD/input_crops/0_1.png', '0_1'),
    ('Rain100L', 1, 'Rain100L/norain-001.png', 'Rain100L/rainy/rain-001.png', '001'),
    ('Rain100L', 1, 'Rain100L/norain-001.png', 'Rain100L/rainy/norain-001x2.png', '001'),
    ('Rain100L', 1, 'rain100L/test/norain/norain-1.png', 'rain100L/test/rain/norain-1.png', '1'),
    ('Rain100L', 1, 'test/Rain100L/target/1.png', 'test/Rain100L/input/1.png', '1'),
    ('Rain12', 1, 'Rain12/target/001.png', 'Rain12/input/001.png', '001'),
    ('Rain12', 1, 'Rain12/001_GT.png', 'Rain12/001_in.png', '001'),
    ('Rain12', 1, 'rain12/001_gt.PNG', 'rain12/001_IN.png', '001'),
    ('Rain800', 1, 'Test100/target/1.png', 'Test100/input/1.png', '1'),
]


@pytest.mark.parametrize(('dataset', 'scale', 'clean', 'distorted', 'name'), LAYOUTS)
def test_layout(tmp_path: Path, write: Write, dataset: str, scale: int, clean: str, distorted: str,
                name: str) -> None:
    gt, lq = write(clean, 12 * scale, 16 * scale), write(distorted, 12, 16)
    found = open_benchmark(dataset, tmp_path, scale, pairs=True)
    assert (found.names, found.paired, found.has_gt) == ([name], True, True)
    sample = found.read(name)
    np.testing.assert_array_equal(sample.gt, gt)
    np.testing.assert_array_equal(sample.lq, lq)


def test_names_of_two_cameras_and_no_training_images(tmp_path: Path, write: Write) -> None:
    for camera in ('Nikon', 'Canon'):
        for folder in ('Test/4', 'Test/2', 'Train/4'):
            number = {'Test/4': '001', 'Test/2': '002', 'Train/4': '003'}[folder]
            write(f'RealSR(V3)/{camera}/{folder}/{camera}_{number}_HR.png', 8, 8)
            write(f'RealSR(V3)/{camera}/{folder}/{camera}_{number}_LR{folder[-1]}.png', 2, 2)
    assert open_benchmark('RealSR V3', tmp_path, 4, pairs=True).names == ['Canon/001', 'Nikon/001']


@pytest.mark.parametrize('folder', ['Rain800/test_syn', 'rain/test_syn', 'Rain800/rain/test_syn', 'Rain800/test'])
def test_halves_of_rain800(tmp_path: Path, write: Write, folder: str) -> None:
    """Left is clean: test.lua of ID-CGAN restores B, the right half, and compares with A."""
    both = write(f'{folder}/1.png', 10, 24)
    sample = open_benchmark('Rain800', tmp_path, pairs=True).read('1')
    np.testing.assert_array_equal(sample.gt, both[:, :12])
    np.testing.assert_array_equal(sample.lq, both[:, 12:])
    np.testing.assert_array_equal(open_benchmark('Rain800', tmp_path).read('1').gt, both[:, :12])


def test_halves_of_an_odd_width(tmp_path: Path, write: Write) -> None:
    write('Rain800/test_syn/1.png', 10, 25)
    with pytest.raises(DataError, match=r'test_syn/1\.png.*width is odd: 25x10'):
        open_benchmark('Rain800', tmp_path, pairs=True).read('1')


@pytest.mark.parametrize(('dataset', 'scale', 'count', 'clean', 'distorted', 'place'), [
    ('RealSR V3', 4, 100, 'RealSR/HR/{:03d}.png', 'RealSR/LR/{:03d}.png', 'RealSR/{HR,LR}'),
    ('DRealSR', 2, 83, 'DRealSR/HR/{:03d}.png', 'DRealSR/LR/{:03d}.png', 'DRealSR/{HR,LR}'),
    ('DRealSR', 4, 93, 'DRealSR/Test_x4/test_HR/{:03d}_x4.png', 'DRealSR/Test_x4/test_LR/{:03d}_x1.png',
     'DRealSR/Test_x4/{test_HR,test_LR}'),
    ('Rain100L', 1, 100, 'Rain100L/norain-{:03d}.png', 'Rain100L/rainy/rain-{:03d}.png', 'Rain100L/{.,rainy}'),
    ('Rain12', 1, 12, 'Rain12/{:03d}_GT.png', 'Rain12/{:03d}_in.png', 'Rain12'),
    ('Rain800', 1, 100, 'Test100/target/{}.png', 'Test100/input/{}.png', 'Test100/{target,input}'),
])
def test_a_remark_where_the_number_is_not_the_published_one(
        tmp_path: Path, write: Write, dataset: str, scale: int, count: int, clean: str, distorted: str,
        place: str) -> None:
    for number in range(count):
        write(clean.format(number), 2 * scale, (3 + number % 2) * scale)
        write(distorted.format(number), 2, 3 + number % 2)
    assert open_benchmark(dataset, tmp_path, scale, pairs=True).remark is None
    for path in (clean, distorted):
        (tmp_path / path.format(0)).unlink()
    remark = open_benchmark(dataset, tmp_path, scale, pairs=True).remark
    assert remark == f'{count - 1} images in {place}, not the {count} of the published set'


@pytest.mark.parametrize('pairs', [True, False])
def test_equal_square_crops_are_said_not_to_be_the_published_images(tmp_path: Path, write: Write, pairs: bool) -> None:
    for number in range(100):
        write(f'RealSR/test_HR/{number}.png', 8, 8)
        write(f'RealSR/test_LR/{number}.png', 2, 2)
    remark = open_benchmark('RealSR V3', tmp_path, 4, pairs).remark
    assert remark is not None
    assert 'crops of 8x8 pixels, not the 100 whole images of the published set' in remark


def test_one_damaged_image_does_not_stop_the_check_for_crops(tmp_path: Path, write: Write) -> None:
    for number in range(2):
        write(f'DRealSR/HR/{number}.png', 8, 8)
        write(f'DRealSR/LR/{number}.png', 2, 2)
    (tmp_path / 'DRealSR/HR/0.png').write_bytes(b'nothing')
    found = open_benchmark('DRealSR', tmp_path, 4, pairs=True)
    assert found.read('1').lq.shape == (2, 2, 3)
    with pytest.raises(DataError, match=r'HR/0\.png'):
        found.read('0')


@pytest.mark.parametrize(('lost', 'left', 'wanted'), [('HR', 'LR', 'HR'), ('LR', 'HR', 'LR')])
def test_a_file_without_partner_keeps_its_name(tmp_path: Path, write: Write, lost: str, left: str,
                                               wanted: str) -> None:
    for name in ('a', 'b'):
        write(f'RealSR/HR/{name}.png', 8, 12)
        write(f'RealSR/LR/{name}.png', 2, 3)
    (tmp_path / 'RealSR' / lost / 'b.png').unlink()
    found = open_benchmark('RealSR V3', tmp_path, 4, pairs=True)
    assert found.names == ['a', 'b']
    assert found.read('a').lq is not None
    with pytest.raises(DataError) as error:
        found.read('b')
    assert str(error.value).startswith(f'{tmp_path}/RealSR/{left}/b.png: has no partner')
    assert f'RealSR/{wanted}/' in str(error.value)


def test_sizes_that_do_not_fit(tmp_path: Path, write: Write) -> None:
    for width in (11, 12 + 9):
        write('RealSR/HR/a.png', 8, width)
        write('RealSR/LR/a.png', 2, 3)
        with pytest.raises(DataError, match=rf'HR/a\.png is {width}x8 .* not 4 times the 3x2 .* of .*LR/a\.png'):
            open_benchmark('RealSR V3', tmp_path, 4, pairs=True).read('a')
    write('Rain12/target/a.png', 8, 13)
    write('Rain12/input/a.png', 8, 12)
    with pytest.raises(DataError, match=r'target/a\.png is 13x8 .* not the 12x8'):
        open_benchmark('Rain12', tmp_path, pairs=True).read('a')


def test_what_does_not_divide_by_the_scale_is_cut_off_at_the_right_and_below(tmp_path: Path, write: Write) -> None:
    """As BasicSR's PairedImageDataset does it in validation."""
    import dil_plugin.basicsr  # noqa: F401
    # isort: split
    from basicsr.data import build_dataset
    gt, lq = write('mine/HR/a.png', 79, 95), write('mine/LR/a.png', 19, 23)
    sample = open_benchmark('mine', tmp_path, 4, pairs=True).read('a')
    np.testing.assert_array_equal(sample.gt, gt[:76, :92])
    np.testing.assert_array_equal(sample.lq, lq)
    theirs = build_dataset({'type': 'PairedImageDataset', 'name': 'mine', 'phase': 'val', 'scale': 4,
                            'dataroot_gt': str(tmp_path / 'mine/HR'), 'dataroot_lq': str(tmp_path / 'mine/LR'),
                            'io_backend': {'type': 'disk'}})[0]
    np.testing.assert_array_equal(sample.gt, (theirs['gt'].numpy()[::-1].transpose(1, 2, 0) * 255).round())


@pytest.mark.parametrize(('folders', 'clean', 'distorted'), [
    (('HR', 'LR'), '{}', '{}'), (('HR', 'LR'), '{}', '{}x4'), (('HR', 'LR'), '{}_HR', '{}_LR4'),
    (('test_HR', 'test_LR'), '{}_x4', '{}_x1'), (('gt', 'lq'), '{}', '{}_LR4'), (('target', 'input'), '{}', '{}_x4'),
])
def test_ones_own_folder_pairs_as_published_sets_do(tmp_path: Path, write: Write, folders: tuple[str, str], clean: str,
                                                    distorted: str) -> None:
    wanted = {}
    for name in ('0', '1x4', '2'):
        wanted[name] = (write(f'mine/{folders[0]}/{clean.format(name)}.png', 8, 12),
                        write(f'mine/{folders[1]}/{distorted.format(name)}.png', 2, 3))
    found = open_benchmark('mine', tmp_path, 4, pairs=True)
    assert found.names == ['0', '1x4', '2']
    for name, (gt, lq) in wanted.items():
        np.testing.assert_array_equal(found.read(name).gt, gt)
        np.testing.assert_array_equal(found.read(name).lq, lq)


def test_names_that_do_not_pair_are_said(tmp_path: Path, write: Write) -> None:
    write('mine/HR/0.png', 8, 12)
    write('mine/LR/0_small.png', 2, 3)
    with pytest.raises(MissingSet, match=r'^mine: no name in .*mine/HR pairs with one in .*mine/LR \(there are 0\.png, '
                       r'… and 0_small\.png, …\); allowed: equal names, or .*: x4 beside nothing, _LR4 beside _HR'):
        open_benchmark('mine', tmp_path, 4, pairs=True)
    (tmp_path / 'mine/LR/0_small.png').unlink()
    with pytest.raises(MissingSet, match=r'mine: mine is there, but .*, in each for HR/\* \+ LR/\*, test_HR/\* \+ '
                       r'test_LR/\*, gt/\* \+ lq/\*, target/\* \+ input/\*$'):
        open_benchmark('mine', tmp_path, 4, pairs=True)


@pytest.mark.parametrize('side', ['HR', 'LR'])
def test_a_truncated_image_is_named(tmp_path: Path, write: Write, side: str) -> None:
    write('RealSR/HR/a.png', 8, 12)
    write('RealSR/LR/a.png', 2, 3)
    path = tmp_path / 'RealSR' / side / 'a.png'
    path.write_bytes(path.read_bytes()[:-16])
    with pytest.raises(DataError, match=rf'{side}/a\.png: the PNG file is truncated'):
        open_benchmark('RealSR V3', tmp_path, 4, pairs=True).read('a')


def test_one_side_alone_is_not_a_set_of_pairs(tmp_path: Path, write: Write) -> None:
    write('RealSR/HR/a.png', 8, 8)
    with pytest.raises(MissingSet, match=r'RealSR V3: RealSR is there, but .*HR/\* \+ LR/\*'):
        open_benchmark('RealSR V3', tmp_path, 4, pairs=True)


def test_input_and_target_of_another_set_are_not_taken_for_sidd(tmp_path: Path, write: Write) -> None:
    write('input/1.png')
    write('target/1.png')
    with pytest.raises(MissingSet):
        open_benchmark('SIDD', tmp_path, pairs=True)


@pytest.mark.parametrize(('name', 'scale', 'allowed'), [('RealSR V3', 1, '2, 3, 4'), ('Nam', 4, '1'),
                                                        ('DRealSR', 8, '2, 3, 4')])
def test_a_scale_that_the_set_does_not_have(tmp_path: Path, name: str, scale: int, allowed: str) -> None:
    with pytest.raises(OptionError, match=f'{name}: has no pairs of scale {scale}; allowed: {allowed}'):
        open_benchmark(name, tmp_path, scale, pairs=True)


@pytest.mark.parametrize(('name', 'folder', 'scale', 'count', 'sides'), [
    ('RealSR V3', 'RealSR', 4, 40, ('HR/{}', 'LR/{}')), ('DRealSR', 'DRealSR', 4, 38, ('HR/{}', 'LR/{}')),
    ('Nam', 'Nam', 1, 25, ('gt/{}_gt', 'noisy/{}_noise'))])
def test_real_sets(shared_data: Path, name: str, folder: str, scale: int, count: int,
                   sides: tuple[str, str]) -> None:
    found = open_benchmark(name, shared_data, scale, pairs=True)
    assert len(found.names) == count
    assert (found.remark is None) == (name == 'Nam')
    assert name == 'Nam' or 'crops of 512x512 pixels' in found.remark
    sample = found.read(found.names[-1])
    for image, side in zip(sample, sides, strict=True):
        path = shared_data / folder / f'{side.format(found.names[-1])}.png'
        np.testing.assert_array_equal(image, cv2.imread(str(path)))
