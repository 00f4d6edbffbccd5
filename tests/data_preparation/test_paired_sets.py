"""Pairs that differ from what was published, in sizes, cameras or names, and what BasicSR reads of them."""

import subprocess
import sys
from pathlib import Path

import dil_plugin.basicsr  # noqa: F401  BasicSR needs its shims

# isort: split
import cv2
import lmdb
import numpy as np
import pytest
import yaml
from basicsr.data import build_dataset

from dil_plugin.data_preparation.published_sets import Found, paired_images
from dil_plugin.errors import DataError

TOOL = Path(__file__).resolve().parents[2] / 'tools/prepare_data.py'
CANON = 'RealSR(V3)/Canon/Test/4'


def save(path: Path, *shape: int, seed: int = 0) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return image


def save_pair(data: Path, camera: str, number: int, clean: tuple[int, int] = (16, 24)) -> np.ndarray:
    folder = data / f'RealSR(V3)/{camera}/Test/4'
    save(folder / f'{camera}_{number:03}_LR4.png', 4, 6, 3, seed=number)
    return save(folder / f'{camera}_{number:03}_HR.png', *clean, 3, seed=number)


def tool(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(TOOL), *arguments, '--workers', '1'], capture_output=True, text=True,
                          cwd=folder)


def keys(path: Path) -> set[str]:
    with lmdb.open(str(path), readonly=True, lock=False) as env, env.begin() as transaction:
        return {key.decode() for key, _ in transaction.cursor()}


def pairs_of(data: Path, name: str = 'RealSR') -> tuple[Found, Found]:
    return paired_images(data, name, 4, allow_incomplete=True)


def test_clean_images_a_few_pixels_too_large(tmp_path: Path) -> None:
    """Cropped as BasicSR's validation does it with the files, and reported."""
    save_pair(tmp_path / 'datasets', 'Canon', 1)
    save_pair(tmp_path / 'datasets', 'Canon', 2, clean=(19, 24))
    save_pair(tmp_path / 'datasets', 'Canon', 3, clean=(24, 32))
    done = tool(tmp_path, '--dataset', 'RealSR', '--allow-incomplete')
    assert done.returncode == 0, done.stderr
    assert 'cropped to that at the right and the bottom as BasicSR does: 2 (Canon_002, Canon_003)' in done.stdout
    printed = yaml.safe_load(done.stdout.split('in the YAML:')[1])
    block = {'name': 'x', 'type': 'PairedImageDataset', 'phase': 'val', 'scale': 4}
    ours = build_dataset({**block, **printed, 'dataroot_gt': str(tmp_path / printed['dataroot_gt']),
                          'dataroot_lq': str(tmp_path / printed['dataroot_lq'])})
    for side in ('HR', 'LR'):
        (tmp_path / side).mkdir()
        for number in (1, 2, 3):
            source = tmp_path / f'datasets/{CANON}/Canon_{number:03}_{"HR" if side == "HR" else "LR4"}.png'
            (tmp_path / side / f'Canon_{number:03}.png').write_bytes(source.read_bytes())
    theirs = build_dataset({**block, 'dataroot_gt': str(tmp_path / 'HR'), 'dataroot_lq': str(tmp_path / 'LR'),
                            'io_backend': {'type': 'disk'}})
    assert len(ours) == len(theirs) == 3
    by_name = {Path(two['gt_path']).stem: two for two in theirs}  # BasicSR lists a folder in no order
    for one in ours:
        two = by_name[one['gt_path']]
        assert one['gt'].shape == (3, 16, 24)
        assert (one['gt'] == two['gt']).all()
        assert (one['lq'] == two['lq']).all()
    assert '(16,24,3)' in (tmp_path / printed['dataroot_gt'] / 'meta_info.txt').read_text().splitlines()[2]


@pytest.mark.parametrize('clean', [(25, 24), (16, 33), (15, 24), (16, 23), (17, 23), (12, 40)])
def test_sizes_that_are_no_rounding(tmp_path: Path, clean: tuple[int, int]) -> None:
    """Beyond eight pixels, or too small on one side, whatever the other is."""
    save_pair(tmp_path, 'Canon', 1, clean)
    with pytest.raises(DataError, match=rf'Canon_001_HR\.png is {clean[1]}x{clean[0]} .* 4 times the 6x4'):
        pairs_of(tmp_path)


def test_only_the_larger_ones_are_cropped(tmp_path: Path) -> None:
    save_pair(tmp_path, 'Canon', 1)
    save_pair(tmp_path, 'Nikon', 1, clean=(16, 25))
    clean, distorted = pairs_of(tmp_path)
    assert [(source.stem, source.kept) for source in clean.sources] == [('Canon_001', None), ('Nikon_001', (16, 24))]
    assert [(source.stem, source.kept) for source in distorted.sources] == [('Canon_001', None), ('Nikon_001', None)]


@pytest.mark.parametrize('merged', [False, True])
@pytest.mark.parametrize(('canon', 'complete'), [(50, True), (51, False)])
def test_half_of_the_pairs_are_of_each_camera(tmp_path: Path, canon: int, complete: bool, merged: bool) -> None:
    """Also where somebody merged the folders of the two cameras."""
    for camera, count in (('Canon', canon), ('Nikon', 100 - canon)):
        for number in range(1, count + 1):
            if merged:
                save(tmp_path / f'RealSR/HR/{camera}_{number:03}.png', 8, 12, 3)
                save(tmp_path / f'RealSR/LR/{camera}_{number:03}.png', 2, 3, 3)
            else:
                save_pair(tmp_path, camera, number)
    if complete:
        found, _ = paired_images(tmp_path, 'RealSR', 4, allow_incomplete=False)
        assert (found.remark, len({source.stem for source in found.sources})) == (None, 100)
    else:
        with pytest.raises(DataError, match='51 Canon and 49 Nikon images, not the 50 Canon and 50 Nikon .*csjcai'):
            paired_images(tmp_path, 'RealSR', 4, allow_incomplete=False)
        assert '51 Canon and 49 Nikon' in str(pairs_of(tmp_path)[0].remark)


def test_names_that_do_not_tell_the_camera_are_no_fault(tmp_path: Path) -> None:
    for number in range(100):
        save(tmp_path / f'RealSR/HR/{number:03}.png', 8, 12, 3)
        save(tmp_path / f'RealSR/LR/{number:03}.png', 2, 3, 3)
    assert paired_images(tmp_path, 'RealSR', 4, allow_incomplete=False)[0].remark is None


@pytest.mark.parametrize(('scale', 'count'), [(2, 83), (3, 84), (4, 93)])
def test_published_numbers_of_drealsr(tmp_path: Path, scale: int, count: int) -> None:
    for number in range(count):
        save(tmp_path / f'DRealSR/Test_x{scale}/test_HR/sony_{number}_x{scale}.png', 2 * scale, 3 * scale, 3)
        save(tmp_path / f'DRealSR/Test_x{scale}/test_LR/sony_{number}_x1.png', 2, 3, 3)
    clean, distorted = paired_images(tmp_path, 'DRealSR', scale, allow_incomplete=False)
    assert len(clean.sources) == count
    assert [source.stem for source in clean.sources] == [source.stem for source in distorted.sources]
    (tmp_path / f'DRealSR/Test_x{scale}/test_HR/sony_0_x{scale}.png').unlink()
    (tmp_path / f'DRealSR/Test_x{scale}/test_LR/sony_0_x1.png').unlink()
    with pytest.raises(DataError, match=f'{count - 1} images .*not the {count} of .*xiezw5'):
        paired_images(tmp_path, 'DRealSR', scale, allow_incomplete=False)


def test_images_without_a_partner_are_left_out_where_that_is_allowed(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        save_pair(tmp_path / 'datasets', 'Canon', number)
    (tmp_path / f'datasets/{CANON}/Canon_002_LR4.png').unlink()
    done = tool(tmp_path, '--dataset', 'RealSR', '--allow-incomplete')
    assert done.returncode == 0, done.stderr
    assert '1 images without a partner are left out: ' in done.stdout
    for side in ('HR', 'LR'):
        assert keys(tmp_path / f'datasets/RealSR_V3_test_x4_{side}.lmdb') == {'Canon_001', 'Canon_003'}


def test_names_that_cannot_be_keys(tmp_path: Path) -> None:
    for name in ('straße', 'a'):
        save(tmp_path / f'DRealSR/HR/{name}.png', 8, 12, 3)
        save(tmp_path / f'DRealSR/LR/{name}.png', 2, 3, 3)
    done = tool(tmp_path, '--dataset', 'DRealSR', '--data', '.', '--allow-incomplete')
    assert done.returncode == 2
    assert 'straße.png: the name must be ASCII' in done.stderr
    for name in ('b c', 'b.c'):
        save(tmp_path / f'two/DRealSR/HR/{name}.png', 8, 12, 3)
        save(tmp_path / f'two/DRealSR/LR/{name}.png', 2, 3, 3)
    done = tool(tmp_path, '--dataset', 'DRealSR', '--data', 'two', '--allow-incomplete')
    assert done.returncode == 2
    assert "would both get the key 'b_c'" in done.stderr


def test_folders_of_df2k_in_other_letters(tmp_path: Path) -> None:
    save(tmp_path / 'datasets/div2k/div2k_train_hr/0001.png', 420, 400, 3)
    done = tool(tmp_path, '--dataset', 'DF2K', '--allow-incomplete', '--step', '20')
    assert done.returncode == 0, done.stderr
    assert len(keys(tmp_path / 'datasets/DF2K_sub400.lmdb')) == 2


@pytest.mark.parametrize(('name', 'stem', 'count'), [('RealSR', 'RealSR_V3', 40), ('DRealSR', 'DRealSR', 38)])
def test_real_crops(shared_data: Path, tmp_path: Path, name: str, stem: str, count: int) -> None:
    (tmp_path / name).symlink_to(shared_data / name)
    refused = tool(tmp_path, '--dataset', name, '--data', '.')
    assert refused.returncode == 2
    assert 'crops of 512x512' in refused.stderr
    done = tool(tmp_path, '--dataset', name, '--data', '.', '--allow-incomplete')
    assert done.returncode == 0, done.stderr
    assert 'crops of 512x512' in done.stdout
    assert 'cropped to that' not in done.stdout
    clean, distorted = (keys(tmp_path / f'{stem}_test_x4_{side}.lmdb') for side in ('HR', 'LR'))
    assert clean == distorted == {path.stem for path in (shared_data / name / 'HR').iterdir()}
    assert len(clean) == count
