"""Unknown and wrong options in the blocks that are BasicSR's: named before anything is made."""

import copy
import functools
import re
from typing import Any

import pytest
import yaml

from dil_plugin.basicsr.yaml_options import reference
from dil_plugin.errors import DataError, OptionError

VAL = {'val_freq': 2, 'save_img': False, 'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}}


def put(opt: Any, key: str, value: Any) -> None:
    *path, last = key.split('/')
    for name in path:
        opt = opt.setdefault(name, {})
    opt[last] = value


BAD = [
    ('manual_sead', 1, ['top level', 'manual_sead', "did you mean 'manual_seed'"]),
    ('manual_seed', -1, ['manual_seed: got -1', 'between 0 and 2**32 - 1']),
    ('network_g', 'RRDBNet', ["network_g: expected a block of options, got 'RRDBNet'"]),
    ('network_g', ['RRDBNet'], ["network_g: expected a block of options, got ['RRDBNet']"]),
    ('train/optim_g', ['Adam'], ["train.optim_g: expected a block of options, got ['Adam']"]),
    ('train/total_iter', '4k', ["train.total_iter: expected a number > 0, got '4k'"]),
    ('train/pixel_opt', 'L1Loss', ['train.pixel_opt', 'block', "'L1Loss'"]),
    ('find_unused_parameters', 'yes', ['find_unused_parameters', "'yes'"]),
    ('train/ema_decai', 0.9, ['train', 'ema_decai', "did you mean 'ema_decay'"]),
    ('train/ema_decay', 1.5, ['train.ema_decay', '1.5']),
    ('train/scheduler/milestone', [2], ['train.scheduler', 'milestone', "did you mean 'milestones'"]),
    ('train/scheduler/milestones', ['x'], ['train.scheduler.milestones[0]', 'got \'x\'']),
    ('train/optim_g/beta', [0, 1], ['train.optim_g', "'beta'", "did you mean 'betas'"]),
    ('train/optim_g/betas', [0.9, 1.0], ['train.optim_g.betas[1]', '< 1', '1.0']),
    ('train/pixel_opt/weight', 1, ['train.pixel_opt', "'weight'", "did you mean 'loss_weight'"]),
    ('train/pixel_opt/reduction', 'average', ['train.pixel_opt.reduction', 'average', 'mean, sum']),
    ('network_g/num_feats', 8, ['network_g', 'num_feats', "did you mean 'num_feat'"]),
    ('network_g/num_block', 0, ['network_g.num_block', '>= 1', 'got 0']),
    ('path/pretrain_network', 'x.pth', ['path', 'pretrain_network', "did you mean 'pretrain_network_g'"]),
    ('path/strict_load_g', 'no', ['path.strict_load_g', "'no'"]),
    ('logger/print_fraq', 3, ['logger', 'print_fraq', "did you mean 'print_freq'"]),
    ('logger/wandb', {'projekt': 'x'}, ['logger.wandb', 'projekt', "did you mean 'project'"]),
    ('val', {**VAL, 'use_image': True}, ['val', "'use_image'", 'allowed']),
    ('val', {**VAL, 'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_boarder': 4}}},
     ['val.metrics.psnr', 'crop_boarder', "did you mean 'crop_border'"]),
    ('val', {**VAL, 'metrics': ['psnr']}, ['val.metrics', "['psnr']", 'calculate_psnr']),
    ('dist_params', {'backend': 'mpi'}, ['dist_params.backend', 'mpi', 'nccl, gloo']),
]


@pytest.mark.parametrize(('key', 'value', 'words'), BAD, ids=[f'{key}={value}' for key, value, _ in BAD])
def test_bad_option(base, parsed, tmp_path, key, value, words):
    put(base, key, value)
    with pytest.raises(OptionError) as error:
        parsed(base)
    for word in words:
        assert word in str(error.value)
    assert not (tmp_path / 'experiments').exists()


def test_text_for_a_whole_number_is_not_to_be_written_as_another_number(base, parsed):
    base['network_g']['num_feat'] = '-1'
    with pytest.raises(OptionError, match=r"network_g\.num_feat: Expected a whole number, got text; got '-1'") as error:
        parsed(base)
    assert '!!float' not in str(error.value)


def test_missing_lmdb_says_what_makes_it(base, parsed):
    base['datasets']['train'] |= {'dataroot_gt': 'none.lmdb', 'io_backend': {'type': 'lmdb'}}
    with pytest.raises(DataError, match=r'dataroot_gt: there is no folder none\.lmdb \(looked in .*\); tools/prepare_'):
        parsed(base)


def test_bad_option_of_pairs_for_validation(base, parsed, crops):
    base['datasets']['val'] = {'name': 'pairs', 'type': 'PairedImageDataset', 'dataroot_gt': str(crops),
                               'dataroot_lq': str(crops), 'io_backend': {'type': 'disk'}, 'filename_tmp': '{}'}
    with pytest.raises(OptionError, match=r"datasets\.val: unknown option 'filename_tmp'; did you mean"):
        parsed(base)


def test_the_same_options_are_left_to_other_models(base, parsed, crops):
    """SRModel has options of its own users that are not ours to judge."""
    base['model_type'] = 'SRModel'
    del base['train']['dil']
    base['train']['something'] = 1
    base['of_mine'] = 2
    assert parsed(base)['of_mine'] == 2


def test_types_of_ones_own_are_left_to_their_constructors(base, parsed):
    from basicsr.utils.registry import LOSS_REGISTRY
    from torch import nn
    name = 'LossOfTheTestOfOptions'
    if name not in LOSS_REGISTRY:
        LOSS_REGISTRY.register(type(name, (nn.L1Loss, ), {}))
    base['train']['pixel_opt'] = {'type': name, 'reduction': 'sum'}
    assert parsed(base)['train']['pixel_opt']['reduction'] == 'sum'
    base['train']['pixel_opt'] = {'type': name, 'anything': 3}
    with pytest.raises(OptionError, match=rf"train\.pixel_opt: unknown option 'anything' of {name}; .*reduction"):
        parsed(base)


OF_OTHER_MODELS = [('l1_gt_usm', True), ('path/pretrain_network_d', None), ('train/optim_d', {'type': 'Adam'}),
                   ('train/net_d_iters', 1), ('network_d', {'type': 'UNetDiscriminatorSN'})]


@pytest.mark.parametrize(('key', 'value'), OF_OTHER_MODELS, ids=[key for key, _ in OF_OTHER_MODELS])
def test_options_of_other_models_are_said_to_have_no_effect(base, parsed, capsys, key, value):
    put(base, key, value)
    parsed(base)
    assert f'Note: {key.replace("/", ".")} has no effect' in capsys.readouterr().err


def test_all_at_once_is_valid(base, parsed, capsys):
    """Options that no file of options/ has."""
    base |= {'find_unused_parameters': False, 'gt_usm': None, 'queue_size': None, 'gt_size': None,
             'val': copy.deepcopy(VAL) | {'suffix': None, 'pbar': True},
             'dist_params': {'backend': 'gloo', 'port': 29501}}
    base['train']['optim_g'] |= {'eps': 1e-7, 'weight_decay': 1e-4, 'amsgrad': True}
    base['train']['scheduler'] = {'type': 'CosineAnnealingRestartLR', 'periods': [4], 'restart_weights': [1],
                                  'eta_min': 1e-7}
    base['train']['total_iter'] = 4e0
    base['path'] |= {'param_key_g': 'params_ema', 'strict_load_g': False, 'ignore_resume_networks': ['network_g']}
    base['logger']['wandb'] = {'project': None, 'resume_id': None}
    parsed(base)
    assert 'Note' not in capsys.readouterr().err


MISSPELT_AND_REQUIRED = [
    ('trian', ['train'], ["'trian'", "did you mean 'train'"]),
    ('val/save_image', ['val', 'save_img'], ["val: unknown option 'save_image'", "did you mean 'save_img'"]),
    ('val/valfreq', ['val', 'val_freq'], ["val: unknown option 'valfreq'", "did you mean 'val_freq'"]),
    ('logger/printfreq', ['logger', 'print_freq'], ["logger: unknown option 'printfreq'", "did you mean 'print_freq'"]),
    ('datasets/train/gt_sise', ['datasets', 'train', 'gt_size'], ["datasets.train: unknown option 'gt_sise'"]),
    ('network_g/num_inch', ['network_g', 'num_feat'], ["network_g: unknown option 'num_inch'"]),
]


@pytest.mark.parametrize(('key', 'path', 'words'), MISSPELT_AND_REQUIRED, ids=[k for k, _, _ in MISSPELT_AND_REQUIRED])
def test_a_misspelt_option_is_named_not_the_one_that_is_missing(base, parsed, key, path, words):
    base['val'] = copy.deepcopy(VAL)
    *blocks, name = path
    block = base
    for one in blocks:
        block = block[one]
    block[key.split('/')[-1]] = block.pop(name)
    with pytest.raises(OptionError) as error:
        parsed(base)
    for word in words:
        assert word in str(error.value)


SCHEDULERS = [
    ({'type': 'CosineAnnealingRestartLR', 'periods': [2]}, r'train\.scheduler\.periods: \[2\] are 2 iterations .* 4'),
    ({'type': 'CosineAnnealingRestartLR', 'periods': [2, 8]}, r'train\.scheduler\.restart_weights: \[1\]; .* periods'),
    ({'type': 'MultiStepRestartLR', 'milestones': [2], 'restarts': [0, 2]},
     r'train\.scheduler\.restart_weights: \[1\]; .* restarts \[0, 2\]'),
]


@pytest.mark.parametrize(('block', 'words'), SCHEDULERS)
def test_schedulers_that_would_fail_in_the_middle_of_training(base, parsed, block, words):
    base['train']['scheduler'] = block
    with pytest.raises(OptionError, match=words):
        parsed(base)


def test_a_cosine_as_long_as_the_training_is_valid(base, pipeline):
    base['train']['scheduler'] = {'type': 'CosineAnnealingRestartLR', 'periods': [4], 'eta_min': 1e-7}
    pipeline(base)


@pytest.mark.parametrize('name', ['', 'a/b', '../evil', '..'])
def test_names_that_are_no_folder(base, parsed, name):
    base['name'] = name
    with pytest.raises(OptionError, match='name: got'):
        parsed(base)


def test_a_reduction_without_a_number_to_minimise(base, parsed):
    base['train']['pixel_opt']['reduction'] = 'none'
    with pytest.raises(OptionError, match=r"train\.pixel_opt\.reduction: .* got 'none'; allowed: mean, sum"):
        parsed(base)


def test_a_missing_checkpoint_before_anything_is_made(base, pipeline, tmp_path):
    base['path']['pretrain_network_g'] = 'none.pth'
    with pytest.raises(DataError, match=r'path\.pretrain_network_g: there is no file none\.pth'):
        pipeline(base)
    assert not (tmp_path / 'experiments').exists()


@pytest.mark.parametrize(('block', 'option', 'where'), [
    ('train', {'micro_batch': 2}, 'train.dil'),
    ('train', {'gt_size': 16}, 'the top level or datasets.train'),
    ('train', {'variant': 'sf'}, 'train.dil'),
    ('logger', {'val_freq': 5}, 'val'),
    ('val', {'print_freq': 5}, 'logger'),
    ('path', {'manual_seed': 0}, 'the top level'),
])
def test_an_option_of_another_block_is_told_where_it_belongs(base, parsed, block, option, where):
    name, = option
    base[block] = {**(base.get(block) or {'val_freq': 5, 'save_img': False}), **option}
    with pytest.raises(OptionError, match=rf"^{block}: unknown option '{name}'; it belongs to {where}$"):
        parsed(base)


def test_an_option_of_the_step_in_the_dil_block(base, parsed):
    base['train']['dil']['amp'] = 'bf16'
    with pytest.raises(OptionError, match=r"^train\.dil: unknown option 'amp'; it belongs to train$"):
        parsed(base)


@pytest.mark.parametrize(('name', 'value', 'words'), [
    ('dataroot_lq', 'x', 'clean images only: remove it'), ('filename_tmpl', '{}', 'clean images only: remove it'),
    ('mean', [0, 0, 0], r'images stay in \[0, 1\]: remove it'), ('color', 'y', 'images are RGB: remove it'),
])
@pytest.mark.parametrize('model', ['DILModel', 'SRModel'])
def test_an_option_of_pairs_at_clean_images(base, parsed, model, name, value, words):
    base['model_type'] = model
    base['datasets']['train'][name] = value
    with pytest.raises(OptionError, match=rf'^datasets\.train\.{name}: got .*DistortionAugmentedDataset .*{words}'):
        parsed(base)


@pytest.mark.parametrize(('name', 'value', 'words'), [
    ('dataroot_lq', 'x', 'in the entries of confounders: remove it'),
    ('filename_tmpl', '{}', 'in the entries of confounders: remove it'),
    ('std', [1, 1, 1], r'images stay in \[0, 1\]: remove it'),
])
def test_an_option_of_pairs_at_sets_of_pairs(base, parsed, crops, name, value, words):
    del base['distortions']
    train = base['datasets']['train']
    train['type'] = 'PairedConfounderDataset'
    train['confounders'] = [{'name': 'a', 'dataroot_lq': str(crops), 'dataroot_gt': train.pop('dataroot_gt')}]
    base['train']['dil'] = {'variant': 'erm'}
    parsed(base)
    train[name] = value
    with pytest.raises(OptionError, match=rf'^datasets\.train\.{name}: got .*PairedConfounderDataset .*{words}'):
        parsed(base)


def test_confounders_that_keep_the_resolution(base, parsed):
    """The message has an entry that works in their place."""
    base.update(scale=2, network_g={'type': 'MSRResNet', 'num_feat': 4, 'num_block': 1, 'upscale': 2})
    with pytest.raises(OptionError, match=r'^scale: 2, but .* by 1; allowed: scale: 1 at the top level, or entries .*'
                                          r'Downsample, RealESRGAN or Compose, as in - {') as error:
        parsed(base)
    base['distortions'] = yaml.safe_load(str(error.value).partition('as in ')[2])
    parsed(base)
    base['datasets']['val_1'] = {**base['datasets']['train'], 'name': 'val', 'distortions': [{'type': 'GaussianNoise',
                                                                                              'sigma': 5}]}
    with pytest.raises(OptionError, match=r'^datasets\.val_1\.distortions: .* by 1, .* scale is 2; allowed: entries'):
        parsed(base)


def test_a_fraction_of_the_data_per_epoch(base, parsed, crops):
    """One type for all data sets, that of BasicSR's sampler."""
    base['datasets']['train']['dataset_enlarge_ratio'] = 1.5
    assert parsed(base)['datasets']['train']['dataset_enlarge_ratio'] == 1.5


@pytest.mark.parametrize('where', ['train', 'val_1'])
@pytest.mark.parametrize('model', ['DILModel', 'SRModel'])
def test_workers_to_keep_that_there_are_not(base, parsed, crops, where, model):
    """torch's data loader refuses it with an error that names no option; in validation there are never any."""
    base['model_type'] = model
    base['datasets']['val_1'] = {'name': 'pairs', 'type': 'PairedImageDataset', 'dataroot_gt': str(crops),
                                 'dataroot_lq': str(crops), 'io_backend': {'type': 'disk'}, 'num_worker_per_gpu': 2}
    base['val'] = copy.deepcopy(VAL)
    base['datasets'][where]['persistent_workers'] = True
    with pytest.raises(OptionError, match=rf'^datasets\.{where}\.persistent_workers: true, but num_worker_.* is 0'):
        parsed(base)


def test_what_the_document_says_of_defaults(base, parsed, monkeypatch):
    """What it calls required is an error when it is left out, all else is not."""
    monkeypatch.setattr('dil_plugin.basicsr.options.check_network', lambda opt: None)  # which takes its time
    base['val'] = copy.deepcopy(VAL)
    left_out, document = {}, {}
    for section in reference.sections():
        if section.place.startswith(('datasets', 'distortions', 'val.metrics')):
            continue
        block = functools.reduce(lambda one, name: one.get(name, {}), filter(None, section.place.split('.')), base)
        if section.selected and block.get('type') not in section.selected.split():
            continue
        for row in (row for row in reference.rows(section) if row.name in block):
            *path, last = row.path.split('.')
            opt = copy.deepcopy(base)
            del functools.reduce(lambda one, name: one[name], path, opt)[last]
            try:
                parsed(opt)
                left_out[row.path] = False
            except OptionError:
                left_out[row.path] = True
            document[row.path] = bool(re.match(r'required|.*needs it|none, where', row.default))
    assert left_out == document
    assert sum(left_out.values()) > 15
    assert len(left_out) > 35
