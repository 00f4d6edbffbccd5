"""Made images, and a study of networks that train in a second."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest


@pytest.fixture(scope='session')
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four smooth pictures with some noise."""
    folder = tmp_path_factory.mktemp('pictures')
    rng = np.random.default_rng(0)
    for k in range(4):
        coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (48, 48), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        image += rng.integers(-8, 9, image.shape, dtype=np.int16)
        assert cv2.imwrite(str(folder / f'{k}.png'), image.clip(0, 255).astype(np.uint8))
    return folder


@pytest.fixture
def training(pictures: Path) -> dict[str, Any]:
    """The options of a tiny denoiser's training by ERM."""
    return {
        'name': 'tiny', 'model_type': 'DILModel', 'scale': 1, 'num_gpu': 0, 'manual_seed': 0,
        'distortions': [{'type': 'GaussianNoise', 'sigma': [5, 15]}],
        'datasets': {'train': {
            'name': 'pictures', 'type': 'DistortionAugmentedDataset', 'dataroot_gt': str(pictures),
            'io_backend': {'type': 'disk'}, 'gt_size': 16, 'num_worker_per_gpu': 0, 'batch_size_per_gpu': 4,
            'dataset_enlarge_ratio': 100}},
        'network_g': {'type': 'RRDBNetNoUpsample', 'num_feat': 4, 'num_block': 1, 'num_grow_ch': 2},
        'path': {'pretrain_network_g': None, 'resume_state': None},
        'train': {
            'dil': {'variant': 'erm', 'patches': 'fresh'}, 'total_iter': 400, 'warmup_iter': -1, 'ema_decay': 0,
            'optim_g': {'type': 'Adam', 'lr': 1e-3}, 'pixel_opt': {'type': 'L1Loss'},
            'scheduler': {'type': 'MultiStepLR', 'milestones': [200, 300], 'gamma': 0.5}},
        'logger': {'print_freq': 100, 'save_checkpoint_freq': 100},
    }


@pytest.fixture
def study(training: dict[str, Any], pictures: Path) -> dict[str, Any]:
    """A study as it stands in its file."""
    ps = {'variant': 'ps', 'patches': 'same', 'inner': {'type': 'SGD', 'lr': 0.01}}
    noise = {str(sigma): {'type': 'GaussianNoise', 'sigma': sigma} for sigma in (5, 30, 50)}
    return {
        'question': 'Does it run?', 'base': training, 'budget': 480, 'points': 3, 'batch': 2, 'seeds': [0, 1],
        'arms': {'erm': {}, 'ps': {'train.dil': ps}},
        'test': {'images': str(pictures), 'count': 3, 'crop': 32, 'seen': {'5': noise['5']},
                 'unseen': {'30': noise['30'], '50': noise['50']}},
    }
