"""The confounder set: its YAML form, its draws, and confounders of one's own."""

import inspect
import textwrap
from collections import Counter
from typing import Annotated, Any

import pytest
import torch
import yaml
from msgspec import Meta
from scipy import stats
from torch import Tensor

from dil_plugin.distortions import (
    DISTORTION_REGISTRY,
    Compose,
    Distortion,
    DistortionSet,
    GaussianBlur,
    GaussianNoise,
    Hybrid,
    OneOf,
    Resize,
    Uniform,
    draw,
    parse_distortions,
    per_sample,
)
from dil_plugin.errors import OptionError


def parse(text: str) -> DistortionSet:
    return parse_distortions(yaml.safe_load(text))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The registry, which forgets after the test what was registered in it."""
    monkeypatch.setattr(DISTORTION_REGISTRY, '_classes', dict(DISTORTION_REGISTRY._classes))
    return DISTORTION_REGISTRY


BLURS = DistortionSet([GaussianBlur(sigma) for sigma in (0.5, 1, 2, 0)])


class TestParsing:

    def test_list_of_values_makes_one_confounder_each(self) -> None:
        assert list(parse('- {type: GaussianNoise, sigma: [20, 5, 10.5]}')) == [
            GaussianNoise(20), GaussianNoise(5), GaussianNoise(10.5)
        ]

    def test_order_is_that_of_the_file(self) -> None:
        text = '[{type: GaussianBlur, sigma: [4, 1]}, {type: GaussianNoise, sigma: 5}, {type: GaussianBlur, sigma: 0}]'
        assert parse(text).labels == [
            'GaussianBlur(sigma=4)', 'GaussianBlur(sigma=1)', 'GaussianNoise(sigma=5)', 'GaussianBlur(sigma=0)'
        ]

    def test_several_lists_make_their_product(self, registry: Any) -> None:

        @registry.register
        class Both(Distortion):
            blur: float
            noise: float
            quality: int = 90

        confounders = parse('- {type: Both, blur: [1, 2], noise: [5, 10, 15], quality: 50}')
        assert [(d.blur, d.noise, d.quality) for d in confounders] == [
            (1, 5, 50), (1, 10, 50), (1, 15, 50), (2, 5, 50), (2, 10, 50), (2, 15, 50)
        ]
        assert [d.quality for d in parse('- {type: Both, blur: 1, noise: 2}')] == [90]

    @pytest.mark.parametrize('hint', [tuple[float, float], list[float], Annotated[tuple[float, float], Meta()]])
    def test_list_is_one_value_where_the_degree_is_a_range(self, registry: Any, hint: Any) -> None:
        cls = type('Ranged', (Distortion, ), {'__annotations__': {'sigma': hint}, '__module__': __name__})
        registry.register(cls)
        [only] = parse('- {type: Ranged, sigma: [1, 2.5]}')
        assert list(only.sigma) == [1, 2.5]

    def test_sequence(self) -> None:
        noises = parse('- {type: GaussianNoise, sigma: [5, 10]}')
        assert len(noises) == 2
        assert noises[1] == GaussianNoise(10)
        assert list(noises) == [GaussianNoise(5), GaussianNoise(10)]
        assert noises.scale == 1

    def test_least_size_is_the_largest(self) -> None:
        assert parse('[{type: GaussianNoise, sigma: 5}, {type: GaussianBlur, sigma: [1, 3, 2]}]').min_size == 10

    def test_ranges(self) -> None:
        [made] = parse('- {type: GaussianNoise, sigma: {uniform: [5, 50.5]}}')
        assert made == GaussianNoise(Uniform((5, 50.5)))

    def test_list_of_numbers_and_ranges(self) -> None:
        made = parse('- {type: GaussianNoise, sigma: [5, {uniform: [10, 20]}, {uniform: [30, 40]}], gray_prob: [0, 1]}')
        assert list(made) == [GaussianNoise(sigma, gray) for sigma in (5, Uniform((10, 20)), Uniform((30, 40)))
                              for gray in (0, 1)]
        assert made.labels[3] == 'GaussianNoise(sigma=10..20, gray_prob=1)'

    @pytest.mark.parametrize('cls', [Compose, OneOf, Resize, Hybrid], ids=lambda cls: cls.__name__)
    def test_example_of_the_class(self, cls: type[Distortion]) -> None:
        example = textwrap.dedent((inspect.getdoc(cls) or '').split('::\n')[1].split('\n\n')[0])
        assert f'type: {cls.__name__}' in example
        parse(example)


class TestDraws:

    def test_each_confounder_so_many_times(self) -> None:
        made = parse('[{type: GaussianNoise, sigma: [5, {uniform: [1, 2]}], draws: 3}, {type: GaussianBlur, sigma: 1}]')
        assert Counter(made) == {GaussianNoise(5): 3, GaussianNoise(Uniform((1, 2))): 3, GaussianBlur(1): 1}
        assert made[-1] == GaussianBlur(1)

    def test_labels_differ(self) -> None:
        made = parse('[{type: GaussianNoise, sigma: [5, 9], draws: 3}, {type: GaussianNoise, sigma: 5}]')
        assert len(set(made.labels)) == 7
        assert set(made.labels) == {f'GaussianNoise(sigma={sigma}){copy}' for sigma in (5, 9)
                                    for copy in ('', '#2', '#3')} | {'GaussianNoise(sigma=5)#4'}

    def test_one_is_the_default(self) -> None:
        assert list(parse('- {type: GaussianNoise, sigma: 5, draws: 1}')) == [GaussianNoise(5)]

    @pytest.mark.parametrize('entry', [
        '{type: OneOf, distortions: [{type: GaussianBlur, sigma: [1, 2]}]',
        '{type: Compose, distortions: [{type: GaussianBlur, sigma: 1}]',
        '{type: Hybrid, level: mild',
    ])
    def test_of_every_kind_of_block(self, entry: str) -> None:
        made = parse(f'- {entry}, draws: 2}}')
        assert len(made) == 2
        assert made[0] == made[1]

    def test_draws_are_independent(self) -> None:
        """Another noise and another degree each time."""
        made = parse('- {type: GaussianNoise, sigma: {uniform: [5, 25]}, draws: 8}')
        clean = torch.full((2, 3, 64, 64), 0.5)
        errors = [(one - clean) for one in made.counterfactuals(clean, seeded())]
        deviations = torch.stack([error.std((1, 2, 3)) for error in errors]).flatten() * 255
        assert len(deviations.unique()) == 16
        assert stats.kstest(deviations.numpy(), stats.uniform(5, 20).cdf).pvalue > 1e-3
        white = torch.stack([(error / error.std((1, 2, 3), keepdim=True))[0].flatten() for error in errors])
        correlations = torch.corrcoef(white) - torch.eye(8)
        assert correlations.abs().max() < 5 / 3**0.5 / 64

    @pytest.mark.parametrize('draws', ['0', '-1', '1.5', '"2"', 'true', '~', '[1, 2]', '.inf', 'many'])
    def test_wrong_number(self, draws: str) -> None:
        with pytest.raises(OptionError, match=r'^distortions\[1\]\.draws: expected an integer >= 1, got .'):
            parse(f'[{{type: GaussianNoise, sigma: 5}}, {{type: GaussianNoise, sigma: 5, draws: {draws}}}]')


MISTAKES = {
    # text: what the message must name
    '[{type: GaussianNoise, sigma: -5}]': ['distortions[0].sigma', '-5', '>= 0'],
    '[{type: GaussianNoise, sigma: 5}, {type: GaussianBlur, sigma: [1, -0.5]}]': [
        'distortions[1].sigma', '-0.5', '>= 0'],
    '[{type: GaussianNoise, sigma: .nan}]': ['distortions[0].sigma', 'nan'],
    '[{type: GausianNoise, sigma: 5}]': [
        'distortions[0].type', "'GausianNoise'", "did you mean 'GaussianNoise'?", 'GaussianBlur, GaussianNoise'],
    '[{type: 5}]': ['distortions[0].type', "'5'", 'GaussianBlur, GaussianNoise'],
    '[{type: [GaussianBlur, GaussianNoise], sigma: 1}]': ['distortions[0].type', 'allowed: '],
    '[{type: GaussianNoise, sigma: 5, sigmas: 6}]': [
        'distortions[0]', "'sigmas'", "did you mean 'sigma'?", 'allowed: gray_prob, sigma'],
    '[{type: GaussianNoise, sigmas: [5, 6]}]': ['distortions[0]', "'sigmas'", "did you mean 'sigma'?"],
    '[{type: GaussianNoise}]': ['distortions[0]', 'missing', 'sigma'],
    '[{type: GaussianNoise, sigma: []}]': ['distortions[0].sigma', 'the list is empty'],
    '[{type: GaussianNoise, sigma: [5, [6]]}]': ['distortions[0].sigma', '[6]'],
    '[{type: GaussianNoise, sigma: "5"}]': ['distortions[0].sigma', "'5'", 'float'],
    '[{type: GaussianNoise, sigma: [5, 1e1]}]': ['distortions[0].sigma', "'1e1'", 'write !!float 1e1'],
    '[{type: GaussianNoise, sigma: high}]': ['distortions[0].sigma', "'high'", 'a number'],
    '[{type: GaussianNoise, sigma: true}]': ['distortions[0].sigma', 'True', 'a number'],
    '[{type: GaussianNoise, sigma: ~}]': ['distortions[0].sigma', 'None', 'a number'],
    '[{type: GaussianNoise, sigma: {uniform: [-5, 1]}}]': ['distortions[0].sigma.uniform[0]: ', '>= 0', '-5'],
    '[{type: GaussianNoise, sigma: [{uniform: [5, 9]}, {uniform: [-5, 1]}]}]': [
        'distortions[0].sigma.uniform[0]: ', '>= 0', '-5'],
    '[{type: Resize, factor: {uniform: [1, 9]}}]': ['distortions[0].factor.uniform[1]: ', '<= 8', '9'],
    '[{type: GaussianNoise, sigma: {uniform: [1, .inf]}}]': ['distortions[0].sigma.uniform[1]: ', 'inf'],
    '[{type: GaussianNoise, sigma: {uniform: [1]}}]': ['distortions[0].sigma.uniform: ', 'length 2', '[1]'],
    '[{type: GaussianNoise, sigma: {uniform: [1, 2, 3]}}]': ['distortions[0].sigma.uniform: ', 'length 2', '[1, 2, 3]'],
    '[{type: GaussianNoise, sigma: {uniform: [[1, 2], [3, 4]]}}]': ['distortions[0].sigma.uniform[0]: ', '[1, 2]'],
    '[{type: GaussianNoise, sigma: {uniform: 5}}]': ['distortions[0].sigma.uniform: ', 'a list', '5'],
    '[{type: GaussianNoise, sigma: {uniform: [1, 1e1]}}]': [
        'distortions[0].sigma.uniform[1]: ', "'1e1'", 'write !!float 1e1'],
    '[{type: GaussianNoise, sigma: {}}]': ['distortions[0].sigma: ', "'uniform' is missing"],
    '[{type: GaussianNoise, sigma: {unifrom: [1, 2]}}]': [
        'distortions[0].sigma: ', "'unifrom'", "did you mean 'uniform'?"],
    '[{type: GaussianNoise, sigma: 5, gray_prob: {uniform: [0, 1]}}]': [
        'distortions[0].gray_prob: ', "{'uniform': [0, 1]}"],
    '[{type: GaussianNoise, sigma: 5, gray_prob: 1.5}]': ['distortions[0].gray_prob: ', '<= 1', '1.5'],
    '[{type: GaussianNoise, sigma: {uniform: [5, 1]}}]': ['distortions[0].sigma.uniform: ', 'low <= high', '[5, 1]'],
    '[{type: GaussianNoise, sigma: {uniform: [.nan, 1]}}]': ['distortions[0].sigma.uniform', 'nan'],
    '[{type: GaussianNoise, sigma: 5, sigmas: []}]': ['distortions[0]', 'unknown option', "'sigmas'"],
    '[{sigma: 5}]': ['distortions[0]', "{'sigma': 5}", 'GaussianBlur, GaussianNoise'],
    '[GaussianNoise]': ['distortions[0]', "'GaussianNoise'", 'type'],
    '[]': ['distortions', 'empty', 'type: GaussianNoise'],
    '{type: GaussianNoise, sigma: 5}': ['distortions', 'expected a list', "{'type': 'GaussianNoise', 'sigma': 5}"],
    'GaussianNoise': ['distortions', 'expected a list', "'GaussianNoise'"],
    '': ['distortions', 'expected a list', 'None'],
}


class TestMistakes:

    @pytest.mark.parametrize('text', list(MISTAKES))
    def test_mistake_is_named(self, text: str) -> None:
        with pytest.raises(OptionError) as caught:
            parse(text)
        message = str(caught.value)
        assert message.startswith('distortions')
        for part in MISTAKES[text]:
            assert part in message
        assert '\n' not in message

    @pytest.mark.parametrize('name', ['GaussianNoise', 'GaussianBlur'])
    def test_infinite_degree(self, name: str) -> None:
        with pytest.raises(OptionError, match=r'distortions\[0\].*inf'):
            parse(f'[{{type: {name}, sigma: .inf}}]')

    def test_key_is_the_callers(self) -> None:
        with pytest.raises(OptionError, match=r'^datasets\.train\.distortions\[0\]\.sigma'):
            parse_distortions([{'type': 'GaussianNoise', 'sigma': -1}], 'datasets.train.distortions')


class TestUse:

    def test_counterfactuals_are_each_confounder_of_one_batch(self) -> None:
        clean = torch.rand(2, 3, 16, 16)
        expected = [GaussianBlur(sigma)(clean) for sigma in (0.5, 1, 2, 0)]
        made = BLURS.counterfactuals(clean)
        assert len(made) == 4
        assert all(torch.equal(a, b) for a, b in zip(made, expected, strict=True))

    def test_counterfactuals_draw_in_order_from_the_generator(self) -> None:
        noises = DistortionSet([GaussianNoise(10), GaussianNoise(20)])
        clean, generator = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64), seeded(4)
        expected = [clean + sigma / 255 * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
                    for sigma in (10, 20)]
        for made, by_hand in zip(noises.counterfactuals(clean, seeded(4)), expected, strict=True):
            torch.testing.assert_close(made, by_hand, atol=1e-15, rtol=0)

    def test_draws_are_uniform(self) -> None:
        indices = BLURS.draw(40_000, seeded(0))
        assert (indices.shape, indices.dtype, indices.device.type) == ((40_000, ), torch.int64, 'cpu')
        assert stats.chisquare(torch.bincount(indices, minlength=4).numpy()).pvalue > 1e-3
        pairs = torch.bincount(indices[::2] * 4 + indices[1::2], minlength=16)
        assert stats.chisquare(pairs.numpy()).pvalue > 1e-3

    def test_draws_come_from_the_generator(self) -> None:
        first, again, other = (BLURS.draw(50, seeded(seed)) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    @pytest.mark.parametrize('indices', [[0, 1, 2, 3, 2, 0], [3, 3, 3, 3, 3, 3], [2, 1, 1, 0, 0, 0]])
    def test_each_sample_gets_its_own_confounder(self, indices: list[int]) -> None:
        clean = torch.rand(6, 3, 16, 16, dtype=torch.float64)
        before = clean.clone()
        assigned = BLURS.assign(clean, torch.tensor(indices))
        for sample, one, index in zip(assigned, clean, indices, strict=True):
            torch.testing.assert_close(sample, BLURS[index](one[None])[0], atol=1e-14, rtol=0)
        assert (assigned.shape, assigned.dtype) == (clean.shape, clean.dtype)
        assert torch.equal(clean, before)

    def test_assigned_noise_has_its_own_degree(self) -> None:
        noises = DistortionSet([GaussianNoise(sigma) for sigma in (5, 10, 20)])
        clean = torch.full((3, 3, 128, 128), 0.5)
        errors = noises.assign(clean, torch.tensor([2, 0, 1]), seeded(0)) - clean
        for error, sigma in zip(errors, (20, 5, 10), strict=True):
            assert error.std().item() * 255 == pytest.approx(sigma, rel=0.03)

    def test_nothing_to_assign(self) -> None:
        with pytest.raises(ValueError, match='the batch is empty'):
            BLURS.assign(torch.rand(0, 3, 16, 16), torch.zeros(0, dtype=torch.int64))


class TestOwnDistortions:

    def test_example_of_the_documentation(self, registry: Any) -> None:

        @registry.register
        class Darken(Distortion):
            """``g(x) = x * factor``."""

            factor: Annotated[float, Meta(gt=0, le=1)]

            def apply(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
                return clean * self.factor

        confounders = parse('- {type: Darken, factor: [0.5, 0.8]}')
        assert confounders.labels == ['Darken(factor=0.5)', 'Darken(factor=0.8)']
        made = confounders.counterfactuals(torch.ones(1, 3, 4, 4))
        assert [image.unique().item() for image in made] == pytest.approx([0.5, 0.8])
        with pytest.raises(OptionError, match=r'distortions\[0\]\.factor: Expected a number <= 1\.0; got 2'):
            parse('- {type: Darken, factor: [0.5, 2]}')
        with pytest.raises(OptionError, match="did you mean 'Darken'.*allowed: .*, Darken, .*GaussianBlur"):
            parse('- {type: Darker, factor: 0.5}')

    def test_range_of_an_own_degree(self, registry: Any) -> None:

        @registry.register
        class Darken(Distortion, frozen=True):
            """``g(x) = x * factor``."""

            factor: Annotated[float, Meta(gt=0, le=1)] | Uniform

            def apply(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
                return clean * per_sample(draw(self.factor, clean, generator))

        fixed, ranged = parse('- {type: Darken, factor: [0.5, {uniform: [0.2, 0.8]}]}')
        clean = torch.ones(500, 3, 2, 2, dtype=torch.float64)
        assert (fixed(clean) == 0.5).all()
        made = ranged(clean, seeded())
        factors = made[:, 0, 0, 0]
        assert (made == factors.view(-1, 1, 1, 1)).all()
        assert stats.kstest(factors.numpy(), stats.uniform(0.2, 0.6).cdf).pvalue > 1e-3
        with pytest.raises(OptionError, match=r'^distortions\[0\]\.factor\.uniform\[1\]: Expected a number <= 1\.0; '
                                              r'got 1\.5'):
            parse('- {type: Darken, factor: {uniform: [0.5, 1.5]}}')

    def test_name_is_taken_once(self, registry: Any) -> None:
        with pytest.raises(ValueError, match='GaussianNoise is registered already'):
            registry.register(type('GaussianNoise', (Distortion, ), {}))
        assert registry.get('GaussianNoise') is GaussianNoise

    def test_only_distortions(self, registry: Any) -> None:
        with pytest.raises(ValueError, match='int is not a Distortion'):
            registry.register(int)
        assert 'int' not in registry.names()


class Halve(Distortion):
    """Keeps the upper left pixel of each 2x2 block, ``gain`` times as bright."""

    gain: float = 1.0

    @property
    def scale(self) -> int:
        return 2

    def apply(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
        return clean[..., ::2, ::2] * self.gain


class TestResolution:

    def test_counterfactuals_and_assignments_are_smaller(self) -> None:
        halves = DistortionSet([Halve(1), Halve(0.5)])
        clean = torch.rand(3, 3, 8, 12)
        assert halves.scale == 2
        assert [made.shape for made in halves.counterfactuals(clean)] == [(3, 3, 4, 6)] * 2
        expected = clean[..., ::2, ::2] * torch.tensor([0.5, 1, 0.5])[:, None, None, None]
        assert torch.equal(halves.assign(clean, torch.tensor([1, 0, 1])), expected)

    def test_size_must_be_a_multiple(self) -> None:
        with pytest.raises(ValueError, match=r'Halve: image size 8x7 is not a multiple of its scale 2'):
            Halve(1.0)(torch.rand(1, 3, 8, 7))

    def test_one_scale_per_set(self) -> None:
        with pytest.raises(OptionError, match=r'alike.*Halve.*GaussianBlur\(sigma=1\)'):
            DistortionSet([Halve(1.0), GaussianBlur(1)])


def test_draws_written_in_the_singular():
    with pytest.raises(OptionError, match=r"distortions\[0\]: unknown option 'draw'; did you mean 'draws'\?"):
        parse_distortions([{'type': 'GaussianNoise', 'sigma': 5, 'draw': 4}])


def test_near_misses_do_not_depend_on_capitals():
    with pytest.raises(OptionError, match="did you mean 'RealESRGAN'"):
        parse_distortions([{'type': 'RealEsrgan', 'order': 1}])
