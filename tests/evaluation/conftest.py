"""Small checkpoints, test sets and plans; results made by hand."""

from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
import skimage
import torch

from dil_plugin.checkpoints import NOTES, notes_of_training
from dil_plugin.evaluation.networks import build_module
from dil_plugin.evaluation.protocols import load_protocol
from dil_plugin.evaluation.results import INPUT, Results, Run, Score

ROOT = Path(__file__).parents[2]
PHOTOGRAPHS = Path(skimage.__file__).parent / 'data'
SMALL = {'type': 'RRDBNetNoUpsample', 'num_feat': 4, 'num_block': 1, 'num_grow_ch': 2}
SMALL_X4 = {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'scale': 4, 'num_feat': 4, 'num_block': 1,
            'num_grow_ch': 2}


@pytest.fixture
def save_network(tmp_path):
    """Writes a checkpoint with random parameters, as DILModel would; returns its path."""

    def save(name='net.pth', network_g=SMALL, scale=1, seed=0, notes=True, folder=tmp_path, **extra):
        torch.manual_seed(seed)
        module = build_module(network_g, 'test')
        content = {'params': module.state_dict(), **extra}
        if notes:
            opt = {'name': 'test', 'network_g': network_g, 'scale': scale,
                   'train': {'dil': {'variant': 'sf'}, 'total_iter': 7}}
            content[NOTES] = notes_of_training(opt, None, ['GaussianNoise(sigma=5)'])
        torch.save(content, folder / name)
        return folder / name

    return save


def photograph(name, top, left, height, width):
    """A part of a photograph, BGR."""
    image = cv2.imread(str(PHOTOGRAPHS / name))
    return np.ascontiguousarray(image[top:top + height, left:left + width])


@pytest.fixture
def data(tmp_path):
    """A folder of test sets: Set5 and Set14 of three and two crops."""
    folder = tmp_path / 'data'
    for name, crops in {'Set5': [(40, 48), (48, 40), (40, 48)], 'Set14': [(37, 41), (40, 40)]}.items():
        (folder / name).mkdir(parents=True)
        for k, (height, width) in enumerate(crops):
            cv2.imwrite(str(folder / name / f'img_{k}.png'), photograph('coffee.png', 120 + 9 * k, 200, height, width))
    return folder


@pytest.fixture(scope='session')
def make_results():
    """Makes results from PSNRs by (run, data set, condition); images are called a, b, c …, SSIM is PSNR / 100.

    None is an infinite PSNR, text the error of an image that failed.
    """

    def make(psnr, protocol='denoising', **changes):
        names = list(dict.fromkeys(run for run, _, _ in psnr if run != INPUT))
        runs = [Run(name=name, checkpoint=f'{name}.pth', sha256='0123456789abcdef' * 4, network='RRDBNet',
                    parameters=123456) for name in names]
        scores = []
        for (run, dataset, condition), values in psnr.items():
            for image, value in zip('abcdefghijklmnopqrstuvwxyz', values, strict=False):
                where = {'run': run, 'dataset': dataset, 'condition': condition, 'image': image}
                ssim = 1.0 if value is None else None if isinstance(value, str) else value / 100
                scores.append(Score(**where, error=value) if isinstance(value, str) else
                              Score(**where, metrics={'psnr': value, 'ssim': ssim}))
        base = Results(protocol=load_protocol(protocol), runs=runs, baseline=names[0], scores=scores)
        return msgspec.structs.replace(base, **changes)

    return make
