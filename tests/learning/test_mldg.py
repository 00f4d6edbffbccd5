"""MLDG against its objective written down for autograd, and against ``higher`` on copied networks."""

import io
from functools import partial
from typing import Any

import pytest
import torch
from learning_helpers import (
    CRITERIA,
    NETWORKS,
    conv_network,
    equal,
    meta_batch,
    network_loss,
    relative_error,
    seeded,
    swinir_network,
)
from torch import Tensor, nn

from dil_plugin.errors import OptionError
from dil_plugin.learning import MLDG, LossFunction, MetaBatch, NetworkLoss, Pair, Params
from dil_plugin.learning.divergence import growth
from dil_plugin.learning.hessian import InnerGradientFunction, exact, exact_recomputed, finite_difference
from dil_plugin.learning.precision import AutocastLoss

ALPHA, BETA = 0.05, 0.7


def mldg(held_out: int = 1, alpha: float = ALPHA, beta: float = BETA, inner: InnerGradientFunction = exact_recomputed,
         seed: int = 2, **more: Any) -> MLDG:
    return MLDG(alpha, held_out, beta, torch.Generator().manual_seed(seed), inner, **more)


def split(n: int, held_out: int, seed: int = 2) -> tuple[list[int], list[int]]:
    """Meta-train and meta-test confounders of the first step."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()
    return order[held_out:], order[:held_out]


def written_out(loss: LossFunction, params: Params, batch: MetaBatch, held_out: int) -> list[Tensor]:
    """The gradient of ``F(theta) + beta G(theta - alpha F'(theta))``, left to autograd."""
    train, test = split(len(batch.confounders), held_out)
    first = torch.stack([loss(params, batch.confounders[i]) for i in train]).mean()
    grads = torch.autograd.grad(first, list(params.values()), create_graph=True, allow_unused=True)
    phi = {name: p if g is None else p - ALPHA * g for (name, p), g in zip(params.items(), grads, strict=True)}
    second = torch.stack([loss(phi, batch.confounders[i]) for i in test]).mean()
    return list(torch.autograd.grad(first + BETA * second, list(params.values())))


@pytest.mark.parametrize('criterion', ['l1', 'mse', 'charbonnier'])
@pytest.mark.parametrize('network', NETWORKS)
@pytest.mark.parametrize(('n', 'held_out'), [(2, 1), (4, 1), (4, 3)])
def test_gradient_of_the_objective(network: str, criterion: str, n: int, held_out: int) -> None:
    loss, params = network_loss(network, criterion)
    batch = meta_batch(n)
    expected = written_out(loss, params, batch, held_out)
    for inner in (exact, exact_recomputed):
        assert relative_error(mldg(held_out, inner=inner)(loss, params, batch).grads, expected) < 1e-9
    off = 1e-2 if criterion == 'mse' else 1e-3
    assert relative_error(mldg(held_out, inner=finite_difference)(loss, params, batch).grads, expected) < off


def test_against_higher() -> None:
    """A copy of the network whose optimiser higher differentiates through."""
    higher = pytest.importorskip('higher')
    network = seeded(conv_network)
    batch, criterion = meta_batch(4), CRITERIA['mse']
    train, test = split(4, 2)
    first = torch.stack([criterion(network(lq), gt) for lq, gt in (batch.confounders[i] for i in train)]).mean()
    optimizer = torch.optim.SGD(network.parameters(), ALPHA)
    with higher.innerloop_ctx(network, optimizer, copy_initial_weights=False) as (fast, inner_optimizer):
        inner = torch.stack([criterion(fast(lq), gt) for lq, gt in (batch.confounders[i] for i in train)]).mean()
        inner_optimizer.step(inner)
        second = torch.stack([criterion(fast(lq), gt) for lq, gt in (batch.confounders[i] for i in test)]).mean()
        (first + BETA * second).backward()
    expected = [p.grad for p in network.parameters()]
    loss = NetworkLoss(network, criterion)
    assert relative_error(mldg(2)(loss, loss.parameters(), batch).grads, expected) < 1e-12


def test_losses_stand_in_the_order_of_the_confounders() -> None:
    loss, params = network_loss('conv', 'mse')
    batch = meta_batch(4)
    found = mldg(2)(loss, params, batch)
    train, test = split(4, 2)
    at_theta = torch.stack([loss(params, pair).detach() for pair in batch.confounders])
    assert found.inner_losses is not None
    assert torch.equal(found.inner_losses[train], at_theta[train])
    assert bool((found.inner_losses[test] < at_theta[test]).all()), 'they are those of phi'
    torch.testing.assert_close(found.outer_loss, found.inner_losses[test].mean())


class Recorder:
    """Linear losses; notes which confounder is evaluated, told apart by the number of images."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, params: Params, pair: Pair) -> Tensor:
        self.calls.append(pair.gt.shape[0])
        return (params['w'] * pair.gt.shape[0]).sum()


def held_out_in(variant: MLDG, steps: int) -> list[tuple[int, ...]]:
    params = {'w': torch.zeros(1, requires_grad=True)}
    batch = MetaBatch([Pair(torch.empty(i, 3, 2, 2), torch.empty(i, 3, 2, 2)) for i in range(5)])
    found = []
    for _ in range(steps):
        recorder = Recorder()
        grads = variant(recorder, params, batch).grads
        train, test = recorder.calls[:5 - variant.held_out], recorder.calls[5 - variant.held_out:5]
        assert sorted(train + test) == list(range(5))
        torch.testing.assert_close(grads[0], torch.tensor([sum(train) / len(train) + BETA * sum(test) / len(test)]))
        found.append(tuple(sorted(test)))
    return found


def test_the_split_is_drawn_anew_from_the_generator_alone() -> None:
    first = held_out_in(mldg(2), 20)
    torch.manual_seed(9)
    assert held_out_in(mldg(2), 20) == first
    assert held_out_in(mldg(2, seed=3), 20) != first
    assert {i for test in first for i in test} == set(range(5))


def test_resumed_splits_continue() -> None:
    variant, resumed = mldg(2), mldg(2, seed=7)
    held_out_in(variant, 3)
    file = io.BytesIO()
    torch.save(variant.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert held_out_in(resumed, 5) == held_out_in(variant, 5)


def test_dropped_paths_are_those_of_the_losses() -> None:
    """A network that drops paths at random: recomputed, the curvature is that of the very pass that gave the loss."""
    network = seeded(partial(swinir_network, 0.5)).train()
    loss = NetworkLoss(network, nn.functional.mse_loss)
    found = []
    for inner in (exact, exact_recomputed):
        torch.manual_seed(4)
        found.append(mldg(2, inner=inner)(loss, loss.parameters(), meta_batch(4)).grads)
    torch.manual_seed(4)
    found.append(written_out(loss, loss.parameters(), meta_batch(4), 2))
    assert relative_error(found[1], found[0]) < 1e-12
    assert relative_error(found[2], found[0]) < 1e-9


def test_bfloat16() -> None:
    network = seeded(NETWORKS['rrdb'], dtype=torch.float32)
    loss = AutocastLoss(NetworkLoss(network, nn.functional.mse_loss))
    params, batch = loss.loss.parameters(), meta_batch(4, dtype=torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        found = mldg()(loss, params, batch).grads
    assert {grad.dtype for grad in found} == {torch.float32}
    assert relative_error(found, mldg()(loss.loss, params, batch).grads) < 0.1


def test_running_statistics_follow_each_evaluation_once() -> None:
    network = seeded(partial(conv_network, norm=True))
    loss = NetworkLoss(network, nn.functional.mse_loss)
    mldg()(loss, loss.parameters(), meta_batch(4))
    assert int(network[1].num_batches_tracked) == 4


def test_parameters_are_left_alone() -> None:
    loss, params = network_loss('conv', 'l1')
    before = [p.detach().clone() for p in params.values()]
    mldg()(loss, params, meta_batch(3))
    assert equal([p.detach() for p in params.values()], before)
    assert all(p.grad is None for p in params.values())


@pytest.mark.parametrize(('held_out', 'n', 'words'), [(4, 4, 'at most 3'), (1, 1, 'another variant')])
def test_nothing_left_to_train_on(held_out: int, n: int, words: str) -> None:
    loss, params = network_loss('conv', 'l1')
    with pytest.raises(OptionError, match=f'train.dil.held_out: {held_out} of {n} confounders.*{words}'):
        mldg(held_out)(loss, params, meta_batch(n))


@pytest.mark.parametrize(('alpha', 'diverges'), [(1e-3, False), (500.0, True)])
def test_divergence_is_seen(alpha: float, diverges: bool) -> None:
    loss, params = network_loss('conv', 'mse')
    batch = MetaBatch(meta_batch(4).confounders)
    found = growth(loss, params, batch, mldg(2, alpha)(loss, params, batch))
    assert found is not None
    assert found.diverges is diverges
