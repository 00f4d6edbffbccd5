"""The moving average of a network: its parameters by the formula, its buffers those of the network."""

import pytest
import torch
from basicsr.models import build_model
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dil_plugin.basicsr.models.dil_model import DILModel

DECAY = 0.9


@ARCH_REGISTRY.register()
class BufferedForTest(nn.Module):
    """Statistics of a BatchNorm, vectors of a spectral norm, a random table, a counter."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU(),
                                  nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 3, 3, 1, 1)))
        self.register_buffer('shift', torch.randn(3, 1, 1) * 0.1)
        self.register_buffer('calls', torch.zeros(()), persistent=False)
        self.register_buffer('table', torch.randn(3), persistent=False)

    def forward(self, x):
        self.calls += self.training
        return x + self.shift + self.body(x)


@pytest.fixture
def buffered(base):
    base['network_g'] = {'type': 'BufferedForTest'}
    base['train'] |= {'ema_decay': DECAY, 'optim_g': {'type': 'SGD', 'lr': 0.5}}
    return base


def same(one, other):
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(('dil', 'train'), [
    ({'variant': 'sf'}, {}), ({'variant': 'pf'}, {'accum_iter': 2}), ({'variant': 'erm'}, {}),
    ({'variant': 'ps', 'inner': {'type': 'SGD', 'lr': 0.01}, 'hvp': 'finite_difference'}, {}),
], ids=['sf', 'pf-accum', 'erm', 'ps'])
def test_it_is_that_of_torch(buffered, pipeline, monkeypatch, dil, train):
    """``AveragedModel`` with ``use_buffers=False`` averages parameters and copies buffers; once per step."""
    averages = []
    optimize = DILModel.optimize_parameters

    def watched(model, current_iter):
        if not averages:
            averages.append(AveragedModel(model.net_g, multi_avg_fn=get_ema_multi_avg_fn(DECAY)))
            averages[0].update_parameters(model.net_g)  # its first call copies
        optimize(model, current_iter)
        if current_iter % train.get('accum_iter', 1) == 0:
            averages[0].update_parameters(model.net_g)
            assert same(dict(model.net_g_ema.named_buffers()), dict(model.net_g.named_buffers()))

    monkeypatch.setattr(DILModel, 'optimize_parameters', watched)
    buffered['train'] |= {'dil': dil, **train}
    file = torch.load(pipeline(buffered) / 'experiments/run/models/net_g_4.pth', weights_only=True)
    expected = averages[0].module.state_dict()
    assert all(torch.allclose(value, expected[name], rtol=1e-6, atol=1e-7)
               for name, value in file['params_ema'].items())
    assert file['params_ema']['body.1.num_batches_tracked'] > 0
    assert not torch.equal(file['params']['body.0.weight'], file['params_ema']['body.0.weight'])
    buffers = ['body.1.running_mean', 'body.1.running_var', 'body.1.num_batches_tracked', 'shift',
               'body.3.parametrizations.weight.0._u', 'body.3.parametrizations.weight.0._v']
    assert all(torch.equal(file['params'][name], file['params_ema'][name]) for name in buffers)


@pytest.mark.parametrize('pretrained', [False, True])
def test_it_begins_with_the_buffers_of_the_network(buffered, parsed, tmp_path, pretrained):
    """Of a table that is drawn the second network has another one."""
    if pretrained:
        torch.save({'params': BufferedForTest().state_dict()}, tmp_path / 'net.pth')
        buffered['path'] = {'pretrain_network_g': str(tmp_path / 'net.pth')}
    model = build_model(parsed(buffered))
    assert same(dict(model.net_g_ema.named_buffers()), dict(model.net_g.named_buffers()))


def test_a_resumed_run_ends_with_the_same_average(buffered, pipeline):
    run = pipeline(buffered) / 'experiments/run'
    whole = torch.load(run / 'models/net_g_4.pth', weights_only=True)
    (run / 'training_states/4.state').unlink()
    (run / 'models/net_g_4.pth').unlink()
    pipeline(buffered, 'train', '--auto_resume')
    again = torch.load(run / 'models/net_g_4.pth', weights_only=True)
    assert same(whole['params'], again['params'])
    assert same(whole['params_ema'], again['params_ema'])


def test_an_old_average_without_statistics_is_named(buffered, pipeline, parsed, tmp_path, caplog):
    file = pipeline(buffered) / 'experiments/run/models/net_g_4.pth'
    content = torch.load(file, weights_only=True)
    content['params_ema'] |= {'body.1.running_mean': torch.zeros(4), 'body.1.running_var': torch.ones(4),
                              'body.1.num_batches_tracked': torch.tensor(0)}
    old = tmp_path / 'old.pth'
    torch.save(content, old)
    buffered['path'] = {'pretrain_network_g': str(old), 'param_key_g': 'params_ema'}
    caplog.clear()
    build_model(parsed(buffered))
    assert f"{old}: 'params_ema' has no running statistics (body.1: mean 0, variance 1)" in caplog.text
    buffered['path']['param_key_g'] = 'params'
    buffered['train']['ema_decay'] = 0
    caplog.clear()
    build_model(parsed(buffered))
    assert 'running statistics' not in caplog.text
