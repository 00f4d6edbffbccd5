"""Converted checkpoints give the same images in the other package; the packages' own networks, loaders and Runner."""

import copy
import inspect
import os
import subprocess
import sys
from pathlib import Path

import cv2
import mmengine
import numpy as np
import pytest
import torch
from mmagic.registry import MODELS
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_checkpoint as mmengine_load

import dil_plugin.basicsr
import dil_plugin.mmagic  # noqa: F401
from dil_plugin.checkpoint_conversion import ARCHITECTURES, convert, convert_file, describe
from dil_plugin.checkpoints import NOTES, load_checkpoint, notes_of_training, read_notes, save_atomically
from dil_plugin.errors import DataError, OptionError
from dil_plugin.evaluation.networks import build_module, load_network

TOOL = Path(__file__).parents[2] / 'tools' / 'convert_checkpoint.py'

RRDB = {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 2, 'num_grow_ch': 4}
SWINIR = {'type': 'SwinIR', 'img_size': 16, 'in_chans': 3, 'embed_dim': 12, 'depths': [2, 2], 'num_heads': [2, 2],
          'window_size': 4, 'mlp_ratio': 2, 'img_range': 1.0}
NETWORKS = {
    'rrdb_x4': {'type': 'RRDBNet', 'scale': 4, **RRDB},
    'rrdb_x2': {'type': 'RRDBNet', 'scale': 2, **RRDB},
    'rrdb_x1': {'type': 'RRDBNet', 'scale': 1, **RRDB},
    'rrdb_no_upsample': {'type': 'RRDBNetNoUpsample', **RRDB},
    'rrdb_bias_free': {'type': 'RRDBNetNoUpsample', **RRDB, 'bias': False},
    'swinir_denoising': {**SWINIR, 'upscale': 1, 'upsampler': ''},
    'swinir_classical': {**SWINIR, 'upscale': 3, 'upsampler': 'pixelshuffle', 'resi_connection': '3conv', 'ape': True},
    'swinir_light': {**SWINIR, 'upscale': 2, 'upsampler': 'pixelshuffledirect', 'qkv_bias': False},
    'swinir_real': {**SWINIR, 'upscale': 4, 'upsampler': 'nearest+conv', 'patch_norm': False},
}
SCALES = {'rrdb_x4': 4, 'rrdb_x2': 2, 'swinir_classical': 3, 'swinir_light': 2, 'swinir_real': 4}


def randomised(module, seed):
    """Every parameter another: the packages initialise with zeros here and there."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def basicsr_network(name, seed=0):
    return randomised(build_module(NETWORKS[name], name), seed)


def notes_for(name):
    return notes_of_training({'name': name, 'scale': SCALES.get(name, 1), 'network_g': NETWORKS[name]}, 7, [])


def basicsr_file(path, name, keys=('params', 'params_ema'), notes=True):
    """As BasicSR writes it; returns the networks by key."""
    networks = {key: basicsr_network(name, seed) for seed, key in enumerate(keys)}
    content = {key: network.state_dict() for key, network in networks.items()}
    save_atomically({**content, **({NOTES: notes_for(name)} if notes else {})}, path)
    return networks


def mmagic_model(generator, kind='BaseEditModel', **more):
    model = MODELS.build({'type': kind, 'generator': generator, 'pixel_loss': {'type': 'L1Loss'}, **more})
    return model.eval()


def image():
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(5))


def same(state, other):
    return list(state) == list(other) and all(torch.equal(state[key], other[key]) for key in state)


@pytest.mark.parametrize('name', NETWORKS)
def test_mmagic_gives_the_images_of_basicsr(name, tmp_path):
    networks = basicsr_file(tmp_path / 'net.pth', name)
    conversion = convert_file(tmp_path / 'net.pth', tmp_path / 'out.pth')
    model = mmagic_model(conversion.network)
    mmengine_load(model, str(tmp_path / 'out.pth'), strict=True)
    with torch.no_grad():
        expected, other = (networks[key](image()) for key in ('params_ema', 'params'))
        assert torch.equal(model.generator(image()), expected)
        assert not torch.equal(expected, other)
        in_realesrgan = convert(load_checkpoint(tmp_path / 'net.pth', 'x'), 'net.pth', ema='generator_ema')
        model = mmagic_model(conversion.network, 'RealESRGAN', is_use_ema=True)
        model.load_state_dict(in_realesrgan.content['state_dict'], strict=True)
        assert torch.equal(model.generator_ema(image()), expected)
        assert torch.equal(model.generator(image()), other)


@pytest.mark.parametrize('name', NETWORKS)
def test_basicsr_gives_the_images_of_mmagic(name, tmp_path):
    architecture = next(a for a in ARCHITECTURES if a.basicsr == NETWORKS[name]['type'])
    generator = architecture.mmagic_generator(NETWORKS[name])
    model = mmagic_model(generator)
    randomised(model.generator, 3)
    config = mmengine.Config({'model': {'type': 'BaseEditModel', 'generator': generator}}).pretty_text
    torch.save({'meta': {'cfg': config, 'iter': 9, 'experiment_name': 'mine'}, 'state_dict': model.state_dict()},
               tmp_path / 'iter_9.pth')
    conversion = convert_file(tmp_path / 'iter_9.pth', tmp_path / 'net.pth')
    assert conversion.parameters == ('params',)
    restorer = load_network(tmp_path / 'net.pth')  # by the notes, made of the config
    assert restorer.options == NETWORKS[name]
    assert restorer.scale == SCALES.get(name, 1)
    assert (restorer.notes.name, restorer.notes.iteration) == ('mine', 9)
    with torch.no_grad():
        assert torch.equal(restorer.module(image()), model.generator(image()))


@pytest.mark.parametrize('ema', [None, 'hook', 'generator_ema'])
@pytest.mark.parametrize('keys', [('params', 'params_ema'), ('params',), ('params_ema',)])
@pytest.mark.parametrize('notes', [True, False])
def test_there_and_back(ema, keys, notes, tmp_path):
    basicsr_file(tmp_path / 'net.pth', 'swinir_denoising', keys, notes)
    convert_file(tmp_path / 'net.pth', tmp_path / 'mm.pth', ema=ema)
    convert_file(tmp_path / 'mm.pth', tmp_path / 'back.pth')
    original, back = (load_checkpoint(tmp_path / name, 'x') for name in ('net.pth', 'back.pth'))
    assert list(original) == list(back)
    assert all(same(original[key], back[key]) for key in keys)
    assert original.get(NOTES) == back.get(NOTES)


def test_no_network_stays_random():
    """mmagic loads what is there and leaves the rest as it was initialised."""
    state = basicsr_network('rrdb_x4').state_dict()
    conversion = convert({'params_ema': state, NOTES: notes_for('rrdb_x4')}, 'x.pth', ema='generator_ema')
    model = mmagic_model(conversion.network, 'RealESRGAN', is_use_ema=True)
    model.load_state_dict(conversion.content['state_dict'], strict=True)
    assert same(model.generator.state_dict(), state)
    assert same(model.generator_ema.state_dict(), state)
    assert '--ema generator_ema' not in describe(conversion, Path('y.pth'))
    assert '--ema generator_ema' in describe(convert({'params_ema': state}, 'x.pth'), Path('y.pth'))


@pytest.mark.parametrize('architecture', ARCHITECTURES, ids=lambda a: a.basicsr)
def test_options_of_equal_names_have_equal_defaults(architecture):
    from basicsr.utils.registry import ARCH_REGISTRY
    ours = inspect.signature(ARCH_REGISTRY.get(architecture.basicsr)).parameters
    theirs = inspect.signature(MODELS.get(architecture.mmagic)).parameters
    assert set(architecture.options) == set(ours) - {'norm_layer', 'kwargs'}
    for our_name, their_name in architecture.options.items():
        default, other = ours[our_name].default, theirs[their_name].default
        if inspect.Parameter.empty not in (default, other):
            assert default == other or list(default) == list(other)
    if architecture.scale:
        assert ours[architecture.scale[0]].default == architecture.scale[1]


# What mmengine's Runner writes


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A short training by DIL in mmagic, with EMAHook: its folder, its generator and the averaged one."""
    folder = tmp_path_factory.mktemp('run')
    (folder / 'images').mkdir()
    for k in range(4):
        cv2.imwrite(str(folder / 'images' / f'{k}.png'), np.random.default_rng(k).integers(0, 256, (16, 16, 3), 'u1'))
    load = {'type': 'LoadImageFromFile', 'key': 'gt', 'channel_order': 'rgb'}
    runner = Runner.from_cfg(mmengine.Config({
        'default_scope': 'mmagic', 'work_dir': str(folder), 'experiment_name': 'short', 'log_level': 'WARNING',
        'model': {'type': 'DILEditModel', 'pixel_loss': {'type': 'L1Loss'},
                  'dil': {'variant': 'ps'}, 'distortions': [{'type': 'GaussianNoise', 'sigma': (5, 10)}],
                  'generator': {'type': 'RRDBNetNoUpsample', 'mid_channels': 8, 'num_blocks': 1, 'growth_channels': 4},
                  'data_preprocessor': {'type': 'DataPreprocessor', 'mean': [0.0] * 3, 'std': [255.0] * 3}},
        'train_dataloader': {
            'batch_size': 2, 'num_workers': 0, 'sampler': {'type': 'InfiniteSampler'},
            'dataset': {'type': 'BasicImageDataset', 'data_root': str(folder / 'images'),
                        'data_prefix': {'gt': ''}, 'pipeline': [load, {'type': 'PackInputs'}]}},
        'train_cfg': {'type': 'IterBasedTrainLoop', 'max_iters': 3},
        'optim_wrapper': {'type': 'OptimWrapper', 'optimizer': {'type': 'Adam', 'lr': 1e-2}},
        'param_scheduler': {'type': 'MultiStepLR', 'by_epoch': False, 'milestones': [2]},
        'custom_hooks': [{'type': 'EMAHook', 'momentum': 0.3}],
        'default_hooks': {'checkpoint': {'type': 'CheckpointHook', 'interval': 3, 'by_epoch': False},
                          'logger': {'type': 'LoggerHook', 'interval': 1}},
    }))
    runner.train()
    averaged = next(hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook').ema_model.module
    return folder, copy.deepcopy(runner.model.generator.cpu()), copy.deepcopy(averaged.generator.cpu())


def test_a_checkpoint_of_the_runner(trained, tmp_path):
    folder, generator, averaged = trained
    conversion = convert_file(folder / 'iter_3.pth', tmp_path / 'net.pth')
    content = load_checkpoint(tmp_path / 'net.pth', 'x')
    assert same(content['params'], generator.state_dict())
    assert same(content['params_ema'], averaged.state_dict())
    assert not same(content['params'], content['params_ema'])
    assert {'optimizer', 'param_schedulers', 'message_hub'} <= set(conversion.left_out)
    notes = read_notes(content, 'net.pth')
    assert notes.network_g == {'type': 'RRDBNetNoUpsample', 'num_feat': 8, 'num_block': 1, 'num_grow_ch': 4}
    assert (notes.iteration, notes.variant) == (3, 'ps')
    assert notes.distortions == [{'type': 'GaussianNoise', 'sigma': [5, 10]}]
    assert notes.confounders == ['GaussianNoise(sigma=5)', 'GaussianNoise(sigma=10)']
    assert notes.name.startswith('short')
    with torch.no_grad():
        for key, module in (('params', generator), ('params_ema', averaged)):
            network = load_network(tmp_path / 'net.pth', param_key=key)
            assert torch.equal(network.module(image()), module.eval()(image()))


def test_what_a_file_names_is_not_run(trained, tmp_path):
    class Command:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'was_run'),)

    class Evaluated:
        def __reduce__(self):
            return eval, (f'open({str(tmp_path / "was_run")!r}, "w")',)

    content = torch.load(trained[0] / 'iter_3.pth', weights_only=False)
    torch.save({**content, 'extra': Evaluated()}, tmp_path / 'evaluated.pth')
    conversion = convert_file(tmp_path / 'evaluated.pth', tmp_path / 'net.pth')
    assert 'extra' in conversion.left_out
    torch.save({**content, 'extra': Command()}, tmp_path / 'command.pth')
    with pytest.raises(DataError, match=r'command\.pth cannot be read'):
        convert_file(tmp_path / 'command.pth', tmp_path / 'net2.pth')
    assert not (tmp_path / 'was_run').exists()
    assert not (tmp_path / 'net2.pth').exists()


def test_a_config_is_parsed_and_not_run(tmp_path):
    state = {f'generator.{key}': value for key, value in basicsr_network('rrdb_x4').state_dict().items()}
    for text in (f'model = dict(generator=dict(type="RRDBNet", in_channels=open({str(tmp_path / "run")!r}, "w")))',
                 'model = dict(generator=generator)', 'model = (', ''):
        conversion = convert({'meta': {'cfg': text}, 'state_dict': state}, 'x.pth')
        assert conversion.network is None
        assert NOTES not in conversion.content
    assert not (tmp_path / 'run').exists()


def test_names_of_distributed_wrappers():
    state = basicsr_network('rrdb_x4').state_dict()
    for prefix in ('module.generator.', 'generator.module.'):
        content = {'state_dict': {prefix + key: value for key, value in state.items()}}
        assert same(convert(content, 'x.pth').content['params'], state)


def test_both_kinds_of_averages_need_a_choice():
    first, second, third = (basicsr_network('rrdb_no_upsample', seed).state_dict() for seed in range(3))
    content = {'state_dict': {**{f'generator.{k}': v for k, v in first.items()},
                              **{f'generator_ema.{k}': v for k, v in second.items()}},
               'ema_state_dict': {'steps': torch.tensor(3), **{f'module.generator.{k}': v for k, v in third.items()}}}
    with pytest.raises(OptionError, match='give --ema hook or --ema generator_ema'):
        convert(content, 'x.pth')
    hook, own = (convert(content, 'x.pth', ema=ema).content for ema in ('hook', 'generator_ema'))
    assert same(hook['params'], third)
    assert same(hook['params_ema'], first)
    assert same(own['params'], first)
    assert same(own['params_ema'], second)


# What is refused


def test_msrresnet_is_refused_since_the_packages_differ():
    ours = randomised(build_module({'type': 'MSRResNet', 'num_feat': 8, 'num_block': 1, 'upscale': 4}, 'x'), 0)
    theirs = MODELS.build({'type': 'MSRResNet', 'in_channels': 3, 'out_channels': 3, 'mid_channels': 8,
                           'num_blocks': 1, 'upscale_factor': 4}).eval()
    renamed = {key.replace('body.', 'trunk_net.').replace('upconv1', 'upsample1.upsample_conv')
               .replace('upconv2', 'upsample2.upsample_conv'): value for key, value in ours.state_dict().items()}
    theirs.load_state_dict(renamed, strict=True)
    with torch.no_grad():
        assert (ours(image()) - theirs(image())).abs().max() > 1e-3
    for content in ({'params': ours.state_dict()},
                    {'state_dict': {f'generator.{key}': value for key, value in renamed.items()}}):
        for arch in (None, 'MSRResNet'):
            with pytest.raises(DataError, match='MSRResNet is not converted: .*leaky ReLU after each up-sampling'):
                convert(content, 'x.pth', arch)


def _rrdb():
    return build_module(NETWORKS['rrdb_x4'], 'x').state_dict()


def _without(state, *names):
    return {key: value for key, value in state.items() if key not in names}


def _real_x2():
    """mmagic's SwinIR up-samples so by 2 as well, BasicSR's does not."""
    network = build_module({**SWINIR, 'upscale': 4, 'upsampler': 'nearest+conv'}, 'x')
    return _without(network.state_dict(), 'conv_up2.weight', 'conv_up2.bias')


@pytest.mark.parametrize(('content', 'arch', 'kind', 'message'), [
    ([1], None, DataError, 'expected a checkpoint with params or params_ema, got list'),
    ({'params': {}}, None, DataError, "'params' is no state dict"),
    ({'optimizers': [], 'schedulers': []}, None, DataError, 'is a training state'),
    ({'params': {**_rrdb(), 'conv_up3.weight': torch.zeros(1)}}, None, DataError, r'RRDBNet has no conv_up3\.weight$'),
    ({'params': _without(_rrdb(), 'conv_hr.weight')}, None, DataError, r"lacks RRDBNet's conv_hr\.weight$"),
    ({'params': {'net.0.weight': torch.zeros(1)}}, None, DataError, r'of no network that converts .*net\.0\.weight'),
    ({'params': _rrdb()}, 'SwinIR', DataError, 'SwinIR has no body.0.rdb1.conv1.weight, .* and .* more'),
    ({'params': _rrdb()}, 'RRDBNetNoUpsample', DataError, 'RRDBNetNoUpsample has no conv_up1.weight'),
    ({'params': _rrdb()}, 'SwinIRNett', OptionError, "--arch: 'SwinIRNett' does not convert; did you mean 'SwinIRNet'"),
    ({'state_dict': {'backbone.a': torch.zeros(1)}}, None, DataError, "'state_dict' has no generator, only backbone"),
    ({'state_dict': {f'generator.{k}': v for k, v in _real_x2().items()}}, None, DataError, 'lacks .*conv_up2.weight'),
])
def test_wrong_contents(content, arch, kind, message):
    with pytest.raises(kind, match=message):
        convert(content, 'x.pth', arch)


def test_options_that_the_other_package_lacks_do_not_stop_the_parameters():
    content = {'params': _rrdb(), NOTES: {'network_g': {'type': 'RRDBNet', 'fast': True}}}
    conversion = convert(content, 'x.pth')
    assert conversion.network is None
    assert 'fast' in conversion.remark
    conversion = convert({**content, NOTES: {'network_g': {'type': 'Mine'}}}, 'x.pth')
    assert conversion.remark == 'the file says that its network is Mine, with parameters of RRDBNet'


def run_tool(*arguments):
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_tool(tmp_path):
    basicsr_file(tmp_path / 'net.pth', 'swinir_denoising')
    done = run_tool(tmp_path / 'net.pth', '-o', tmp_path / 'mm.pth')
    assert done.returncode == 0, done.stderr
    assert 'for mmagic, SwinIR, params and params_ema' in done.stdout
    config = done.stdout.split('in the config: generator=')[1].splitlines()[0]
    assert eval(config) == {**SWINIR, 'type': 'SwinIRNet', 'upscale': 1, 'upsampler': ''}
    with pytest.raises(DataError, match='is there already; give another name, or --overwrite'):
        convert_file(tmp_path / 'net.pth', tmp_path / 'mm.pth')
    convert_file(tmp_path / 'net.pth', tmp_path / 'mm.pth', overwrite=True)
    back = run_tool(tmp_path / 'mm.pth', '-o', tmp_path / 'back.pth')
    assert 'for BasicSR, SwinIR, params and params_ema' in back.stdout
    assert 'type: SwinIR' in back.stdout


def test_wrong_files_are_named(tmp_path):
    basicsr_file(tmp_path / 'net.pth', 'rrdb_x4')
    (tmp_path / 'half.pth').write_bytes((tmp_path / 'net.pth').read_bytes()[:5000])
    (tmp_path / 'text.pth').write_text('no checkpoint')
    for name, output, message in (('none.pth', 'net.pth', 'there is no file'), ('half.pth', 'o.pth', 'cannot be read'),
                                  ('text.pth', 'o.pth', 'cannot be read'), ('net.pth', 'no/o.pth', 'cannot be written'),
                                  ('net.pth', 'net.pth', 'is there already')):
        with pytest.raises(DataError, match=message):
            convert_file(tmp_path / name, tmp_path / output, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['half.pth', 'net.pth', 'text.pth']
    done = run_tool(tmp_path / 'text.pth', '-o', tmp_path / 'o.pth')
    assert done.returncode == 2
    assert done.stderr.startswith('error: input: ')


def test_neither_package_is_imported():
    code = ('import sys, dil_plugin.checkpoint_conversion; '
            "print({'mmagic', 'mmengine', 'mmcv', 'basicsr', 'dil_plugin.checkpoint_conversion'} & set(sys.modules))")
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'dil_plugin.checkpoint_conversion'}"
