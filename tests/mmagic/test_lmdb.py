"""mmagic's BasicImageDataset reads the LMDB of tools/prepare_data.py, by the configs of docs/mmagic.md."""

import cv2
import numpy as np
import pytest
import torch
from mmagic.registry import DATASETS
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

import dil_plugin.mmagic  # noqa: F401
from dil_plugin.data_preparation import CutSettings, prepare_data


@pytest.fixture(autouse=True)
def scope():
    """As the config's ``default_scope = 'mmagic'``."""
    init_default_scope('mmagic')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Three random images, one of them in a folder below, one grey."""
    folder = tmp_path_factory.mktemp('images')
    (folder / 'below').mkdir()
    random = np.random.default_rng(0)
    cv2.imwrite(str(folder / 'a b.png'), random.integers(0, 256, (40, 56, 3), 'u1'))
    cv2.imwrite(str(folder / 'below' / 'c.png'), random.integers(0, 256, (48, 40, 3), 'u1'))
    cv2.imwrite(str(folder / 'd.png'), random.integers(0, 256, (40, 40), 'u1'))
    return folder


@pytest.fixture(scope='module')
def database(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp('lmdb') / 'crops.lmdb'
    prepare_data(folder, path, CutSettings(24, 16), recursive=True, workers=1)
    return path


@pytest.fixture(scope='module')
def files(folder, tmp_path_factory):
    """The same sub-images as PNG files."""
    path = tmp_path_factory.mktemp('png') / 'crops'
    prepare_data(folder, path, CutSettings(24, 16), recursive=True, workers=1)
    return path


def lmdb_config(database, keys=('gt',), **more):
    return dict(
        type='BasicImageDataset',
        data_root=str(database),
        ann_file='meta_info.txt',
        data_prefix=dict(gt=''),
        pipeline=[
            *(dict(type='LoadImageFromFile', key=key, channel_order='rgb',
                   backend_args=dict(backend='lmdb', db_path=str(database))) for key in keys),
            dict(type='PackInputs'),
        ],
        **more)


def test_pixel_for_pixel(database, files):
    dataset = DATASETS.build(lmdb_config(database))
    names = sorted(path.stem for path in files.glob('*.png'))
    assert len(dataset) == len(names) == 16
    assert sorted(sample['key'] for sample in map(dataset.get_data_info, range(len(dataset)))) == names
    for index in range(len(dataset)):
        sample = dataset[index]['data_samples']
        expected = cv2.imread(str(files / f'{dataset.get_data_info(index)["key"]}.png'))
        assert np.array_equal(sample.gt_img.numpy().transpose(1, 2, 0), expected[:, :, ::-1])
        assert sample.gt_img.dtype == torch.uint8


def test_in_worker_processes(database):
    dataset = DATASETS.build(lmdb_config(database))
    loader = DataLoader(dataset, batch_size=7, num_workers=2, collate_fn=pseudo_collate)
    read = [sample.gt_img for batch in loader for sample in batch['data_samples']]
    assert len(read) == len(dataset)
    for index, pixels in enumerate(read):
        assert torch.equal(pixels, dataset[index]['data_samples'].gt_img)


def test_two_databases_of_equal_keys_are_pairs(database, tmp_path, files):
    """As test pairs are packed: one database of clean images, one of distorted ones."""
    (tmp_path / 'darker').mkdir()
    for path in files.glob('*.png'):
        cv2.imwrite(str(tmp_path / 'darker' / path.name), cv2.imread(str(path)) // 2)
    prepare_data(tmp_path / 'darker', tmp_path / 'darker.lmdb', CutSettings(), workers=1)
    load = [dict(type='LoadImageFromFile', key=key, channel_order='rgb',
                 backend_args=dict(backend='lmdb', db_path=str(path)))
            for key, path in (('img', tmp_path / 'darker.lmdb'), ('gt', database))]
    dataset = DATASETS.build(dict(type='BasicImageDataset', data_root=str(database), ann_file='meta_info.txt',
                                  data_prefix=dict(img='', gt=''), pipeline=[*load, dict(type='PackInputs')]))
    assert len(dataset) == 16
    for sample in dataset:
        assert torch.equal(sample['inputs'], sample['data_samples'].gt_img // 2)


def test_two_loaders_of_one_database(database):
    """Training and validation may read the same database where each has workers; LMDB opens it once in a process."""
    loaders = [iter(DataLoader(DATASETS.build(lmdb_config(database)), num_workers=1, collate_fn=pseudo_collate))
               for _ in range(2)]
    for first, second in zip(*loaders, strict=True):
        assert torch.equal(first['data_samples'][0].gt_img, second['data_samples'][0].gt_img)
