"""``train.compile``: the compiled network gives the same meta-gradient, or is refused."""

import os
import shutil
from typing import Any

import pytest
import torch
from learning_helpers import conv_network, meta_batch, network_loss, relative_error, seeded
from torch import nn
from torch._dynamo.utils import counters

from dil_plugin.errors import OptionError
from dil_plugin.learning import NetworkLoss, build_loss, build_variant
from dil_plugin.learning.forward_passes import Compiled
from dil_plugin.learning.options import parse_dil_options

SGD = {'type': 'SGD', 'lr': 0.05}
OPTIONS: dict[str, dict[str, Any]] = {
    'erm': {'variant': 'erm'},
    'sf': {'variant': 'sf', 'inner': SGD},
    'pf': {'variant': 'pf', 'inner': SGD},
    'ss': {'variant': 'ss', 'inner': SGD, 'hvp': 'finite_difference'},
    'ps': {'variant': 'ps', 'inner': SGD, 'hvp': 'finite_difference'},
}


def grads(name: str, loss: NetworkLoss) -> list[torch.Tensor]:
    params = loss.parameters()
    return build_variant(parse_dil_options(OPTIONS[name]), params)(loss, params, meta_batch(dtype=torch.float32)).grads


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()
    counters.clear()


@pytest.mark.parametrize('network', ['conv', 'rrdb', 'swinir'])
def test_all_variants_share_one_compiled_network(network: str) -> None:
    """Virtual parameters are inputs to it: one graph with gradients serves theta, phi and every walk."""
    plain, _ = network_loss(network, 'l1', torch.float32)
    compiled = NetworkLoss(plain.network, nn.functional.l1_loss, forward=Compiled(plain.network, 'aot_eager'))
    for name in OPTIONS:
        assert relative_error(grads(name, compiled), grads(name, plain)) < 1e-6
    assert counters['stats']['unique_graphs'] <= 3  # theta is an nn.Parameter, phi a tensor
    before = counters['stats']['unique_graphs']
    for name in OPTIONS:
        grads(name, compiled)
    assert counters['stats']['unique_graphs'] == before, 'compiled again for the same shapes'
    assert not counters['graph_break']


def test_other_parameters_are_not_baked_in() -> None:
    plain, params = network_loss('conv', 'l1', torch.float32)
    compiled = NetworkLoss(plain.network, plain.criterion, forward=Compiled(plain.network, 'aot_eager'))
    pair = meta_batch(dtype=torch.float32).confounders[0]
    twice = {name: 2 * p for name, p in params.items()}
    for values in (params, twice):
        expected = torch.func.functional_call(plain.network, values, (pair.lq, ))
        assert torch.allclose(compiled(values, pair), plain.criterion(expected, pair.gt))


@pytest.mark.skipif(not shutil.which(os.environ.get('CXX', 'g++')), reason='no C++ compiler')
def test_with_the_real_compiler() -> None:
    network = seeded(conv_network, dtype=torch.float32)
    plain = NetworkLoss(network, nn.functional.l1_loss)
    compiled = build_loss(parse_dil_options(OPTIONS['sf']), network, nn.functional.l1_loss, compiled=True)
    assert relative_error(grads('sf', compiled), grads('sf', plain)) < 1e-5
    assert counters['stats']['unique_graphs'] == 1


@pytest.mark.parametrize(('options', 'words'), [
    ({'variant': 'ps'}, r"train.compile: true, but variant ps with hvp exact .* allowed: false, or hvp: finite"),
    ({'variant': 'ss', 'hvp': 'exact'}, 'variant ss with hvp exact'),
    ({'variant': 'sf', 'checkpointing': True}, r'train.dil.checkpointing is true; allowed: one of them'),
])
def test_what_cannot_be_compiled(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        build_loss(parse_dil_options(options), conv_network(), nn.functional.l1_loss, compiled=True)


def test_double_backward_is_still_beyond_the_compiler() -> None:
    """Where this fails, the refusal above can go."""
    plain, params = network_loss('conv', 'charbonnier', torch.float32)
    compiled = NetworkLoss(plain.network, plain.criterion, forward=Compiled(plain.network, 'aot_eager'))
    variant = build_variant(parse_dil_options({'variant': 'ps'}), params)
    with pytest.raises(RuntimeError, match='does not currently support double backward'):
        variant(compiled, params, meta_batch(dtype=torch.float32))
