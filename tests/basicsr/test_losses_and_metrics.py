"""Losses and metrics that a run cannot use are named before it, with those that it can; and those it can are right."""

import inspect
import warnings

import cv2
import numpy as np
import pytest
import torch
from basicsr.losses import build_loss
from basicsr.metrics import calculate_metric
from basicsr.models import build_model
from basicsr.utils.registry import LOSS_REGISTRY, METRIC_REGISTRY

from dil_plugin.basicsr.yaml_options.registered import METRICS, PERCEPTUAL_LOSSES, PIXEL_LOSSES
from dil_plugin.data_preparation import CutSettings, prepare_data
from dil_plugin.errors import OptionError

RANDOM = np.random.default_rng(5)
PSNR = {'type': 'calculate_psnr', 'crop_border': 0}


@LOSS_REGISTRY.register()
class OwnLossForTest(torch.nn.Module):
    """A loss of the user's own."""

    def __init__(self, power=2):
        super().__init__()
        self.power = power

    def forward(self, output, gt):
        return (output - gt).abs().pow(self.power).mean()


@METRIC_REGISTRY.register()
def own_metric_for_test(img, img2, shift):
    """A metric of the user's own."""
    return float(np.abs(img.astype(float) - img2).mean()) + shift


# ---- What the tables of names say is true ----------------------------------------------------------------------------


def of_basicsr(registry):
    return [name for name, entry in registry if entry.__module__.startswith('basicsr.')]


def arguments(name):
    return {'gan_type': 'lsgan'} if 'GAN' in name else {}


@pytest.mark.parametrize('name', of_basicsr(LOSS_REGISTRY))
def test_a_pixel_loss_is_one_of_an_image_and_its_target(name):
    """A number with a gradient, least where both are the same; all others of BasicSR's are something else."""
    gt = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    flat = torch.full_like(gt, 0.5).requires_grad_()
    if name == 'PerceptualLoss':
        assert name in PERCEPTUAL_LOSSES  # a pair; it takes the weights of VGG
        return
    try:
        loss = build_loss({'type': name, **arguments(name)})
        value = loss(flat, gt)
        value.backward()
        right = value.shape == () and bool(flat.grad.any()) and bool(loss(gt, gt) < value)
    except (RuntimeError, ValueError):
        right = False
    assert right == (name in PIXEL_LOSSES)


@pytest.mark.parametrize('name', of_basicsr(METRIC_REGISTRY))
def test_a_metric_takes_what_validation_gives(name):
    image = RANDOM.integers(0, 256, (192, 96, 3), dtype=np.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            value = calculate_metric({'img': image, 'img2': np.flip(image, 0)}, {'type': name, 'crop_border': 0})
        right = bool(np.isfinite(value))
    except (AttributeError, TypeError):
        right = False
    assert right == (name in METRICS)


# ---- Names -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def validated(base, crops):
    """The options of a run that validates on images of 48x40 pixels."""
    base['datasets']['val_1'] = {
        'name': 'noisy', 'type': 'DistortionAugmentedDataset', 'dataroot_gt': str(crops),
        'io_backend': {'type': 'disk'}, 'distortions': [{'type': 'GaussianNoise', 'sigma': 30}]}
    base['val'] = {'val_freq': 2, 'save_img': False, 'metrics': {'psnr': dict(PSNR)}}
    return base


ALLOWED = 'allowed: CharbonnierLoss, L1Loss, MSELoss'


@pytest.mark.parametrize('model', ['DILModel', 'SRModel'])
@pytest.mark.parametrize(('key', 'block', 'words'), [
    ('pixel_opt', {'type': 'GANLoss', 'gan_type': 'lsgan'}, ['train.pixel_opt.type: GANLoss', ALLOWED]),
    ('pixel_opt', {'type': 'MultiScaleGANLoss', 'gan_type': 'hinge'}, ['MultiScaleGANLoss', ALLOWED]),
    ('pixel_opt', {'type': 'WeightedTVLoss'}, ['train.pixel_opt.type: WeightedTVLoss', ALLOWED]),
    ('pixel_opt', {'type': 'PerceptualLoss', 'layer_weights': {'conv5_4': 1}}, ['pixel_opt.type', ALLOWED]),
    ('pixel_opt', {'type': 'Nope'}, ["unknown name 'Nope'", ALLOWED]),
    ('perceptual_opt', {'type': 'L1Loss'}, ['train.perceptual_opt.type: L1Loss', 'PerceptualLoss']),
    ('pixel_opt', {'type': 'OwnLossForTest', 'powr': 1}, ["unknown option 'powr'", "did you mean 'power'"]),
])
def test_losses_that_are_none(base, parsed, model, key, block, words):
    if model == 'SRModel':
        base['model_type'] = model
        del base['train']['dil']
    base['train'][key] = block
    with pytest.raises(OptionError) as error:
        parsed(base)
    assert all(word in str(error.value) for word in words), error.value
    for name in ('GANLoss', 'WeightedTVLoss'):
        assert name not in str(error.value).partition('allowed:')[2]
    assert 'OwnLossForTest' in str(error.value) or key != 'pixel_opt'


def test_a_loss_of_ones_own_trains(base, parsed):
    base['train']['pixel_opt'] = {'type': 'OwnLossForTest', 'power': 1}
    parsed(base)


@pytest.mark.parametrize(('metric', 'words'), [
    ({'type': 'calculate_psnr_pt', 'crop_border': 0}, ['val.metrics.m.type: calculate_psnr_pt', 'calculate_psnr',
                                                       'allowed: calculate_niqe, calculate_psnr, calculate_ssim, ',
                                                       'own_metric_for_test']),
    ({'type': 'calculate_ssim_pt', 'crop_border': 0}, ["did you mean 'calculate_ssim'"]),
    ({'type': 'psnr'}, ["unknown name 'psnr'", 'allowed: calculate_niqe, calculate_psnr']),
    ({'type': 'own_metric_for_test'}, ['val.metrics.m', "'shift' is missing"]),
    ({'type': 'own_metric_for_test', 'shift': 1, 'better': 'lower'}, ["unknown option 'better'"]),
])
def test_metrics_that_validation_cannot_use(validated, parsed, metric, words):
    validated['val']['metrics'] = {'m': metric}
    with pytest.raises(OptionError) as error:
        parsed(validated)
    assert all(word in str(error.value) for word in words), error.value
    assert '_pt' not in str(error.value).partition('allowed:')[2]


def test_a_metric_of_ones_own_is_taken(validated, parsed):
    validated['val']['metrics'] = {'m': {'type': 'own_metric_for_test', 'shift': 3}}
    parsed(validated)
    assert list(inspect.signature(own_metric_for_test).parameters) == ['img', 'img2', 'shift']


def test_a_metric_without_targets(validated, parsed, crops):
    opt = {key: validated[key] for key in ('name', 'model_type', 'scale', 'num_gpu', 'manual_seed', 'network_g', 'val')}
    opt.update(datasets={'test_1': {'name': 'a', 'type': 'SingleImageDataset', 'dataroot_lq': str(crops),
                                    'io_backend': {'type': 'disk'}}}, path={'pretrain_network_g': None})
    with pytest.raises(OptionError, match=r'val\.metrics\.psnr: calculate_psnr compares .* datasets\.test_1'):
        parsed(opt, False)


class Gives(torch.nn.Module):
    """A loss whose value the test says."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, output, gt):
        if self.value is KeyError:
            raise KeyError('of the loss')
        return self.value


@pytest.mark.parametrize(('key', 'value', 'words'), [
    ('cri_pix', torch.rand(2, 3), ['train.pixel_opt: its loss gives a tensor of (2, 3); expected one number']),
    ('cri_pix', (torch.tensor(1.), None), ['train.pixel_opt: its loss gives tuple']),
    ('cri_pix', None, ['train.pixel_opt: its loss gives NoneType']),
    ('cri_perceptual', torch.tensor(1.), ['train.perceptual_opt: its loss gives Tensor; expected two']),
    ('cri_perceptual', [torch.rand(3), None], ['train.perceptual_opt: its loss gives a tensor of (3,)']),
    ('cri_pix', KeyError, ["the first training step fails (KeyError: 'of the loss', ", f'{__file__} line ']),
])
def test_what_a_loss_of_ones_own_must_give(base, parsed, key, value, words):
    model = build_model(parsed(base))
    setattr(model, key, Gives(value))
    model.feed_data({'gt': torch.rand(4, 3, 16, 16)})
    with pytest.raises(OptionError) as error:
        model.optimize_parameters(1)
    assert all(word in str(error.value) for word in words), error.value
    assert 'network_g' not in str(error.value)


# ---- Sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('lmdb', [False, True])
@pytest.mark.parametrize(('kind', 'size', 'border', 'blocks'), [
    ('calculate_niqe', (96, 120), 0, 1), ('calculate_niqe', (8, 9), 0, 0), ('calculate_niqe', (192, 97), 1, 0),
    ('calculate_niqe', (194, 98), 1, None), ('calculate_niqe', (96, 192), 0, None),
    ('calculate_ssim', (10, 40), 0, 0), ('calculate_ssim', (40, 12), 1, 0), ('calculate_ssim', (11, 13), 0, None),
    ('calculate_psnr', (8, 9), 4, 0), ('calculate_psnr', (1, 1), 0, None),
])
def test_images_that_are_too_small_for_a_metric(validated, parsed, tmp_path, lmdb, kind, size, border, blocks):
    """What is refused has no number in BasicSR, what is not refused has one."""
    image = RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8)
    folder = tmp_path / 'images'
    folder.mkdir()
    cv2.imwrite(str(folder / 'one.png'), image)
    block = validated['datasets']['val_1']
    block['dataroot_gt'] = str(folder)
    if lmdb:
        prepare_data(folder, tmp_path / 'images.lmdb', CutSettings(), workers=1)
        block.update(dataroot_gt=str(tmp_path / 'images.lmdb'), io_backend={'type': 'lmdb'})
    metric = {'type': kind, 'crop_border': border}
    validated['val']['metrics'] = {'m': metric}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            value = calculate_metric({'img': image, 'img2': 255 - image}, metric)
    except (IndexError, RuntimeError, ValueError, np.linalg.LinAlgError, cv2.error):
        value = np.nan
    assert bool(np.isfinite(value)) == (blocks is None)
    if blocks is None:
        parsed(validated)
        return
    with pytest.raises(OptionError) as error:
        parsed(validated)
    assert 'val.metrics.m' in str(error.value)
    assert f'{size[0]}x{size[1]} pixels' in str(error.value)
    assert 'one' in str(error.value)
