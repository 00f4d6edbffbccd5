"""Steps that are left out: against an optimiser that never saw them."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from learning_helpers import charbonnier, conv_network, equal, meta_batch, seeded
from torch import Tensor, nn

from dil_plugin.learning import MetaBatch, NetworkLoss, Pair, ReptileWalk, SerialFirstOrder
from dil_plugin.learning.divergence import growth
from dil_plugin.learning.finite import (
    KeptBuffers,
    all_finite,
    average_on_device,
    average_where,
    begin_momentum,
    keep_fused,
    leave_out_where,
    step_where,
)
from dil_plugin.learning.options import build_variant, parse_dil_options
from dil_plugin.learning.variants import Variant

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    'Adam': partial(torch.optim.Adam, lr=0.1),
    'AdamW': partial(torch.optim.AdamW, lr=0.1),
    'SGD': partial(torch.optim.SGD, lr=0.1),
    'momentum': partial(torch.optim.SGD, lr=0.1, momentum=0.9),
}
GRADIENTS = [[0.5, -2.0], [float('nan'), 1.0], [float('inf'), 1.0], [1.5, 0.25]]


@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize('name', OPTIMIZERS)
def test_left_out_steps_leave_no_trace(name: str, fused: bool) -> None:
    """Parameters, moments and step counts are those of an optimiser that got the finite gradients alone."""
    watched, spared = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizers = [OPTIMIZERS[name]([p], fused=fused) for p in (watched, spared)]
    for values in GRADIENTS:
        watched.grad = torch.tensor(values)
        finite = all_finite([watched.grad])
        assert bool(finite) == bool(torch.tensor(values).isfinite().all())
        step_where(optimizers[0], finite)
        if finite:
            spared.grad = torch.tensor(values)
            optimizers[1].step()
    assert torch.equal(watched, spared)
    states = [optimizer.state_dict()['state'] for optimizer in optimizers]
    assert states[0].keys() == states[1].keys()
    for key, state in states[0].items():
        assert all(torch.equal(torch.as_tensor(value), torch.as_tensor(states[1][key][part]))
                   for part, value in state.items() if value is not None)


@pytest.mark.parametrize('options', [{'momentum': 0.9}, {'momentum': 0.9, 'nesterov': True, 'weight_decay': 0.1},
                                     {'momentum': 0.9, 'dampening': 0.5}, {}])
def test_the_first_step_of_a_fused_sgd_is_left_out(options: dict[str, Any]) -> None:
    """Against an ordinary SGD that never saw it."""
    watched, spared = (torch.nn.Parameter(torch.ones(64)) for _ in range(2))
    fused, plain = (torch.optim.SGD([p], lr=0.1, fused=how, **options) for p, how in ((watched, True), (spared, False)))
    begin_momentum(fused)
    for value in (float('nan'), 1.0, -0.5):
        watched.grad = torch.full((64, ), value)
        step_where(fused, all_finite([watched.grad]))
        if value == value:
            spared.grad = torch.full((64, ), value)
            plain.step()
    assert torch.allclose(watched, spared, rtol=1e-6)


def test_a_sum_beyond_the_range_is_not_finite() -> None:
    assert not all_finite([torch.full((4, ), 1e30)])
    assert all_finite([torch.full((4, ), 1e30, dtype=torch.float64)])


def test_a_state_of_another_device_does_not_change_how_steps_are_taken() -> None:
    states = []
    for fused in (True, False):
        parameter = torch.nn.Parameter(torch.ones(2))
        optimizer = torch.optim.Adam([parameter], lr=0.1, fused=fused)
        parameter.grad = torch.ones(2)
        optimizer.step()
        states.append(optimizer.state_dict())
    for fused, other in ((True, states[1]), (False, states[0])):
        parameter = torch.nn.Parameter(torch.ones(2))
        optimizer = torch.optim.Adam([parameter], lr=0.5, fused=fused)
        keep_fused(optimizer)
        optimizer.load_state_dict(other)
        assert optimizer.param_groups[0]['fused'] is fused
        assert optimizer.param_groups[0]['lr'] == 0.1
        parameter.grad = torch.ones(2)
        optimizer.step()


def spoiled(batch: MetaBatch, index: int, value: float) -> MetaBatch:
    """The batch with one pixel of one confounder replaced."""
    pairs = [Pair(pair.lq.clone(), pair.gt) for pair in batch.confounders]
    pairs[index].lq[0, 0, 0, 0] = value
    return MetaBatch(pairs, batch.query)


def make(variant: str, network: nn.Module) -> tuple[NetworkLoss, Variant]:
    loss = NetworkLoss(network, charbonnier)
    order = {'order': 'fixed'} if variant == 'sf' else {}
    return loss, build_variant(parse_dil_options({'variant': variant, **order}), loss.parameters())


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('variant', ['sf', 'pf', 'ss', 'ps'])
def test_a_bad_patch_spoils_its_own_step_alone(variant: str, value: float) -> None:
    """The meta-gradient says so, the confounder's loss says which; the next step is finite."""
    loss, step = make(variant, seeded(conv_network, dtype=torch.float32))
    good = meta_batch(3, dtype=torch.float32)
    bad = step(loss, loss.parameters(), spoiled(good, 1, value))
    assert not all_finite(bad.grads)
    assert bad.inner_losses is not None
    assert bad.inner_losses.isfinite().tolist() == [True, False, True]
    assert all_finite(step(loss, loss.parameters(), good).grads)


def test_moments_are_those_of_a_walk_without_the_bad_step() -> None:
    network = seeded(conv_network, dtype=torch.float32)
    loss = NetworkLoss(network, charbonnier)
    batch = meta_batch(3, dtype=torch.float32)
    adam = partial(torch.optim.Adam, lr=1e-3, betas=(0.9, 0.99))
    walks = [ReptileWalk(loss.parameters(), adam) for _ in range(2)]
    SerialFirstOrder(walks[0])(loss, loss.parameters(), spoiled(batch, 1, float('nan')))
    SerialFirstOrder(walks[1])(loss, loss.parameters(),
                               MetaBatch([batch.confounders[0], batch.confounders[2]]))
    moments = [[value for state in walk.state_dict()['state'].values() for value in state.values()] for walk in walks]
    assert equal(*moments)


def test_running_statistics_do_not_remember_a_bad_batch() -> None:
    network = conv_network(norm=True)
    kept = KeptBuffers(network)
    for value, finite in ((float('nan'), False), (0.5, True)):
        before = copy.deepcopy(dict(network.named_buffers()))
        kept.keep()
        network(torch.full((2, 3, 8, 8), value))
        kept.restore_unless(torch.tensor(finite))
        same = [torch.equal(buffer, before[name]) for name, buffer in network.named_buffers()]
        assert all(same) != finite
        assert all(buffer.isfinite().all() for buffer in network.buffers())


class Quadratic(NetworkLoss):
    """``1/2 c w^2`` of one weight: an inner step multiplies it by ``(1 - alpha c)^2``."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(1, 1, bias=False), self._half_square)

    @staticmethod
    def _half_square(output: Tensor, gt: Tensor) -> Tensor:
        return output.square().mean() / 2


@pytest.mark.parametrize('variant', ['sf', 'pf', 'ss', 'ps'])
@pytest.mark.parametrize(('alpha', 'diverges'), [(0.5, False), (1.5, False), (2.3, False), (2.5, True), (9.0, True)])
def test_growth_of_a_quadratic(variant: str, alpha: float, diverges: bool) -> None:
    """By ``(1 - alpha)^2``; of sf the mean over the walk's two losses, the first of which is at theta."""
    loss = Quadratic()
    pair = Pair(torch.ones(1, 1), torch.zeros(1, 1))
    block = {'variant': variant, 'inner': {'type': 'SGD', 'lr': alpha}}
    batch = MetaBatch([pair, pair] if variant != 'ss' else [pair], pair)
    state = torch.get_rng_state()
    step = build_variant(parse_dil_options(block), loss.parameters())(loss, loss.parameters(), batch)
    found = growth(loss, loss.parameters(), batch, step)
    assert found is not None
    factor = (1 - alpha)**2
    expected = (1 + factor) / 2 if variant == 'sf' else factor
    assert found.after / found.before == pytest.approx(expected, rel=1e-4)
    if variant != 'sf':
        assert found.diverges == diverges
    assert torch.equal(torch.get_rng_state(), state)


def test_growth_needs_a_virtual_update() -> None:
    loss = Quadratic()
    pair = Pair(torch.ones(1, 1), torch.zeros(1, 1))
    batch = MetaBatch((), pair)
    step = build_variant(parse_dil_options({'variant': 'erm'}), loss.parameters())(loss, loss.parameters(), batch)
    assert growth(loss, loss.parameters(), batch, step) is None


@pytest.mark.parametrize('variant', ['pf', 'ss', 'ps'])
def test_a_query_that_is_harder_than_the_confounders_is_no_divergence(variant: str) -> None:
    """Its loss is a hundred times theirs at theta already."""
    loss = Quadratic()
    easy, hard = (Pair(torch.full((1, 1), value), torch.zeros(1, 1)) for value in (1.0, 10.0))
    batch = MetaBatch([easy], hard)
    block = {'variant': variant, 'inner': {'type': 'SGD', 'lr': 0.1}}
    step = build_variant(parse_dil_options(block), loss.parameters())(loss, loss.parameters(), batch)
    found = growth(loss, loss.parameters(), batch, step)
    assert found is not None
    assert found.after / found.before == pytest.approx(0.81, rel=1e-4)
    assert not found.diverges


@pytest.mark.parametrize('make', [
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5), lambda p: torch.optim.SGD(p, lr=0.1),
    lambda p: torch.optim.Adam(p, lr=0.1, fused=True), lambda p: torch.optim.AdamW(p, lr=0.1, foreach=True),
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
])
def test_steps_that_others_take_are_left_out(make):
    """Reference: another optimiser that is not called at all where the gradient is bad."""
    ours, theirs = (torch.nn.Parameter(torch.tensor([1., -2.])) for _ in range(2))
    guarded, plain = make([ours]), make([theirs])
    decision = []
    leave_out_where(guarded, lambda: decision[-1])
    for k, good in enumerate([False, True, True, False, True]):
        decision.append(torch.tensor(good))
        ours.grad = torch.tensor([0.5 * k, 1.]) if good else torch.tensor([float('nan'), 1.])
        theirs.grad = ours.grad.clone()
        guarded.step()
        if good:
            plain.step()
        assert torch.equal(ours, theirs)
    left, right = (one.state_dict()['state'] for one in (guarded, plain))
    assert all(torch.equal(torch.as_tensor(value), torch.as_tensor(right[0][name]))
               for name, value in left[0].items() if value is not None) if left else not right


class Decision:
    """A boolean on the device; the host's looks at it are counted."""

    looks = 0

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def __bool__(self) -> bool:
        Decision.looks += 1
        return bool(self.value)

    def __invert__(self) -> Tensor:
        return ~self.value


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_no_host_decides_on_the_steps_of_a_fused_optimiser(name: str) -> None:
    """But for the first one of those that have moments."""
    param = torch.nn.Parameter(torch.ones(2))
    optimizer = OPTIMIZERS[name]([param], fused=True)
    leave_out_where(optimizer, lambda: Decision(all_finite([param.grad])))
    Decision.looks = 0
    for values in GRADIENTS:
        param.grad = torch.tensor(values)
        optimizer.step()
    assert Decision.looks == (0 if name == 'SGD' else 1)
    assert param.isfinite().all()


@pytest.mark.parametrize('taken', [None, True, False])
def test_an_average_follows_a_step_or_stays(taken: bool | None) -> None:
    """As the plain formula, bit for bit; without a step nothing changes, whatever the parameters are."""
    averages, current = ([torch.randn(3, 4), torch.randn(5)] for _ in range(2))
    if taken is False:
        current[0][0, 0] = float('nan')
    before = [average.clone() for average in averages]
    average_where(averages, current, 0.99, None if taken is None else torch.tensor(taken))
    expected = before if taken is False else [old.mul(0.99).add(new, alpha=1 - 0.99)
                                              for old, new in zip(before, current, strict=True)]
    assert all(map(torch.equal, averages, expected))


@pytest.mark.parametrize('taken', [True, False])
def test_an_average_on_a_device_is_that_of_the_host(taken: bool) -> None:
    averages, current = ([torch.randn(3, 4), torch.randn(5, dtype=torch.float64)] for _ in range(2))
    expected = [average.clone() for average in averages]
    average_where(expected, current, 0.99, torch.tensor(taken))
    average_on_device(averages, current, 0.99, torch.tensor(taken))
    for found, wanted in zip(averages, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0 if not taken else 1e-6, atol=0 if not taken else 1e-7)
