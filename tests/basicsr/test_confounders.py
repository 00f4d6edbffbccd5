"""The confounder library inside BasicSR's pipeline: super-resolution, sharpened targets, worker and device."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from basicsr.data import build_dataset
from basicsr.models import build_model
from basicsr.utils import USMSharp

from dil_plugin.basicsr.data.draw_sampler import Draw
from dil_plugin.distortions import DISTORTION_REGISTRY
from dil_plugin.errors import DILError, OptionError

ROOT = Path(__file__).parents[2]

SR_NETWORK = {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'scale': 4, 'num_feat': 6, 'num_block': 1,
              'num_grow_ch': 3}
SECOND = {'variant': 'ps', 'inner': {'type': 'SGD', 'lr': 1e-3}, 'patches': 'same'}


@pytest.fixture
def super_resolution(base, crops):
    """RealSR in small: four draws of Real-ESRGAN's first-order degradation, sharpened targets."""
    base.update(scale=4, gt_usm=True, network_g=SR_NETWORK,
                distortions=[{'type': 'RealESRGAN', 'order': 1, 'final_sinc_prob': 0, 'draws': 4}])
    base['datasets']['train'].update(gt_size=32)
    base['datasets']['val'] = {'name': 'bicubic', 'type': 'DistortionAugmentedDataset', 'dataroot_gt': str(crops),
                               'io_backend': {'type': 'disk'}, 'distortions': [{'type': 'Downsample', 'scale': 4}]}
    base['val'] = {'val_freq': 2, 'save_img': False, 'metrics': {'psnr': {
        'type': 'calculate_psnr', 'crop_border': 4, 'test_y_channel': True}}}
    return base


@pytest.mark.parametrize('distort_on', ['worker', 'device'])
@pytest.mark.parametrize('variant', ['sf', 'ps', 'erm'])
def test_real_esrgan_trains_end_to_end(super_resolution, pipeline, variant, distort_on):
    super_resolution['train']['dil'] = SECOND if variant == 'ps' else {'variant': variant}
    super_resolution['datasets']['train']['distort_on'] = distort_on
    root = pipeline(super_resolution)
    models = root / 'experiments/run/models'
    first, last = (torch.load(models / f'net_g_{k}.pth', weights_only=True)['params'] for k in (2, 4))
    assert any(not torch.equal(first[name], last[name]) for name in first)
    log = next((root / 'experiments/run').glob('train_*.log')).read_text()
    assert 'psnr' in log


def test_log_names_independent_draws(super_resolution, parsed):
    model = build_model(parsed(super_resolution))
    model.feed_data({'gt': torch.rand(4, 3, 32, 32)})
    model.optimize_parameters(1)
    assert [name for name in model.get_current_log() if 'RealESRGAN' in name] == [
        f'l_inner_RealESRGAN(order=1, final_sinc_prob=0){mark}' for mark in ('', '#2', '#3', '#4')]


def test_device_sharpens_training_targets_only(super_resolution, parsed, monkeypatch):
    """Confounders are made from the sharpened target, as in RealESRNetModel; validation's target stays."""
    super_resolution['distortions'] = [{'type': 'Downsample', 'scale': 4}] * 2
    super_resolution['train']['dil'] = SECOND
    model = build_model(parsed(super_resolution))
    seen = []
    step = model.variant
    monkeypatch.setattr(model, 'variant', lambda loss, params, batch: seen.append(batch) or step(loss, params, batch))
    gt = torch.rand(4, 3, 32, 32)
    model.feed_data({'gt': gt})
    model.optimize_parameters(1)
    sharp = USMSharp()(gt)
    batch, = seen
    torch.testing.assert_close(batch.query.gt, sharp, rtol=0, atol=1e-5)
    small = torch.nn.functional.interpolate(sharp, scale_factor=0.25, mode='bicubic').clamp(0, 1)
    for pair in batch.confounders:
        torch.testing.assert_close(pair.gt, sharp, rtol=0, atol=1e-5)
        torch.testing.assert_close(pair.lq, small, rtol=0, atol=1e-5)
    model.feed_data({'gt': gt, 'lq': torch.rand(4, 3, 8, 8)})  # as validation does
    assert torch.equal(model.gt, gt)


@pytest.mark.parametrize('model_type', ['DILModel', 'SRModel'])
def test_workers_sharpen_what_the_model_then_leaves(super_resolution, parsed, model_type):
    super_resolution.update(model_type=model_type, distortions=[{'type': 'Downsample', 'scale': 4}])
    super_resolution['datasets']['train']['distort_on'] = 'worker'
    samples = []
    for usm in (False, True):
        opt = copy.deepcopy(super_resolution)
        opt['gt_usm'] = usm
        opt = parsed(opt)
        samples.append(build_dataset(opt['datasets']['train'])[Draw(2, 9)])
        if model_type == 'DILModel':
            assert not build_model(opt).sharpens
    torch.testing.assert_close(samples[1]['gt'], USMSharp()(samples[0]['gt'][None])[0], rtol=0, atol=1e-5)
    small = torch.nn.functional.interpolate(samples[1]['gt'][None], scale_factor=0.25, mode='bicubic')[0].clamp(0, 1)
    torch.testing.assert_close(samples[1]['lq'], small, rtol=0, atol=1e-5)


def test_device_mode_leaves_sharpening_to_the_model(super_resolution, parsed):
    plain, sharpening = (copy.deepcopy(super_resolution) for _ in range(2))
    plain['gt_usm'] = False
    opts = [parsed(opt) for opt in (plain, sharpening)]
    first, second = (build_dataset(opt['datasets']['train'])[Draw(2, 9)]['gt'] for opt in opts)
    assert torch.equal(first, second)
    assert [build_model(opt).sharpens for opt in opts] == [False, True]


MIXED = [
    {'type': 'Hybrid', 'level': 'mild'}, {'type': 'CameraNoise', 'space': ['raw', 'srgb_jpeg']},
    {'type': 'RainStreaks', 'length': 8}, {'type': 'OneOf', 'distortions': [
        {'type': 'JPEG', 'quality': {'uniform': [10, 90]}}, {'type': 'Resize', 'factor': {'uniform': [0.3, 1]}}]},
]


@pytest.mark.parametrize('workers', [0, 2])
def test_worker_data_does_not_depend_on_the_number_of_workers(base, pipeline, workers, tmp_path):
    base['distortions'] = MIXED
    base['train']['dil'] = {'variant': 'sf', 'patches': 'same'}
    base['train']['total_iter'] = 2
    base['datasets']['train'].update(distort_on='worker', num_worker_per_gpu=workers)
    results = []
    for count in (0, workers):
        base['datasets']['train']['num_worker_per_gpu'] = count
        root = pipeline({**base, 'name': f'run{count}'})
        results.append(torch.load(root / f'experiments/run{count}/models/net_g_2.pth', weights_only=True)['params'])
    assert all(torch.equal(a, b) for a, b in zip(*(r.values() for r in results), strict=True))


REALESRNET = {'noise_range': [1, 99], 'resize_prob': [0.2, 0.7, 0.1]}


def test_real_esrnet_itself_is_known(super_resolution, parsed):
    """BasicSR's own names have a suffix in its registries and are found without it."""
    super_resolution.update(REALESRNET, model_type='RealESRNetModel')
    super_resolution['datasets'] = {'train': {'name': 'x', 'type': 'RealESRGANDataset', 'io_backend': {'type': 'disk'},
                                              'num_worker_per_gpu': 0, 'batch_size_per_gpu': 1}}
    del super_resolution['val']
    del super_resolution['train']['dil']
    assert parsed(super_resolution)['model_type'] == 'RealESRNetModel'


def test_dil_block_of_another_model_is_named(base, parsed, capfd):
    base['model_type'] = 'SRModel'
    parsed(base)
    assert 'train.dil has no effect with model_type SRModel' in capfd.readouterr().err


@pytest.mark.parametrize(('block', 'words'), [
    ([{'type': 'GaussianNoise', 'sigma': [10, 20]}], ['datasets.val_1.distortions', 'sigma=10', 'sigma=20']),
    ([{'type': 'GaussianNoise', 'sigma': 10, 'draws': 2}], ['datasets.val_1.distortions', 'one data set per degree']),
    (None, ['datasets.val_1.distortions', 'sigma=5']),
    ([{'type': 'GaussianBlur', 'sigma': 15}], ['datasets.val_1.dataroot_gt', '48x40', '46', 'GaussianBlur(sigma=15)']),
])
def test_validation_sets_are_checked_before_the_folder_is_made(base, crops, pipeline, tmp_path, block, words):
    base['datasets']['val_1'] = {'name': 'v', 'type': 'DistortionAugmentedDataset', 'dataroot_gt': str(crops),
                                 'io_backend': {'type': 'disk'}, 'distortions': block}
    base['val'] = {'val_freq': 2, 'save_img': False}
    with pytest.raises(DILError) as error:
        pipeline(base)
    assert all(word in str(error.value) for word in words), error.value
    assert not (tmp_path / 'experiments').exists()


def test_small_images_of_a_folder_are_found_before_the_folder_is_made(base, pipeline, tmp_path):
    base['datasets']['train']['gt_size'] = 44
    with pytest.raises(DILError, match='48x40 pixels are less than the 44 that gt_size needs'):
        pipeline(base)
    assert not (tmp_path / 'experiments').exists()


def test_custom_imports(base, pipeline, tmp_path, monkeypatch):
    """A confounder of the user's own, in a module of the current folder, for every tool."""
    monkeypatch.setattr(DISTORTION_REGISTRY, '_classes', dict(DISTORTION_REGISTRY._classes))
    monkeypatch.setattr(sys, 'path', list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'my_confounders.py').write_text(
        'from dil_plugin.distortions import DISTORTION_REGISTRY, Distortion\n\n\n@DISTORTION_REGISTRY.register\n'
        'class Halve(Distortion, frozen=True):\n    def apply(self, clean, generator):\n        return clean / 2\n')
    base.update(custom_imports=['my_confounders'], distortions=[{'type': 'Halve'}])
    base['datasets']['train']['num_worker_per_gpu'] = 1
    base['datasets']['train']['distort_on'] = 'worker'
    root = pipeline(base)
    assert (root / 'experiments/run/models/net_g_4.pth').is_file()
    (tmp_path / 'mine.yml').write_text(yaml.safe_dump({'custom_imports': ['my_confounders'],
                                                       'distortions': [{'type': 'Halve'}]}))
    done = subprocess.run([sys.executable, str(ROOT / 'tools/preview_distortions.py'), '-opt', 'mine.yml'],
                          capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, 'preview_mine.png'), done.stderr
    for wrong, words in ((['no_such_module'], 'no_such_module'), ('my_confounders', 'list of module names')):
        with pytest.raises(OptionError, match=words):
            pipeline({**base, 'custom_imports': wrong})


@pytest.mark.parametrize(('change', 'words'), [
    ({'gt_usm': 'yes'}, ['gt_usm', "'yes'"]),
    ({'gt_usm': True, 'size': 16}, ['datasets.train.gt_size', '16', '26', 'gt_usm']),
    ({'order': 2}, ['datasets.train.gt_size', '32', '74', 'RealESRGAN(order=2']),
    ({'dataset_usm': True, 'gt_usm': False}, ['datasets.train.gt_usm', 'top level']),
    ({'val_scale': 2}, ['datasets.val.distortions', '2', 'scale is 4']),
    ({'scale': 2}, ['scale: 2', 'by 4']),
])
def test_mistakes_are_named_before_anything_is_built(super_resolution, parsed, change, words):
    opt = super_resolution
    opt['gt_usm'] = change.get('gt_usm', True)
    opt['scale'] = change.get('scale', 4)
    opt['datasets']['train']['gt_size'] = change.get('size', 32)
    opt['distortions'][0]['order'] = change.get('order', 1)
    opt['datasets']['val']['distortions'][0]['scale'] = change.get('val_scale', 4)
    if 'dataset_usm' in change:
        opt['datasets']['train']['gt_usm'] = change['dataset_usm']
    with pytest.raises(OptionError) as error:
        parsed(opt)
    assert all(word in str(error.value) for word in words), error.value
