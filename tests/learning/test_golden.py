"""The method against vectors computed elsewhere: the authors' released training, and brute force."""

from functools import partial

import numpy as np
import pytest
import torch
from learning_helpers import CRITERIA, DATA, relative_error, rrdb_network
from torch import Tensor, nn

from dil_plugin.learning import (
    MetaBatch,
    MetaGradient,
    NetworkLoss,
    Pair,
    ParallelFirstOrder,
    ParallelSecondOrder,
    ReptileWalk,
    SerialFirstOrder,
    SerialSecondOrder,
    Variant,
)

Vectors = dict[str, Tensor]

RELEASED_TOLERANCE = 1e-6
BRUTE_FORCE_TOLERANCE = 1e-9


def load(name: str) -> Vectors:
    with np.load(DATA / f'{name}.npz') as archive:
        return {key: torch.from_numpy(archive[key]) for key in archive.files}


@pytest.fixture(scope='module')
def released() -> Vectors:
    return load('released_sf')


@pytest.fixture(scope='module')
def brute_force() -> Vectors:
    return load('variants')


def network_from(vectors: Vectors, prefix: str, num_feat: int, num_grow_ch: int) -> nn.Module:
    """RRDB with the 38 stored tensors as its parameters, which are stored in the order of the forward pass."""
    first = vectors[f'{prefix}_00']
    network = rrdb_network(num_feat, num_grow_ch).to(first.dtype)
    parameters = list(network.parameters())
    assert len(parameters) == sum(key.startswith(f'{prefix}_') for key in vectors) == 38
    with torch.no_grad():
        for k, parameter in enumerate(parameters):
            assert parameter.shape == vectors[f'{prefix}_{k:02d}'].shape
            parameter.copy_(vectors[f'{prefix}_{k:02d}'])
    return network


def largest_difference(parameters: list[nn.Parameter], vectors: Vectors, prefix: str) -> float:
    return max(float((p.detach() - vectors[f'{prefix}_{k:02d}']).abs().max()) for k, p in enumerate(parameters))


def test_forward_of_the_released_network(released: Vectors) -> None:
    network = network_from(released, 'init', 8, 4)
    with torch.no_grad():
        output = network(released['distorted'][0, 0])
    torch.testing.assert_close(output, released['forward_output'], atol=RELEASED_TOLERANCE, rtol=0)


def test_released_training_step_by_step(released: Vectors) -> None:
    """Five meta-steps: every inner loss, and the parameters after them."""
    network = network_from(released, 'init', 8, 4)
    parameters = list(network.parameters())
    outer = torch.optim.Adam(parameters, lr=1e-4)
    loss = NetworkLoss(network, nn.functional.l1_loss)
    walk = ReptileWalk(loss.parameters(), partial(torch.optim.Adam, lr=1e-4, betas=(0.0, 0.999)))
    variant = SerialFirstOrder(walk, generator=None)
    for step, order in enumerate(released['order'].tolist()):
        pairs = [Pair(released['distorted'][step, level], released['clean'][step, level]) for level in order]
        meta = variant(loss, loss.parameters(), MetaBatch(pairs))
        assert meta.inner_losses is not None
        torch.testing.assert_close(
            meta.inner_losses.double(), released['inner_losses'][step], atol=RELEASED_TOLERANCE, rtol=0)
        for parameter, grad in zip(parameters, meta.grads, strict=True):
            parameter.grad = grad
        outer.step()
    assert largest_difference(parameters, released, 'init') > 100 * RELEASED_TOLERANCE
    assert largest_difference(parameters, released, 'final') < RELEASED_TOLERANCE


def brute_force_variant(name: str, walk: ReptileWalk, alpha: float) -> Variant:
    return {
        'ss': SerialSecondOrder(alpha),
        'ps': ParallelSecondOrder(alpha),
        'sf': SerialFirstOrder(walk),
        'pf': ParallelFirstOrder(walk),
    }[name]


def brute_force_meta_gradient(vectors: Vectors, name: str, criterion: str) -> MetaGradient:
    network = network_from(vectors, 'param', 6, 3)
    loss = NetworkLoss(network, CRITERIA[criterion])
    params = loss.parameters()
    clean, alpha = vectors['clean'], float(vectors['alpha'])
    batch = MetaBatch([Pair(lq, clean) for lq in vectors['counterfactuals']], Pair(vectors['query'], clean))
    walk = ReptileWalk(params, partial(torch.optim.SGD, lr=alpha))
    return brute_force_variant(name, walk, alpha)(loss, params, batch)


@pytest.mark.parametrize('criterion', ['l1', 'mse', 'charbonnier'])
@pytest.mark.parametrize('name', ['ss', 'ps', 'sf', 'pf'])
def test_meta_gradients_by_brute_force(brute_force: Vectors, name: str, criterion: str) -> None:
    meta = brute_force_meta_gradient(brute_force, name, criterion)
    expected = [brute_force[f'{name}_{criterion}_{k:02d}'] for k in range(38)]
    assert relative_error(meta.grads, expected) < BRUTE_FORCE_TOLERANCE


@pytest.mark.parametrize('criterion', ['l1', 'mse', 'charbonnier'])
@pytest.mark.parametrize('name', ['ss', 'ps'])
def test_objective_by_brute_force(brute_force: Vectors, name: str, criterion: str) -> None:
    meta = brute_force_meta_gradient(brute_force, name, criterion)
    assert meta.outer_loss is not None
    expected = brute_force[f'{name}_{criterion}_loss']
    torch.testing.assert_close(meta.outer_loss, expected, atol=0, rtol=BRUTE_FORCE_TOLERANCE)
