"""Mistakes in BasicSR's own data sets of pairs are named before anything is made."""

import shutil
from pathlib import Path

import cv2
import lmdb as lmdb_file
import numpy as np
import pytest
from basicsr.data import build_dataset

from dil_plugin.data_preparation import CutSettings, prepare_data
from dil_plugin.errors import DILError

NETWORK = {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'scale': 4, 'num_feat': 4, 'num_block': 1,
           'num_grow_ch': 2}


def save(path, height, width):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@pytest.fixture
def pairs(tmp_path):
    """Three pairs of factor 4, in folders and LMDBs."""
    for k in range(3):
        save(tmp_path / f'HR/{k}.png', 80, 64)
        save(tmp_path / f'LR/{k}.png', 20, 16)
    for side in ('HR', 'LR'):
        prepare_data(tmp_path / side, tmp_path / f'{side}.lmdb', CutSettings(), workers=1)
    return tmp_path


@pytest.fixture
def opt(base, pairs):
    """A run of scale 4 with the pairs for validation."""
    base.update(scale=4, network_g=NETWORK, distortions=[{'type': 'Downsample', 'scale': 4}])
    base['datasets']['train']['gt_size'] = 32
    base['datasets']['val_1'] = {'name': 'pairs', 'type': 'PairedImageDataset', 'dataroot_gt': str(pairs / 'HR'),
                                 'dataroot_lq': str(pairs / 'LR'), 'io_backend': {'type': 'disk'}}
    base['val'] = {'val_freq': 2, 'save_img': False}
    return base


def as_lmdb(opt):
    block = opt['datasets']['val_1']
    block.update({name: block[name] + '.lmdb' for name in ('dataroot_gt', 'dataroot_lq')}, io_backend={'type': 'lmdb'})


@pytest.mark.parametrize('lmdb', [False, True])
def test_good_pairs_pass_and_are_read(opt, parsed, lmdb):
    if lmdb:
        as_lmdb(opt)
    data = build_dataset(parsed(opt)['datasets']['val_1'])
    assert len(data) == 3
    assert data[0]['gt'].shape == (3, 80, 64)


def test_somewhat_larger_targets_pass_in_validation(opt, parsed, pairs):
    save(pairs / 'HR/1.png', 83, 66)
    parsed(opt)


@pytest.mark.parametrize(('size', 'words'), [
    ((40, 32), ['1.png of dataroot_gt has 40x32', '20x16', '2 times', 'scale is 4']),
    ((160, 128), ['1.png of dataroot_gt has 160x128', '8 times', 'scale is 4']),
    ((79, 64), ['79x64', '3.95 and 4 times']),
    ((64, 80), ['64x80', '3.2 and 5 times']),
])
@pytest.mark.parametrize('lmdb', [False, True])
def test_pairs_of_another_scale(opt, pipeline, pairs, tmp_path, size, words, lmdb):
    save(pairs / 'HR/1.png', *size)
    if lmdb:
        shutil.rmtree(pairs / 'HR.lmdb')
        prepare_data(pairs / 'HR', pairs / 'HR.lmdb', CutSettings(), workers=1)
        as_lmdb(opt)
        words = [word.replace('1.png', '1') for word in words]
    with pytest.raises(DILError) as error:
        pipeline(opt)
    assert str(error.value).startswith('datasets.val_1: ')
    assert all(word in str(error.value) for word in words), error.value
    assert not (tmp_path / 'experiments').exists()


@pytest.mark.parametrize(('change', 'words'), [
    ({'dataroot_gt': 'nowhere'}, ['datasets.val_1.dataroot_gt', 'no folder nowhere']),
    ({'dataroot_lq': None}, ['datasets.val_1.dataroot_lq: missing']),
    ({'meta_info_file': 3}, ['datasets.val_1.meta_info_file: expected a path, got 3']),
    ({'meta_info_file': 'list.txt'}, ['datasets.val_1.meta_info_file', 'no file list.txt']),
    ({'filename_tmpl': '{}x4'}, ['datasets.val_1', '0x4.png is not in lq_paths', "filename_tmpl '{}x4'"]),
    ({'filename_tmpl': '{a}'}, ['datasets.val_1.filename_tmpl', "'{a}'"]),
    ({'io_backend': {'type': 'lmdb'}}, ['datasets.val_1.dataroot_lq', 'is not an LMDB']),
    ({'io_backend': {'type': 'petrel'}}, ['datasets.val_1.io_backend.type', "'petrel'"]),
    ({'io_backend': 'disk'}, ['datasets.val_1.io_backend.type', 'allowed: disk, lmdb']),
])
def test_what_is_missing(opt, parsed, change, words):
    opt['datasets']['val_1'].update(change)
    with pytest.raises(DILError) as error:
        parsed(opt)
    assert all(word in str(error.value) for word in words), error.value


def test_an_image_without_partner(opt, parsed, pairs):
    (pairs / 'LR/2.png').unlink()
    with pytest.raises(DILError, match='datasets.val_1: lq and gt datasets have different number of images: 2, 3'):
        parsed(opt)
    save(pairs / 'LR/two.png', 20, 16)
    with pytest.raises(DILError, match='2.png is not in lq_paths'):
        parsed(opt)
    (pairs / 'list.txt').write_text('0.png (80,64,3)\n2.png (80,64,3)\n')
    opt['datasets']['val_1']['meta_info_file'] = str(pairs / 'list.txt')
    with pytest.raises(DILError, match='datasets.val_1: there is no image .*LR/2.png'):
        parsed(opt)


def test_lmdbs_of_other_keys(opt, parsed, pairs):
    (pairs / 'LR/2.png').rename(pairs / 'LR/two.png')
    shutil.rmtree(pairs / 'LR.lmdb')
    prepare_data(pairs / 'LR', pairs / 'LR.lmdb', CutSettings(), workers=1)
    as_lmdb(opt)
    with pytest.raises(DILError, match="'2' is in dataroot_gt .*but not in dataroot_lq .*same keys"):
        parsed(opt)


def test_an_lmdb_without_its_list(opt, parsed, pairs):
    as_lmdb(opt)
    (pairs / 'LR.lmdb/meta_info.txt').unlink()
    with pytest.raises(DILError, match='dataroot_lq: .* has no meta_info.txt; tools/prepare_data.py'):
        parsed(opt)


@pytest.mark.parametrize(('change', 'words'), [
    ({'gt_size': 30}, ['datasets.train.gt_size: 30', 'multiple of scale 4']),
    ({'gt_size': 68}, ['datasets.train', 'less than gt_size 68']),
    ({'gt_size': None}, ['datasets.train.gt_size', 'None']),
])
def test_training_on_pairs(opt, parsed, pairs, change, words):
    train = opt['datasets']['train']
    train.update({**opt['datasets']['val_1'], 'use_hflip': True, 'use_rot': True, 'gt_size': 32})
    parsed(opt)
    train.update(change)
    with pytest.raises(DILError) as error:
        parsed(opt)
    assert all(word in str(error.value) for word in words), error.value
    train['gt_size'] = 32
    save(pairs / 'HR/1.png', 82, 66)  # what validation would cut off, BasicSR's training refuses
    with pytest.raises(DILError, match='but scale is 4'):
        parsed(opt)


def test_roots_of_other_data_sets(opt, parsed):
    opt['datasets']['val_1'] = {'name': 'x', 'type': 'SingleImageDataset', 'dataroot_lq': 'nowhere',
                                'io_backend': {'type': 'disk'}}
    with pytest.raises(DILError, match='datasets.val_1.dataroot_lq: there is no folder nowhere'):
        parsed(opt)


def test_sizes_are_left_to_other_models(opt, parsed, pairs):
    save(pairs / 'HR/1.png', 40, 32)
    opt['model_type'] = 'SRModel'
    del opt['train']['dil']
    parsed(opt)


def test_swapped_pairs_are_asked_about(opt, parsed):
    block = opt['datasets']['val_1']
    block['dataroot_gt'], block['dataroot_lq'] = block['dataroot_lq'], block['dataroot_gt']
    with pytest.raises(DILError, match=r'dataroot_gt has 20x16 pixels .* dataroot_lq 80x64: .*; are the two swapped\?'):
        parsed(opt)


@pytest.mark.parametrize('lmdb', [False, True])
def test_a_damaged_image_is_named_when_it_is_read(opt, parsed, pairs, lmdb):
    data = (pairs / 'LR/1.png').read_bytes()
    if lmdb:
        as_lmdb(opt)
        with lmdb_file.open(str(pairs / 'LR.lmdb'), map_size=2**24) as env, env.begin(write=True) as transaction:
            transaction.put(b'1', data[:60])
    else:
        (pairs / 'LR/1.png').write_bytes(data[:60])
    dataset = build_dataset(parsed(opt)['datasets']['val_1'])
    damaged = [k for k, pair in enumerate(dataset.paths) if Path(pair['lq_path']).stem == '1']
    with pytest.raises(DILError, match=r"pairs: image '(.*LR/)?1(\.png)?' in .*LR(\.lmdb)?: .*PNG file is truncated"):
        dataset[damaged[0]]
    dataset[(damaged[0] + 1) % 3]


def test_one_folder_of_inputs_and_targets(opt, parsed, pairs):
    """The template {} would pair each image with itself."""
    for path in (pairs / 'LR').glob('*.png'):
        path.rename(pairs / f'HR/{path.stem}x4.png')
    opt['datasets']['val_1'].update(dataroot_lq=str(pairs / 'HR'), filename_tmpl='{}x4')
    with pytest.raises(DILError, match=r"is not in lq_paths.*; inputs and targets lie in one folder: allowed: a folder "
                                       r'for each$'):
        parsed(opt)


def test_names_that_another_template_pairs_are_said(opt, parsed, pairs):
    for path in sorted((pairs / 'LR').glob('*.png')):
        path.rename(path.with_name(f'{path.stem}x4.png'))
    with pytest.raises(DILError, match=r"is not in lq_paths.*filename_tmpl '\{\}'\); filename_tmpl: '\{\}x4' pairs"):
        parsed(opt)
