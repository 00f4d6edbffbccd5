"""Benchmarks of clean images: layouts, names, pixels, remarks."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PillowImage

from dil_plugin.errors import DataError, OptionError
from dil_plugin.evaluation.benchmark_sets import BENCHMARKS, MissingSet, open_benchmark

Write = Callable[..., npt.NDArray[np.uint8]]

LAYOUTS = {
    'CBSD68': ['CBSD68/{}.png', 'CBSD68/original_png/{}.png', 'CBSD68-dataset/CBSD68/original/{}.png'],
    'Kodak24': ['Kodak24/{}.png', 'Kodak/{}.png', 'kodak24/{}.PNG'],
    'McMaster': ['McMaster/{}.tif', 'McM/{}.png', 'testsets/McMaster/{}.tif'],
    'Urban100': ['Urban100/{}.png', 'Urban100/HR/{}.png', 'Urban100/image_SRF_4/{}_SRF_4_HR.png',
                 'Urban100/image_SRF_2/{}_SRF_2_HR.png'],
    'Manga109': ['Manga109/{}.png', 'Manga109/HR/x4/{}_HR_x4.png', 'benchmark/Manga109/HR/{}.png'],
    'Set5': ['Set5/{}.png', 'Set5/GTmod12/{}.png', 'Set5/original/{}.png', 'set5/{}.bmp'],
    'Set14': ['Set14/{}.png', 'Set14/HR/x4/{}.png'],
    'BSD100': ['BSD100/{}.png', 'B100/HR/{}.png', 'BSDS100/{}.png'],
    'DIV2K': ['DIV2K_valid_HR/{}.png', 'DIV2K/DIV2K_valid_HR/{}.png'],
}


@pytest.mark.parametrize(('name', 'layout'), [(name, one) for name, places in LAYOUTS.items() for one in places])
def test_layout(tmp_path: Path, write: Write, name: str, layout: str) -> None:
    pixels = {stem: write(layout.format(stem)) for stem in ('img_002', 'img_001')}
    found = open_benchmark(name, tmp_path)
    assert (found.name, found.names, found.paired, found.has_gt) == (name, ['img_001', 'img_002'], False, True)
    for stem, expected in pixels.items():
        sample = found.read(stem)
        assert sample.lq is None
        np.testing.assert_array_equal(sample.gt, expected)


@pytest.mark.parametrize(('name', 'count'), [('CBSD68', 68), ('Kodak24', 24), ('McMaster', 18), ('Set5', 5),
                                             ('Set14', 14), ('Manga109', 109), ('Urban100', 100), ('BSD100', 100),
                                             ('DIV2K', 100)])
def test_a_remark_where_the_number_is_not_the_published_one(tmp_path: Path, write: Write, name: str,
                                                            count: int) -> None:
    folder = 'DIV2K_valid_HR' if name == 'DIV2K' else name
    for number in range(count):
        write(f'{folder}/{number:04d}.png', 2, 2)
    assert open_benchmark(name, tmp_path).remark is None
    (tmp_path / folder / '0000.png').unlink()
    remark = open_benchmark(name, tmp_path).remark
    assert remark == f'{count - 1} images in {folder}, not the {count} of the published set'


def test_low_resolution_images_and_hidden_files_are_left_out(tmp_path: Path, write: Write) -> None:
    for name in ('image_SRF_4/img_001_SRF_4_HR.png', 'image_SRF_4/img_001_SRF_4_LR.png',
                 'image_SRF_4/._img_001_SRF_4_HR.png', 'image_SRF_2/img_009_SRF_2_HR.png'):
        write(f'Urban100/{name}')
    (tmp_path / 'Urban100' / 'image_SRF_4' / 'readme_SRF_4_HR.txt').write_text('')
    assert open_benchmark('Urban100', tmp_path).names == ['img_001']


def test_noisy_copies_beside_the_clean_images_are_left_out(tmp_path: Path, write: Write) -> None:
    write('CBSD68/noisy25/0000.png')
    pixels = write('CBSD68/original_png/0000.png')
    np.testing.assert_array_equal(open_benchmark('CBSD68', tmp_path).read('0000').gt, pixels)


@pytest.mark.parametrize('scale', [1, 2, 4])
def test_the_scale_is_ignored_for_clean_images(tmp_path: Path, write: Write, scale: int) -> None:
    pixels = write('Set5/baby.png', 13, 11)
    np.testing.assert_array_equal(open_benchmark('Set5', tmp_path, scale=scale).read('baby').gt, pixels)


def test_the_clean_side_of_pairs(tmp_path: Path, write: Write) -> None:
    clean, _ = write('RealSR(V3)/Canon/Test/4/Canon_001_HR.png'), write('RealSR(V3)/Canon/Test/4/Canon_001_LR4.png')
    sample = open_benchmark('RealSR V3', tmp_path).read('Canon/001')
    assert sample.lq is None
    np.testing.assert_array_equal(sample.gt, clean)


def test_grey_16_bit_and_alpha_become_8_bit_colour(tmp_path: Path) -> None:
    folder = tmp_path / 'Set5'
    folder.mkdir()
    generator = np.random.default_rng(0)
    grey = generator.integers(0, 256, (7, 9), dtype=np.uint8)
    deep = generator.integers(0, 65536, (7, 9, 3), dtype=np.uint16)
    deep[0, 0], deep[0, 1] = 0, 65535
    alpha = generator.integers(0, 256, (7, 9, 4), dtype=np.uint8)
    for name, image in (('grey', grey), ('deep', deep), ('alpha', alpha)):
        cv2.imwrite(str(folder / f'{name}.png'), image)
    found = open_benchmark('Set5', tmp_path)
    np.testing.assert_array_equal(found.read('grey').gt, np.stack([grey] * 3, 2))
    np.testing.assert_array_equal(found.read('deep').gt, np.rint(deep / 257).astype(np.uint8))
    np.testing.assert_array_equal(found.read('alpha').gt, alpha[..., :3])
    assert all(found.read(name).gt.dtype == np.uint8 for name in found.names)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    (tmp_path / 'Set5').mkdir()
    left_dark = np.zeros((16, 32, 3), np.uint8)
    left_dark[:, 16:] = 255
    exif = PillowImage.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise: the left side becomes the top
    PillowImage.fromarray(left_dark).save(tmp_path / 'Set5' / 'a.jpg', exif=exif, quality=95)
    image = open_benchmark('Set5', tmp_path).read('a').gt
    assert image.shape == (32, 16, 3)
    assert image[:12].max() < 20
    assert image[20:].min() > 235


def test_a_truncated_image_is_named_and_the_others_are_read(tmp_path: Path, write: Write) -> None:
    write('Set5/bad.png')
    write('Set5/good.png')
    bad = tmp_path / 'Set5' / 'bad.png'
    bad.write_bytes(bad.read_bytes()[:-20])
    found = open_benchmark('Set5', tmp_path)
    assert found.names == ['bad', 'good']
    assert found.read('good').gt is not None
    with pytest.raises(DataError, match=r'Set5/bad\.png: the PNG file is truncated'):
        found.read('bad')


def test_one_name_for_two_files(tmp_path: Path, write: Write) -> None:
    write('Set5/baby.png')
    write('Set5/baby.bmp')
    found = open_benchmark('Set5', tmp_path)
    assert found.names == ['baby']
    with pytest.raises(DataError, match=r'baby\.bmp.*baby\.png'):
        found.read('baby')


def test_a_name_that_is_not_in_the_set(tmp_path: Path, write: Write) -> None:
    write('Set5/baby.png')
    with pytest.raises(DataError, match="Set5: there is no image 'babe'"):
        open_benchmark('Set5', tmp_path).read('babe')


@pytest.mark.parametrize('name', [name for name in BENCHMARKS if name != 'DND'])
def test_a_missing_set_says_where_it_was_looked_for(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingSet) as error:
        open_benchmark(name, tmp_path)
    message = str(error.value)
    assert message.startswith(f'{name}: is not there')
    assert '\n' not in message
    assert str(tmp_path) in message
    assert name.split()[0] in message[len(name) + 1:]


def test_all_places_are_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(MissingSet) as error:
        open_benchmark('BSD100', tmp_path)
    for place in ('BSD100', 'B100', 'BSDS100', 'HR/*', 'GTmod12/*', 'image_SRF_4/*_SRF_4_HR'):
        assert place in str(error.value)


def test_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / 'Set5' / 'HR').mkdir(parents=True)
    (tmp_path / 'Set5' / 'readme.txt').write_text('')
    with pytest.raises(MissingSet, match='Set5: Set5 is there, but without any image'):
        open_benchmark('Set5', tmp_path)


def test_an_empty_folder_does_not_hide_a_full_one(tmp_path: Path, write: Write) -> None:
    (tmp_path / 'BSD100').mkdir()
    write('B100/101085.png')
    assert open_benchmark('BSD100', tmp_path).names == ['101085']


def test_no_data_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='there is no such folder') as error:
        open_benchmark('Set5', tmp_path / 'absent')
    assert not isinstance(error.value, MissingSet)


def test_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="unknown set 'Kodak', and no folder .*did you mean 'Kodak24'?"):
        open_benchmark('Kodak', tmp_path)


def test_pairs_of_a_clean_set(tmp_path: Path, write: Write) -> None:
    write('Set5/baby.png')
    with pytest.raises(OptionError, match='Set5: has clean images only'):
        open_benchmark('Set5', tmp_path, pairs=True)


@pytest.mark.parametrize(('name', 'count'), [('CBSD68', 68), ('Kodak24', 24), ('Set5', 5), ('Set14', 14)])
def test_real_sets(shared_data: Path, name: str, count: int) -> None:
    found = open_benchmark(name, shared_data)
    assert (len(found.names), found.remark) == (count, None)
    first = found.read(found.names[0]).gt
    np.testing.assert_array_equal(first, cv2.imread(str(shared_data / name / f'{found.names[0]}.png')))
