"""One run tells all mistakes of a YAML that can be told at once, each in one line and once."""

import copy
import sys
from typing import Any

import pytest
import yaml

from dil_plugin.basicsr.launch import run
from dil_plugin.errors import DILError, OptionError
from dil_plugin.mistakes import each

MISTAKES = {
    'queue_sise': ('queue_sise', 1, "top level: unknown option 'queue_sise'"),
    'train.dil': ('train/dil/max_skipped', 0, 'train.dil.max_skipped: '),
    'inner': ('train/dil/inner', {'type': 'Adam', 'lr': -1}, 'train.dil.inner.lr: '),
    'distortions[0]': ('distortions/0/sigma', -1, 'distortions[0].sigma: '),
    'distortions[1]': ('distortions/1/type', 'JPG', 'distortions[1].type: unknown distortion'),
    'data set': ('datasets/train/gt_sise', 16, "datasets.train: unknown option 'gt_sise'"),
    'flip': ('datasets/val_1/use_hflip', 'maybe', 'datasets.val_1.use_hflip: '),
    'folder': ('datasets/val_1/dataroot_gt', '/no/such', 'datasets.val_1.dataroot_gt: there is no folder /no/such'),
    'network': ('network_g/num_feats', 8, "network_g: unknown option 'num_feats'"),
    'loss': ('train/pixel_opt/type', 'L1Los', 'train.pixel_opt.type: unknown name'),
    'milestones': ('train/scheduler/milestones', [3, 2], 'train.scheduler.milestones: '),
    'total_iter': ('train/total_iter', 'ten', 'train.total_iter: '),
    'val_freq': ('val/val_freq', 0, 'val.val_freq: '),
    'metric': ('val/metrics/psnr/crop_boarder', 4, "val.metrics.psnr: unknown option 'crop_boarder'"),
    'logger': ('logger/print_freq', None, 'logger.print_freq: '),
    'path': ('path/strict_load_g', 'no', 'path.strict_load_g: '),
    'checkpoint': ('path/pretrain_network_g', 'none.pth', 'path.pretrain_network_g: there is no file'),
    'best': ('val/keep_best', 'pnsr', "val.keep_best: 'pnsr' is none of val.metrics"),
    'seed': ('manual_seed', -1, 'manual_seed: got -1; allowed: '),
    'ema_decay': ('train/ema_decay', 2, 'train.ema_decay: '),
    'dist_params': ('dist_params/backend', 'mpi', 'dist_params.backend: '),
}


def put(opt: Any, key: str, value: Any) -> None:
    *path, last = key.split('/')
    for name in path:
        opt = opt[int(name)] if isinstance(opt, list) else opt.setdefault(name, {})
    opt[last] = value


@pytest.fixture
def opt(base, crops):
    base['distortions'] = [{'type': 'GaussianNoise', 'sigma': 5}, {'type': 'JPEG', 'quality': 40}]
    base['train']['dil'] = {'variant': 'sf'}
    base['datasets']['val_1'] = {'name': 'v', 'type': 'DistortionAugmentedDataset', 'dataroot_gt': str(crops),
                                 'io_backend': {'type': 'disk'}, 'distortions': [{'type': 'JPEG', 'quality': 40}]}
    base['val'] = {'val_freq': 2, 'save_img': False, 'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}}
    base['dist_params'] = {'backend': 'gloo'}
    return base


def told(opt, parsed):
    with pytest.raises(DILError) as error:
        parsed(opt)
    return [str(one) for one in each(error.value)]


def test_every_mistake_is_one_line(opt, parsed):
    parsed(opt)
    for key, value, words in MISTAKES.values():
        spoilt = copy.deepcopy(opt)
        put(spoilt, key, value)
        line, = told(spoilt, parsed)
        assert line.startswith(words)


def test_all_at_once(opt, parsed):
    for key, value, _ in MISTAKES.values():
        put(opt, key, value)
    lines = told(opt, parsed)
    for name, (_, _, words) in MISTAKES.items():
        assert len([line for line in lines if line.startswith(words)]) == 1, (name, lines)
    assert len(lines) == len(MISTAKES)


def test_the_tools_print_a_line_each(opt, tmp_path, monkeypatch, capsys):
    from basicsr.train import train_pipeline
    for name in ('train.dil', 'folder', 'network', 'checkpoint'):
        put(opt, *MISTAKES[name][:2])
    path = tmp_path / 'options.yml'
    path.write_text(yaml.safe_dump(opt))
    monkeypatch.setattr(sys, 'argv', ['train', '-opt', str(path)])
    with pytest.raises(SystemExit) as end:
        run(train_pipeline, str(tmp_path))
    assert end.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert sorted(line.partition(':')[2].partition(':')[0].strip() for line in lines) == [
        'datasets.val_1.dataroot_gt', 'network_g', 'path.pretrain_network_g', 'train.dil.max_skipped']
    assert not (tmp_path / 'experiments').exists()


@pytest.mark.parametrize(('change', 'words'), [
    ({'train': None}, ['train.total_iter: missing']),
    ({'trian': {}, 'train': None}, ["top level: unknown option 'trian'"]),
    ({'iterations': 5}, ["top level: unknown option 'iterations'"]),
    ({'distortion': [], 'distortions': None}, ["top level: unknown option 'distortion'"]),
    ({'network_g': None}, ['network_g.type: missing']),
    ({'custom_import': ['x'], 'network_g': {'type': 'NoSuchNet'}},
     ["top level: unknown option 'custom_import'"]),
    ({'gt_usm': 'maybe'}, ["gt_usm: expected true or false, got 'maybe'"]),
    ({'scale': 0}, ['scale: expected a whole number >= 1']),
    ({'scale': 0, 'datasets': {'train': {'type': 'DistortionAugmentedDataset', 'name': 'x', 'dataroot_gt': '.',
                                         'io_backend': {'type': 'disk'}, 'gt_size': 16, 'use_hflip': True,
                                         'use_rot': True, 'num_worker_per_gpu': 0, 'batch_size_per_gpu': 0}}},
     ['scale: expected a whole number >= 1', 'datasets.train.batch_size_per_gpu: ']),
    ({'foo': 1, 'distortions': None}, ["top level: unknown option 'foo'", 'distortions: the block is missing']),
    ({'model_type': 'DILmodel'}, ["model_type: unknown name 'DILmodel'"]),
    ({'datasets': {}}, ['datasets.train.batch_size_per_gpu: missing']),
])
def test_what_comes_of_a_mistake_is_not_told(opt, parsed, change, words):
    opt.update(change)
    lines = told(opt, parsed)
    assert len(lines) == len(words), lines
    assert all(line.startswith(start) for line, start in zip(lines, words, strict=True))


def test_basicsrs_own_model(opt, parsed):
    opt['model_type'] = 'SRModel'
    del opt['train']['dil']
    for key, value in (('network_g/num_feats', 8), ('train/optim_g/bettas', 1), ('train/scheduler/gama', 1),
                       ('train/total_iter', 0), ('datasets/val_1/dataroot_gt', '/no/such')):
        put(opt, key, value)
    assert len(told(opt, parsed)) == 5


@pytest.mark.parametrize(('key', 'value', 'words'), [
    ('val', [1], 'val: expected a block of options, got [1]'),
    ('network_g', None, 'network_g.type: missing; BasicSR needs it'),
    ('train/ema_decay', 'x', 'train.ema_decay: Expected a number'),
    ('train/ema_decay', None, 'train.ema_decay: Expected a number'),
    ('train/warmup_iter', 'x', 'train.warmup_iter: Expected a whole number'),
    ('train/total_iter', '4k', "train.total_iter: expected a number > 0, got '4k'"),
])
def test_one_mistake_with_basicsrs_own_model(opt, parsed, key, value, words):
    opt['model_type'] = 'SRModel'
    del opt['train']['dil']
    put(opt, key, value)
    line, = told(opt, parsed)
    assert line.startswith(words)
    assert 'YAML reads' not in line


def test_layout(opt, parsed):
    opt.update(train=[], val=3)
    with pytest.raises(OptionError) as error:
        parsed(opt)
    assert len(each(error.value)) == 2
