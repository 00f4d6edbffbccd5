"""A module or parameter that stands in several places, and buffers that are assigned anew: as the plain twin has it."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from learning_helpers import meta_batch, relative_error, seeded
from test_memory_options import VARIANTS
from torch import Tensor, nn

from dil_plugin.learning import NetworkLoss
from dil_plugin.learning.finite import KeptBuffers
from dil_plugin.learning.forward_passes import Checkpointed
from dil_plugin.learning.substitution import call_with


class Block(nn.Module):

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.norm(self.conv(x)))


class Network(nn.Module):
    """Computes the same in each of its forms."""

    def __init__(self, form: str = 'plain') -> None:
        super().__init__()
        self.form = form
        self.head, self.tail = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)
        self.block = Block()
        if form == 'shared':
            self.body = nn.Sequential(self.block, self.block)
        if form == 'tied':
            self.other = nn.Conv2d(4, 4, 3, padding=1)
            self.other.weight, self.other.bias = self.block.conv.weight, self.block.conv.bias

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        if self.form == 'shared':
            y = self.body(y)
        elif self.form == 'tied':
            y = torch.tanh(self.block.norm(self.other(self.block(y))))
        else:
            y = self.block(self.block(y))
        return x + self.tail(y)


def gradients(variant: str, network: nn.Module, forward: Any = None) -> Sequence[Tensor]:
    loss = NetworkLoss(network, nn.functional.mse_loss, forward=None if forward is None else forward(network))
    return VARIANTS[variant](loss.parameters())(loss, loss.parameters(), meta_batch()).grads


@pytest.mark.parametrize('forward', [None, Checkpointed])
@pytest.mark.parametrize('form', ['shared', 'tied'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_gradient_and_what_the_network_holds(variant: str, form: str, forward: Any) -> None:
    if forward is not None and form == 'tied':
        pytest.skip('it has no repeated blocks')
    expected = gradients(variant, plain := seeded(Network))
    network = seeded(lambda: Network(form))
    before = dict(network.named_parameters(remove_duplicate=False))
    found = gradients(variant, network, forward)
    assert relative_error(found, expected) < (1e-6 if 'finite' in variant else 1e-10)
    after = dict(network.named_parameters(remove_duplicate=False))
    assert all(after[name] is parameter for name, parameter in before.items())
    for one, other in zip(network.buffers(), plain.buffers(), strict=True):
        assert torch.allclose(one, other, rtol=1e-12)


class Centred(nn.Module):
    """Subtracts a running mean, which it updates in place or assigns anew."""

    def __init__(self, anew: bool) -> None:
        super().__init__()
        self.anew = anew
        self.head, self.tail = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)
        self.register_buffer('mean', torch.zeros(1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.head(x))
        new = 0.5 * self.mean + 0.5 * y.detach().mean((0, 2, 3), keepdim=True)
        if self.anew:
            self.mean: Tensor = new
        else:
            self.mean.copy_(new)
        return x + self.tail(torch.tanh(y - new))


@pytest.mark.parametrize('variant', VARIANTS)
def test_buffers_assigned_anew(variant: str) -> None:
    """Also in a Hessian-vector product, which goes on from each pass to the next as the inner losses did."""
    in_place, anew = (seeded(lambda how=how: Centred(how)) for how in (False, True))
    expected, found = (gradients(variant, network) for network in (in_place, anew))
    assert relative_error(found, expected) < 1e-12
    assert torch.equal(in_place.mean, anew.mean)


def test_they_are_put_back() -> None:
    """After a step that is not finite."""
    network = seeded(lambda: Centred(True))
    network.mean = torch.ones(1, 4, 1, 1, dtype=torch.float64)
    kept = KeptBuffers(network)
    kept.keep()
    network(torch.full((1, 3, 4, 4), torch.nan, dtype=torch.float64))
    assert not network.mean.isfinite().all()
    kept.restore_unless(torch.tensor(False))
    assert torch.equal(network.mean, torch.ones(1, 4, 1, 1, dtype=torch.float64))


def test_call_with_gives_buffers_back() -> None:
    network = seeded(lambda: Centred(True))
    own, tensors = network.mean, {'mean': torch.ones(1, 4, 1, 1, dtype=torch.float64)}
    call_with(network, tensors, (torch.zeros(1, 3, 4, 4, dtype=torch.float64), ))
    assert network.mean is own
    assert not torch.equal(tensors['mean'], torch.ones(1, 4, 1, 1, dtype=torch.float64))
