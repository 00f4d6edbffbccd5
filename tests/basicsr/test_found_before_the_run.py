"""What the table of mistakes does not hold: BasicSR's own models, networks of the user, and what is allowed or told."""

import os
import shutil

import pytest
import torch
from basicsr.data import build_dataset
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from dil_plugin.basicsr.data.options import parse_dataset_options
from dil_plugin.basicsr.resuming.training_states import DrawnSeed
from dil_plugin.errors import DataError, OptionError


def put(opt, key, value):
    *path, last = key.split('/')
    for name in path:
        opt = opt[name]
    opt[last] = value


@pytest.fixture
def plain(base):
    """The options of a training with BasicSR's SRModel."""
    base['model_type'] = 'SRModel'
    del base['train']['dil']
    return base


# ---- SRModel ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(('key', 'value', 'words'), [
    ('train/optim_g', {'type': 'Adam', 'lr': 1e-3, 'bettas': [0, 0.9]}, ['train.optim_g', "did you mean 'betas'"]),
    ('train/optim_g', {'type': 'Adamm', 'lr': 1e-3}, ['train.optim_g', 'Adamm', 'type: Adam']),
    ('train/optim_g', {'type': 'Adam', 'lr': -1}, ['train.optim_g', '-1', 'Invalid learning rate']),
    ('train/optim_g', None, ['train.optim_g', 'None', 'type']),
    ('train/scheduler', {'type': 'MultiStepLR', 'milestones': [3], 'gama': 0.5}, ["did you mean 'gamma'"]),
    ('train/scheduler', {'type': 'Multi'}, ['train.scheduler.type', "did you mean 'MultiStepLR'"]),
    ('train/scheduler', {'type': 'MultiStepLR'}, ['train.scheduler', "'milestones' is missing"]),
    ('train/pixel_opt', {'type': 'L1Loss', 'weight': 1}, ['train.pixel_opt', "did you mean 'loss_weight'"]),
    ('network_g/num_feats', 3, ['network_g', "did you mean 'num_feat'"]),
    ('network_g', {'type': 'RRDBNet', 'num_in_ch': 3}, ['network_g', "'num_out_ch' is missing"]),
])
def test_blocks_of_basicsrs_own_model(plain, parsed, key, value, words):
    put(plain, key, value)
    with pytest.raises(OptionError) as error:
        parsed(plain)
    for word in words:
        assert word in str(error.value)


def test_basicsrs_own_model_passes(plain, parsed):
    assert parsed(plain)['model_type'] == 'SRModel'


# ---- Networks --------------------------------------------------------------------------------------------------------


@ARCH_REGISTRY.register()
class FailsForTest(nn.Module):
    """A network whose author made a mistake, in one of two places."""

    def __init__(self, where='forward'):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        if where == 'init':
            self.conv.weigth.zero_()

    def forward(self, x):
        return self.conv(x) + self.no_such_bias


@ARCH_REGISTRY.register()
class WholePatchesForTest(nn.Module):
    """A network that takes patches of one size alone, and looks at values."""

    def __init__(self, size=16):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.size = size

    def forward(self, x):
        assert x.shape[-1] == self.size, f'{x.shape[-1]} pixels'
        return self.conv(x) * float(x.mean() >= 0)


@pytest.mark.parametrize(('where', 'words'), [('init', ['cannot be built', "no attribute 'weigth'"]),
                                              ('forward', ['cannot take', 'no_such_bias'])])
def test_a_mistake_in_ones_own_network_is_named_with_its_line(base, parsed, where, words):
    base['network_g'] = {'type': 'FailsForTest', 'where': where}
    with pytest.raises(OptionError) as error:
        parsed(base)
    for word in [*words, 'FailsForTest', f'{__file__} line ', f'options: where: {where}']:
        assert word in str(error.value)


def test_a_network_may_need_whole_patches(base, parsed):
    base['datasets']['train']['gt_size'] = 24
    base['network_g'] = {'type': 'WholePatchesForTest', 'size': 24}
    parsed(base)
    base['network_g']['size'] = 32
    with pytest.raises(OptionError, match='3x24x24.*AssertionError: 24 pixels'):
        parsed(base)


def test_weights_and_draws_are_as_without_the_trial(base, parsed):
    parsed(base)
    first = torch.rand(3)
    base['network_g'] = {'type': 'WholePatchesForTest'}
    parsed(base)
    assert torch.equal(torch.rand(3), first)


# ---- Allowed, or told ------------------------------------------------------------------------------------------------


def test_iterations_may_be_whole_numbers_in_another_form(base, parsed):
    base['train']['total_iter'] = 1e4
    base['logger'].update(print_freq=1e2, save_checkpoint_freq=5e3)
    assert parsed(base)['train']['total_iter'] == 10000


def test_a_milestone_may_stand_twice(base, parsed):
    base['train']['scheduler']['milestones'] = [2, 3, 3]
    parsed(base)


def test_a_loss_of_weight_zero_beside_another(base, parsed):
    base['train']['pixel_opt']['loss_weight'] = 0
    base['train']['perceptual_opt'] = {'type': 'PerceptualLoss', 'vgg_type': 'vgg16_bn',
                                       'layer_weights': {'bn5_1': 1, 'relu2_2': 0.5}}
    parsed(base)
    base['train']['perceptual_opt']['perceptual_weight'] = 0
    with pytest.raises(OptionError, match='train.perceptual_opt.perceptual_weight: 0.*no loss left'):
        parsed(base)


def test_a_long_warm_up_is_told(base, parsed, capsys):
    base['train']['warmup_iter'] = 9
    parsed(base)
    assert 'Warning: train.warmup_iter is 9 and total_iter 4' in capsys.readouterr().err


def test_seed_taken_away_on_the_command_line(base, parsed):
    seeds = {int(parsed(base, True, '--force_yml', 'manual_seed=~')['manual_seed']) for _ in range(4)}
    assert len(seeds) > 1
    opt = parsed(base, True, '--force_yml', 'manual_seed=~')
    assert isinstance(opt['manual_seed'], DrawnSeed)
    assert opt['datasets']['train']['seed'] == opt['manual_seed']


@pytest.mark.parametrize('ignored', ['network_g', ['network_g'], None])
def test_networks_that_may_be_ignored(base, parsed, ignored):
    base['path']['ignore_resume_networks'] = ignored
    parsed(base)


def test_border_that_leaves_something(base, parsed, crops):
    one = {'name': 'a', 'type': 'DistortionAugmentedDataset', 'dataroot_gt': str(crops), 'io_backend': {'type': 'disk'},
           'distortions': [{'type': 'GaussianNoise', 'sigma': 30}]}
    base['datasets']['val_1'] = one
    base['val'] = {'val_freq': 2, 'save_img': False, 'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 19}}}
    parsed(base)


# ---- Names of images that are no files -------------------------------------------------------------------------------


def broken_folder(crops, folder):
    shutil.copytree(crops, folder)
    (folder / 'coffee_9.png').symlink_to('no_such_file.png')
    os.mkfifo(folder / 'astronaut_9.PNG')
    (folder / 'notes.txt').symlink_to('nothing')
    (folder / 'folder.png').mkdir()
    return folder


def data_set(base, root, **changes):
    return {**base['datasets']['train'], 'phase': 'train', 'scale': 1, 'distortions': base['distortions'],
            'dataroot_gt': str(root), **changes}


def test_all_that_are_no_files_are_counted(base, crops, tmp_path):
    root = broken_folder(crops, tmp_path / 'images')
    with pytest.raises(DataError) as error:
        build_dataset(data_set(base, root))
    for word in ('datasets.train.dataroot_gt', 'astronaut_9.PNG', 'no file', 'and 1 more'):
        assert word in str(error.value)


def test_with_skip_they_are_skipped_and_told(base, crops, tmp_path):
    found = build_dataset(data_set(base, broken_folder(crops, tmp_path / 'images'), on_bad_image='skip'))
    assert len(found) == 8
    told = ''.join(found[k]['skipped'] for k in range(8))
    assert 'astronaut_9.PNG' in told
    assert 'no regular file' in told
    assert 'coffee_9.png' in told
    assert 'No such file' in told


def test_pairs_that_are_no_files(base, parsed, crops, tmp_path):
    root = broken_folder(crops, tmp_path / 'images')
    base['datasets']['train'].update(type='PairedImageDataset', dataroot_gt=str(root), dataroot_lq=str(crops))
    with pytest.raises(DataError, match='datasets.train.dataroot_gt: .*astronaut_9.PNG'):
        parsed(base)
    os.unlink(root / 'astronaut_9.PNG')
    os.unlink(root / 'coffee_9.png')
    parsed(base)


@pytest.mark.parametrize('seed', [0, 2**32 - 1])
def test_seeds_of_a_data_set(base, crops, seed):
    assert parse_dataset_options(data_set(base, crops, seed=seed), 'datasets.train').seed == seed
