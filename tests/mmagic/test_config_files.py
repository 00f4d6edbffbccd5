"""The configs of options/mmagic: they parse, build, and say the same as the YAML files of the BasicSR half."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mmagic.registry import DATASETS, HOOKS, LOOPS, METRICS, MODEL_WRAPPERS, MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS, PARAM_SCHEDULERS

from dil_plugin.distortions import parse_distortions
from dil_plugin.errors import OptionError
from dil_plugin.launch import errors_in_one_line
from dil_plugin.learning.options import parse_dil_options
from dil_plugin.mmagic.launch import parse_arguments, read_config, train
from dil_plugin.sampling import build_sampler

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / 'options' / 'mmagic').glob('*.py'))
QUICK = str(ROOT / 'options' / 'mmagic' / 'quick_cpu.py')
SAME = {
    'denoising_rrdb_sf': 'train/denoising_sf.yml',
    'denoising_rrdb_ps': 'train/denoising_ps.yml',
    'denoising_rrdb_erm': 'train/denoising_erm.yml',
    'denoising_swinir_sf': 'train/backbones_SwinIR_sf.yml',
    'realsr_rrdb_ps': 'DIL_RealSR.yml',
    'realsr_rrdb_erm': 'train/realsr_erm.yml',
}


def pipelines(config):
    loaders = [config.train_dataloader, *(config.val_dataloader if isinstance(config.val_dataloader, list)
                                          else [config.val_dataloader])]
    return [loader.dataset.pipeline for loader in loaders]


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_config_builds(path):
    """Everything that needs no data; of the loaders the transforms."""
    config = Config.fromfile(path)
    model = MODELS.build(config.model)
    for pipeline in pipelines(config):
        assert [TRANSFORMS.build(step) for step in pipeline]
    sampler = build_sampler(model.options.dil, model.distortions, crop=model.options.gt_size,
                            queue_size=model.options.queue_size)
    sampler.check_batch_size(config.train_dataloader.batch_size)
    registered = [(OPTIM_WRAPPERS, config.optim_wrapper), (OPTIMIZERS, config.optim_wrapper.optimizer),
                  (PARAM_SCHEDULERS, config.param_scheduler), (LOOPS, config.train_cfg), (LOOPS, config.val_cfg),
                  (DATASETS, config.train_dataloader.dataset),
                  *((HOOKS, hook) for hook in config.get('custom_hooks', []))]
    evaluators = config.val_evaluator if isinstance(config.val_evaluator, list) else [config.val_evaluator]
    registered += [(METRICS, metric) for evaluator in evaluators for metric in evaluator.metrics]
    if 'model_wrapper_cfg' in config:
        registered.append((MODEL_WRAPPERS, config.model_wrapper_cfg))
    assert all(registry.get(block['type']) is not None for registry, block in registered)
    if model.options.is_use_ema:
        assert [hook.module_keys for hook in config.custom_hooks] == ['generator_ema']
    if model.options.dil.variant == 'erm':
        assert config.model_wrapper_cfg.type == 'DILDistributedDataParallel'


def test_every_file_has_its_counterpart():
    assert {path.stem for path in FILES} == {*SAME, 'quick_cpu'}


@pytest.mark.parametrize('name', list(SAME))
def test_config_says_what_the_yaml_says(name):
    ours = Config.fromfile(ROOT / 'options' / 'mmagic' / f'{name}.py')
    theirs = yaml.safe_load((ROOT / 'options' / SAME[name]).read_text())
    model = ours.model.to_dict()
    assert _inner(model['dil']) == _inner(theirs['train']['dil'])
    assert parse_distortions(model['distortions']).labels == parse_distortions(theirs['distortions']).labels
    train, data = theirs['train'], theirs['datasets']['train']
    assert ours.train_cfg.max_iters == train['total_iter']
    assert ours.train_cfg.val_interval == theirs['val']['val_freq']
    assert (ours.param_scheduler.milestones, ours.param_scheduler.gamma) == (train['scheduler']['milestones'],
                                                                           train['scheduler']['gamma'])
    optimizer = ours.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, list(optimizer.betas)) == (
        train['optim_g']['type'], train['optim_g']['lr'], train['optim_g']['betas'])
    assert ours.train_dataloader.batch_size == data['batch_size_per_gpu']
    assert ours.train_dataloader.dataset.data_root == data['dataroot_gt']
    [crop] = [step.crop_size for step in ours.train_dataloader.dataset.pipeline if step.type == 'Crop']
    assert crop == (data.get('crop_pad_size', data['gt_size']), ) * 2
    assert ours.model.get('gt_size') == (data['gt_size'] if 'crop_pad_size' in data else None)
    assert ours.model.get('queue_size') == theirs.get('queue_size')
    decays = [1 - hook.interp_cfg.momentum for hook in ours.get('custom_hooks', [])]
    assert (decays or [0]) == [pytest.approx(train['ema_decay'])]


def _inner(block):
    options = parse_dil_options(block)
    return options.variant, options.inner_or_default, options.patches, options.hvp != 'finite_difference'


def arguments(*more):
    return parse_arguments([QUICK, *more])


def test_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = read_config(arguments())
    assert (config.work_dir, config.resume, config.launcher) == ('work_dirs/quick_cpu', False, 'none')
    assert config.optim_wrapper.type == 'OptimWrapper'
    config = read_config(arguments('--resume', '--amp', '--work-dir', 'x', '--cfg-options', 'train_cfg.max_iters=7'))
    assert (config.work_dir, config.resume, config.train_cfg.max_iters) == ('x', True, 7)
    assert (config.optim_wrapper.type, config.optim_wrapper.dtype) == ('AmpOptimWrapper', 'bfloat16')
    with pytest.raises(OptionError, match='no auto_scale_lr'):
        read_config(arguments('--auto-scale-lr'))
    with pytest.raises(OptionError, match=r"--amp: optim_wrapper\.type is 'Other'"):
        read_config(arguments('--amp', '--cfg-options', 'optim_wrapper.type=Other'))
    with pytest.raises(OptionError, match='no file nowhere.py'):
        read_config(parse_arguments(['nowhere.py']))


def launch(tool, *more):
    command = [*tool, QUICK, *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False,
                          env={**os.environ, 'PYTHONPATH': str(ROOT)})


def test_tool_trains(tmp_path):
    work = tmp_path / 'work'
    done = launch([sys.executable, 'tools/train_mmagic.py'], '--work-dir', str(work), '--cfg-options',
                  'train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2')
    assert done.returncode == 0, done.stderr
    assert (work / 'iter_2.pth').is_file()
    assert 'sigma30/PSNR' in done.stdout + done.stderr


def test_what_is_wrong_is_said_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as end, errors_in_one_line():
        train([QUICK, '--work-dir', str(tmp_path), '--cfg-options', 'model.dil.variant=sff'])
    assert end.value.code == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert all(word in line for word in ('model.dil.variant', "'sff'", 'sf, pf, ss, ps, erm'))


def test_mim_trains_the_same_config(tmp_path):
    """The real one; on numpy 2 it fails before it reads the config, so that tools/mim has to be on the path."""
    arguments = ['-m', 'mim', 'train', 'mmagic', QUICK, '--gpus', '0', '--work-dir', str(tmp_path), '--cfg-options',
                 'train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2']
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, 'PYTHONPATH': 'tools/mim'})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'iter_2.pth').is_file()
