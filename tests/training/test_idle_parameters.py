"""Parameters without a gradient are named after the first steps, modules in Python lists at once."""

import torch
from torch import nn

from dil_plugin.learning.containers import unregistered
from dil_plugin.training.idle_parameters import IdleParameters, note_on_unregistered


def test_parameters_that_no_gradient_reaches_are_named_once() -> None:
    idle = IdleParameters(['a', 'b', 'c', 'd'], steps=3)
    ones, zeros = torch.ones(2), torch.zeros(2)
    for grads in ([ones, zeros, zeros, ones * torch.nan], [zeros, zeros, zeros, zeros], [zeros, zeros, ones, zeros]):
        assert idle.read() == ''
        idle.took(grads)
        idle.stepped()
    assert idle.idle() == ['b']
    message = idle.read()
    assert '1 of 4 parameters had no gradient in the first 3 steps' in message
    assert ': b.' in message
    assert idle.read() == ''


def test_a_layer_that_starts_at_zero_is_given_time() -> None:
    """Its own gradient is there at once, that of the layer before it after one step."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    nn.init.zeros_(network[1].weight)
    idle = IdleParameters([name for name, _ in network.named_parameters()])
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for step in range(2):
        network(torch.ones(1, 3)).sum().backward()
        idle.took([p.grad for p in network.parameters() if p.grad is not None])
        idle.stepped()
        optimizer.step()
        optimizer.zero_grad()
        assert idle.idle() == (['0.weight', '0.bias'] if step == 0 else [])
    assert idle.message() == ''


def test_accumulated_gradients_are_no_steps() -> None:
    idle = IdleParameters(['a'], steps=1)
    idle.took([torch.zeros(1)])
    assert (idle.idle(), idle.read()) == ([], '')
    idle.took([torch.ones(1)])
    idle.stepped()
    assert (idle.idle(), idle.read()) == ([], '')


class Lists(nn.Module):

    def __init__(self) -> None:
        super().__init__()
        self.known = nn.Conv2d(3, 3, 1)
        self.order = [self.known, 7]
        self.weights = (self.known.weight, nn.Parameter(torch.ones(1)))
        self.more = {'first': [nn.ReLU(), nn.Conv2d(3, 3, 1)]}


def test_what_stands_in_containers_alone_is_named() -> None:
    network = nn.Sequential(Lists())
    assert unregistered(network) == ['0.weights[1]', "0.more['first'][1]"]
    note = note_on_unregistered(network)
    assert note.startswith("Sequential keeps 0.weights[1], 0.more['first'][1] in a Python list")
    assert 'neither trained nor saved' in note
    assert note_on_unregistered(nn.Sequential(nn.Conv2d(3, 3, 1))) == ''
