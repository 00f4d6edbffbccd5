"""``sf`` and ``pf`` against a plain loop of torch.optim on a copy of the network, bit for bit."""

import copy
import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from learning_helpers import equal, meta_batch, rrdb_network, seeded
from torch import Tensor, nn

from dil_plugin.learning import (
    MetaBatch,
    MetaGradient,
    NetworkLoss,
    Pair,
    ParallelFirstOrder,
    Params,
    ReptileWalk,
    SerialFirstOrder,
)

CRITERION = nn.functional.l1_loss

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    'SGD': partial(torch.optim.SGD, lr=0.05),
    'Adam': partial(torch.optim.Adam, lr=1e-3, betas=(0.0, 0.999)),
    'Adam with momentum': partial(torch.optim.Adam, lr=1e-3, betas=(0.9, 0.99)),
}

each_optimizer = pytest.mark.parametrize('optimizer', list(OPTIMIZERS))
each_variant = pytest.mark.parametrize('name', ['sf', 'pf'])


def steps_of(name: str, batch: MetaBatch) -> list[Sequence[Pair]]:
    """The pairs of each inner step."""
    if name == 'sf':
        return [[pair] for pair in batch.confounders]
    assert batch.query is not None
    return [batch.confounders, [batch.query]]


class Reference:
    """The same training by means of torch.optim and ``backward`` on a second network."""

    def __init__(self, network: nn.Module, optimizer: str) -> None:
        self.fast = copy.deepcopy(network)
        self.optimizer = OPTIMIZERS[optimizer](self.fast.parameters())

    def __call__(self, network: nn.Module, steps: list[Sequence[Pair]]) -> tuple[list[Tensor], list[Tensor]]:
        self.fast.load_state_dict(network.state_dict())
        losses = []
        for pairs in steps:
            self.optimizer.zero_grad()
            for lq, gt in pairs:
                value = CRITERION(self.fast(lq), gt)
                (value / len(pairs)).backward()
                losses.append(value.detach())
            self.optimizer.step()
        pairs_of_parameters = zip(network.parameters(), self.fast.parameters(), strict=True)
        return [(theta - phi).detach() for theta, phi in pairs_of_parameters], losses


def make_variant(name: str, params: Params, optimizer: str, seed: int | None = None) -> Any:
    walk = ReptileWalk(params, OPTIMIZERS[optimizer])
    if name == 'pf':
        return ParallelFirstOrder(walk)
    return SerialFirstOrder(walk, None if seed is None else torch.Generator().manual_seed(seed))


def losses_of(meta: MetaGradient) -> list[Tensor]:
    assert meta.inner_losses is not None
    return list(meta.inner_losses) + ([] if meta.outer_loss is None else [meta.outer_loss])


@each_variant
@each_optimizer
@pytest.mark.parametrize('n', [1, 3, 4])
def test_walk_equals_a_plain_loop(name: str, optimizer: str, n: int) -> None:
    """Four meta-steps with an outer Adam; the inner moments persist."""
    network = seeded(rrdb_network, dtype=torch.float32)
    loss = NetworkLoss(network, CRITERION)
    variant, reference = make_variant(name, loss.parameters(), optimizer), Reference(network, optimizer)
    outer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for step in range(4):
        batch = meta_batch(n, seed=step, dtype=torch.float32)
        expected, losses = reference(network, steps_of(name, batch))
        meta = variant(loss, loss.parameters(), batch)
        assert equal(meta.grads, expected)
        assert equal(losses_of(meta), losses)
        for parameter, grad in zip(network.parameters(), meta.grads, strict=True):
            parameter.grad = grad
        outer.step()


def test_moments_persist_across_meta_steps() -> None:
    """Adam's first step has the size lr whatever the gradient; the first of the second walk has not."""
    network = seeded(rrdb_network, dtype=torch.float32)
    loss = NetworkLoss(network, CRITERION)
    batch, other = (meta_batch(1, seed=seed, dtype=torch.float32) for seed in (0, 1))
    variant = make_variant('sf', loss.parameters(), 'Adam')
    variant(loss, loss.parameters(), batch)
    second = variant(loss, loss.parameters(), other).grads
    fresh = make_variant('sf', loss.parameters(), 'Adam')(loss, loss.parameters(), other).grads
    assert not equal(second, fresh)


@each_variant
@pytest.mark.parametrize('optimizer', ['Adam', 'Adam with momentum', 'fused'])
@pytest.mark.parametrize('n', [1, 4])
def test_moments_that_start_anew(name: str, optimizer: str, n: int) -> None:
    """Each walk is that of an optimiser that has just been made."""
    network = seeded(rrdb_network, dtype=torch.float32)
    loss = NetworkLoss(network, CRITERION)
    params = loss.parameters()
    make = partial(OPTIMIZERS['Adam'], fused=True) if optimizer == 'fused' else OPTIMIZERS[optimizer]
    walk = ReptileWalk(params, make, persistent=False)
    variant = ParallelFirstOrder(walk) if name == 'pf' else SerialFirstOrder(walk)
    for step in range(3):
        batch = meta_batch(n, seed=step, dtype=torch.float32)
        grads = variant(loss, params, batch).grads
        fast = copy.deepcopy(network)
        optimiser = make(fast.parameters())
        for pairs in steps_of(name, batch):
            optimiser.zero_grad()
            for lq, gt in pairs:
                (CRITERION(fast(lq), gt) / len(pairs)).backward()
            optimiser.step()
        assert equal(grads, [(a - b).detach() for a, b in zip(network.parameters(), fast.parameters(), strict=True)])
        assert not variant.state_dict()['walk']['state']
        with torch.no_grad():
            for parameter, grad in zip(network.parameters(), grads, strict=True):
                parameter.sub_(grad)


class Recorder:
    """A loss that notes which confounder it is called with; they are told apart by their targets' size."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, params: Params, pair: Pair) -> Tensor:
        self.calls.append(pair.gt.shape[0])
        return (params['w'] * pair.gt.shape[0]).sum()


def walked_orders(seed: int | None, n: int = 5, meta_steps: int = 6) -> list[list[int]]:
    params = {'w': torch.zeros(1, requires_grad=True)}
    variant = make_variant('sf', params, 'SGD', seed)
    batch = MetaBatch([Pair(torch.empty(i, 3, 2, 2), torch.empty(i, 3, 2, 2)) for i in range(n)])
    orders = []
    for _ in range(meta_steps):
        recorder = Recorder()
        meta = variant(recorder, params, batch)
        orders.append(recorder.calls)
        assert meta.inner_losses is not None
        position = {confounder: k for k, confounder in enumerate(recorder.calls)}
        # step k is taken at w_k = -lr * (sum of the confounders before it)
        before = [sum(recorder.calls[:position[i]]) for i in range(n)]
        torch.testing.assert_close(meta.inner_losses, torch.tensor([-0.05 * i * before[i] for i in range(n)]))
    return orders


def test_every_confounder_is_walked_once() -> None:
    assert all(sorted(order) == list(range(5)) for order in walked_orders(seed=3))


def test_order_comes_from_the_generator_only() -> None:
    torch.manual_seed(0)
    first = walked_orders(seed=3)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert walked_orders(seed=3) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert walked_orders(seed=4) != first
    assert len({tuple(order) for order in first}) > 1


def test_order_is_fixed_without_a_generator() -> None:
    assert walked_orders(seed=None) == [list(range(5))] * 6


def saved_and_loaded(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@each_variant
@each_optimizer
def test_resumed_walks_continue_bit_identically(name: str, optimizer: str) -> None:
    network = seeded(rrdb_network, dtype=torch.float32)
    loss = NetworkLoss(network, CRITERION)
    params = loss.parameters()
    batches = [meta_batch(4, seed=seed, dtype=torch.float32) for seed in range(6)]
    variant, resumed = (make_variant(name, params, optimizer, seed) for seed in (3, 8))
    for batch in batches[:3]:
        variant(loss, params, batch)
    resumed.load_state_dict(saved_and_loaded(variant.state_dict()))
    for batch in batches[3:]:
        left, right = (v(loss, params, batch) for v in (variant, resumed))
        assert equal(left.grads, right.grads)
        assert equal(losses_of(left), losses_of(right))


def test_loading_a_state_keeps_the_learning_rate_of_the_options() -> None:
    network = seeded(rrdb_network, dtype=torch.float32)
    params = NetworkLoss(network, CRITERION).parameters()
    walk = ReptileWalk(params, partial(torch.optim.Adam, lr=2e-4))
    walk.load_state_dict(ReptileWalk(params, partial(torch.optim.Adam, lr=1e-4)).state_dict())
    assert walk.optimizer.param_groups[0]['lr'] == 2e-4


@each_variant
def test_network_is_left_alone(name: str) -> None:
    network = seeded(rrdb_network, dtype=torch.float32)
    loss = NetworkLoss(network, CRITERION)
    before = copy.deepcopy(network.state_dict())
    marks = [torch.full_like(p, 7.0) for p in network.parameters()]
    for p, mark in zip(network.parameters(), marks, strict=True):
        p.grad = mark
    meta = make_variant(name, loss.parameters(), 'Adam')(loss, loss.parameters(), meta_batch(dtype=torch.float32))
    assert equal(list(network.state_dict().values()), list(before.values()))
    assert all(p.grad is mark and bool((mark == 7).all()) for p, mark in zip(network.parameters(), marks, strict=True))
    assert not any(g.requires_grad for g in meta.grads)


def test_parameters_that_share_their_gradient() -> None:
    """Autograd returns one and the same tensor as the gradient of both terms of a sum."""

    def loss(params: Params, pair: Pair) -> Tensor:
        return CRITERION(nn.functional.conv2d(pair.lq, params['kernel'] + params['branch'], padding=1), pair.gt)

    generator = torch.Generator().manual_seed(0)
    params = {name: torch.randn(3, 3, 3, 3, generator=generator, dtype=torch.float64).requires_grad_()
              for name in ('kernel', 'branch')}
    batch = meta_batch(3)
    walk = ReptileWalk(params, OPTIMIZERS['SGD'])
    walk.start(params)
    walk.step(loss, batch.confounders)
    displacement = walk.displacement(params)
    mean = torch.stack([loss(params, pair) for pair in batch.confounders]).mean()
    for moved, grad in zip(displacement, torch.autograd.grad(mean, list(params.values())), strict=True):
        torch.testing.assert_close(moved, 0.05 * grad)


@pytest.mark.parametrize('optimizer', ['SGD', 'Adam'])
@each_variant
def test_fused_steps_with_gradients_of_another_layout(name: str, optimizer: str) -> None:
    """Weights with channels last and gradients that come back contiguous, as from an average over ranks.

    Fused optimisers walk through both memories side by side, whatever the strides are.
    """
    network = seeded(rrdb_network).to(memory_format=torch.channels_last)
    loss = NetworkLoss(network, CRITERION)
    variants = {'sf': SerialFirstOrder, 'pf': ParallelFirstOrder}
    found = []
    for fused in (False, True):
        params = loss.parameters()
        walk = ReptileWalk(params, partial(OPTIMIZERS[optimizer], fused=fused),
                           lambda grads: [grad.contiguous() for grad in grads])
        found.append(variants[name](walk)(loss, params, meta_batch()).grads)
    difference = sum(float((a - b).square().sum()) for a, b in zip(*found, strict=True))**0.5
    assert difference < 1e-9 * sum(float(a.square().sum()) for a in found[0])**0.5
