"""``ss`` and ``ps`` against autograd through the unrolled objective, and against other libraries."""

import copy
from collections.abc import Callable
from typing import Any

import higher
import pytest
import torch
import torchopt
from learning_helpers import (
    NETWORKS,
    charbonnier,
    conv_network,
    equal,
    meta_batch,
    network_loss,
    relative_error,
    seeded,
    swinir_network,
    unrolled,
)
from torch import Tensor, nn

from dil_plugin.learning import ERM, MetaBatch, NetworkLoss, ParallelSecondOrder, Params, SerialSecondOrder
from dil_plugin.learning.hessian import InnerGradient, InnerGradientFunction, exact, exact_recomputed, finite_difference

ALPHA = 0.05

SERIAL: dict[str, bool] = {'ss': True, 'ps': False}


def second_order(name: str, alpha: float = ALPHA, inner: InnerGradientFunction | None = None) -> Any:
    cls = SerialSecondOrder if SERIAL[name] else ParallelSecondOrder
    return cls(alpha) if inner is None else cls(alpha, inner)


both = pytest.mark.parametrize('name', ['ss', 'ps'])


@both
@pytest.mark.parametrize('criterion', ['charbonnier', 'l1'])
@pytest.mark.parametrize('network', list(NETWORKS))
def test_equals_autograd_through_the_unrolled_objective(name: str, network: str, criterion: str) -> None:
    loss, params = network_loss(network, criterion)
    batch = meta_batch()
    meta = second_order(name)(loss, params, batch)
    expected, objective = unrolled(loss, params, batch, ALPHA, SERIAL[name])
    assert relative_error(meta.grads, expected) < 1e-8
    torch.testing.assert_close(meta.outer_loss, objective)


@both
@pytest.mark.parametrize('network', list(NETWORKS))
def test_second_order_term_is_within_reach_of_these_tests(name: str, network: str) -> None:
    """Without ``- alpha H v`` the comparisons above would fail."""
    loss, params = network_loss(network, 'charbonnier')
    batch = meta_batch()
    first = second_order(name, inner=first_order)(loss, params, batch)
    assert relative_error(first.grads, unrolled(loss, params, batch, ALPHA, SERIAL[name])[0]) > 1e-2


def with_higher(network: nn.Module, batch: MetaBatch, serial: bool) -> list[Tensor]:
    theta = list(network.parameters())
    groups = [[pair] for pair in batch.confounders] if serial else [list(batch.confounders)]
    total = [torch.zeros_like(p) for p in theta]
    for pairs in groups:
        optimizer = torch.optim.SGD(theta, lr=ALPHA)
        with higher.innerloop_ctx(network, optimizer, copy_initial_weights=False) as (fast, unrolled_optimizer):
            inner = torch.stack([charbonnier(fast(lq), gt) for lq, gt in pairs]).mean()
            unrolled_optimizer.step(inner)
            outer = charbonnier(fast(batch.query.lq), batch.query.gt) / len(groups)
            for sum_, grad in zip(total, torch.autograd.grad(outer, theta), strict=True):
                sum_ += grad
    return total


def with_torchopt(network: nn.Module, batch: MetaBatch, serial: bool) -> list[Tensor]:
    groups = [[pair] for pair in batch.confounders] if serial else [list(batch.confounders)]
    total = [torch.zeros_like(p) for p in network.parameters()]
    for pairs in groups:
        fast = copy.deepcopy(network)
        theta = list(fast.parameters())
        optimizer = torchopt.MetaSGD(fast, lr=ALPHA)
        optimizer.step(torch.stack([charbonnier(fast(lq), gt) for lq, gt in pairs]).mean())
        outer = charbonnier(fast(batch.query.lq), batch.query.gt) / len(groups)
        for sum_, grad in zip(total, torch.autograd.grad(outer, theta), strict=True):
            sum_ += grad
    return total


@both
@pytest.mark.parametrize('network', list(NETWORKS))
@pytest.mark.parametrize('library', [with_higher, with_torchopt])
def test_equals_other_libraries(name: str, network: str,
                                library: Callable[[nn.Module, MetaBatch, bool], list[Tensor]]) -> None:
    loss, params = network_loss(network, 'charbonnier')
    batch = meta_batch()
    expected = library(copy.deepcopy(loss.network), batch, SERIAL[name])
    assert relative_error(second_order(name)(loss, params, batch).grads, expected) < 1e-8


def first_order(*args: Any) -> InnerGradient:
    """``exact`` with a Hessian of zero."""
    one = exact(*args)
    return InnerGradient(one.values, one.grads, lambda vector: [torch.zeros_like(v) for v in vector])


def smooth_loss(dtype: torch.dtype) -> tuple[NetworkLoss, Params]:
    loss = NetworkLoss(seeded(lambda: conv_network(nn.Softplus), dtype=dtype), nn.functional.mse_loss)
    return loss, loss.parameters()


@both
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_finite_difference_meta_gradient(name: str, dtype: torch.dtype) -> None:
    """Against the exact one in double precision; a smooth loss of a smooth network, whose curvature matters much."""
    expected = second_order(name)(*smooth_loss(torch.float64), meta_batch()).grads
    meta = second_order(name, inner=finite_difference)(*smooth_loss(dtype), meta_batch(dtype=dtype))
    assert {g.dtype for g in meta.grads} == {dtype}
    assert relative_error(meta.grads, expected) < 1e-3
    assert relative_error(second_order(name, inner=first_order)(*smooth_loss(dtype), meta_batch(dtype=dtype)).grads,
                          expected) > 0.1


@both
@pytest.mark.parametrize('criterion', ['charbonnier', 'l1'])
@pytest.mark.parametrize('network', ['conv', 'rrdb'])
def test_finite_difference_meta_gradient_with_kinks(name: str, network: str, criterion: str) -> None:
    """In double precision the two points are so near each other that no kink lies between them."""
    loss, params = network_loss(network, criterion)
    batch = meta_batch()
    expected = second_order(name)(loss, params, batch).grads
    assert relative_error(second_order(name, inner=finite_difference)(loss, params, batch).grads, expected) < 1e-3
    assert relative_error(second_order(name, inner=first_order)(loss, params, batch).grads, expected) > 1e-2


@both
@pytest.mark.parametrize('network', list(NETWORKS))
def test_finite_difference_meta_gradient_at_the_default_alpha(name: str, network: str) -> None:
    """In float32 kinks do lie between the two points; with alpha of 1e-4 their share in the meta-gradient is small."""
    expected = second_order(name, alpha=1e-4)(*network_loss(network, 'l1'), meta_batch()).grads
    single = network_loss(network, 'l1', torch.float32)
    meta = second_order(name, 1e-4, finite_difference)(*single, meta_batch(dtype=torch.float32))
    assert relative_error(meta.grads, expected) < 2e-3


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_finite_difference_product(dtype: torch.dtype) -> None:
    """A smooth loss of a smooth network; the exact product in double precision is the reference."""

    def product(inner: InnerGradientFunction, dtype: torch.dtype) -> list[Tensor]:
        loss, params = smooth_loss(dtype)
        generator = torch.Generator().manual_seed(5)
        vector = [torch.randn(p.shape, generator=generator, dtype=torch.float64).to(dtype) for p in params.values()]
        return inner(loss, params, meta_batch(1, dtype=dtype).confounders[:1]).product(vector)

    assert relative_error(product(finite_difference, dtype), product(exact, torch.float64)) < 1e-3


def test_finite_difference_product_with_zero_is_zero() -> None:
    loss, params = network_loss('conv', 'mse')
    product = finite_difference(loss, params, meta_batch(1).confounders[:1]).product
    assert all(torch.equal(h, torch.zeros_like(h)) for h in product([torch.zeros_like(p) for p in params.values()]))


@both
def test_alpha_zero_is_erm_on_the_query(name: str) -> None:
    loss, params = network_loss('rrdb', 'l1')
    batch = meta_batch()
    erm = ERM()(loss, params, MetaBatch((), batch.query))
    meta = second_order(name, alpha=0.0)(loss, params, batch)
    assert relative_error(meta.grads, erm.grads) < 1e-14
    torch.testing.assert_close(meta.outer_loss, erm.outer_loss)


@both
def test_order_of_the_confounders_does_not_matter(name: str) -> None:
    loss, params = network_loss('rrdb', 'charbonnier')
    batch = meta_batch(4)
    permuted = MetaBatch([batch.confounders[i] for i in (2, 0, 3, 1)], batch.query)
    first, second = (second_order(name)(loss, params, b) for b in (batch, permuted))
    assert relative_error(second.grads, first.grads) < 1e-13
    assert torch.equal(second.inner_losses, first.inner_losses[[2, 0, 3, 1]])


@both
@pytest.mark.parametrize('network', list(NETWORKS))
def test_recomputed_product_equals_the_held_one(name: str, network: str) -> None:
    loss, params = network_loss(network, 'l1')
    batch = meta_batch()
    held, recomputed = (second_order(name, inner=inner)(loss, params, batch) for inner in (exact, exact_recomputed))
    assert relative_error(recomputed.grads, held.grads) < 1e-14


@both
@pytest.mark.parametrize('inner', [exact, exact_recomputed, finite_difference])
def test_linear_network_under_l1_has_no_curvature(name: str, inner: InnerGradientFunction) -> None:
    """With targets far away, on the far side of every kink, the gradient of the inner loss is constant."""
    network = seeded(lambda: nn.Conv2d(3, 3, 3, padding=1))
    loss = NetworkLoss(network, lambda output, target: (output - (target + 10)).abs().mean())
    params, batch = loss.parameters(), meta_batch()
    meta = second_order(name, inner=inner)(loss, params, batch)
    assert relative_error(meta.grads, ERM()(loss, params, batch).grads) < 1e-9


@both
@pytest.mark.parametrize('inner', [exact, exact_recomputed, finite_difference])
def test_parameters_that_share_their_gradient(name: str, inner: InnerGradientFunction) -> None:
    """Autograd returns one and the same tensor as the gradient of both terms of a sum."""

    class Sum(nn.Module):

        def __init__(self) -> None:
            super().__init__()
            self.kernel, self.branch = (nn.Parameter(0.2 * torch.randn(3, 3, 3, 3)) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.conv2d(x, self.kernel + self.branch, padding=1)

    loss = NetworkLoss(seeded(Sum), nn.functional.mse_loss)
    params, batch = loss.parameters(), meta_batch()
    expected, _ = unrolled(loss, params, batch, ALPHA, SERIAL[name])
    assert relative_error(second_order(name, inner=inner)(loss, params, batch).grads, expected) < 1e-7


@pytest.mark.parametrize('inner', [exact_recomputed, finite_difference])
def test_product_is_of_the_loss_that_was_drawn(inner: InnerGradientFunction) -> None:
    """A network that drops paths at random: the curvature is that of the very pass that gave the gradient."""
    network = seeded(lambda: swinir_network(drop_path_rate=0.5)).train()
    loss = NetworkLoss(network, nn.functional.mse_loss)
    params = loss.parameters()
    pair = meta_batch(1).confounders[0]
    vector = [torch.ones_like(p) for p in params.values()]

    def product(inner: InnerGradientFunction) -> tuple[list[Tensor], Tensor]:
        torch.manual_seed(4)
        one = inner(loss, params, [pair])
        after_the_loss = torch.rand(1)
        return one.product(vector), torch.cat([after_the_loss, torch.rand(1)])

    (expected, held), (measured, drawn) = product(exact), product(inner)
    assert relative_error(measured, expected) < 1e-3
    assert torch.equal(drawn, held), 'the product must leave the random state as it found it'


@both
def test_parameters_and_their_gradients_are_left_alone(name: str) -> None:
    loss, params = network_loss('conv', 'l1')
    before = [p.detach().clone() for p in params.values()]
    marks = [torch.full_like(p, 7.0) for p in params.values()]
    for p, mark in zip(params.values(), marks, strict=True):
        p.grad = mark
    second_order(name)(loss, params, meta_batch())
    assert equal([p.detach() for p in params.values()], before)
    assert all(p.grad is mark and bool((mark == 7).all()) for p, mark in zip(params.values(), marks, strict=True))


@both
def test_missing_query_is_named(name: str) -> None:
    loss, params = network_loss('conv', 'l1')
    with pytest.raises(ValueError, match='query is missing'):
        second_order(name)(loss, params, MetaBatch(meta_batch().confounders))
