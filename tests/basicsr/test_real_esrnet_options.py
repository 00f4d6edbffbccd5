"""Real-ESRNet's YAML files become DIL ones by two blocks; their options stay where they stand."""

import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs.rrdbnet_arch import RRDBNet
from basicsr.data import build_dataset
from basicsr.models import build_model

from dil_plugin.basicsr.data.draw_sampler import Draw
from dil_plugin.data_preparation import CutSettings, prepare_data
from dil_plugin.distortions import RealESRGAN
from dil_plugin.errors import DILError, OptionError
from dil_plugin.learning import MetaBatch

FAMILIES = ['iso', 'aniso', 'generalized_iso', 'generalized_aniso', 'plateau_iso', 'plateau_aniso']


def passes(suffix='', **changed):
    """Degrees as RealESRNetModel reads them."""
    values = {'resize_prob': [0.2, 0.7, 0.1], 'resize_range': [0.15, 1.5], 'gaussian_noise_prob': 0.5,
              'noise_range': [1, 30], 'poisson_scale_range': [0.05, 3], 'gray_noise_prob': 0.4, 'jpeg_range': [30, 95]}
    return {name + suffix: changed.get(name, value) for name, value in values.items()}


def blurs(suffix='', sigma=(0.2, 3)):
    """Degrees as RealESRGANDataset reads them."""
    values = {'blur_kernel_size': 21, 'kernel_list': FAMILIES, 'kernel_prob': [0.45, 0.25, 0.12, 0.03, 0.12, 0.03],
              'sinc_prob': 0.1, 'blur_sigma': list(sigma), 'betag_range': [0.5, 4], 'betap_range': [1, 2]}
    return {name + suffix: value for name, value in values.items()}


PUBLISHED = {
    'name': 'train_RealESRNetx4plus_1000k_B12G4_fromESRGAN', 'model_type': 'RealESRNetModel', 'scale': 4, 'num_gpu': 4,
    'manual_seed': 0, 'gt_usm': True, **passes(), 'second_blur_prob': 0.8,
    **passes('2', resize_prob=[0.3, 0.4, 0.3], resize_range=[0.3, 1.2], noise_range=[1, 25],
             poisson_scale_range=[0.05, 2.5]),
    'gt_size': 256, 'queue_size': 180,
    'datasets': {'train': {
        'name': 'DF2K+OST', 'type': 'RealESRGANDataset', 'dataroot_gt': 'datasets/DF2K',
        'meta_info': 'datasets/DF2K/meta_info/meta_info_DF2Kmultiscale+OST_sub.txt', 'io_backend': {'type': 'disk'},
        **blurs(), **blurs('2', (0.2, 1.5)), 'final_sinc_prob': 0.8, 'gt_size': 256, 'use_hflip': True,
        'use_rot': False, 'use_shuffle': True, 'num_worker_per_gpu': 5, 'batch_size_per_gpu': 12,
        'dataset_enlarge_ratio': 1, 'prefetch_mode': None}},
    'network_g': {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 64, 'num_block': 23,
                  'num_grow_ch': 32},
    'path': {'pretrain_network_g': 'experiments/pretrained_models/ESRGAN_SRx4_DF2KOST_official-ff704c30.pth',
             'param_key_g': 'params_ema', 'strict_load_g': True, 'resume_state': None},
    'train': {'ema_decay': 0.999, 'optim_g': {'type': 'Adam', 'lr': 2e-4, 'weight_decay': 0, 'betas': [0.9, 0.99]},
              'scheduler': {'type': 'MultiStepLR', 'milestones': [1000000], 'gamma': 0.5}, 'total_iter': 1000000,
              'warmup_iter': -1, 'pixel_opt': {'type': 'L1Loss', 'loss_weight': 1.0, 'reduction': 'mean'}},
    'logger': {'print_freq': 100, 'save_checkpoint_freq': 5e3, 'use_tb_logger': True,
               'wandb': {'project': None, 'resume_id': None}},
    'dist_params': {'backend': 'nccl', 'port': 29500},
}
"""The settings of Real-ESRGAN's options/train_realesrnet_x4plus.yml."""

# The smallest values with which the same settings run in seconds; nothing of the degradation is among them.
SMALLER = {'num_gpu': 0, 'queue_size': 8}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """The folders that the published file names, with three small images, and weights that are all zero."""
    folder = tmp_path / 'datasets/DF2K'
    rng = np.random.default_rng(0)
    names = []
    for name, height, width in (('HR/a', 300, 420), ('HR/b', 410, 410), ('multiscale/aT0', 280, 280)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image = cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (width, height))
        assert cv2.imwrite(str(folder / f'{name}.png'), image)
        names.append(f'{name}.png')
    meta = folder / 'meta_info/meta_info_DF2Kmultiscale+OST_sub.txt'
    meta.parent.mkdir()
    meta.write_text('\n'.join(names) + '\n')
    weights = tmp_path / PUBLISHED['path']['pretrain_network_g']
    weights.parent.mkdir(parents=True)
    network = RRDBNet(3, 3).state_dict()
    torch.save({'params_ema': {name: torch.zeros(1).expand(value.shape) for name, value in network.items()}}, weights)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def published(world):
    """The published settings after the change of two blocks, at a size for a test."""
    opt = copy.deepcopy(PUBLISHED)
    opt['model_type'] = 'DILModel'
    opt['datasets']['train'].update(type='DistortionAugmentedDataset', dataset_enlarge_ratio=4)
    opt['distortions'] = [{'type': 'RealESRGAN', 'order': 2, 'draws': 4}]
    opt['train']['dil'] = {'variant': 'ps', 'inner': {'type': 'SGD', 'lr': 1e-4}}
    return opt


def shrunk(opt):
    """Short, and with a small network."""
    opt.update(SMALLER)
    opt['network_g'].update(num_feat=6, num_block=1, num_grow_ch=3)
    opt['path']['pretrain_network_g'] = None
    opt['train']['total_iter'] = 4
    opt['logger'].update(print_freq=1, save_checkpoint_freq=2, use_tb_logger=False)
    opt['datasets']['train'].update(num_worker_per_gpu=0, batch_size_per_gpu=2, dataset_enlarge_ratio=4)
    return opt


def test_two_blocks_turn_the_published_file_into_one_of_dil(published, pipeline):
    root = pipeline(shrunk(published))
    experiment = root / 'experiments' / published['name']
    log = next(experiment.glob('train_*.log')).read_text()
    assert 'RealESRGAN(order=2)#4' in log
    assert 't_synthesis' in log
    weights = [torch.load(experiment / f'models/net_g_{k}.pth', weights_only=True)['params_ema'] for k in (2, 4)]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_full_sized_settings_pass_all_checks(published, parsed):
    """But for GPUs and weights, of which a test has none."""
    published['num_gpu'] = 0
    opt = parsed(published)
    assert opt['datasets']['train']['crop_pad_size'] == 400
    assert opt['queue_size'] == 180


OTHER = {
    'kernel_list': FAMILIES[:2], 'kernel_prob': [0.7, 0.3], 'resize_prob': [0.1, 0.8, 0.1], 'blur_kernel_size': 11,
    'sinc_prob': 0.3, 'blur_sigma': [0.3, 2], 'betag_range': [0.6, 3], 'betap_range': [1, 1.5],
    'resize_range': [0.4, 1.1], 'gaussian_noise_prob': 0.7, 'noise_range': [2, 9], 'poisson_scale_range': [0.1, 2],
    'gray_noise_prob': 0.2, 'jpeg_range': [50, 90], 'final_sinc_prob': 0.4, 'second_blur_prob': 0.1,
}
"""Other values for all degrees; those of the second pass are the same."""


def changed_everywhere(opt):
    """Other degrees, where Real-ESRNet's YAML has them."""
    for block in (opt, opt['datasets']['train']):
        block.update({name: OTHER[name.removesuffix('2')] for name in block if name.removesuffix('2') in OTHER})
    return opt


def test_every_degree_reaches_the_confounders(published, parsed):
    published['num_gpu'] = 0
    model_degrees = {name: value for name, value in published.items() if name in RealESRGAN.__struct_fields__}
    assert len(model_degrees) == 15 + 1  # of both passes, and scale
    opt = parsed(changed_everywhere(published))
    entry, = opt['distortions']
    degrees = [name for name in RealESRGAN.__struct_fields__ if name not in ('order', 'scale')]
    assert set(degrees) <= set(entry)
    confounder = build_dataset(opt['datasets']['train']).distortions[0]
    for name in degrees:
        given = published.get(name, published['datasets']['train'].get(name))
        value = getattr(confounder, name)
        assert (list(value) if isinstance(value, tuple) else value) == given
        assert value != getattr(RealESRGAN(2), name), name


def test_first_order_takes_the_first_pass_and_says_so(published, parsed, capfd):
    published.update(num_gpu=0, distortions=[{'type': 'RealESRGAN', 'order': 1, 'draws': 4}], noise_range=[1, 12])
    opt = parsed(published)
    entry, = opt['distortions']
    assert entry['noise_range'] == [1, 12]
    assert entry['final_sinc_prob'] == 0.8
    assert not [name for name in entry if name.endswith('2')]
    message = capfd.readouterr().err
    assert 'order 1 has no second pass' in message
    assert 'second_blur_prob' in message
    assert ' noise_range,' not in message


def test_an_entrys_own_degrees_come_first(published, parsed):
    published.update(num_gpu=0, distortions=[{'type': 'RealESRGAN', 'order': 2, 'noise_range': [1, 7]},
                                             {'type': 'OneOf', 'distortions': [{'type': 'RealESRGAN', 'order': 2}]}])
    published['noise_range'] = [1, 12]
    first, second = parsed(published)['distortions']
    assert first['noise_range'] == [1, 7]
    assert second['distortions'][0]['noise_range'] == [1, 12]


@pytest.mark.parametrize(('change', 'words'), [
    ({'distortions': [{'type': 'Downsample', 'scale': 4}]}, ['datasets.train.blur_kernel_size', 'no entry']),
    ({'gt_size': 128}, ['gt_size: 128', 'datasets.train.gt_size is 256']),
    ({'gt_size': 'big'}, ["gt_size: expected", "'big'"]),
    ({'queue_size': 181}, ['queue_size: 181', 'no multiple of 12', '12, 24, 36']),
    ({'queue_size': 0}, ['queue_size: expected', 'got 0']),
    ({'high_order_degradation': False}, ['high_order_degradation', 'allowed: true']),
    ({'blur_sigma': [0.2, 4]}, ['datasets.train.blur_sigma', '[0.2, 4]']),
    ({'noise_range': [30, 1]}, ['noise_range: expected [low, high]', '[30.0, 1.0]']),
    ({'jpeg_range2': 'high'}, ['jpeg_range2', "'high'"]),
])
def test_what_contradicts_itself_is_named(published, parsed, change, words):
    published.update({'num_gpu': 0, **change})
    with pytest.raises(OptionError) as error:
        parsed(published)
    assert all(word in str(error.value) for word in words), error.value
    assert str(error.value).startswith(words[0])


@pytest.mark.parametrize(('change', 'words'), [
    ({'blur_sigma': [3, 1]}, ['datasets.train.blur_sigma: expected', '[3.0, 1.0]']),
    ({'crop_pad_size': 128}, ['crop_pad_size: 128', 'at least gt_size 256']),
    ({'crop_pad_size': 402}, ['crop_pad_size: 402', 'multiples of scale 4']),
    ({'use_shuffle': False}, ['use_shuffle', 'allowed: true']),
    ({'meta_info_file': 'a.txt'}, ['meta_info', 'one of them']),
    ({'meta_info': 'nowhere.txt'}, ['datasets.train.meta_info: there is no file nowhere.txt']),
])
def test_options_of_the_data_set(published, parsed, change, words):
    published['num_gpu'] = 0
    published['datasets']['train'].update(change)
    with pytest.raises(DILError) as error:
        parsed(published)
    assert all(word in str(error.value) for word in words), error.value


def test_meta_info_lists_the_images(published, parsed):
    published['num_gpu'] = 0
    data = build_dataset(parsed(published)['datasets']['train'])
    assert [Path(path).name for path in data.paths] == ['a.png', 'b.png', 'aT0.png']


def test_crops_are_padded_as_basicsr_pads_them(published, parsed):
    """Images below 400 pixels are continued by reflection, on the right and below."""
    published['num_gpu'] = 0
    published['datasets']['train'].update(use_hflip=False)
    data = build_dataset(parsed(published)['datasets']['train'])
    image = cv2.imread(data.paths[2])
    expected = cv2.copyMakeBorder(image, 0, 120, 0, 120, cv2.BORDER_REFLECT_101)[..., ::-1]
    patch = data[Draw(2, 0)]['gt'].permute(1, 2, 0).numpy()
    assert patch.dtype == np.uint8
    np.testing.assert_array_equal(patch, expected)


def test_real_esrgans_own_data_set_may_stay(published, parsed, capfd):
    """Its crops of 400 pixels are distorted by DILModel, and patches of gt_size are cut from them."""
    shrunk(published)
    published['datasets']['train']['type'] = 'RealESRGANDataset'
    opt = parsed(published)
    assert 'kernels that its workers compute are not used' in capfd.readouterr().err
    sample = build_dataset(opt['datasets']['train'])[0]
    assert sample['gt'].shape == (3, 400, 400)
    model = build_model(opt)
    seen: list[MetaBatch] = []
    step = model.variant
    model.variant = lambda loss, params, batch: seen.append(batch) or step(loss, params, batch)
    model.feed_data({name: value[None] if isinstance(value, torch.Tensor) else value for name, value in sample.items()})
    model.optimize_parameters(1)
    assert {pair.gt.shape[-1] for pair in seen[0].confounders} == {256}
    assert {pair.lq.shape[-1] for pair in seen[0].confounders} == {64}
    del published['gt_size']
    with pytest.raises(OptionError, match='^gt_size: missing'):
        parsed(published)


@pytest.mark.parametrize('distort_on', ['worker', 'device'])
def test_patches_are_cut_after_the_distortion(published, parsed, distort_on):
    """Wherever it happens, what reaches the network has ``gt_size`` and its versions fit it."""
    shrunk(published)
    published['distortions'] = [{'type': 'Downsample', 'scale': 4, 'mode': 'area'}] * 2
    for name in list(published):
        if name in RealESRGAN.__struct_fields__ and name != 'scale':
            del published[name]
    train = published['datasets']['train']
    for name in list(train):
        if name in RealESRGAN.__struct_fields__:
            del train[name]
    published['gt_usm'] = False
    train['distort_on'] = distort_on
    opt = parsed(published)
    data = build_dataset(opt['datasets']['train'])
    batch = torch.utils.data.default_collate([data[Draw(1, k)] for k in range(2)])
    assert batch['gt'].shape[-1] == (256 if distort_on == 'worker' else 400)
    model = build_model(opt)
    seen: list[MetaBatch] = []
    step = model.variant
    model.variant = lambda loss, params, batch: seen.append(batch) or step(loss, params, batch)
    model.feed_data(batch)
    model.optimize_parameters(1)
    for lq, gt in [*seen[0].confounders, seen[0].query]:
        assert gt.shape[-2:] == (256, 256)
        torch.testing.assert_close(lq, torch.nn.functional.avg_pool2d(gt, 4), rtol=0, atol=1e-5)


def test_lmdb_and_the_pool_resume(published, pipeline, world):
    """An interrupted run with the pool ends with the weights of an uninterrupted one."""
    prepare_data(world / 'datasets/DF2K/HR', world / 'train.lmdb', CutSettings(280, 120), workers=1)
    shrunk(published)
    published['datasets']['train'].update(dataroot_gt=str(world / 'train.lmdb'), io_backend={'type': 'lmdb'},
                                          gt_size=64, crop_pad_size=96, meta_info=None)
    published.update(gt_size=64, queue_size=4)
    published['distortions'][0]['order'] = 1
    published['train']['total_iter'] = 6
    root = pipeline({**published, 'name': 'whole'})
    pipeline({**published, 'name': 'parts', 'train': {**published['train'], 'total_iter': 4}})
    pipeline({**published, 'name': 'parts'}, 'train', '--auto_resume')
    one, two = (torch.load(root / f'experiments/{name}/models/net_g_6.pth', weights_only=True)['params']
                for name in ('whole', 'parts'))
    assert all(torch.equal(one[name], two[name]) for name in one)
