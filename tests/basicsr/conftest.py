"""A small YAML, photographs for it, and BasicSR's own pipelines run on it."""

import copy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
import yaml

import dil_plugin.basicsr  # noqa: F401
from dil_plugin.basicsr.data.draw_sampler import DrawSampler
from dil_plugin.data_preparation import CutSettings, prepare_data

ROOT = Path(__file__).parents[2]
PHOTOGRAPHS = Path(skimage.__file__).parent / 'data'

NOISE = [{'type': 'GaussianNoise', 'sigma': [5, 10, 15, 20]}]
BASE = {
    'name': 'run', 'model_type': 'DILModel', 'scale': 1, 'num_gpu': 0, 'manual_seed': 3,
    'distortions': NOISE,
    'datasets': {
        'train': {
            'name': 'crops', 'type': 'DistortionAugmentedDataset', 'dataroot_gt': None, 'io_backend': {'type': 'disk'},
            'gt_size': 16, 'use_hflip': True, 'use_rot': True, 'num_worker_per_gpu': 0, 'batch_size_per_gpu': 4,
            'dataset_enlarge_ratio': 20,
        },
    },
    'network_g': {'type': 'RRDBNetNoUpsample', 'num_feat': 6, 'num_block': 1, 'num_grow_ch': 3},
    'path': {'pretrain_network_g': None, 'resume_state': None},
    'train': {
        'dil': {'variant': 'sf', 'patches': 'fresh'},
        'optim_g': {'type': 'Adam', 'lr': 1e-3, 'betas': [0.9, 0.99]},
        'scheduler': {'type': 'MultiStepLR', 'milestones': [3], 'gamma': 0.5},
        'total_iter': 4, 'warmup_iter': -1, 'ema_decay': 0.9,
        'pixel_opt': {'type': 'L1Loss', 'loss_weight': 1.0, 'reduction': 'mean'},
    },
    'logger': {'print_freq': 1, 'save_checkpoint_freq': 2, 'use_tb_logger': False},
}


@pytest.fixture(autouse=True)
def _not_resumed(monkeypatch):
    """Puts back what loading a training state sets for the whole process."""
    monkeypatch.setattr(DrawSampler, 'resumed', None)


@pytest.fixture(scope='session')
def crops(tmp_path_factory):
    """A folder of six 48x40 crops of photographs."""
    folder = tmp_path_factory.mktemp('crops')
    for name in ('astronaut.png', 'coffee.png', 'chelsea.png'):
        image = cv2.imread(str(PHOTOGRAPHS / name))
        for k, top in enumerate((60, 150)):
            cv2.imwrite(str(folder / f'{name[:-4]}_{k}.png'), np.ascontiguousarray(image[top:top + 48, 100:140]))
    return folder


@pytest.fixture(scope='session')
def crops_lmdb(crops, tmp_path_factory):
    """The same crops as an LMDB."""
    target = tmp_path_factory.mktemp('lmdb') / 'crops.lmdb'
    prepare_data(crops, target, CutSettings(), workers=1)
    return target


@pytest.fixture
def base(crops):
    """The options of a short training run; change them and hand them to ``train``."""
    opt = copy.deepcopy(BASE)
    opt['datasets']['train']['dataroot_gt'] = str(crops)
    return opt


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    """Runs BasicSR's train or test pipeline in this process; returns the root folder."""

    def run(opt, which='train', *arguments):
        import basicsr.utils.logger
        from basicsr.test import test_pipeline
        from basicsr.train import train_pipeline
        path = tmp_path / 'options.yml'
        path.write_text(yaml.safe_dump(opt))
        monkeypatch.setattr(sys, 'argv', [which, '-opt', str(path), *arguments])
        basicsr.utils.logger.initialized_logger.clear()
        {'train': train_pipeline, 'test': test_pipeline}[which](str(tmp_path))
        return tmp_path

    return run


@pytest.fixture
def parsed(tmp_path, monkeypatch):
    """The options as the pipelines would get them."""

    def parse(opt, is_train=True, *arguments):
        from basicsr.utils.options import parse_options
        path = tmp_path / 'options.yml'
        path.write_text(yaml.safe_dump(opt))
        monkeypatch.setattr(sys, 'argv', ['tool', '-opt', str(path), *arguments])
        return parse_options(str(tmp_path), is_train)[0]

    return parse
