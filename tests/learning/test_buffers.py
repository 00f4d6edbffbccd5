"""The copy of a network has the network's buffers, of every kind."""

import torch
from torch import nn

from dil_plugin.learning.buffers import copy_buffers


class Counting(nn.Module):
    """A spectral norm, statistics, a counter that no state dict has, and a table that the forward pass makes."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 3, 3, 1, 1)), nn.BatchNorm2d(3))
        self.register_buffer('calls', torch.zeros((), dtype=torch.long), persistent=False)
        self.register_buffer('table', None)
        self.register_buffer('features', torch.randn(4))

    def forward(self, x):
        self.calls += 1
        self.table = torch.ones(int(self.calls))
        return self.body(x)


def test_all_buffers_follow_and_no_parameter_does():
    network, copy = Counting(), Counting()
    weights = [param.detach().clone() for param in copy.parameters()]
    for _ in range(3):
        network(torch.rand(2, 3, 8, 8))
        copy_buffers(copy, network)
        ours, theirs = dict(copy.named_buffers()), dict(network.named_buffers())
        assert set(ours) == set(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        assert not any(ours[name].data_ptr() == theirs[name].data_ptr() for name in theirs)
    assert all(torch.equal(param, before) for param, before in zip(copy.parameters(), weights, strict=True))
    assert {'calls', 'table', 'features', 'body.1.running_var', 'body.0.parametrizations.weight.0._u'} <= set(theirs)
