"""The loss as a function of the parameters: what it takes from the network and what it leaves there."""

import copy
from typing import Any

import pytest
import torch
from learning_helpers import conv_network, equal, meta_batch, relative_error, seeded
from torch import Tensor, nn

from dil_plugin.learning import (
    ERM,
    MetaBatch,
    NetworkLoss,
    Pair,
    ParallelFirstOrder,
    ParallelSecondOrder,
    ReptileWalk,
    SerialFirstOrder,
    SerialSecondOrder,
)
from dil_plugin.learning.hessian import exact, exact_recomputed, finite_difference

CRITERION = nn.functional.l1_loss


def sgd(parameters: list[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


def every_variant(params: dict[str, Tensor]) -> dict[str, Any]:
    return {
        'erm': ERM(),
        'sf': SerialFirstOrder(ReptileWalk(params, sgd)),
        'pf': ParallelFirstOrder(ReptileWalk(params, sgd)),
        'ss': SerialSecondOrder(0.05),
        'ss recomputed': SerialSecondOrder(0.05, exact_recomputed),
        'ss difference': SerialSecondOrder(0.05, finite_difference),
        'ps': ParallelSecondOrder(0.05),
        'ps held': ParallelSecondOrder(0.05, exact),
        'ps difference': ParallelSecondOrder(0.05, finite_difference),
    }


# Passes through the network that feed the running statistics, for three confounders.
PASSES = {'erm': 1, 'sf': 3, 'pf': 4, 'ss': 6, 'ss recomputed': 6, 'ss difference': 6, 'ps': 4, 'ps held': 4,
          'ps difference': 4}


def pair() -> Pair:
    return meta_batch(1).confounders[0]


def batch_norm_network() -> nn.Module:
    return seeded(lambda: conv_network(norm=True)).train()


class Several(nn.Module):
    """Returns three tensors, as networks with deep supervision do."""

    def __init__(self, kind: type = list) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        return self.kind([self.gain * x, self.gain**2 * x, self.gain**3 * x])


def test_value_is_that_of_the_network() -> None:
    network = seeded(conv_network)
    loss = NetworkLoss(network, CRITERION)
    assert torch.equal(loss(loss.parameters(), pair()), CRITERION(network(pair().lq), pair().gt))


def test_value_is_at_the_given_parameters() -> None:
    network, other = seeded(conv_network), seeded(conv_network, seed=9)
    value = NetworkLoss(network, CRITERION)(dict(other.named_parameters()), pair())
    assert torch.equal(value, CRITERION(other(pair().lq), pair().gt))
    assert not torch.equal(value, CRITERION(network(pair().lq), pair().gt))


def test_parameters_are_the_networks_own_objects() -> None:
    network = seeded(conv_network)
    originals = dict(network.named_parameters())
    loss = NetworkLoss(network, CRITERION)
    params = loss.parameters()
    assert list(params) == list(originals)
    for variant in every_variant(params).values():
        variant(loss, params, meta_batch())
    assert loss.network is network
    for name, parameter in network.named_parameters():
        assert parameter is originals[name] is params[name]


@pytest.mark.parametrize('name', list(PASSES))
def test_network_is_not_copied(name: str) -> None:
    """A module that refuses to be copied goes through every variant."""

    class Single(nn.Conv2d):

        def __deepcopy__(self, memo: Any) -> Any:
            raise AssertionError('the network was copied')

        __copy__ = __reduce_ex__ = __deepcopy__

    loss = NetworkLoss(seeded(lambda: Single(3, 3, 3, padding=1)), CRITERION)
    every_variant(loss.parameters())[name](loss, loss.parameters(), meta_batch())


@pytest.mark.parametrize('name', list(PASSES))
def test_frozen_parameters_are_left_out(name: str) -> None:
    """The same meta-gradient as when the frozen layer is a function outside of the parameters."""
    network = seeded(conv_network)
    assert isinstance(network, nn.Sequential)
    network[0].requires_grad_(False)
    loss = NetworkLoss(network, CRITERION)
    params = loss.parameters()
    assert list(params) == ['2.weight', '2.bias']
    batch = meta_batch()
    meta = every_variant(params)[name](loss, params, batch)

    with torch.no_grad():
        features = [Pair(network[1](network[0](lq)), gt) for lq, gt in [*batch.confounders, *([batch.query] * 1)]]
    tail = NetworkLoss(copy.deepcopy(network[2]), CRITERION)
    expected = every_variant(tail.parameters())[name](tail, tail.parameters(), MetaBatch(features[:-1], features[-1]))
    assert relative_error(meta.grads, expected.grads) < (1e-6 if 'difference' in name else 1e-12)


def test_frozen_parameters_are_used_as_they_are() -> None:
    network = seeded(conv_network)
    loss = NetworkLoss(network, CRITERION)
    network.get_parameter('0.weight').requires_grad_(False)
    params = loss.parameters()
    before = loss(params, pair())
    with torch.no_grad():
        network.get_parameter('0.weight').mul_(2)
    assert '0.weight' not in params
    assert not torch.equal(loss(params, pair()), before)
    assert torch.equal(loss(params, pair()), CRITERION(network(pair().lq), pair().gt))


def buffers(network: nn.Module) -> list[Tensor]:
    return [b.clone() for b in network.buffers()]


def test_calls_update_running_statistics() -> None:
    network = batch_norm_network()
    reference = copy.deepcopy(network)
    loss = NetworkLoss(network, CRITERION)
    loss(loss.parameters(), pair())
    reference(pair().lq)
    assert equal(buffers(network), buffers(reference))
    assert int(network.get_buffer('1.num_batches_tracked')) == 1


def test_probe_leaves_running_statistics() -> None:
    network = batch_norm_network()
    before = buffers(network)
    originals = list(network.buffers())
    loss = NetworkLoss(network, CRITERION)
    probed = loss.on_copies()(loss.parameters(), pair())
    assert equal(buffers(network), before)
    assert all(a is b for a, b in zip(network.buffers(), originals, strict=True))
    assert torch.equal(probed, loss(loss.parameters(), pair()))
    assert not equal(buffers(network), before)


@pytest.mark.parametrize('name', list(PASSES))
def test_batch_norm_in_every_variant(name: str) -> None:
    """Passes that only measure curvature do not count; all others do."""
    network = batch_norm_network()
    loss = NetworkLoss(network, CRITERION)
    meta = every_variant(loss.parameters())[name](loss, loss.parameters(), meta_batch())
    assert all(bool(g.isfinite().all()) for g in meta.grads)
    assert any(bool((g != 0).any()) for g in meta.grads)
    assert int(network.get_buffer('1.num_batches_tracked')) == PASSES[name]


@pytest.mark.parametrize(('which', 'expected'), [('all', 0.5 + 0.75 + 0.875), ('first', 0.5), ('last', 0.875)])
@pytest.mark.parametrize('kind', [list, tuple])
def test_several_outputs(which: str, expected: float, kind: type) -> None:
    """The input is all ones, the gain 1/2: the outputs lie 1/2, 3/4 and 7/8 below the target."""
    ones = torch.ones(1, 3, 4, 4)
    loss = NetworkLoss(Several(kind), CRITERION, which)
    assert loss(loss.parameters(), Pair(ones, ones)).item() == expected
    assert loss.on_copies()(loss.parameters(), Pair(ones, ones)).item() == expected


@pytest.mark.parametrize('which', ['all', 'first', 'last'])
def test_one_output_is_one_output(which: str) -> None:
    network = seeded(conv_network)
    loss = NetworkLoss(network, CRITERION, which)
    assert torch.equal(loss(loss.parameters(), pair()), CRITERION(network(pair().lq), pair().gt))


def test_unknown_choice_of_outputs() -> None:
    with pytest.raises(ValueError, match=r"all, first, last.*'middle'"):
        NetworkLoss(Several(), CRITERION, 'middle')


def test_shapes_must_agree() -> None:
    """Broadcasting would give a loss that looks healthy."""
    loss = NetworkLoss(seeded(conv_network), CRITERION)
    lq, gt = pair()
    with pytest.raises(ValueError, match=r'\(2, 3, 8, 8\).*\(2, 1, 8, 8\)'):
        loss(loss.parameters(), Pair(lq, gt[:, :1]))


def test_network_must_return_tensors() -> None:
    loss = NetworkLoss(Several(lambda tensors: {'out': tensors[0]}), CRITERION)
    with pytest.raises(ValueError, match='must return a tensor'):
        loss(loss.parameters(), Pair(torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4)))


def test_parameter_without_influence_has_gradient_zero() -> None:
    class Idle(nn.Conv2d):

        def __init__(self) -> None:
            super().__init__(3, 3, 3, padding=1)
            self.idle = nn.Parameter(torch.ones(2))

    loss = NetworkLoss(seeded(Idle), CRITERION)
    position = list(loss.parameters()).index('idle')
    for name, variant in every_variant(loss.parameters()).items():
        grads = variant(loss, loss.parameters(), meta_batch()).grads
        assert torch.equal(grads[position], torch.zeros(2, dtype=torch.float64)), name
