"""Blur, noise and JPEG in a row, and the levels and grids that its YAML block makes."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy import stats
from skimage import data
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor

from dil_plugin.distortions import (
    JPEG,
    DistortionSet,
    GaussianBlur,
    GaussianNoise,
    Hybrid,
    Uniform,
    draw,
    parse_distortions,
)
from dil_plugin.errors import OptionError

BOXES = {
    # as published, each range from low to high: blur, noise, JPEG quality
    'mild': ((0, 2), (0, 20), (60, 100)),
    'moderate': ((1, 3.5), (10, 35), (35, 80)),
    'severe': ((2.5, 5), (25, 50), (10, 50)),
}
each_level = pytest.mark.parametrize('level', BOXES)


def parse(text: str) -> DistortionSet:
    return parse_distortions(yaml.safe_load(text))


def degrees(confounders: DistortionSet) -> list[tuple[Any, ...]]:
    return [(d.blur_sigma, d.noise_sigma, d.jpeg_quality) for d in confounders]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photograph(size: int = 128) -> Tensor:
    pixels = data.astronaut()[:size, 160:160 + size]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255


class TestImages:

    @pytest.mark.parametrize(('blur', 'noise', 'quality'), [
        (1.5, 20, 40), (0, 20, 40), (1.5, 0, 40), (Uniform((0, 3)), Uniform((0, 50)), Uniform((10, 100))),
        (Uniform((1, 2)), 10, Uniform((30, 70)))
    ])
    def test_equals_the_steps_in_order(self, blur: Any, noise: Any, quality: Any) -> None:
        clean, generator = photograph(48).expand(3, -1, -1, -1), seeded()
        expected = clean
        for step in (GaussianBlur(blur), GaussianNoise(noise), JPEG(quality)):
            expected = step(expected, generator)
        assert torch.equal(Hybrid(blur, noise, quality)(clean, seeded()), expected)

    def test_order_matters_here(self) -> None:
        """Noise after the blur is white before JPEG; at quality 100 little of that is lost."""
        clean = torch.full((1, 1, 128, 128), 0.5)
        noise = (Hybrid(2, 20, 100)(clean, seeded()) - clean)[0, 0] * 255
        assert noise.std().item() == pytest.approx(20, rel=0.03)
        assert abs((noise[1:] * noise[:-1]).mean().item()) < 400 * 5 / 128

    @pytest.mark.parametrize('shape', [(1, 3, 17, 23), (2, 1, 16, 16), (1, 3, 16, 41)])
    @each_level
    def test_shapes(self, level: str, shape: tuple[int, ...]) -> None:
        [hybrid] = parse(f'- {{type: Hybrid, level: {level}}}')
        clean = torch.rand(shape, generator=seeded(1))
        before = clean.clone()
        made = hybrid(clean, seeded())
        assert made.shape == clean.shape
        assert made.min() >= 0
        assert made.max() <= 1
        assert torch.equal(clean, before)
        assert torch.equal(hybrid(clean, seeded()), made)

    def test_worse_from_level_to_level(self) -> None:
        """PSNR of an average over degrees, and of the strongest and the weakest of each level."""
        clean = photograph()
        for grid, copies in (('', 12), (', grid: corners', 1)):
            quality = {}
            for level in BOXES:
                images = [hybrid(clean.expand(copies, -1, -1, -1), seeded())
                          for hybrid in parse(f'- {{type: Hybrid, level: {level}{grid}}}')]
                quality[level] = [peak_signal_noise_ratio(clean[0].numpy(), one.numpy(), data_range=1)
                                  for one in torch.cat(images)]
            for statistic in (np.mean, np.min, np.max):
                values = [statistic(quality[level]) for level in ('mild', 'moderate', 'severe')]
                assert values[0] > values[1] + 0.5 > values[2] + 1

    def test_each_degree_makes_it_worse(self) -> None:
        """From the weakest corner of mild. With strong noise it need not: JPEG then removes more noise than it adds."""
        clean = photograph()

        def quality(*degrees: float) -> float:
            return peak_signal_noise_ratio(clean.numpy(), Hybrid(*degrees)(clean, seeded()).numpy(), data_range=1)

        weakest = quality(0, 0, 100)
        assert weakest > 35
        for corner in ((2, 0, 100), (0, 20, 100), (0, 0, 60)):
            assert quality(*corner) < weakest - 3

    def test_least_size_is_that_of_the_blur(self) -> None:
        assert [Hybrid(sigma, 10, 50).min_size for sigma in (0, 1, Uniform((1, 2)))] == [1, 4, 7]
        with pytest.raises(ValueError, match='at least 16x16'):
            Hybrid(5, 10, 50)(torch.rand(1, 3, 15, 20))


class TestLevels:

    @each_level
    def test_box(self, level: str) -> None:
        [hybrid] = parse(f'- {{type: Hybrid, level: {level}}}')
        assert degrees([hybrid]) == [tuple(Uniform(ends) for ends in BOXES[level])]

    @each_level
    def test_degrees_of_a_batch_fill_the_box(self, level: str) -> None:
        """Drawn one degree at a time, as the steps do."""
        [hybrid] = parse(f'- {{type: Hybrid, level: {level}}}')
        clean = torch.zeros(4000, 1, 1, 1, dtype=torch.float64)
        drawn = [draw(degree, clean, seeded(k)) for k, degree in enumerate(degrees([hybrid])[0])]
        for values, (low, high) in zip(drawn, BOXES[level], strict=True):
            assert stats.kstest(values.numpy(), stats.uniform(low, high - low).cdf).pvalue > 1e-3

    @each_level
    def test_deviation_of_a_batch_fills_the_range(self, level: str) -> None:
        """Noise of a flat image, measured before JPEG could change it: at the finest quality."""
        [hybrid] = parse(f'- {{type: Hybrid, level: {level}}}')
        clean = torch.full((300, 1, 32, 32), 0.5)
        made = Hybrid(hybrid.blur_sigma, hybrid.noise_sigma, 100)(clean, seeded())
        measured = (made - clean).flatten(1).std(1).numpy() * 255
        low, high = BOXES[level][1]
        assert measured.min() > 0.85 * low - 0.1
        assert measured.max() < 1.15 * high
        assert stats.kstest(measured, stats.uniform(low, high - low).cdf).pvalue > 1e-3

    def test_list_of_levels(self) -> None:
        both = parse('- {type: Hybrid, level: [severe, mild]}')
        one_by_one = parse('[{type: Hybrid, level: severe}, {type: Hybrid, level: mild}]')
        assert list(both) == list(one_by_one)
        assert len(parse('- {type: Hybrid, level: [severe, mild], grid: four_corners}')) == 8

    def test_label(self) -> None:
        [hybrid] = parse('- {type: Hybrid, level: moderate}')
        assert hybrid.label == 'Hybrid(blur_sigma=1..3.5, noise_sigma=10..35, jpeg_quality=35..80)'


class TestGrids:

    @each_level
    def test_corners_are_all_eight(self, level: str) -> None:
        made = degrees(parse(f'- {{type: Hybrid, level: {level}, grid: corners}}'))
        assert len(made) == 8
        assert set(made) == set(itertools.product(*BOXES[level]))

    @each_level
    def test_four_corners_are_a_balanced_half(self, level: str) -> None:
        made = degrees(parse(f'- {{type: Hybrid, level: {level}, grid: four_corners}}'))
        box = BOXES[level]
        assert len(made) == len(set(made)) == 4
        assert set(made) < set(itertools.product(*box))
        signs = np.array([[1 if degree == ends[1] else -1 for degree, ends in zip(corner, box, strict=True)]
                          for corner in made])
        assert (signs.sum(0) == 0).all()
        assert (signs.T @ signs == 4 * np.eye(3)).all()

    @each_level
    def test_four_corners_hold_the_strongest(self, level: str) -> None:
        (_, blur), (_, noise), (quality, _) = BOXES[level]
        assert (blur, noise, quality) in degrees(parse(f'- {{type: Hybrid, level: {level}, grid: four_corners}}'))

    @each_level
    @pytest.mark.parametrize('grid', [[2, 3, 1], [1, 1, 1], [4, 2, 5], [2, 2, 2]])
    def test_even_grid(self, level: str, grid: list[int]) -> None:
        made = degrees(parse(f'- {{type: Hybrid, level: {level}, grid: {grid}}}'))
        axes = [np.linspace(*ends, count) if count > 1 else [np.mean(ends)]
                for ends, count in zip(BOXES[level], grid, strict=True)]
        np.testing.assert_allclose(sorted(made), list(itertools.product(*axes)), rtol=1e-12)

    def test_no_grid(self) -> None:
        assert list(parse('- {type: Hybrid, level: mild, grid: ~}')) == list(parse('- {type: Hybrid, level: mild}'))


class TestDegrees:

    def test_lists_make_their_product(self) -> None:
        made = degrees(parse('- {type: Hybrid, blur_sigma: [1, 2], noise_sigma: 5, jpeg_quality: [90, 30]}'))
        assert made == [(1, 5, 90), (1, 5, 30), (2, 5, 90), (2, 5, 30)]

    def test_ranges(self) -> None:
        made = degrees(parse('- {type: Hybrid, blur_sigma: {uniform: [0, 1]}, noise_sigma: 5, jpeg_quality: 30}'))
        assert made == [(Uniform((0, 1)), 5, 30)]


MISTAKES = {
    '{level: sever}': ['distortions[0].level', "'sever'", 'mild, moderate, severe'],
    '{level: [mild, sever]}': ['distortions[0].level', "'sever'", 'mild, moderate, severe'],
    '{level: ~}': ['distortions[0].level', 'None'],
    '{level: [[mild, severe]]}': ['distortions[0].level', "['mild', 'severe']"],
    '{level: mild, grid: four}': ['distortions[0].grid', "'four'", 'four_corners, corners'],
    '{level: mild, grid: []}': ['distortions[0].grid', 'length 3', '[]'],
    '{level: mild, grid: [2, 2]}': ['distortions[0].grid', 'length 3', '[2, 2]'],
    '{level: mild, grid: [2, 0, 2]}': ['distortions[0].grid[1]', '>= 1', '0'],
    '{level: mild, grid: [2, 1.5, 2]}': ['distortions[0].grid[1]', '1.5'],
    '{level: mild, blur_sigma: 1}': ['distortions[0].blur_sigma', 'level', 'one or the other'],
    '{levels: mild}': ['distortions[0]', "'levels'", "did you mean 'level'?"],
    '{level: mild, draws: ~}': ['distortions[0].draws', 'None'],
    '{grid: corners}': ['distortions[0].level: missing', 'mild, moderate, severe'],
    '{}': ['distortions[0]', 'missing', 'blur_sigma'],
    '{blur_sigma: 1, noise_sigma: 1}': ['distortions[0]', 'missing', 'jpeg_quality'],
    '{blur_sigma: -1, noise_sigma: 1, jpeg_quality: 50}': ['distortions[0].blur_sigma', '>= 0', '-1'],
    '{blur_sigma: 1, noise_sigma: -1, jpeg_quality: 50}': ['distortions[0].noise_sigma', '>= 0', '-1'],
    '{blur_sigma: 1, noise_sigma: 1, jpeg_quality: 0}': ['distortions[0].jpeg_quality', '>= 1', '0'],
    '{blur_sigma: 1, noise_sigma: 1, jpeg_quality: {uniform: [10, 101]}}': [
        'distortions[0].jpeg_quality.uniform[1]', '<= 100', '101'],
    '{blur_sigma: [], noise_sigma: 1, jpeg_quality: 50}': ['distortions[0].blur_sigma', 'the list is empty'],
    '{level: []}': ['distortions[0].level', 'the list is empty'],
}


@pytest.mark.parametrize('options', list(MISTAKES))
def test_mistake_is_named(options: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_distortions([{'type': 'Hybrid', **yaml.safe_load(options)}, {'type': 'GaussianNoise', 'sigma': 5}])
    for part in MISTAKES[options]:
        assert part in str(caught.value)
    assert '\n' not in str(caught.value)
