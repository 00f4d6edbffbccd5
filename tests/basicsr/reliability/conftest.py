"""Lets the tests of this folder import ``training_runs`` under any import mode of pytest."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture
def long_run(base, crops):
    """Sixty iterations with everything that a training state has to hold."""
    base.update(network_g={'type': 'SwinIR', 'img_size': 16, 'window_size': 8, 'depths': [2], 'num_heads': [2],
                           'embed_dim': 8, 'mlp_ratio': 2, 'upscale': 1, 'upsampler': '', 'resi_connection': '1conv',
                           'drop_rate': 0.1, 'drop_path_rate': 0.3})
    base['datasets']['train']['dataset_enlarge_ratio'] = 4
    base['datasets']['val_1'] = {
        'name': 'val', 'type': 'DistortionAugmentedDataset', 'dataroot_gt': str(crops), 'io_backend': {'type': 'disk'},
        'distortions': [{'type': 'GaussianNoise', 'sigma': 30}]}
    base['val'] = {'val_freq': 4, 'save_img': False, 'keep_best': 'psnr',
                   'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}}
    base['train'] |= {'total_iter': 60, 'warmup_iter': 5, 'accum_iter': 2,
                      'scheduler': {'type': 'MultiStepLR', 'milestones': [10, 40], 'gamma': 0.5}}
    base['logger'] |= {'save_checkpoint_freq': 3, 'keep_last': 2}
    return base
