"""Ranges of degrees: their draws against the uniform law, their limits, and draws that the host must know."""

from typing import Any

import numpy as np
import pytest
import torch
from msgspec import ValidationError, convert
from scipy import stats
from torch import Tensor

from dil_plugin.distortions import GaussianBlur, GaussianNoise, PoissonNoise, Resize, Uniform
from dil_plugin.distortions.degrees import (
    as_batch,
    constant,
    draw,
    draw_indices,
    highest,
    host_generator,
    lowest,
    per_sample,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(size, 1, 1, 1, dtype=dtype)


class TestUniform:

    def test_ends(self) -> None:
        degree = Uniform((2, 7.5))
        assert (lowest(degree), highest(degree)) == (2, 7.5)
        assert (lowest(3), highest(3)) == (3, 3)

    @pytest.mark.parametrize('ends', [(5, 1), (1e-9, 0), (float('nan'), 1), (1, float('nan'))])
    def test_order(self, ends: tuple[float, float]) -> None:
        with pytest.raises(ValueError, match=r'^\.uniform: expected \[low, high\] with low <= high'):
            Uniform(ends)

    def test_one_point(self) -> None:
        assert draw(Uniform((4, 4)), batch(3), seeded()).tolist() == [4, 4, 4]

    def test_from_yaml(self) -> None:
        assert convert({'uniform': [1, 2.5]}, Uniform) == Uniform((1, 2.5))
        with pytest.raises(ValidationError, match='low'):
            convert({'uniform': [1, 2], 'low': 0}, Uniform)

    def test_label(self) -> None:
        assert GaussianNoise(Uniform((5, 50))).label == 'GaussianNoise(sigma=5..50)'
        assert GaussianBlur(Uniform((0.25, 3.0))).label == 'GaussianBlur(sigma=0.25..3)'
        assert Resize(Uniform((0.5, 2)), 'area').label == 'Resize(factor=0.5..2, mode=area)'


LIMITS = [
    # class, a wrong degree, where, which limit
    (GaussianNoise, -1, 'sigma', '>= 0'),
    (GaussianNoise, Uniform((-1, 5)), r'sigma.uniform[0]', '>= 0'),
    (GaussianBlur, Uniform((-2, -1)), r'sigma.uniform[0]', '>= 0'),
    (PoissonNoise, Uniform((-0.5, 1)), r'poisson_scale.uniform[0]', '>= 0'),
    (Resize, 0, 'factor', '> 0'),
    (Resize, 8.5, 'factor', '<= 8'),
    (Resize, Uniform((0, 1)), r'factor.uniform[0]', '> 0'),
    (Resize, Uniform((1, 8.5)), r'factor.uniform[1]', '<= 8'),
]


@pytest.mark.parametrize(('cls', 'degree', 'where', 'limit'), LIMITS)
def test_limits_hold_for_both_ends(cls: Any, degree: Any, where: str, limit: str) -> None:
    with pytest.raises(ValueError) as caught:
        cls(degree)
    assert str(caught.value).startswith(f'.{where}: ')
    assert limit in str(caught.value)


def test_limits_are_included() -> None:
    GaussianNoise(Uniform((0, 0)))
    Resize(Uniform((1e-3, 8)))


class TestDraw:

    def test_number_stays_and_draws_nothing(self) -> None:
        generator = seeded()
        state = generator.get_state()
        assert draw(3.5, batch(4), generator) == 3.5
        assert torch.equal(generator.get_state(), state)

    @pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
    @pytest.mark.parametrize('ends', [(0, 1), (5, 50), (-0.1, 0.3)])
    def test_uniform(self, ends: tuple[float, float], dtype: torch.dtype) -> None:
        drawn = draw(Uniform(ends), batch(20_000, dtype), seeded())
        assert (drawn.shape, drawn.dtype) == ((20_000, ), dtype)
        law = stats.uniform(ends[0], ends[1] - ends[0])
        assert stats.kstest(drawn.double().numpy(), law.cdf).pvalue > 1e-3
        assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 5 / np.sqrt(20_000)

    def test_every_sample_its_own(self) -> None:
        assert len(draw(Uniform((0, 1)), batch(64, torch.float64), seeded()).unique()) == 64

    def test_from_the_generator(self) -> None:
        first, again, other = (draw(Uniform((1, 2)), batch(8), seeded(seed)) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_from_the_global_generator(self) -> None:
        torch.manual_seed(3)
        first = draw(Uniform((1, 2)), batch(8), None)
        torch.manual_seed(3)
        assert torch.equal(draw(Uniform((1, 2)), batch(8), None), first)


class TestShapes:

    def test_per_sample_meets_its_sample(self) -> None:
        images = torch.ones(3, 2, 4, 5)
        scaled = images * per_sample(torch.tensor([1.0, 2, 3]))
        assert scaled.shape == images.shape
        assert scaled.mean((1, 2, 3)).tolist() == [1, 2, 3]
        assert per_sample(2.5) == 2.5

    @pytest.mark.parametrize('value', [2, 2.5, torch.tensor([2.5], dtype=torch.float64)])
    def test_as_batch_repeats_one_value(self, value: float | Tensor) -> None:
        values = as_batch(value, batch(4))
        assert (values.shape, values.dtype) == ((4, ), torch.float32)
        assert values.tolist() == [float(value)] * 4

    def test_as_batch_keeps_many(self) -> None:
        values = as_batch(torch.tensor([1, 2, 3], dtype=torch.float32), batch(3, torch.float64))
        assert (values.dtype, values.tolist()) == (torch.float64, [1, 2, 3])

    def test_as_batch_of_another_size(self) -> None:
        with pytest.raises(RuntimeError):
            as_batch(torch.tensor([1.0, 2]), batch(3))

    def test_constant(self) -> None:
        images = batch(2, torch.float64)
        assert (constant([1, 2.5], images).dtype, constant([1, 2.5], images).tolist()) == (torch.float64, [1, 2.5])
        assert constant([1, 2], images, torch.int64).dtype == torch.int64
        assert constant([], images).shape == (0, )


class TestDrawIndices:

    @pytest.mark.parametrize('weights', [[1, 1, 1], [0.2, 0.7, 0.1], [5, 0.5, 20, 3], [0.01, 0.99], [1e-4, 3e-4]])
    def test_shares(self, weights: list[float]) -> None:
        indices = draw_indices(weights, batch(50_000), seeded())
        assert (indices.shape, indices.dtype) == ((50_000, ), torch.int64)
        counts = torch.bincount(indices, minlength=len(weights)).numpy()
        expected = 50_000 * np.array(weights) / np.sum(weights)
        assert stats.chisquare(counts, expected).pvalue > 1e-3

    def test_samples_are_independent(self) -> None:
        indices = draw_indices([1, 2], batch(40_000), seeded())
        table = torch.bincount(indices[::2] * 2 + indices[1::2], minlength=4).view(2, 2).numpy()
        assert stats.chi2_contingency(table).pvalue > 1e-3

    @pytest.mark.parametrize('weights', [[0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0.3, 0, 0.1, 0]])
    def test_weight_zero_is_never_drawn(self, weights: list[float]) -> None:
        drawn = set(draw_indices(weights, batch(20_000), seeded()).tolist())
        assert drawn == {k for k, weight in enumerate(weights) if weight}

    @pytest.mark.parametrize('unit', [0.0, 1 - 2.0**-53])
    def test_weight_zero_is_not_drawn_by_the_ends_of_rand(self, unit: float, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch, 'rand', lambda *shape, **_: torch.full(shape, unit, dtype=torch.float64))
        assert draw_indices([0, 0.1, 0.2, 0.7, 0, 0], batch(1), None).item() == (1 if unit == 0 else 3)

    def test_one_weight(self) -> None:
        assert draw_indices([3], batch(5), seeded()).tolist() == [0] * 5


class ElsewhereGenerator(torch.Generator):
    """A CPU generator that says that it lives on a GPU."""

    @property
    def device(self) -> Any:
        return torch.device('cuda')


@pytest.fixture
def gpu_made_of_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors that are asked for on a GPU come on the CPU."""
    empty = torch.empty
    monkeypatch.setattr(torch, 'empty', lambda *shape, device=None, **options: empty(*shape, **options))


class TestHostGenerator:

    @pytest.mark.parametrize('generator', [None, seeded()])
    def test_of_the_cpu_is_itself(self, generator: torch.Generator | None) -> None:
        assert host_generator(generator) is generator

    @pytest.mark.usefixtures('gpu_made_of_cpu')
    def test_follows_the_state(self) -> None:
        streams = []
        for seed in (1, 1, 2):
            generator = ElsewhereGenerator()
            generator.manual_seed(seed)
            host = host_generator(generator)
            assert host.device.type == 'cpu'
            streams.append(torch.rand(4, generator=host))
        assert torch.equal(streams[0], streams[1])
        assert not torch.equal(streams[0], streams[2])

    @pytest.mark.usefixtures('gpu_made_of_cpu')
    def test_moves_the_other_on(self) -> None:
        generator = ElsewhereGenerator()
        generator.manual_seed(1)
        seeds = {host_generator(generator).initial_seed() for _ in range(100)}
        assert len(seeds) == 100

    @pytest.mark.usefixtures('gpu_made_of_cpu')
    def test_first_draws_of_successive_generators_are_uniform(self) -> None:
        generator = ElsewhereGenerator()
        generator.manual_seed(0)
        firsts = [torch.rand(1, dtype=torch.float64, generator=host_generator(generator)).item() for _ in range(1000)]
        assert stats.kstest(firsts, 'uniform').pvalue > 1e-3
