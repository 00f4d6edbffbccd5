"""Distortions in a row and one out of several: images, shares, sizes, and the YAML blocks that make them."""

import re
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy import stats
from torch import Tensor

from dil_plugin.distortions import (
    Compose,
    Distortion,
    DistortionSet,
    Downsample,
    GaussianBlur,
    GaussianNoise,
    OneOf,
    PoissonNoise,
    Uniform,
    parse_distortions,
)
from dil_plugin.errors import OptionError


def parse(text: str) -> DistortionSet:
    return parse_distortions(yaml.safe_load(text))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def image(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=seeded(), dtype=torch.float64).to(dtype)


def which(made: Tensor, clean: Tensor, candidates: list[Distortion]) -> Tensor:
    """For each sample of ``made`` the one candidate, not random, that gives it; all samples of ``clean`` are equal."""
    possible = torch.cat([candidate(clean[:1]) for candidate in candidates])
    same = (made[:, None] - possible).abs().flatten(2).amax(2) < 1e-12
    assert (same.sum(1) == 1).all()
    return same.int().argmax(1)


def shares_agree(indices: Tensor, probabilities: list[float]) -> bool:
    """Whether the counts are those of the probabilities, by a chi-square test; what has none must not occur."""
    counts = torch.bincount(indices, minlength=len(probabilities)).numpy()
    likely = np.array(probabilities) > 0
    expected = len(indices) * np.array(probabilities)[likely] / np.sum(probabilities)
    return not counts[~likely].any() and (likely.sum() == 1 or stats.chisquare(counts[likely], expected).pvalue > 1e-3)


BLURS = [GaussianBlur(sigma) for sigma in (0, 0.5, 1, 2)]


class TestCompose:

    @pytest.mark.parametrize('steps', [
        (GaussianBlur(1), GaussianNoise(30)),
        (GaussianNoise(30), GaussianBlur(1)),
        (GaussianNoise(Uniform((5, 50)), 0.5), Downsample(2, 'random'), PoissonNoise(Uniform((0.5, 2)))),
        (GaussianNoise(10), ),
    ])
    def test_by_hand(self, steps: tuple[Distortion, ...]) -> None:
        clean, generator = image(3, 3, 16, 20), seeded(1)
        before, expected = clean.clone(), clean
        for step in steps:
            expected = step(expected, generator)
        used = seeded(1)
        assert torch.equal(Compose(steps)(clean, used), expected)
        assert torch.equal(used.get_state(), generator.get_state())
        assert torch.equal(clean, before)

    def test_first_step_is_applied_first(self) -> None:
        """Noise that is blurred after has less variance, by the sum of the squared kernel."""
        clean = torch.full((1, 1, 128, 128), 0.5)
        blurred = Compose((GaussianNoise(20), GaussianBlur(2)))(clean, seeded())
        white = Compose((GaussianBlur(2), GaussianNoise(20)))(clean, seeded())
        assert white.std().item() * 255 == pytest.approx(20, rel=0.05)
        assert blurred.std().item() * 255 == pytest.approx(20 / (2 * np.sqrt(np.pi) * 2), rel=0.1)

    def test_half_precision(self) -> None:
        steps = Compose((GaussianBlur(1), GaussianNoise(30)))
        clean = image(2, 3, 8, 8, dtype=torch.float16)
        assert torch.equal(steps(clean, seeded()), steps(clean.float(), seeded()).half())

    @pytest.mark.parametrize(('steps', 'scale', 'least'), [
        ((GaussianBlur(1), ), 1, 4),
        ((GaussianBlur(1), GaussianBlur(2)), 1, 7),
        ((GaussianBlur(2), GaussianBlur(1)), 1, 7),
        ((Downsample(2), GaussianBlur(1)), 2, 8),
        ((GaussianBlur(1), Downsample(2)), 2, 4),
        ((Downsample(3), GaussianBlur(1), Downsample(2)), 6, 12),
        ((GaussianBlur(1), Downsample(2), GaussianBlur(2), Downsample(2), GaussianBlur(1)), 4, 16),
        ((Downsample(2), Compose((Downsample(2), GaussianBlur(1)))), 4, 16),
    ])
    def test_scale_and_least_size(self, steps: tuple[Distortion, ...], scale: int, least: int) -> None:
        both = Compose(steps)
        assert (both.scale, both.min_size) == (scale, least)
        assert both(image(1, 1, least, least)).shape[-2:] == (least // scale, least // scale)
        with pytest.raises(ValueError, match=f'needs images of at least {least}x{least} pixels'):
            both(image(1, 1, least - 1, 2 * least))

    def test_size_must_be_a_multiple_of_the_product(self) -> None:
        with pytest.raises(ValueError, match=r'image size 9x12 is not a multiple of its scale 6'):
            Compose((Downsample(3), Downsample(2)))(image(1, 1, 9, 12))

    def test_label(self) -> None:
        steps = Compose((GaussianBlur(1.5), Compose((Downsample(2), GaussianNoise(Uniform((5, 50)))))))
        assert steps.label == 'GaussianBlur(sigma=1.5) > Downsample(scale=2) > GaussianNoise(sigma=5..50)'

    def test_nothing(self) -> None:
        with pytest.raises(ValueError, match=r'^\.distortions: give at least one'):
            Compose(())


class TestOneOf:

    @pytest.mark.parametrize('probabilities', [None, (0.1, 0.2, 0.3, 0.4), (7, 1, 1, 1), (0, 1, 0, 3), (0, 0, 0, 1)])
    def test_shares_of_samples(self, probabilities: tuple[float, ...] | None) -> None:
        clean = image(1, 1, 8, 8).expand(3000, -1, -1, -1)
        indices = which(OneOf(tuple(BLURS), probabilities)(clean, seeded()), clean, BLURS)
        assert shares_agree(indices, list(probabilities or [1] * 4))
        assert len(indices.unique()) == sum(p > 0 for p in probabilities or [1] * 4)

    def test_samples_are_independent(self) -> None:
        clean = image(1, 1, 8, 8).expand(4000, -1, -1, -1)
        indices = which(OneOf((BLURS[0], BLURS[2]), (1, 2))(clean, seeded()), clean, [BLURS[0], BLURS[2]])
        table = torch.bincount(indices[::2] * 2 + indices[1::2], minlength=4).view(2, 2).numpy()
        assert stats.chi2_contingency(table).pvalue > 1e-3

    def test_each_sample_keeps_its_image(self) -> None:
        clean = image(40, 3, 8, 8)
        before = clean.clone()
        made = OneOf(tuple(BLURS))(clean, seeded())
        for sample, one in zip(made, clean, strict=True):
            which(sample[None], one[None], BLURS)
        assert torch.equal(clean, before)

    def test_each_sample_its_own_noise(self) -> None:
        """The samples of one member draw their own degrees."""
        clean = torch.full((1000, 1, 32, 32), 0.5)
        member = OneOf((GaussianNoise(Uniform((5, 25))), GaussianBlur(1)), (0.5, 0.5))
        deviation = (member(clean, seeded()) - clean).flatten(1).std(1) * 255
        noisy = deviation[deviation > 1]
        assert stats.binomtest(len(noisy), 1000, 0.5).pvalue > 1e-3
        assert stats.kstest(noisy.numpy(), stats.uniform(5, 20).cdf).pvalue > 1e-3

    def test_from_the_generator_alone(self) -> None:
        clean = image(16, 1, 8, 8)
        state = torch.get_rng_state()
        first, again, other = (OneOf(tuple(BLURS))(clean, seeded(seed)) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert torch.equal(torch.get_rng_state(), state)

    def test_from_the_global_generator(self) -> None:
        clean = image(16, 1, 8, 8)
        torch.manual_seed(3)
        first, second = OneOf(tuple(BLURS))(clean), OneOf(tuple(BLURS))(clean)
        torch.manual_seed(3)
        assert torch.equal(OneOf(tuple(BLURS))(clean), first)
        assert not torch.equal(first, second)

    def test_one_member(self) -> None:
        clean = image(3, 1, 8, 8)
        torch.testing.assert_close(OneOf((GaussianBlur(1), ))(clean, seeded()), GaussianBlur(1)(clean), atol=1e-14,
                                   rtol=0)

    @pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_dtype_stays(self, dtype: torch.dtype) -> None:
        made = OneOf((GaussianNoise(20), GaussianBlur(1)))(image(8, 3, 7, 5, dtype=dtype), seeded())
        assert (made.shape, made.dtype) == ((8, 3, 7, 5), dtype)

    def test_least_size_is_the_largest(self) -> None:
        assert OneOf((GaussianBlur(1), GaussianBlur(3), GaussianNoise(5))).min_size == 10
        with pytest.raises(ValueError, match='at least 10x10'):
            OneOf((GaussianNoise(5), GaussianBlur(3)), (1, 0))(image(1, 1, 9, 12))

    def test_scale(self) -> None:
        downs = [Downsample(2, mode) for mode in ('area', 'bicubic')]
        member = OneOf(tuple(downs))
        assert member.scale == 2
        clean = image(1, 1, 8, 12).expand(100, -1, -1, -1)
        assert shares_agree(which(member(clean, seeded()), clean, downs), [1, 1])

    def test_mixed_scales(self) -> None:
        with pytest.raises(ValueError, match=r'^\.distortions: .*alike.*GaussianNoise.*1.*Downsample.*2'):
            OneOf((GaussianNoise(5), Downsample(2)))
        assert OneOf((Downsample(4), Compose((Downsample(2), Downsample(2))))).scale == 4

    def test_nothing(self) -> None:
        with pytest.raises(ValueError, match=r'^\.distortions: give at least one'):
            OneOf(())

    @pytest.mark.parametrize('probabilities', [(), (1, ), (1, 1, 1), (1, -1), (0, 0), (float('nan'), 1),
                                               (1, float('nan'))])
    def test_wrong_probabilities(self, probabilities: tuple[float, ...]) -> None:
        with pytest.raises(ValueError, match=r'^\.probabilities: expected one number >= 0 for each of the 2'):
            OneOf((GaussianNoise(5), GaussianNoise(10)), probabilities)

    def test_label(self) -> None:
        member = OneOf((GaussianNoise(5), GaussianBlur(1.5)), (0.7, 0.3))
        assert member.label == 'OneOf(0.7 GaussianNoise(sigma=5) | 0.3 GaussianBlur(sigma=1.5))'


class TestNesting:

    def test_one_of_in_compose_in_one_of(self) -> None:
        inner = Compose((OneOf((GaussianBlur(0.5), GaussianBlur(1)), (1, 2)), GaussianBlur(0.7)))
        leaves = [Compose((GaussianBlur(sigma), GaussianBlur(0.7))) for sigma in (0.5, 1)] + [GaussianBlur(2)]
        clean = image(1, 1, 8, 8).expand(3000, -1, -1, -1)
        made = OneOf((inner, GaussianBlur(2)), (0.75, 0.25))(clean, seeded())
        assert shares_agree(which(made, clean, leaves), [0.25, 0.5, 0.25])

    def test_choices_in_a_row_are_independent(self) -> None:
        pair = OneOf((GaussianBlur(0.5), GaussianBlur(1)))
        leaves = [Compose((pair.distortions[i], Downsample(2), pair.distortions[j])) for i in (0, 1) for j in (0, 1)]
        clean = image(1, 1, 12, 12).expand(2000, -1, -1, -1)
        made = Compose((pair, Downsample(2), pair))(clean, seeded())
        assert shares_agree(which(made, clean, leaves), [1, 1, 1, 1])

    def test_least_size_and_scale(self) -> None:
        nested = Compose((Downsample(2), OneOf((GaussianBlur(1), Compose((GaussianBlur(0.5), GaussianBlur(2)))))))
        assert (nested.min_size, nested.scale) == (14, 2)


class TestYAML:

    def test_compose_makes_the_product(self) -> None:
        made = parse("""
            - type: Compose
              distortions:
                - {type: GaussianBlur, sigma: [1, 3]}
                - {type: Downsample, scale: 2}
                - {type: GaussianNoise, sigma: [10, {uniform: [20, 30]}, 5]}
        """)
        assert list(made) == [Compose((GaussianBlur(blur), Downsample(2), GaussianNoise(noise)))
                              for blur in (1, 3) for noise in (10, Uniform((20, 30)), 5)]

    def test_compose_in_compose_makes_the_product(self) -> None:
        made = parse("""
            - type: Compose
              distortions:
                - type: Compose
                  distortions: [{type: GaussianBlur, sigma: [1, 2]}, {type: GaussianNoise, sigma: [5, 10]}]
                - {type: PoissonNoise, poisson_scale: [1, 2]}
        """)
        assert [d.label for d in made][:3] == [
            'GaussianBlur(sigma=1) > GaussianNoise(sigma=5) > PoissonNoise(poisson_scale=1)',
            'GaussianBlur(sigma=1) > GaussianNoise(sigma=5) > PoissonNoise(poisson_scale=2)',
            'GaussianBlur(sigma=1) > GaussianNoise(sigma=10) > PoissonNoise(poisson_scale=1)',
        ]
        assert len(set(made.labels)) == len(made) == 8

    def test_one_of_is_one_confounder_of_many_members(self) -> None:
        [made] = parse("""
            - type: OneOf
              probabilities: [0.7, 0.3]
              distortions:
                - {type: GaussianNoise, sigma: {uniform: [5, 50]}}
                - {type: PoissonNoise, poisson_scale: [0.5, 1, 2]}
        """)
        assert made.distortions == (GaussianNoise(Uniform((5, 50))), *(PoissonNoise(scale) for scale in (0.5, 1, 2)))
        assert made.probabilities == pytest.approx((0.7, 0.1, 0.1, 0.1))

    def test_one_of_without_probabilities(self) -> None:
        [made] = parse('- {type: OneOf, distortions: [{type: GaussianBlur, sigma: [1, 2]}, '
                       '{type: GaussianNoise, sigma: 5}]}')
        assert made == OneOf((GaussianBlur(1), GaussianBlur(2), GaussianNoise(5)))

    def test_lists_in_nested_blocks_share(self) -> None:
        """A product inside a member splits that member's probability; an inner OneOf is one member."""
        [made] = parse("""
            - type: OneOf
              probabilities: [2, 1]
              distortions:
                - type: Compose
                  distortions: [{type: GaussianBlur, sigma: [0.5, 1]}, {type: GaussianBlur, sigma: [0, 0.7]}]
                - type: OneOf
                  distortions: [{type: GaussianBlur, sigma: [2, 0]}]
        """)
        leaves = [Compose((GaussianBlur(a), GaussianBlur(b))) for a in (0.5, 1) for b in (0, 0.7)]
        clean = image(1, 1, 8, 8).expand(3000, -1, -1, -1)
        indices = which(made(clean, seeded()), clean, [*leaves, GaussianBlur(2), GaussianBlur(0)])
        assert shares_agree(indices, [1, 1, 1, 1, 1, 1])
        assert len(made.distortions) == 5

    def test_one_of_among_others(self) -> None:
        made = parse('[{type: GaussianNoise, sigma: 5}, {type: OneOf, distortions: [{type: GaussianBlur, sigma: 1}]}]')
        assert list(made) == [GaussianNoise(5), OneOf((GaussianBlur(1), ))]


NOISE = '{type: GaussianNoise, sigma: 5}'
BOTH = ['Compose', 'OneOf']
MISTAKES = {
    # options of the block: what the message must name
    'distortions: []': ['[0].distortions', 'length >= 1', '[]'],
    'distortions: ~': ['[0].distortions', 'None'],
    'distortions: {type: GaussianNoise, sigma: 5}': ['[0].distortions', 'a list'],
    f'distortion: [{NOISE}]': ['[0]', "'distortion'", "did you mean 'distortions'?"],
    f'distortions: [{NOISE}], sigma: 5': ['[0]', "'sigma'"],
    'distortions: [GaussianNoise]': ['[0].distortions[0]', 'expected a block with type', "'GaussianNoise'"],
    'distortions: [{sigma: 5}]': ['[0].distortions[0]', 'expected a block with type'],
    f'distortions: [{NOISE}, {{type: GausianNoise}}]': ['[0].distortions[1].type', "did you mean 'GaussianNoise'?"],
    f'distortions: [{NOISE}, {{type: GaussianNoise}}]': ['[0].distortions[1]', "option 'sigma' is missing"],
    f'distortions: [{NOISE}, {{type: GaussianNoise, sigma: -5}}]': ['[0].distortions[1].sigma', '>= 0', '-5'],
    f'distortions: [{NOISE}, {{type: GaussianNoise, sigma: [1, -5]}}]': ['[0].distortions[1].sigma', '>= 0', '-5'],
    f'distortions: [{NOISE}, {{type: GaussianNoise, sigma: []}}]': ['[0].distortions[1].sigma', 'the list is empty'],
    'distortions: [{type: GaussianNoise, sigma: {uniform: [-5, 1]}}]': [
        '[0].distortions[0].sigma.uniform[0]', '>= 0', '-5'],
    'distortions: [{type: Compose, distortions: [{type: OneOf, distortions: [{type: GaussianNoise, sigma: -5}]}]}]': [
        '[0].distortions[0].distortions[0].distortions[0].sigma', '-5'],
    'distortions: [{type: OneOf, distortions: [{type: Compose, distortions: []}]}]': [
        '[0].distortions[0].distortions[0].distortions', 'length >= 1'],
    # A number of draws is for the set of confounders: inside a block it has no meaning, and is refused.
    'distortions: [{type: GaussianNoise, sigma: 5, draws: 2}]': ['[0].distortions[0].draws', '2', 'outermost entry'],
}


@pytest.mark.parametrize('kind', BOTH)
@pytest.mark.parametrize('options', list(MISTAKES))
def test_mistake_is_named(kind: str, options: str) -> None:
    check_message(f'- {{type: {kind}, {options}}}', MISTAKES[options])


@pytest.mark.parametrize('kind', BOTH)
def test_an_unknown_option_and_the_missing_one_are_both_named(kind: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(f'- {{type: {kind}, steps: []}}')
    unknown, missing = str(caught.value).splitlines()
    assert unknown.startswith('distortions[0]')
    assert "'steps'" in unknown
    assert 'allowed: distortions' in unknown
    assert missing == "error: distortions[0]: option 'distortions' is missing"


TWO = f'distortions: [{NOISE}, {{type: GaussianBlur, sigma: [1, 2]}}]'
MISTAKES_OF_ONE_OF = {
    f'{TWO}, probabilities: []': ['[0].probabilities', 'each of the 2', '[]'],
    f'{TWO}, probabilities: [1, 1, 1]': ['[0].probabilities', 'each of the 2', '[1.0, 1.0, 1.0]'],
    f'{TWO}, probabilities: [1, -1]': ['[0].probabilities', '-1'],
    f'{TWO}, probabilities: [0, 0]': ['[0].probabilities', 'not all 0'],
    f'{TWO}, probabilities: [.nan, 1]': ['[0].probabilities', 'nan'],
    f'{TWO}, probabilities: [1, .inf]': ['[0].probabilities[1]', 'inf'],
    f'{TWO}, probabilities: 1': ['[0].probabilities', 'a list', '1'],
    f'{TWO}, probabilities: [a, 1]': ['[0].probabilities[0]', "'a'"],
    f'{TWO}, probability: [1, 1]': ['[0]', "'probability'", "did you mean 'probabilities'?"],
    f'distortions: [{NOISE}, {{type: Downsample, scale: 2}}]': ['[0].distortions', 'alike', 'Downsample(scale=2)'],
    'distortions: [{type: Downsample, scale: [2, 3]}]': ['[0].distortions', 'alike', 'Downsample(scale=3)'],
}


@pytest.mark.parametrize('options', list(MISTAKES_OF_ONE_OF))
def test_mistake_in_one_of_is_named(options: str) -> None:
    check_message(f'- {{type: OneOf, {options}}}', MISTAKES_OF_ONE_OF[options])


def test_mixed_scales_deep_inside() -> None:
    check_message(f'- {{type: Compose, distortions: [{NOISE}, {{type: OneOf, distortions: [{NOISE}, '
                  '{type: Downsample, scale: 2}]}]}', ['[0].distortions[1].distortions', 'alike'])


def test_mixed_scales_of_the_product() -> None:
    """Compose may mix scales inside, but the set of what it makes may not."""
    assert parse('- {type: Compose, distortions: [{type: Downsample, scale: 2}, {type: Downsample, scale: 3}]}').scale \
        == 6
    with pytest.raises(OptionError, match=r'distortions: all confounders must change the resolution alike'):
        parse('- {type: Compose, distortions: [{type: Downsample, scale: [2, 3]}]}')


def check_message(text: str, parts: list[Any]) -> None:
    with pytest.raises(OptionError) as caught:
        parse(text)
    message = str(caught.value)
    assert re.match(rf'distortions{re.escape(parts[0])}[:.\[]', message), message
    for part in parts[1:]:
        assert part in message
    assert '\n' not in message
