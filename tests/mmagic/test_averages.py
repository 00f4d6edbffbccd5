"""Averages of the weights: who averages, from which weights on, and after which iterations."""

import copy
from functools import partial

import pytest
import torch
from mmagic.registry import MODELS
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from dil_plugin.errors import OptionError

from .conftest import MODEL, build, relative_error, runner

EMA = {'type': 'ExponentialMovingAverageHook', 'module_keys': 'generator_ema', 'interval': 1,
       'interp_cfg': {'momentum': 0.1}}


@HOOKS.register_module()
class OwnAverage(Hook):
    """A user's hook of which nobody knows what it does."""


@MODELS.register_module()
class Normalised(nn.Module):
    """With running statistics."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3, padding=1))

    def forward(self, x):
        return x + self.layers(x)


@pytest.fixture
def short(run_config):
    """Eight iterations without validation; change it and run it."""
    run_config['val_dataloader'] = run_config['val_cfg'] = run_config['val_evaluator'] = None
    run_config['train_cfg'] = {'type': 'IterBasedTrainLoop', 'max_iters': 8}
    run_config['default_hooks']['checkpoint']['interval'] = 8
    return run_config


@pytest.mark.filterwarnings('ignore:We do not suggest')
@pytest.mark.parametrize(('used', 'hooks', 'words'), [
    (True, [], [r'model\.is_use_ema: True, but no hook', 'generator_ema', r'custom_hooks: dict\(type=', 'interval=1']),
    (True, [{'type': 'mmengine.EMAHook'}], [r'model\.is_use_ema: True, but no hook']),
    (True, [{**EMA, 'interval': -1}], [r'custom_hooks: ExponentialMovingAverageHook\.interval: -1', '1 or more']),
    (True, [{k: v for k, v in EMA.items() if k != 'interval'}], [r'interval: -1', 'averages nothing']),
    (False, [{**EMA, 'interval': 0}], [r'interval: 0', 'averages nothing']),
])
def test_what_averages_nothing_is_refused_before_the_first_iteration(used, hooks, words, short):
    short['model'] = {**MODEL, 'is_use_ema': used}
    short['custom_hooks'] = hooks
    trained = runner(short)
    trained.model.train_step = None
    with pytest.raises(OptionError) as error:
        trained.train()
    for word in words:
        assert error.match(word)


def test_a_hook_of_the_users_own_is_given_the_benefit_of_the_doubt(short, capfd):
    short['model'] = {**MODEL, 'is_use_ema': True}
    short['custom_hooks'] = [{'type': 'OwnAverage'}]
    short['train_cfg']['max_iters'] = 1
    runner(short).train()
    assert 'where your own hook does not either, validation measures the first weights' in capfd.readouterr().out


@pytest.mark.parametrize('strict', [False, True])
def test_the_average_starts_at_the_weights_of_a_file_without_one(strict, monkeypatch):
    """As torch loads (strictly) and as mmengine does."""
    said = []
    monkeypatch.setattr('dil_plugin.mmagic.averages.say', lambda text, _: said.append(text))
    model = build(is_use_ema=True)
    file = build(seed=5).state_dict()
    assert not any(name.startswith('generator_ema') for name in file)
    (model.load_state_dict if strict else lambda weights: load_state_dict(model, weights))(file)
    for name, value in model.generator_ema.state_dict().items():
        assert torch.equal(value, file[f'generator.{name}']), name
    assert said == ['The checkpoint has no generator_ema: the average starts at the weights of its generator.']
    assert not any(name.startswith('generator_ema') for name in file)  # the caller's dictionary stays


def test_an_average_in_the_file_is_taken():
    model, other = (build(seed, is_use_ema=True) for seed in (0, 5))
    model.load_state_dict(other.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    assert relative_error(list(model.generator.parameters()), list(model.generator_ema.parameters())) > 1e-3


@pytest.mark.filterwarnings('ignore:We do not suggest')
@pytest.mark.parametrize('used', [True, False])
def test_a_run_from_a_file_without_an_average(used, short, tmp_path):
    """A momentum of next to nothing leaves the average where it started: at the file's weights, and not at random."""
    file = build(seed=5).state_dict()
    torch.save({'state_dict': file, 'meta': {}}, tmp_path / 'start.pth')
    short['model'] = {**MODEL, 'is_use_ema': used}
    short['custom_hooks'] = [{**EMA, 'interp_cfg': {'momentum': 1e-9}}]
    trained = runner(short, load_from=str(tmp_path / 'start.pth'))
    trained.train()
    start = [file[f'generator.{name}'] for name, _ in trained.model.generator.named_parameters()]
    assert relative_error(list(trained.model.generator_ema.parameters()), start) < 1e-6
    assert relative_error(list(trained.model.generator.parameters()), start) > 1e-4


@pytest.mark.parametrize('kind', ['mmagic', 'mmengine'])
@pytest.mark.parametrize(('variant', 'wrapped'), [('sf', False), ('erm', False), ('sf', True)])
def test_the_average_moves_once_a_step(kind, variant, wrapped, short):
    """Eight iterations of four make two steps. Reference: the average over the weights after each step.

    wrapped: mmengine takes the step, as in its default wrapper for distributed runs, and averages before all else.
    """
    short['optim_wrapper']['accumulative_counts'] = 4
    short['model'] = {**MODEL, 'is_use_ema': kind == 'mmagic',
                      'dil': {'variant': variant, **({'erm_steps': 1} if variant == 'erm' else {})}}
    short['custom_hooks'] = [EMA if kind == 'mmagic' else {'type': 'mmengine.EMAHook', 'momentum': 0.1}]
    if wrapped:
        short['custom_hooks'] = [{**hook, 'priority': 'VERY_HIGH'} for hook in short['custom_hooks']]
    trained = runner(short)
    history, step = [], partial(BaseModel.train_step, trained.model) if wrapped else trained.model.train_step

    def kept(*args, **kwargs):
        if not history:
            history.append([p.detach().clone() for p in trained.model.generator.parameters()])
        losses = step(*args, **kwargs)
        now = [p.detach().clone() for p in trained.model.generator.parameters()]
        if not all(map(torch.equal, now, history[-1])):
            history.append(now)
        return losses

    trained.model.train_step = kept
    trained.train()
    first, one, two = history
    # mmengine's copies the weights when it is updated first
    start = one if kind == 'mmengine' else [a + 0.1 * (b - a) for a, b in zip(first, one, strict=True)]
    expected = [a + 0.1 * (b - a) for a, b in zip(start, two, strict=True)]
    [hook] = [hook for hook in trained.hooks if 'EMA' in type(hook).__name__ or 'Average' in type(hook).__name__]
    average = trained.model.generator_ema if kind == 'mmagic' else hook.ema_model.module.generator
    assert relative_error(list(average.parameters()), expected) < 1e-6
    assert relative_error(expected, two) > 1e-4


@pytest.mark.parametrize('kind', ['mmagic', 'mmengine'])
def test_averages_have_the_running_statistics_of_the_network(kind, short, tmp_path):
    """mmagic's hook and mmengine's copy buffers; BasicSR's own model_ema leaves them at 0 and 1."""
    short['model'] = {**MODEL, 'generator': {'type': 'Normalised'}, 'is_use_ema': kind == 'mmagic'}
    short['custom_hooks'] = [EMA if kind == 'mmagic' else {'type': 'mmengine.EMAHook', 'momentum': 0.1}]
    trained = runner(short)
    trained.train()
    saved = torch.load(tmp_path / 'work' / 'iter_8.pth', weights_only=True)['state_dict']
    prefix = 'generator_ema' if kind == 'mmagic' else 'generator'  # mmengine's puts the average in the network's place
    for name in ('running_mean', 'running_var', 'num_batches_tracked'):
        theirs = saved[f'{prefix}.layers.1.{name}']
        assert torch.allclose(theirs, trained.model.generator.state_dict()[f'layers.1.{name}']), name
    assert saved[f'{prefix}.layers.1.running_mean'].abs().max() > 1e-4


def test_models_of_others_keep_their_hooks(short):
    """Without a DILEditModel nothing is refused, and averages follow every iteration."""
    short['model'] = copy.deepcopy({k: v for k, v in MODEL.items() if k not in ('dil', 'distortions')} |
                                   {'type': 'BaseEditModel'})
    short['train_dataloader']['dataset']['pipeline'].insert(-1, {
        'type': 'CounterfactualDistortions', 'distortions': [{'type': 'GaussianNoise', 'sigma': 5}],
        'counterfactuals': False})
    short['optim_wrapper']['accumulative_counts'] = 4
    short['custom_hooks'] = [{'type': 'mmengine.EMAHook', 'momentum': 0.1}]
    trained = runner(short)
    trained.train()
    [hook] = [hook for hook in trained.hooks if 'EMA' in type(hook).__name__]
    assert int(hook.ema_model.steps) == 8
