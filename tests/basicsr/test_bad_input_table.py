"""At least 60 things that a user gets wrong, each through the command line's own entry.

Each ends with exit code 2 and one line on standard error that names the key or the file, the value, and what is
allowed; nothing is left in experiments/ by those that are found before the training starts.
"""

import copy
import logging
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import basicsr.utils.logger
import cv2
import lmdb
import pytest
import torch
import yaml
from basicsr.train import train_pipeline

from dil_plugin.basicsr.launch import run

LEAST = 60


class Bad(NamedTuple):
    """One mistake.

    Attributes:
        name: For the test's id.
        spoil: Changes the options, or writes files into the folder; gets ``(options, folder, sources)``.
        words: What the message says.
        arguments: Of the command line.
        early: Whether it is found before the experiment's folder is made.
    """

    name: str
    spoil: Callable[[dict[str, Any], Path, dict[str, Path]], object]
    words: list[str]
    arguments: tuple[str, ...] = ()
    early: bool = True


def option(key, value, *words):
    """An option of a wrong value."""

    def spoil(opt, folder, sources):
        *path, last = key.split('/')
        for name in path:
            opt = opt[name]
        opt[last] = value

    return Bad(f'{key}={value}'[:60], spoil, list(words))


TRAIN = 'datasets.train'
SWINIR = {'type': 'SwinIR', 'upscale': 1, 'img_size': 16, 'window_size': 8, 'embed_dim': 12, 'depths': [1],
          'num_heads': [3]}
RRDB = {'type': 'RRDBNetNoUpsample', 'num_feat': 6, 'num_block': 1, 'num_grow_ch': 3}
EDSR = {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1}
NETWORKS = [
    ({**RRDB, 'num_in_ch': 4}, ['network_g.num_in_ch: 4', 'allowed: 3']),
    ({**RRDB, 'num_out_ch': 1}, ['network_g.num_out_ch: 1', 'allowed: 3']),
    ({**SWINIR, 'embed_dim': 10}, ['network_g.embed_dim: 10', 'multiples', '[3]']),
    ({**SWINIR, 'depths': [1, 1]}, ['network_g.num_heads: [3]', 'as many as depths [1, 1]']),
    ({**SWINIR, 'upsampler': 'nearest+conv'}, ['network_g.upsampler', 'nearest+conv', 'upscale is 1', 'pixelshuffle']),
    ({**EDSR, 'upscale': 5}, ['network_g: EDSR cannot be built', 'upscale: 5', '2^n and 3']),
    ({**EDSR, 'upscale': 2, 'res_scal': 1}, ['network_g', 'res_scal', "did you mean 'res_scale'"]),
    ({'type': 'EDSR', 'num_in_ch': 3}, ['network_g', "'num_out_ch' is missing"]),
    ({'type': 'UNetDiscriminatorSN', 'num_in_ch': 3, 'num_feat': 4}, ['network_g.type', 'UNetDiscriminatorSN',
                                                                     '1 channels', 'allowed']),
    ({'type': 'VGGStyleDiscriminator', 'num_in_ch': 3, 'num_feat': 4}, ['network_g: VGGStyleDiscriminator', '3x16x16',
                                                                       'allowed']),
    ({'type': 'BasicVSR', 'num_feat': 4, 'num_block': 1}, ['network_g: BasicVSR', '3x16x16', 'allowed']),
]
"""Networks that cannot be built, or do not restore images."""
OPTIONS = [
    # train.dil
    option('train/dil', {'variant': 'maml'}, 'train.dil.variant', 'maml', 'sf, pf, ss, ps, erm'),
    option('train/dil', {'variant': 'sf', 'max_skiped': 3}, 'max_skiped', "did you mean 'max_skipped'"),
    option('train/dil', {'variant': 'sf', 'max_skipped': 0}, 'train.dil.max_skipped', '>= 1', 'got 0'),
    option('train/dil', {'variant': 'sf', 'max_skipped': 2.5}, 'train.dil.max_skipped', 'a whole number', 'got 2.5'),
    option('train/dil', {'variant': 'sf', 'max_skipped': None}, 'train.dil.max_skipped', 'a whole number', 'got None'),
    option('train/dil', {'variant': 'sf', 'inner': {'type': 'SGD', 'lr': '1e-4'}}, 'train.dil.inner.lr', "'1e-4'",
           '!!float 1e-4'),
    option('train/dil', {'variant': 'sf', 'inner': {'type': 'SGD', 'lr': float('inf')}}, 'train.dil.inner.lr', 'inf',
           'finite'),
    option('train/dil', {'variant': 'sf', 'inner': {'type': 'SGD', 'lr': float('nan')}}, 'train.dil.inner.lr', 'nan'),
    option('train/dil', {'variant': 'sf', 'inner': {'type': 'Adam', 'betas': [0.9]}}, 'train.dil.inner.betas',
           'length 2', '[0.9]'),
    option('train/dil', {'variant': 'sf', 'inner': {'type': 'Adam', 'betas': [0.9, 1]}}, 'train.dil.inner.betas[1]',
           '< 1', 'got 1'),
    option('train/dil', {'variant': 'ps', 'inner': {'type': 'SGD', 'momentum': 0.9}}, 'train.dil.inner', 'momentum',
           'allowed: lr, type'),
    option('train/dil', {'variant': 'ps', 'inner': 1e-4}, 'train.dil.inner', '0.0001', 'block'),
    option('train/dil', {'variant': 'sf', 'outputs': 'second'}, 'train.dil.outputs', 'second', 'all, first, last'),
    option('train/dil', {'variant': 'sf', 'patches': 'some'}, 'train.dil.patches', 'some', 'same, fresh'),
    option('train/dil', {'variant': 'ps', 'recompute': 'yes'}, 'train.dil.recompute', 'yes', 'true or false'),
    option('train/dil', 'sf', 'train.dil', 'sf', 'block'),
    # distortions
    option('distortions', {'type': 'GaussianNoise', 'sigma': 5}, 'distortions', 'list', 'GaussianNoise'),
    option('distortions', ['GaussianNoise'], 'distortions[0]', 'GaussianNoise', 'type'),
    option('distortions', [{'sigma': 5}], 'distortions[0]', 'type'),
    option('distortions', [{'type': 'GaussianNoise', 'sigma': 'strong'}], 'distortions[0].sigma', 'strong'),
    option('distortions', [{'type': 'GaussianNoise', 'sigma': 5}, {'type': 'JPEG', 'quality': 101}],
           'distortions[1].quality', '101', '<= 100'),
    option('distortions', [{'type': 'GaussianNoise', 'sgma': 5}], 'distortions[0]', 'sgma', "did you mean 'sigma'"),
    option('distortions', [{'type': 'GaussianNoise', 'sigma': 5, 'draws': 0}], 'distortions[0].draws', '>= 1', 'got 0'),
    option('distortions', [{'type': 'GaussianNoise', 'sigma': float('nan')}], 'distortions[0].sigma', 'nan'),
    option('distortions', [{'type': 'GaussianNoise', 'sigma': []}], 'distortions[0].sigma', 'list is empty'),
    option('distortions', [{'type': 'GaussianNoise', 'sigma': 1e300}], 'distortions[0].sigma', 'at most 3.4e+38',
           '1e+300'),
    option('distortions', [{'type': 'GaussianNoise', 'sigma': 5, 'draws': 10**9}], 'distortions[0].draws',
           'at most 1000', '1000000000'),
    option('distortions', [{'type': 'Downsample', 'scale': 2}], 'scale: 1', '2'),
    # data set
    option('datasets/train/gt_sze', 16, TRAIN, 'gt_sze', "did you mean 'gt_size'"),
    option('datasets/train/gt_size', '16', f'{TRAIN}.gt_size', "'16'"),
    option('datasets/train/gt_size', 400, f'{TRAIN}.dataroot_gt', 'gt_size', '400', '48x40'),
    option('datasets/train/batch_size_per_gpu', None, f'{TRAIN}.batch_size_per_gpu', 'missing'),
    option('datasets/train/batch_size_per_gpu', 2.5, f'{TRAIN}.batch_size_per_gpu', '2.5', '>= 1'),
    option('datasets/train/num_worker_per_gpu', -1, f'{TRAIN}.num_worker_per_gpu', '-1', '>= 0'),
    option('datasets/train/dataset_enlarge_ratio', 0, f'{TRAIN}.dataset_enlarge_ratio', '0', '> 0'),
    option('datasets/train/use_hflip', 'maybe', f'{TRAIN}.use_hflip', 'maybe', 'true or false'),
    option('datasets/train/type', 'PairedImagesDataset', f'{TRAIN}.type', "did you mean 'PairedImageDataset'"),
    option('datasets/train/dataroot_gt', '/no/such/folder', f'{TRAIN}.dataroot_gt', '/no/such/folder', 'no folder'),
    option('datasets/train/dataroot_gt', ['a', 'b'], f'{TRAIN}.dataroot_gt', "['a', 'b']"),
    option('datasets/train/io_backend', 'lmdb', f'{TRAIN}.io_backend', 'lmdb'),
    option('datasets/train/io_backend', {'type': 'lmdb'}, f'{TRAIN}.dataroot_gt', '.lmdb'),
    option('datasets/train/persistent_workers', True, f'{TRAIN}.persistent_workers', 'num_worker_per_gpu is 0', '>= 1'),
    option('datasets/train/batch_size_per_gpu', 1000, f'{TRAIN}.dataset_enlarge_ratio', '20 times 6', 'at least 167'),
    option('datasets/train/seed', 2**70, f'{TRAIN}.seed', str(2**70), '<= 4294967295'),
    option('datasets/train/distort_on', 'cpu', f'{TRAIN}.distort_on', 'cpu', 'worker, device'),
    option('datasets', {}, 'datasets'),
    # the rest
    option('name', 'a/b', 'name', 'a/b', 'folder'),
    option('name', 'a\nb', 'name', "'a\\nb'", 'folder', 'control characters'),
    option('name', 'a\0b', 'name', "'a\\x00b'", 'folder', 'control characters'),
    option('name', 'a' * 300, 'name', 'aaa', '300', '180 bytes'),
    option('name', 2024, 'name', 'text', 'got 2024', "name: '2024'"),
    option('scale', 0, 'scale', '>= 1', 'got 0'),
    option('scale', 1.5, 'scale', '>= 1', 'got 1.5'),
    option('num_gpu', 'two', 'num_gpu', "'two'", '>= 0 or auto'),
    option('manual_seed', 'three', 'manual_seed', "'three'", 'between 0 and 2**32 - 1'),
    option('scale', 2, 'scale', '2'),
    option('num_gpu', 3, 'num_gpu', '3', '0 or auto'),
    option('manual_seed', -3, 'manual_seed', '-3', 'between 0 and 2**32 - 1'),
    option('train/optim_g', {'type': 'Adam', 'lr': 1e-3, 'betas': [0.9, 2]}, 'train.optim_g.betas[1]', 'got 2'),
    option('train/dil', {'variant': 'mldg', 'held_out': 4}, 'train.dil.held_out', '4 of 4', 'at most 3'),
    option('train/optim_g', {'type': 'SGD', 'lr': 0.5, 'betas': [0.9, 0.99]}, 'train.optim_g', "'betas'", 'momentum'),
    option('train/optim_g', {'type': 'SGD', 'lr': 0.5, 'nesterov': True}, 'train.optim_g.nesterov', 'with a momentum'),
    option('train/optim_g', {'type': 'Adam', 'lr': -1}, 'train.optim_g.lr', '> 0', '-1'),
    option('train/scheduler', {'type': 'MultiStepLR', 'milestone': [3]}, 'train.scheduler',
           "did you mean 'milestones'"),
    option('train/pixel_opt', {'type': 'L1Loss', 'loss_weight': 1, 'reduction': 'max'}, 'train.pixel_opt.reduction',
           'max', 'mean'),
    option('train/pixel_opt', {'type': 'L1Loss', 'loss_weight': float('nan')}, 'train.pixel_opt.loss_weight', 'finite',
           'nan'),
    option('train/pixel_opt', {'type': 'L1Loss', 'loss_weight': 0}, 'train.pixel_opt.loss_weight: 0', 'other than 0'),
    option('train/perceptual_opt', {'type': 'PerceptualLoss', 'layer_weights': {'conv9_9': 1}},
           'train.perceptual_opt.layer_weights', 'conv9_9', 'conv5_4'),
    option('train/perceptual_opt', {'type': 'PerceptualLoss', 'layer_weights': {'conv5_4': 1}, 'vgg_type': 'vgg20'},
           'train.perceptual_opt.vgg_type', 'vgg20', "did you mean 'vgg19'", 'vgg11'),
    option('train/optim_g', {'type': 'RMSprop', 'lr': 1e-3}, 'train.optim_g.type', 'RMSprop', 'Adam'),
    option('train/scheduler', {'type': 'MultistepLR', 'milestones': [3]}, 'train.scheduler.type', 'MultistepLR',
           "did you mean 'MultiStepLR'", 'CosineAnnealingRestartLR'),
    option('train/scheduler', {'type': 'MultiStepLR', 'milestones': [30, 10]}, 'train.scheduler.milestones',
           '[30, 10]', 'rising'),
    option('train/warmup_iter', -5, 'train.warmup_iter', '>= -1', 'got -5'),
    option('train/total_iter', 2.5, 'train.total_iter', 'whole number', 'got 2.5'),
    option('val', {'val_freq': 2.5, 'save_img': False}, 'val.val_freq', 'whole number', 'got 2.5'),
    option('logger', {'print_freq': 1.5, 'save_checkpoint_freq': 2}, 'logger.print_freq', 'whole number', 'got 1.5'),
    option('logger', {'print_freq': 1, 'save_checkpoint_freq': 2, 'wandb': {'project': 'x'}}, 'logger.wandb.project',
           "'x'", 'use_tb_logger'),
    option('train/ema_decay', 1, 'train.ema_decay', '< 1', 'got 1'),
    option('train/amp', 'fp8', 'train.amp', 'fp8', 'bf16, fp16'),
    option('network_g', {'type': 'RRDBNetNoUpsample', 'num_blocks': 1}, 'network_g', "did you mean 'num_block'"),
    option('network_g', {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'scale': 4, 'num_feat': 6, 'num_block': 1,
                         'num_grow_ch': 3}, 'network_g', '4', 'scale'),
    *[option('network_g', network, *words) for network, words in NETWORKS],
    option('logger', {'print_freq': 0, 'save_checkpoint_freq': 2}, 'logger.print_freq', '> 0', '0'),
    option('val', {'val_freq': 1, 'save_img': 'no'}, 'val.save_img', 'no', 'true or false'),
    option('custom_imports', ['no_such_module'], 'custom_imports', 'no_such_module', 'allowed'),
    option('custom_imports', 'torch', 'custom_imports', 'torch', 'list'),
    option('custom_imports', ['../x.py'], 'custom_imports', '../x.py', 'allowed', 'without .py'),
    option('path/ignore_resume_networks', ['net_g'], 'path.ignore_resume_networks', 'net_g', 'allowed: network_g'),
    option('path/pretrain_network_g', 5, 'path.pretrain_network_g', 'a path', 'got 5'),
    option('pathh', {}, 'pathh', "did you mean 'path'"),
    option('path/resume_state', '/no/such.state', 'path.resume_state', '/no/such.state'),
    option('path/pretrain_network_g', '/no/such.pth', 'path.pretrain_network_g', '/no/such.pth'),
]


# ---- Files -----------------------------------------------------------------------------------------------------------


def images(change, *words, early=False, name=None):
    """A copy of the folder of images, one of which is changed by ``change(path)``."""

    def spoil(opt, folder, sources):
        shutil.copytree(sources['crops'], folder / 'images')
        change(folder / 'images/coffee_0.png')
        opt['datasets']['train']['dataroot_gt'] = str(folder / 'images')

    return Bad(name or change.__name__, spoil, list(words), early=early)


def truncated_png(path):
    path.write_bytes(path.read_bytes()[:-900])


def png_without_its_end(path):
    path.write_bytes(path.read_bytes()[:-8])


def truncated_jpeg(path):
    image = cv2.imread(str(path))
    path.unlink()
    content = cv2.imencode('.jpg', image)[1].tobytes()
    path.with_suffix('.jpg').write_bytes(content[:len(content) // 2])


def text_file_named_png(path):
    path.write_text('no image\n')


def empty_file(path):
    path.write_bytes(b'')


def too_small(path):
    cv2.imwrite(str(path), cv2.imread(str(path))[:10])


def lmdb_of(change, *words, early=True):
    """A copy of the LMDB, changed."""

    def spoil(opt, folder, sources):
        target = folder / 'copy.lmdb'
        shutil.copytree(sources['lmdb'], target)
        change(target)
        opt['datasets']['train'].update(dataroot_gt=str(target), io_backend={'type': 'lmdb'})

    return Bad(f'lmdb {change.__name__}', spoil, ['copy.lmdb', *words], early=early)


def gone(root):
    shutil.rmtree(root)


def without_data(root):
    (root / 'data.mdb').unlink()


def without_meta_info(root):
    (root / 'meta_info.txt').unlink()


def truncated_data(root):
    with lmdb.open(str(root), map_size=2**24) as env, env.begin(write=True) as transaction:
        for k in range(40):
            transaction.put(str(k).encode(), bytes(10000))
    path = root / 'data.mdb'
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def not_an_lmdb(root):
    (root / 'data.mdb').write_bytes(b'x' * 8192)


def empty_data(root):
    (root / 'data.mdb').write_bytes(b'')


def key_missing(root):
    text = (root / 'meta_info.txt').read_text()
    (root / 'meta_info.txt').write_text(text.replace('coffee_0', 'coffee_9'))


def more_keys_than_records(root):
    with (root / 'meta_info.txt').open('a') as file:
        file.write('another.png (48,40,3) 1\n')


def garbled_meta_info(root):
    (root / 'meta_info.txt').write_text('a line of another kind\n')


def record_is_no_image(root):
    with lmdb.open(str(root), map_size=2**24) as env, env.begin(write=True) as transaction:
        transaction.put(b'coffee_0', b'no image')


def opened_as_a_folder(opt, folder, sources):
    opt['datasets']['train']['dataroot_gt'] = str(sources['lmdb'])


def without_lines(root):
    (root / 'meta_info.txt').write_text('')


def with_blank_lines(root):
    (root / 'meta_info.txt').write_text('\n\n')


def dangling(path):
    path.unlink()
    path.symlink_to('no_such_file.png')


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def encoded(encoding, *words):
    """The file in another encoding."""

    def spoil(opt, folder, sources):
        text = '# \xe4\n' + yaml.safe_dump(opt)
        opt.clear()
        opt['text'] = text.encode(encoding)

    return Bad(f'YAML in {encoding}', spoil, ['-opt', 'options.yml', 'UTF-8', *words])


def validated(change, *words, name):
    """Two validation sets and a metric, changed by ``change(opt)``."""

    def spoil(opt, folder, sources):
        one = {'type': 'DistortionAugmentedDataset', 'dataroot_gt': str(sources['crops']), 'io_backend':
               {'type': 'disk'}, 'distortions': [{'type': 'GaussianNoise', 'sigma': 30}]}
        opt['datasets'].update(val_1={'name': 'a', **one}, val_2={'name': 'b', **one})
        opt['val'] = {'val_freq': 2, 'save_img': False, 'metrics': {'psnr': {'type': 'calculate_psnr',
                                                                             'crop_border': 2}}}
        change(opt)

    return Bad(name, spoil, list(words))


def listed(text, *words, name):
    """A ``meta_info_file``."""

    def spoil(opt, folder, sources):
        (folder / 'list.txt').write_bytes(text)
        opt['datasets']['train']['meta_info_file'] = str(folder / 'list.txt')

    return Bad(name, spoil, ['list.txt', *words])


def checkpoint(write, *words, early=True):
    """``path.pretrain_network_g``."""

    def spoil(opt, folder, sources):
        write(folder / 'net.pth')
        opt['path']['pretrain_network_g'] = str(folder / 'net.pth')

    return Bad(f'checkpoint {write.__name__}', spoil, ['path.pretrain_network_g', 'net.pth', *words], early=early)


def no_checkpoint(path):
    path.write_text('weights')


def empty(path):
    path.touch()


def truncated(path):
    torch.save({'params': {'conv_first.weight': torch.zeros(100, 100)}}, path)
    path.write_bytes(path.read_bytes()[:20000])


def of_another_network(path):
    torch.save({'params': {'body.weight': torch.zeros(3)}}, path)


def without_params(path):
    torch.save({'state_dict': {'conv.weight': torch.zeros(3)}}, path)


def params_are_no_state_dict(path):
    torch.save({'params': [torch.zeros(3)]}, path)


def a_tensor(path):
    torch.save(torch.zeros(3), path)


def training_state(path):
    torch.save({'epoch': 0, 'iter': 1, 'optimizers': [], 'schedulers': []}, path)


class Hostile:
    """Would write a file when it is unpickled."""

    def __reduce__(self):
        return Path.write_text, (Path(HOSTILE[0]), 'owned')


HOSTILE = ['/dev/null']


def hostile_pickle(path):
    HOSTILE[0] = str(path.parent / 'owned')
    path.write_bytes(pickle.dumps({'params': Hostile()}))


def hostile_zip(path):
    HOSTILE[0] = str(path.parent / 'owned')
    torch.save({'params': Hostile()}, path)


def state(write, *words):
    """``path.resume_state``."""

    def spoil(opt, folder, sources):
        write(folder / '3.state')
        opt['path']['resume_state'] = str(folder / '3.state')

    return Bad(f'state {write.__name__}', spoil, ['path.resume_state', '3.state', *words])


def weights(path):
    torch.save({'params': {'conv_first.weight': torch.zeros(3)}}, path)


def yaml_text(content, *words, name):
    """The file itself."""

    def spoil(opt, folder, sources):
        opt.clear()
        opt['text'] = content

    return Bad(name, spoil, ['-opt', *words])


def forced(entry, *words):
    """``--force_yml``."""
    return Bad(f'--force_yml {entry}', lambda *_: None, ['--force_yml', *words], ('--force_yml', entry))


ROOT_KEY = f'{TRAIN}.dataroot_gt'
FILES = [
    images(truncated_png, ROOT_KEY, 'coffee_0.png', 'decoded'),
    images(png_without_its_end, ROOT_KEY, 'coffee_0.png', 'decoded'),
    images(truncated_jpeg, ROOT_KEY, 'coffee_0.jpg', 'decoded'),
    images(text_file_named_png, ROOT_KEY, 'coffee_0.png', 'decoded'),
    images(empty_file, ROOT_KEY, 'coffee_0.png', 'decoded'),
    images(too_small, ROOT_KEY, 'coffee_0.png', '10x40', 'gt_size', early=True),
    Bad('empty folder', lambda opt, folder, _: opt['datasets']['train'].update(dataroot_gt=str(folder)),
        [ROOT_KEY, 'holds no images', '.png']),
    Bad('a file for a folder', lambda opt, folder, sources: opt['datasets']['train'].update(
        dataroot_gt=str(sources['crops'] / 'coffee_0.png')), [ROOT_KEY, 'coffee_0.png', 'no folder']),
    lmdb_of(gone, ROOT_KEY, 'no folder'),
    lmdb_of(without_data, ROOT_KEY, 'data.mdb'),
    lmdb_of(without_meta_info, ROOT_KEY, 'meta_info.txt'),
    lmdb_of(truncated_data, ROOT_KEY, 'truncated'),
    lmdb_of(not_an_lmdb, ROOT_KEY, 'cannot be read'),
    lmdb_of(empty_data, ROOT_KEY, 'data.mdb', 'is empty (0 bytes)', 'prepare_data.py'),
    lmdb_of(more_keys_than_records, ROOT_KEY, '6 records', '7'),
    lmdb_of(garbled_meta_info, 'line 1', 'a line of another kind'),
    lmdb_of(without_lines, ROOT_KEY, 'meta_info.txt', 'is empty', 'prepare_data.py'),
    lmdb_of(with_blank_lines, ROOT_KEY, 'meta_info.txt', 'lists no images', 'prepare_data.py'),
    images(dangling, ROOT_KEY, 'coffee_0.png', 'a link to a file that is not there', 'allowed', early=True),
    images(pipe, ROOT_KEY, 'coffee_0.png', 'no file', 'allowed', early=True),
    encoded('utf-16', '0xff'),
    encoded('latin-1', '0xe4'),
    validated(lambda opt: opt['datasets']['val_2'].update(name='a'), 'datasets.val_2.name', "'a'", 'datasets.val_1',
              'another name', name='two validation sets of one name'),
    validated(lambda opt: opt['val']['metrics']['psnr'].update(crop_border=20), 'val.metrics.psnr.crop_border: 20',
              'datasets.val_1', '48x40', 'at most 19', name='crop_border leaves nothing'),
    lmdb_of(key_missing, ROOT_KEY, 'coffee_9', early=False),
    lmdb_of(record_is_no_image, ROOT_KEY, 'coffee_0', 'decoded', early=False),
    Bad('lmdb as a folder', opened_as_a_folder, [f'{TRAIN}.io_backend.type', 'disk', 'lmdb']),
    listed(b'nothing.png (48,40,3)\n', 'nothing.png', name='list of a missing image'),
    listed(b'', f'{TRAIN}.meta_info_file', 'no images', name='empty list'),
    listed(b'\xff\xfe\x00', f'{TRAIN}.meta_info_file', 'text file', name='list that is no text'),
    checkpoint(no_checkpoint, 'cannot be read'),
    checkpoint(empty, 'cannot be read'),
    checkpoint(truncated, 'cannot be read'),
    checkpoint(of_another_network, 'does not fit network_g', 'Missing key'),
    checkpoint(without_params, "no 'params'", 'state_dict'),
    checkpoint(params_are_no_state_dict, 'list', 'params'),
    checkpoint(a_tensor, 'Tensor'),
    checkpoint(training_state, "no 'params'", 'epoch'),
    checkpoint(hostile_pickle, 'other objects than tensors'),
    checkpoint(hostile_zip, 'other objects than tensors'),
    state(no_checkpoint, 'cannot be read'),
    state(truncated, 'cannot be read'),
    state(weights, 'not a training state'),
    state(a_tensor, 'not a training state'),
    state(hostile_pickle, 'other objects than tensors'),
    yaml_text('', name='empty YAML'),
    yaml_text('a: [1\n', 'not a YAML file', name='YAML that does not end'),
    yaml_text('- a\n- b\n', name='YAML of a list'),
    yaml_text('name: \x00', 'not a YAML file', name='YAML with a zero'),
    forced('train:dil:varint=sf', 'varint', "did you mean 'variant'"),
    Bad('forced seed', lambda *_: None, ['manual_seed', '99999999999', 'between 0'],
        ('--force_yml', 'manual_seed=99999999999')),
    forced('train:total_iter', 'KEY:KEY=VALUE'),
    Bad('forced name', lambda *_: None, ['name', 'text', 'got 2024'], ('--force_yml', 'name=2024')),
]
TABLE = [*OPTIONS, *FILES]


def test_the_table_is_as_long_as_it_should_be():
    assert len({bad.name for bad in TABLE}) >= LEAST


@pytest.mark.parametrize('bad', TABLE, ids=lambda bad: bad.name)
def test_mistake(base, crops, crops_lmdb, tmp_path, monkeypatch, capsys, bad):
    folder = tmp_path / 'given'
    folder.mkdir()
    opt = copy.deepcopy(base)
    bad.spoil(opt, folder, {'crops': crops, 'lmdb': crops_lmdb})
    path = tmp_path / 'options.yml'
    content = opt['text'] if set(opt) == {'text'} else yaml.safe_dump(opt)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setattr(sys, 'argv', ['train.py', '-opt', str(path), *bad.arguments])
    basicsr.utils.logger.initialized_logger.clear()
    logging.getLogger('basicsr').handlers.clear()  # of earlier runs, whose streams are closed
    with pytest.raises(SystemExit) as ended:
        run(train_pipeline, str(tmp_path))
    assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert 'Traceback' not in errors
    line, = (line for line in errors.splitlines() if line.startswith('error: '))
    for word in bad.words:
        assert word in line
    assert len(line) < 900
    assert not (folder / 'owned').exists()
    assert (tmp_path / 'experiments').exists() != bad.early
