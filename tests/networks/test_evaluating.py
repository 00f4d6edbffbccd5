"""Networks that do something when they change between training and evaluation."""

import pytest
import torch
from torch import Tensor, nn

from dil_plugin.networks.evaluating import evaluating
from dil_plugin.networks.size_needs import size_needs


class Merging(nn.Module):
    """As LoRA's layers: in evaluation its weights are one, without a gradient of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.merged = nn.Parameter(torch.ones(1)), False

    def train(self, mode: bool = True) -> 'Merging':
        self.merged = not mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.scale.detach() if self.merged else self.scale)


@pytest.mark.parametrize('mode', [True, False])
def test_each_module_is_put_back_by_its_own_train(mode: bool) -> None:
    network = nn.Sequential(Merging(), nn.Sequential(Merging(), nn.Conv2d(3, 3, 1)), nn.BatchNorm2d(3)).train(mode)
    network[1][0].train(not mode)
    network[2].train(not mode)
    before = [module.training for module in network.modules()]
    with evaluating(network):
        assert not any(module.training for module in network.modules())
        assert network[0].merged
        assert network[1][0].merged
    assert [module.training for module in network.modules()] == before
    assert (network[0].merged, network[1][0].merged) == (not mode, mode)


def test_a_network_that_was_tried_trains_on() -> None:
    network = nn.Sequential(Merging())
    size_needs(network, {'type': 'Merging'})
    assert network(torch.ones(1, 3, 4, 4)).requires_grad
