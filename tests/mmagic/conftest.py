"""Small photographs, batches as mmengine's data loader gives them, models and short runs of mmengine's Runner."""

import copy
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
import torch

import dil_plugin.basicsr
import dil_plugin.mmagic  # noqa: F401

# isort: split
from mmagic.registry import MODELS
from mmagic.structures import DataSample
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

PHOTOGRAPHS = Path(skimage.__file__).parent / 'data'
NOISE = [{'type': 'GaussianNoise', 'sigma': [5, 10, 15, 20]}]
MODEL = {
    'type': 'DILEditModel',
    'generator': {'type': 'RRDBNetNoUpsample', 'mid_channels': 6, 'num_blocks': 1, 'growth_channels': 3},
    'pixel_loss': {'type': 'L1Loss', 'loss_weight': 1.0, 'reduction': 'mean'},
    'distortions': NOISE,
    'dil': {'variant': 'sf'},
    'data_preprocessor': {'type': 'DataPreprocessor', 'mean': [0., 0., 0.], 'std': [255., 255., 255.],
                          'output_channel_order': 'RGB'},
}
PACK = {'type': 'PackInputs', 'data_keys': ['counterfactuals']}
RUN = {
    'default_scope': 'mmagic',
    'randomness': {'seed': 3},
    'log_processor': {'type': 'LogProcessor', 'by_epoch': False},
    'env_cfg': {'mp_cfg': {'mp_start_method': 'fork', 'opencv_num_threads': 0}},
    'model': MODEL,
    'train_cfg': {'type': 'IterBasedTrainLoop', 'max_iters': 20, 'val_interval': 10},
    'val_cfg': {'type': 'MultiValLoop'},
    'optim_wrapper': {'type': 'OptimWrapper', 'optimizer': {'type': 'Adam', 'lr': 1e-3}},
    'param_scheduler': {'type': 'MultiStepLR', 'by_epoch': False, 'milestones': [15], 'gamma': 0.5},
    'default_hooks': {'logger': {'type': 'LoggerHook', 'interval': 5},
                      'checkpoint': {'type': 'CheckpointHook', 'interval': 10, 'by_epoch': False}},
    'val_evaluator': {'type': 'Evaluator', 'metrics': [{'type': 'PSNR'}, {'type': 'SSIM'}]},
}
_names = itertools.count()


@pytest.fixture(scope='session')
def crops(tmp_path_factory):
    """A folder of six 48x40 crops of photographs."""
    folder = tmp_path_factory.mktemp('photographs') / 'crops'
    folder.mkdir()
    for name in ('astronaut.png', 'coffee.png', 'chelsea.png'):
        image = cv2.imread(str(PHOTOGRAPHS / name))
        for k, top in enumerate((60, 150)):
            cv2.imwrite(str(folder / f'{name[:-4]}_{k}.png'), np.ascontiguousarray(image[top:top + 48, 100:140]))
    return folder


@pytest.fixture
def images(crops):
    """Four patches, ``(4, 16, 16, 3)`` uint8 BGR."""
    return np.stack([cv2.imread(str(path))[8:24, 8:24] for path in sorted(crops.iterdir())[:4]])


@pytest.fixture(autouse=True)
def hub():
    """mmengine's message hub of this test alone, as a Runner makes one for every run."""
    hub = MessageHub.get_instance(f'test_{next(_names)}')
    hub.update_info('seed', 3)
    init_default_scope('mmagic')
    return hub


def batch_of(images, order='bgr', **more):
    """What the data loader gives for clean images ``(B, H, W, C)``; more: tensors ``(B, …)`` by their name."""
    def chw(image):
        return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)

    samples = []
    for k, image in enumerate(images):
        sample = DataSample(gt_img=chw(image), metainfo={'gt_channel_order': order, 'img_channel_order': order})
        for name in set(more) - {'img'}:
            sample.set_tensor_data({name: more[name][k]})
        samples.append(sample)
    return {'inputs': [chw(image) for image in more['img']] if 'img' in more else [{}] * len(images),
            'data_samples': samples}


def build(seed=0, **changes):
    """A model of ``MODEL`` with other options, its weights drawn from the seed."""
    torch.manual_seed(seed)
    options = copy.deepcopy({**MODEL, **changes})
    model = MODELS.build(options)
    with torch.no_grad():  # mmagic's initialisation leaves the blocks without influence
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape))
    return model.train()


class Recorder:
    """The gradients that an optimiser was handed in each of its steps; the step itself is left out, or taken."""

    def __init__(self, optimizer, steps=False):
        self.grads = []
        take = optimizer.step

        def step(*args, **kwargs):
            self.grads.append([p.grad.clone() for group in optimizer.param_groups for p in group['params']])
            return take(*args, **kwargs) if steps else None

        optimizer.step = step


def recorded(model, steps=False, **options):
    """An ``OptimWrapper`` around SGD for the generator, and the record of its gradients."""
    optimizer = torch.optim.SGD(model.generator.parameters(), lr=0.1)
    recorder = Recorder(optimizer, steps)
    return OptimWrapper(optimizer, **options), recorder


def relative_error(value, reference):
    """Norm of the difference over the norm of the reference, of all tensors together."""
    a, b = (torch.cat([t.detach().double().flatten() for t in ts]) for ts in (value, reference))
    return float((a - b).norm() / b.norm())


@pytest.fixture
def run_config(crops, tmp_path):
    """Options of a run of 20 iterations on the crops; change them and hand them to ``runner``."""
    config = copy.deepcopy(RUN)
    dataset = {'type': 'BasicImageDataset', 'data_root': str(crops), 'data_prefix': {'gt': ''}}
    config['train_dataloader'] = {
        'num_workers': 0, 'batch_size': 4, 'sampler': {'type': 'InfiniteSampler', 'shuffle': True},
        'dataset': {**dataset, 'pipeline': [
            {'type': 'LoadImageFromFile', 'key': 'gt'},
            {'type': 'SetValues', 'dictionary': {'scale': 1}},
            {'type': 'Crop', 'keys': ['gt'], 'crop_size': (16, 16), 'random_crop': True},
            {'type': 'Flip', 'keys': ['gt'], 'flip_ratio': 0.5, 'direction': 'horizontal'},
            {'type': 'PackInputs'},
        ]}}
    config['val_dataloader'] = {
        'num_workers': 0, 'batch_size': 1, 'sampler': {'type': 'DefaultSampler', 'shuffle': False},
        'dataset': {**dataset, 'metainfo': {'dataset_type': 'crops', 'task_name': 'denoising'}, 'pipeline': [
            {'type': 'LoadImageFromFile', 'key': 'gt'},
            {'type': 'CounterfactualDistortions', 'mode': 'fixed',
             'distortions': [{'type': 'GaussianNoise', 'sigma': 30}]},
            {'type': 'PackInputs'},
        ]}}
    config['work_dir'] = str(tmp_path / 'work')
    return config


def runner(config, **changes):
    """mmengine's Runner of the options, under a name of its own."""
    config = Config(copy.deepcopy(config))
    config.merge_from_dict({'experiment_name': f'run_{next(_names)}', **changes})
    return Runner.from_cfg(config)
