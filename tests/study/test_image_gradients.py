"""Image gradients, counted independently: by the images that pass backward through a layer of the network."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dil_plugin.basicsr.options import parse_training_options
from dil_plugin.errors import OptionError
from dil_plugin.learning import build_loss, build_variant
from dil_plugin.learning.options import VARIANTS
from dil_plugin.sampling import build_sampler
from dil_plugin.study.image_gradients import COUNTS, batch_size_for, step_cost


class Counter:
    """Images that passed backward through ``Counted``, and through its own backward pass."""

    backward = 0
    twice = 0


class _Backward(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, grad: Tensor, counter: Counter) -> Tensor:
        ctx.counter = counter
        counter.backward += len(grad)
        return grad.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.counter.twice += len(grad)
        return grad, None


class _Counted(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, x: Tensor, counter: Counter) -> Tensor:
        ctx.counter = counter
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Backward.apply(grad, ctx.counter), None


class CountingNetwork(nn.Module):

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)
        self.counter = Counter()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(_Counted.apply(self.first(x), self.counter)))


def count(opt: dict[str, Any]) -> Counter:
    """What one training iteration lets pass backward."""
    dil, distortions = parse_training_options(opt)
    network = CountingNetwork()
    loss = build_loss(dil, network, nn.MSELoss())
    variant = build_variant(dil, loss.parameters(), 0)
    gt = torch.rand(opt['datasets']['train']['batch_size_per_gpu'], 3, 8, 8)
    for batch in build_sampler(dil, distortions).sample(gt):
        variant(loss, loss.parameters(), batch)
    return network.counter


def options(dil: dict[str, Any], levels: list[int], rows: int) -> dict[str, Any]:
    opt = {'distortions': [{'type': 'GaussianNoise', 'sigma': levels}], 'train': {'dil': dil},
           'datasets': {'train': {'type': 'DistortionAugmentedDataset'}}}
    opt['datasets']['train']['batch_size_per_gpu'] = batch_size_for(opt, rows)
    return opt


SGD = {'type': 'SGD', 'lr': 0.01}
CASES = [
    {'variant': 'erm'}, {'variant': 'erm', 'erm_steps': 1}, {'variant': 'erm', 'erm_steps': 5, 'patches': 'fresh'},
    {'variant': 'sf', 'patches': 'fresh'}, {'variant': 'sf', 'inner': SGD},
    {'variant': 'pf'}, {'variant': 'pf', 'patches': 'fresh'},
    {'variant': 'ss', 'inner': SGD}, {'variant': 'ss', 'patches': 'fresh', 'micro_batch': 1},
    {'variant': 'ss', 'hvp': 'finite_difference'},
    {'variant': 'ps', 'recompute': False}, {'variant': 'ps', 'patches': 'fresh', 'hvp': 'finite_difference'},
    {'variant': 'ps', 'recompute': False, 'micro_batch': 2}, {'variant': 'erm', 'erm_sampling': 'serial'},
]
MLDG = [{'variant': 'mldg', 'recompute': False, 'held_out': k, 'patches': patches}
        for k in (1, 3) for patches in ('same', 'fresh')]


@pytest.mark.parametrize('levels', [[5], [5, 10, 15, 20]])
@pytest.mark.parametrize('dil', CASES, ids=str)
def test_as_many_images_pass_backward(dil: dict[str, Any], levels: list[int]) -> None:
    opt = options(dil, levels, 3)
    cost, counted = step_cost(opt), count(opt)
    assert cost.total == counted.backward
    assert counted.twice == (cost.hessian if dil.get('hvp') != 'finite_difference' else 0)


@pytest.mark.parametrize('dil', MLDG, ids=str)
def test_as_many_images_of_confounders_held_out(dil: dict[str, Any]) -> None:
    test_as_many_images_pass_backward(dil, [5, 10, 15, 20])


@pytest.mark.parametrize('variant', ['ss', 'ps', 'mldg'])
def test_what_is_computed_again_does_not_count(variant: str) -> None:
    opt = options({'variant': variant, 'recompute': True}, [5, 10], 3)
    cost, counted = step_cost(opt), count(opt)
    assert counted.backward == cost.total + cost.hessian  # the inner gradients, computed anew
    assert cost == step_cost(options({'variant': variant, 'recompute': False}, [5, 10], 3))


def test_parts_as_documented() -> None:
    costs = {name: step_cost(options({'variant': name, 'patches': 'fresh'}, [5, 10, 15, 20], 8)) for name in COUNTS}
    assert costs['erm'] == (0, 32, 0, 4)
    assert costs['sf'] == (32, 0, 0, 1)
    assert costs['pf'] == (32, 8, 0, 1)
    assert costs['ss'] == (32, 32, 32, 1)
    assert costs['ps'] == (32, 8, 32, 1)
    assert costs['mldg'] == (24, 8, 24, 1)


def test_every_variant_is_counted() -> None:
    assert set(COUNTS) == set(VARIANTS)


def test_a_batch_that_does_not_divide() -> None:
    opt = options({'variant': 'sf', 'patches': 'fresh'}, [5, 10], 4)
    opt['datasets']['train']['batch_size_per_gpu'] = 7
    with pytest.raises(OptionError, match='batch_size_per_gpu: 7 cannot be divided'):
        step_cost(opt)
