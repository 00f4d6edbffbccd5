"""What the exact product is worth for layers whose backward pass hides something from autograd."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from learning_helpers import (
    CRITERIA,
    NETWORKS,
    conv_network,
    equal,
    meta_batch,
    relative_error,
    seeded,
)
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from dil_plugin.learning import NetworkLoss
from dil_plugin.learning.hessian import exact, exact_recomputed, finite_difference
from dil_plugin.learning.product_check import check_product

PAIR = meta_batch(1, size=12).confounders[0]


class Network(nn.Module):

    def __init__(self, wrap: Callable[[nn.Module], nn.Module] = nn.Sequential,
                 norm: Callable[[int], nn.Module] = lambda channels: nn.Identity()) -> None:
        super().__init__()
        self.head, self.norm, self.tail = nn.Conv2d(3, 6, 3, padding=1), norm(6), nn.Conv2d(6, 3, 3, padding=1)
        self.middle = wrap(nn.Conv2d(6, 6, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.tail(functional.gelu(self.middle(self.norm(self.head(x)))))


class NafNetsFunction(torch.autograd.Function):
    """As in megvii-research/NAFNet, arch_util.py."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        var = (x - x.mean(1, keepdim=True)).pow(2).mean(1, keepdim=True)
        y = (x - x.mean(1, keepdim=True)) / (var + 1e-6).sqrt()
        ctx.save_for_backward(y, var, weight)
        return weight[:, None, None] * y + bias[:, None, None]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        y, var, weight = ctx.saved_tensors
        g = grad * weight[:, None, None]
        gx = (g - y * (g * y).mean(1, keepdim=True) - g.mean(1, keepdim=True)) / (var + 1e-6).sqrt()
        return gx, (grad * y).sum((0, 2, 3)), grad.sum((0, 2, 3))


class Norm(nn.Module):

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
        return self.weight[:, None, None] * y + self.bias[:, None, None]


class LayerNorm2d(Norm):

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = NafNetsFunction.apply(x, self.weight, self.bias)
        return result


def product(network: nn.Module, criterion: str, how: Any = exact) -> list[Tensor]:
    """H g."""
    loss = NetworkLoss(network, CRITERIA[criterion])
    inner = how(loss, loss.parameters(), [PAIR])
    return inner.product([grad.clone() for grad in inner.grads])


@pytest.mark.parametrize('criterion', CRITERIA)
@pytest.mark.parametrize('network', ['conv', 'swinir', 'batch norm'])
def test_right_products_are_within_rounding(network: str, criterion: str) -> None:
    make = NETWORKS.get(network, lambda: conv_network(norm=True))
    found = check_product(seeded(make, dtype=torch.float32).train(), CRITERIA[criterion], PAIR)
    assert found.error < 1e-7
    assert found.layers == []


@pytest.mark.parametrize('criterion', CRITERIA)
def test_a_layer_norm_by_hand(criterion: str) -> None:
    """It is off by as much as it is from its twin of plain operations, and it is named."""
    by_hand, plain = (seeded(lambda norm=norm: Network(norm=norm)) for norm in (LayerNorm2d, Norm))
    expected = relative_error(product(by_hand, criterion), product(plain, criterion))
    found = check_product(by_hand, CRITERIA[criterion], PAIR)
    assert expected > 1e-3
    assert found.error == pytest.approx(expected, rel=1e-4)
    assert found.layers == ['norm (LayerNorm2d)']
    assert check_product(plain, CRITERIA[criterion], PAIR).error < 1e-8


@pytest.mark.parametrize('how', [exact, exact_recomputed])
@pytest.mark.parametrize('wrap', [weight_norm, parametrizations.weight_norm])
@pytest.mark.filterwarnings('ignore:.*weight_norm')
def test_weight_norm(wrap: Any, how: Any) -> None:
    """PyTorch's single operation is off by percents; within the product it is written down."""

    class Written(nn.Conv2d):

        def forward(self, x: Tensor) -> Tensor:
            norm = self.v.flatten(1).norm(dim=1)[:, None, None, None]
            return functional.conv2d(x, self.v * (self.g / norm), self.bias, padding=1)

        def __init__(self, conv: nn.Conv2d) -> None:
            super().__init__(6, 6, 3, padding=1)
            self.bias = conv.bias
            self.g = nn.Parameter(conv.weight.detach().flatten(1).norm(dim=1)[:, None, None, None])
            self.v = nn.Parameter(conv.weight.detach().clone())
            del self.weight

    network, written = seeded(lambda: Network(wrap)), seeded(lambda: Network(Written))
    found, expected = (sorted(product(one, 'mse', how), key=lambda part: (part.shape, float(part.norm())))
                       for one in (network, written))  # in whatever order they are registered
    assert relative_error(found, expected) < 1e-12


@pytest.mark.parametrize('wrap', [spectral_norm, parametrizations.spectral_norm])
@pytest.mark.filterwarnings('ignore:.*spectral_norm')
def test_spectral_norm(wrap: Any) -> None:
    """Its vectors change in every pass: what is computed again starts from those of the first time."""
    found = check_product(seeded(lambda: Network(wrap)).train(), CRITERIA['mse'], PAIR)
    assert 1e-5 < found.error < 0.1
    assert found.layers[0].startswith('middle')
    held, again, difference = (product(seeded(lambda: Network(wrap)).train(), 'mse', how)
                               for how in (exact, exact_recomputed, finite_difference))
    assert relative_error(again, held) < 1e-12
    assert relative_error(difference, held) == pytest.approx(found.error, rel=0.02)


def test_nothing_is_changed() -> None:
    network = seeded(lambda: Network(spectral_norm, lambda c: nn.Sequential(LayerNorm2d(c), nn.BatchNorm2d(c))),
                     dtype=torch.float32).train()
    state, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        found = check_product(network, CRITERIA['l1'], PAIR)
    assert 'norm.0 (LayerNorm2d)' in found.layers
    assert equal(list(state.values()), list(network.state_dict().values()))
    assert torch.equal(random, torch.get_rng_state())
    assert network.training
    assert all(p.grad is None and p.dtype == torch.float32 for p in network.parameters())


def test_frozen_layers_are_left_out() -> None:
    network = seeded(Network, dtype=torch.float32)
    network.head.requires_grad_(False)
    assert check_product(network, CRITERIA['mse'], PAIR).error < 1e-8


def test_a_kink_beside_the_parameters_is_not_laid_at_the_products_door() -> None:
    """It lies between the points of a difference over 1e-8 of them; those of nearer ones are on one side of it."""

    class Kink(nn.Module):

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()).double())

        def forward(self, x: Tensor) -> Tensor:
            return x * (self.weight**2 + functional.relu(self.weight - (1 - 3e-9)))

    assert check_product(Kink(), nn.functional.mse_loss, PAIR).error < 1e-6
