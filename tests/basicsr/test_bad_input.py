"""What a user gets wrong: one line that names the key, the value and what is allowed, before training starts."""

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest
import torch
import yaml
from basicsr.data import build_dataset

from dil_plugin.basicsr.data.draw_sampler import Draw
from dil_plugin.errors import DataError, OptionError

ROOT = Path(__file__).parents[2]


def put(opt, key, value):
    *path, last = key.split('/')
    for name in path:
        opt = opt[name]
    opt[last] = value


BAD_OPTIONS = [
    ('train/dil', {'variant': 'xf'}, ['train.dil.variant', 'xf', 'sf, pf, ss, ps, erm']),
    ('train/dil', {'variant': 'sf', 'patchs': 'same'}, ['train.dil', 'patchs', "did you mean 'patches'"]),
    ('train/dil', {'variant': 'ps', 'inner': {'type': 'SGD', 'lr': 0}}, ['train.dil.inner.lr', '> 0', 'got 0']),
    ('train/dil', {'variant': 'ss', 'inner': {'type': 'SGD', 'lr': -0.1}}, ['train.dil.inner.lr', '> 0', '-0.1']),
    ('train/dil', {'variant': 'ss', 'inner': {'type': 'Adam'}}, ['inner.type', 'Adam', 'allowed: SGD']),
    ('train/dil', {'variant': 'sf', 'inner': {'type': 'RMSprop'}}, ['train.dil.inner.type', 'RMSprop', 'SGD, Adam']),
    ('train/dil', {'variant': 'ps', 'hvp': 'exakt'}, ['train.dil.hvp', 'exakt', 'exact, finite_difference']),
    ('train/dil', {'variant': 'erm', 'erm_steps': 0}, ['train.dil.erm_steps', '>= 1', 'got 0']),
    ('train/dil', None, ['train.dil', 'None']),
    ('distortions', [], ['distortions', 'empty']),
    ('distortions', None, ['distortions', 'missing']),
    ('distortions', [{'type': 'GaussianNoise', 'sigma': -1}], ['distortions[0].sigma', '>= 0', '-1']),
    ('distortions', [{'type': 'GausianNoise', 'sigma': 1}], ['distortions[0].type', "did you mean 'GaussianNoise'"]),
    ('distortions', [{'type': 'GaussianBlur', 'sigma': 9}], ['datasets.train.gt_size', '16', '28']),
    ('model_type', None, ['model_type', 'None', 'DILModel']),
    ('model_type', 'DILmodel', ['model_type', 'DILmodel', "did you mean 'DILModel'"]),
    ('train/optim_g/lr', '1e-4', ['train.optim_g.lr', "'1e-4'", '!!float 1e-4']),
    ('train/total_iter', 'ten', ['train.total_iter', 'ten', '> 0']),
    ('train/pixel_opt', None, ['train.pixel_opt', 'missing']),
    ('val', {'val_freq': 2}, ['val.save_img', 'true or false']),
    ('val', {'save_img': False}, ['val.val_freq', 'missing']),
    ('network_g', None, ['network_g.type', 'missing']),
    ('datasets/train', None, ['-opt', 'not laid out']),
    ('distortions', [{'type': 'GaussianNoise'}], ['distortions[0]', "'sigma' is missing"]),
    ('train/pixel_opt/type', 'L1Los', ['train.pixel_opt.type', "did you mean 'L1Loss'"]),
    ('train', None, ['train.total_iter', 'missing']),
    ('logger', {'print_freq': 1}, ['logger.save_checkpoint_freq', 'missing']),
    ('path', None, ['-opt', 'not laid out']),
    ('network_g/type', 'RRDBNett', ['network_g.type', 'RRDBNett', "did you mean 'RRDBNet'"]),
    ('num_gpu', 2, ['num_gpu', '2', '0']),
    ('datasets/train/type', 'DistortionAugmented', ['datasets.train.type', 'DistortionAugmented', 'allowed']),
    ('datasets/train/batch_size_per_gpu', 6, ['datasets.train.batch_size_per_gpu', '6', 'multiples of 4']),
    ('datasets/train/batch_size_per_gpu', 0, ['datasets.train.batch_size_per_gpu', '0', '>= 1']),
    ('datasets/train/gt_size', 0, ['datasets.train.gt_size', '0', '>= 1']),
    ('datasets/train/gt_sise', 16, ['datasets.train', 'gt_sise', "did you mean 'gt_size'"]),
    ('datasets/train/distort_on', 'gpu', ['datasets.train.distort_on', 'gpu', 'worker, device']),
    ('datasets/train/io_backend', {'type': 'zip'}, ['datasets.train.io_backend.type', 'zip', 'lmdb, disk']),
    ('datasets/train/prefetch_mode', 'gpu', ['datasets.train.prefetch_mode', 'gpu', 'cpu, cuda']),
]


@pytest.mark.parametrize(('key', 'value', 'words'), BAD_OPTIONS, ids=[f'{k}={v}' for k, v, _ in BAD_OPTIONS])
def test_bad_option(base, parsed, key, value, words):
    put(base, key, value)
    with pytest.raises(OptionError) as error:
        parsed(base)
    for word in words:
        assert word in str(error.value)


def broken_lmdb(source, tmp_path, how):
    target = tmp_path / 'broken.lmdb'
    shutil.copytree(source, target)
    if how == 'no meta_info':
        (target / 'meta_info.txt').unlink()
    elif how == 'no data':
        (target / 'data.mdb').unlink()
    elif how == 'odd meta_info':
        (target / 'meta_info.txt').write_text('astronaut_0\n')
    elif how == 'record missing':
        with (target / 'meta_info.txt').open('a') as file:
            file.write('another.png (48,40,3) 1\n')
    elif how == 'not an LMDB':
        (target / 'data.mdb').write_bytes(b'x' * 8192)
    elif how == 'truncated':
        with lmdb.open(str(target), map_size=2**24) as env, env.begin(write=True) as transaction:
            for k in range(40):
                transaction.put(str(k).encode(), bytes(10000))
        os.truncate(target / 'data.mdb', (target / 'data.mdb').stat().st_size // 2)
    return target


@pytest.mark.parametrize(('how', 'words'), [
    ('no meta_info', ['meta_info.txt', 'prepare_data.py']),
    ('no data', ['data.mdb']),
    ('odd meta_info', ['line 1', 'astronaut_0']),
    ('record missing', ['6 records', '7']),
    ('not an LMDB', ['cannot be read']),
    ('truncated', ['it is truncated']),
])
def test_bad_lmdb_before_training(base, crops_lmdb, tmp_path, how, words):
    target = broken_lmdb(crops_lmdb, tmp_path, how)
    with pytest.raises(DataError) as error:
        build_dataset(train_options(base, target, 'lmdb'))
    for word in [*words, str(target)]:
        assert word in str(error.value)


def train_options(base, root, backend, **changes):
    opt = copy.deepcopy(base['datasets']['train'])
    return {**opt, 'phase': 'train', 'scale': 1, 'distortions': base['distortions'], 'dataroot_gt': str(root),
            'io_backend': {'type': backend}, **changes}


@pytest.mark.parametrize(('changes', 'words'), [
    ({'dataroot_gt': '/nowhere/at/all'}, ['datasets.train.dataroot_gt', '/nowhere/at/all']),
    ({'dataroot_gt': '/nowhere/at/all.lmdb', 'io_backend': {'type': 'lmdb'}}, ['/nowhere/at/all.lmdb']),
    ({'io_backend': {'type': 'lmdb'}}, ['must end with .lmdb']),
    ({'meta_info_file': '/nowhere/meta.txt'}, ['meta_info_file', '/nowhere/meta.txt']),
])
def test_missing_data(base, crops, changes, words):
    with pytest.raises(DataError) as error:
        build_dataset(train_options(base, crops, 'disk', **changes))
    for word in words:
        assert word in str(error.value)


def test_folder_without_images(base, tmp_path):
    with pytest.raises(DataError, match='holds no images'):
        build_dataset(train_options(base, tmp_path, 'disk'))


def test_images_smaller_than_the_patch(base, crops, crops_lmdb):
    with pytest.raises(DataError, match=r'gt_size: 44 .* first is astronaut_0.png with 48x40'):
        build_dataset(train_options(base, crops_lmdb, 'lmdb', gt_size=44))
    from_disk = build_dataset(train_options(base, crops, 'disk', gt_size=44))
    with pytest.raises(DataError, match=r'astronaut_0.png.*48x40 pixels are less than datasets.train.gt_size 44'):
        from_disk[Draw(0, 0)]


def test_damaged_lmdb_is_named_when_it_is_read(base, crops_lmdb, tmp_path):
    """Pages in the middle of the file are overwritten: found only when a record is read."""
    target = tmp_path / 'overwritten.lmdb'
    shutil.copytree(crops_lmdb, target)
    dataset = build_dataset(train_options(base, target, 'lmdb'))
    page = os.sysconf('SC_PAGESIZE')
    content = (target / 'data.mdb').read_bytes()
    (target / 'data.mdb').write_bytes(content[:2 * page] + bytes(len(content) - 2 * page))
    with pytest.raises(DataError, match=r'overwritten\.lmdb: cannot be read, the LMDB is damaged'):
        dataset[Draw(0, 0)]


def test_truncated_image_in_an_lmdb_is_named(base, crops_lmdb, tmp_path):
    target = tmp_path / 'cut.lmdb'
    shutil.copytree(crops_lmdb, target)
    with lmdb.open(str(target), map_size=2**24) as env, env.begin(write=True) as transaction:
        content = transaction.get(b'chelsea_0')
        transaction.put(b'chelsea_0', content[:len(content) // 2])
    dataset = build_dataset(train_options(base, target, 'lmdb'))
    with pytest.raises(DataError, match=r"chelsea_0.*cut\.lmdb.*cannot be decoded"):
        dataset[Draw(dataset.paths.index('chelsea_0'), 0)]


def test_validation_image_too_small_for_the_distortion(base, crops):
    wide = [{'type': 'GaussianBlur', 'sigma': 20}]
    dataset = build_dataset(train_options(base, crops, 'disk', phase='val', distortions=wide))
    with pytest.raises(DataError, match=r'astronaut_0.png.*at least 61x61 pixels, got 48x40'):
        dataset[0]


def test_validation_set_with_several_degrees(base, crops):
    with pytest.raises(OptionError, match='one data set per degree'):
        build_dataset(train_options(base, crops, 'disk', phase='val'))


def test_all_parameters_frozen(base, parsed):
    from basicsr.models import build_model
    from basicsr.utils.registry import ARCH_REGISTRY
    from torch import nn

    @ARCH_REGISTRY.register()
    class AllFrozenForTest(nn.Conv2d):

        def __init__(self):
            super().__init__(3, 3, 1)
            self.requires_grad_(False)

    base['network_g'] = {'type': 'AllFrozenForTest'}
    with pytest.raises(OptionError, match='network_g: all parameters are frozen'):
        build_model(parsed(base))


@pytest.mark.parametrize(('key', 'value', 'words'), [
    ('train/optim_g/type', 'Adamm', ['train.optim_g.type', "did you mean 'Adam'"]),
    ('train/scheduler/type', 'Cosine', ['train.scheduler.type', 'Cosine', 'MultiStepLR']),
    ('network_g/num_feats', 3, ['network_g', 'num_feats']),
])
def test_what_basicsr_cannot_build(base, parsed, key, value, words):
    from basicsr.models import build_model
    put(base, key, value)
    with pytest.raises(OptionError) as error:
        build_model(parsed(base))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(('content', 'words'), [
    (None, ['there is no file']),
    (b'x' * 100, ['cannot be read as a checkpoint']),
    ({'weights': {}}, ["has no 'params'", 'weights']),
    ({'params': {'conv.weight': torch.zeros(1)}}, ['does not fit network_g', 'Missing key']),
])
def test_bad_checkpoint(base, parsed, tmp_path, content, words):
    from basicsr.models import build_model
    path = tmp_path / 'net.pth'
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    base['path']['pretrain_network_g'] = str(path)
    with pytest.raises(DataError) as error:
        build_model(parsed(base))
    for word in ['path.pretrain_network_g', str(path), *words]:
        assert word in str(error.value)


def test_truncated_training_state(base, pipeline):
    root = pipeline(base)
    for state in (root / 'experiments/run/training_states').glob('*.state'):
        state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(DataError, match=r'path.resume_state: none of the 2 training states.*2\.state cannot be read'):
        pipeline(base, 'train', '--auto_resume')


@pytest.mark.parametrize(('entry', 'words'), [
    ('train:total_itr=4', ["no key 'total_itr'", "did you mean 'total_iter'"]),
    ('train', ['--force_yml']),
    ('distortions:0:sigma=5', ['--force_yml']),
    ('name=[a', ['--force_yml']),
])
def test_bad_forced_option(base, parsed, entry, words):
    with pytest.raises(OptionError) as error:
        parsed(base, True, '--force_yml', entry)
    for word in words:
        assert word in str(error.value)


def test_launcher_without_torchrun(base, parsed, monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(OptionError, match='--launcher: pytorch, but RANK is not set; start the tool by torchrun'):
        parsed(base, True, '--launcher', 'pytorch')


def run_train(path, *arguments):
    return subprocess.run([sys.executable, 'tools/train.py', '-opt', str(path), *arguments], capture_output=True,
                          text=True, cwd=ROOT, env={**os.environ, 'OMP_NUM_THREADS': '1'}, timeout=200)


@pytest.mark.parametrize(('content', 'words'), [
    (None, ['-opt', 'there is no file']),
    ('a: [1', ['-opt', 'not a YAML file']),
    ('name: x\nmodel_type: DILModel\n', ['no key', 'num_gpu']),
])
def test_tool_prints_one_line(tmp_path, content, words):
    path = tmp_path / 'bad.yml'
    if content is not None:
        path.write_text(content)
    done = run_train(path)
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    for word in words:
        assert word in done.stderr


def test_error_in_a_data_worker_is_one_line_too(base, crops, tmp_path):
    folder = tmp_path / 'images'
    shutil.copytree(crops, folder)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:300])
    base['name'] = f'worker_error_{os.getpid()}'
    base['datasets']['train'].update(dataroot_gt=str(folder), num_worker_per_gpu=1)
    path = tmp_path / 'options.yml'
    path.write_text(yaml.safe_dump(base))
    try:
        done = run_train(path)
    finally:
        shutil.rmtree(ROOT / 'experiments' / base['name'], ignore_errors=True)
    assert done.returncode == 2
    last = [line for line in done.stderr.splitlines() if line.startswith('error:')]
    assert len(last) == 1
    assert 'cannot be decoded' in last[0]
    assert 'Traceback' not in done.stderr


def test_checkpoint_of_another_size_says_what_it_is_of(base, pipeline):
    base['train']['total_iter'] = 2
    root = pipeline(base)
    base['name'], base['network_g']['num_feat'] = 'larger', 8
    base['path']['pretrain_network_g'] = str(root / 'experiments/run/models/net_g_latest.pth')
    with pytest.raises(DataError, match=r"does not fit network_g \(the file is of \{.*'num_feat': 6.*size mismatch"):
        pipeline(base)


def test_parameters_that_are_taken_in_place_of_others_are_named(base, pipeline):
    base['train'] |= {'total_iter': 2, 'ema_decay': 0}
    root = pipeline(base)
    base['name'] = 'again'
    base['path'] = {'pretrain_network_g': str(root / 'experiments/run/models/net_g_latest.pth'),
                    'param_key_g': 'params_ma', 'resume_state': None}
    pipeline(base)
    log, = (root / 'experiments/again').glob('train_*.log')
    assert "which path.param_key_g asks for" in log.read_text()


def test_an_option_file_runs_no_code(base, tmp_path, monkeypatch):
    from basicsr.utils.options import parse_options
    monkeypatch.setattr('sys.argv', ['train', '-opt', str(tmp_path / 'x.yml')])
    (tmp_path / 'x.yml').write_text(f'name: !!python/object/apply:os.mkdir ["{tmp_path / "made"}"]')
    with pytest.raises(OptionError, match='-opt: not a YAML file'):
        parse_options(str(tmp_path))
    assert not (tmp_path / 'made').exists()
