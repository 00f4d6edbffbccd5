"""Gaussian noise against its closed-form moments."""

import math

import pytest
import torch

from dil_plugin.distortions import GaussianNoise


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('sigma', [5, 20, 25.5])
def test_moments_on_grey(sigma: float, dtype: torch.dtype) -> None:
    """Mid-grey is at least five standard deviations from both ends, so nothing is clipped; bounds of five sigma."""
    clean = torch.full((4, 3, 256, 256), 0.5, dtype=dtype)
    error = (GaussianNoise(sigma)(clean, seeded(0)) - clean).double()
    n, std = error.numel(), sigma / 255
    assert abs(error.mean().item()) < 5 * std / math.sqrt(n)
    assert abs(error.std().item() / std - 1) < 5 / math.sqrt(2 * n)
    standard = error / std
    assert abs((standard**3).mean().item()) < 5 * math.sqrt(15 / n)
    assert abs((standard**4).mean().item() - 3) < 5 * math.sqrt(96 / n)


def test_noise_is_white() -> None:
    """Neighbours in each direction, colours and images of the batch are uncorrelated."""
    clean = torch.full((4, 3, 256, 256), 0.5)
    noise = (GaussianNoise(20)(clean, seeded(0)) - clean) / (20 / 255)
    for dim in range(4):
        size = noise.shape[dim]
        product = noise.narrow(dim, 0, size - 1) * noise.narrow(dim, 1, size - 1)
        assert abs(product.mean().item()) < 5 / math.sqrt(product.numel())


@pytest.mark.parametrize(('value', 'sign'), [(0.0, 1), (1.0, -1)])
def test_clipped_at_the_ends(value: float, sign: int) -> None:
    """At black half of the values are cut, the rest is a half normal: mean sigma / sqrt(2 pi)."""
    clean = torch.full((4, 3, 256, 256), value, dtype=torch.float64)
    noisy = GaussianNoise(40)(clean, seeded(1))
    assert noisy.min() >= 0
    assert noisy.max() <= 1
    n, std = noisy.numel(), 40 / 255
    assert abs((noisy == value).double().mean().item() - 0.5) < 5 * 0.5 / math.sqrt(n)
    spread = std * math.sqrt(0.5 - 1 / (2 * math.pi))
    assert abs(sign * (noisy - clean).mean().item() - std / math.sqrt(2 * math.pi)) < 5 * spread / math.sqrt(n)


def test_not_rounded_to_8_bit() -> None:
    noisy = GaussianNoise(5)(torch.full((1, 3, 32, 32), 0.5, dtype=torch.float64), seeded(0)) * 255
    assert (noisy - noisy.round()).abs().max() > 0.4


def test_same_seed_same_noise() -> None:
    clean = torch.rand(2, 3, 16, 16)
    first, again, other = (GaussianNoise(15)(clean, seeded(seed)) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_calls_continue_the_stream() -> None:
    clean, generator = torch.rand(2, 3, 16, 16), seeded(7)
    assert not torch.equal(GaussianNoise(15)(clean, generator), GaussianNoise(15)(clean, generator))


def test_without_generator_the_global_one_is_used() -> None:
    clean = torch.rand(2, 3, 16, 16)
    torch.manual_seed(3)
    first = GaussianNoise(15)(clean)
    torch.manual_seed(3)
    assert torch.equal(GaussianNoise(15)(clean), first)


def test_generator_leaves_the_global_stream() -> None:
    state = torch.get_rng_state()
    GaussianNoise(15)(torch.rand(1, 1, 4, 4, generator=seeded(0)), seeded(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_sigma_zero_is_the_identity() -> None:
    clean = torch.rand(2, 3, 16, 16)
    distorted = GaussianNoise(0)(clean, seeded(0))
    assert torch.equal(distorted, clean)
    assert distorted.data_ptr() != clean.data_ptr()


@pytest.mark.parametrize('shape', [(1, 1, 1, 1), (1, 3, 7, 5), (3, 1, 8, 8)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_shape_and_dtype_stay_and_input_is_unchanged(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    clean = torch.rand(shape, dtype=dtype)
    before = clean.clone()
    distorted = GaussianNoise(20)(clean, seeded(0))
    assert (distorted.shape, distorted.dtype) == (clean.shape, dtype)
    assert torch.equal(clean, before)


def test_label() -> None:
    assert GaussianNoise(20).label == 'GaussianNoise(sigma=20)'
    assert GaussianNoise(2.5).label == 'GaussianNoise(sigma=2.5)'
