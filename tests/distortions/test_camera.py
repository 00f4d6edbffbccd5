"""Camera noise: its moments in the space where it comes in, and what every distortion promises."""

import math
from typing import Any

import cv2
import kornia
import numpy as np
import pytest
import torch
import yaml
from scipy import ndimage, stats
from skimage import data
from torch import Tensor

from dil_plugin.distortions import DistortionSet, isp, parse_distortions
from dil_plugin.distortions.camera import CameraNoise, add_noise, noise_in_linear, noise_in_raw
from dil_plugin.distortions.degrees import Uniform
from dil_plugin.errors import OptionError

SPACES = ['raw', 'linear', 'srgb', 'srgb_jpeg']
PIPELINES = ['raw', 'linear']
SHAPES = [(2, 3, 24, 32), (1, 3, 37, 51), (3, 1, 33, 40), (1, 1, 17, 16)]

each_space = pytest.mark.parametrize('space', SPACES)
each_shape = pytest.mark.parametrize('shape', SHAPES)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parse(text: str) -> DistortionSet:
    return parse_distortions(yaml.safe_load(text))


def smooth(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    """Crops of a photograph."""
    photo = torch.from_numpy(data.astronaut() / 255).permute(2, 0, 1).to(dtype)
    crops = [photo[:shape[1], 16 * b:16 * b + shape[2], 180:180 + shape[3]] for b in range(shape[0])]
    return torch.stack(crops).contiguous()


def srgb_to_linear(values: Tensor) -> Tensor:
    return torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055)**2.4)


def check_moments(noise: Tensor, std: float) -> None:
    """Zero mean and the standard deviation; bounds of five sigma of Gaussian noise."""
    n = noise.numel()
    assert abs(noise.mean().item()) < 5 * std / math.sqrt(n)
    assert abs(noise.std().item() / std - 1) < 5 / math.sqrt(2 * n)


def correlation(noise: Tensor, dim: int) -> float:
    """Of neighbours along a dimension, over the mean variance."""
    size = noise.shape[dim]
    product = noise.narrow(dim, 0, size - 1) * noise.narrow(dim, 1, size - 1)
    return (product.mean() / noise.square().mean()).item()


def srgb_response(space: str) -> Any:
    """The options that make the response known, in the spaces that have one."""
    return {'response': 'srgb'} if space in ('raw', 'linear') else {}


class TestMoments:

    @pytest.mark.parametrize('signal', [0, 0.1, 0.5, 0.9])
    @pytest.mark.parametrize(('shot', 'read'), [(0.16, 0), (0, 0.06), (0.16, 0.06), (0.02, 0.01)])
    def test_variance_is_linear_in_the_signal(self, signal: float, shot: float, read: float) -> None:
        clean = torch.full((2, 3, 100, 100), signal, dtype=torch.float64)
        noise = add_noise(clean, shot, read, seeded()) - clean
        variance = signal * shot**2 + read**2
        if variance == 0:
            assert not noise.any()
        else:
            check_moments(noise, math.sqrt(variance))

    def test_no_shot_noise_below_zero(self) -> None:
        clean = torch.full((2, 3, 100, 100), -0.1, dtype=torch.float64)
        check_moments(add_noise(clean, 0.2, 0.03, seeded()) - clean, 0.03)

    def test_samples_have_levels_of_their_own(self) -> None:
        clean = torch.full((3, 3, 100, 100), 0.5, dtype=torch.float64)
        shot, read = torch.tensor([0.1, 0, 0.1]), torch.tensor([0.02, 0.0, 0])
        noise = add_noise(clean, shot.double(), read.double(), seeded()) - clean
        check_moments(noise[0], math.sqrt(0.5 * 0.1**2 + 0.02**2))
        assert not noise[1].any()
        check_moments(noise[2], math.sqrt(0.5 * 0.1**2))

    @pytest.mark.parametrize('value', [0.25, 0.5, 0.7])
    def test_srgb(self, value: float) -> None:
        clean = torch.full((2, 3, 128, 128), value, dtype=torch.float64)
        noise = CameraNoise('srgb', 0.05, 0.02)(clean, seeded()) - clean
        check_moments(noise, math.sqrt(value * 0.05**2 + 0.02**2))
        assert all(abs(correlation(noise, dim)) < 5 / math.sqrt(noise.numel() / 2) for dim in (1, 2, 3))

    @pytest.mark.parametrize('value', [0.5, 0.6, 0.8])
    def test_linear(self, value: float) -> None:
        clean = torch.full((2, 3, 128, 128), value, dtype=torch.float64)
        linear = srgb_to_linear(clean)
        noisy = CameraNoise('linear', 0.05, 0.01, response='srgb')(clean, seeded())
        noise = srgb_to_linear(noisy) - linear
        check_moments(noise, math.sqrt(linear.mean().item() * 0.05**2 + 0.01**2))
        assert all(abs(correlation(noise, dim)) < 5 / math.sqrt(noise.numel() / 2) for dim in (1, 2, 3))

    @pytest.mark.parametrize('rgb', [(0.5, 0.5, 0.5), (0.8, 0.4, 0.3), (0.2, 0.3, 0.7)])
    def test_raw(self, rgb: tuple[float, float, float]) -> None:
        """Pixels keep the value of the colour that they see, so the sensor's noise can be read off the image."""
        clean = torch.tensor(rgb, dtype=torch.float64).view(1, 3, 1, 1).expand(4, 3, 128, 128)
        camera = isp.draw_camera('srgb', clean, seeded(1))
        patterns = torch.arange(4)
        noisy = noise_in_raw(clean, camera, patterns, 0.08, 0.01, seeded())
        sensor, noise = camera.unprocess(clean), camera.unprocess(noisy) - camera.unprocess(clean)
        for b in range(4):
            for channel, mask in enumerate(isp.bayer_masks(patterns, clean)[b].bool()):
                signal = sensor[b, channel, 0, 0].item()
                check_moments(noise[b, channel][mask], math.sqrt(signal * 0.08**2 + 0.01**2))

    def test_raw_noise_is_spread_by_demosaicing(self) -> None:
        """Each direction by itself: along (1/2 n + 1/2 n', n', …) the variance is 3/4, of neighbours' product 1/2."""
        clean = torch.full((4, 3, 128, 128), 0.5, dtype=torch.float64)
        camera = isp.draw_camera('srgb', clean, seeded(1))
        noisy = noise_in_raw(clean, camera, torch.arange(4), 0, 0.01, seeded())
        noise = camera.unprocess(noisy) - camera.unprocess(clean)
        for channel, expected in enumerate([0.5 / 0.75, 0.25 / 0.625, 0.5 / 0.75]):
            for dim in (1, 2):
                assert correlation(noise[:, channel], dim) == pytest.approx(expected, abs=0.03)

    def test_raw_noise_of_the_distortion_is_spatially_correlated(self) -> None:
        clean = torch.full((4, 3, 128, 128), 0.5, dtype=torch.float64)
        noise = CameraNoise('raw', 0, 0.01)(clean, seeded()) - clean
        assert min(correlation(noise, 2), correlation(noise, 3)) > 0.2

    @pytest.mark.parametrize('space', ['srgb', 'linear'])
    def test_default_ranges_are_per_sample(self, space: str) -> None:
        """The levels of many samples, from their spread, follow the uniform law."""
        clean = torch.full((400, 3, 24, 24), 0.5, dtype=torch.float64)
        distortion = CameraNoise(space, shot=0, **srgb_response(space))
        noisy = distortion(clean, seeded())
        noise = noisy - clean if space == 'srgb' else srgb_to_linear(noisy) - srgb_to_linear(clean)
        levels = noise.flatten(1).std(1).numpy()
        assert stats.kstest(levels, stats.uniform(0, 0.06).cdf).pvalue > 1e-3
        assert distortion.read == Uniform((0, 0.06))
        assert CameraNoise('raw').shot == Uniform((0, 0.16))

    def test_gray_noise_is_the_luma_of_colour_noise(self) -> None:
        clean = torch.full((2, 1, 128, 128), 0.5, dtype=torch.float64)
        noise = CameraNoise('srgb', 0, 0.04)(clean, seeded()) - clean
        check_moments(noise, 0.04 * math.sqrt(0.2989**2 + 0.587**2 + 0.114**2))

    @pytest.mark.parametrize(('value', 'sign'), [(0.0, 1), (1.0, -1)])
    @pytest.mark.parametrize('space', ['srgb', 'linear'])
    def test_clipped_once_at_the_end(self, space: str, value: float, sign: int) -> None:
        """Half of the values are cut; those that are not, keep the half normal of the read noise in their space."""
        clean = torch.full((2, 3, 128, 128), value, dtype=torch.float64)
        noisy = CameraNoise(space, 0, 0.05, **srgb_response(space))(clean, seeded())
        n = noisy.numel()
        assert abs((noisy == value).double().mean().item() - 0.5) < 5 * 0.5 / math.sqrt(n)
        signal = noisy if space == 'srgb' else srgb_to_linear(noisy)
        spread = 0.05 * math.sqrt(0.5 - 1 / (2 * math.pi))
        shift = sign * (signal.mean().item() - value)
        assert abs(shift - 0.05 / math.sqrt(2 * math.pi)) < 5 * spread / math.sqrt(n)


class TestWithoutNoise:

    @pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
    @pytest.mark.parametrize('response', ['srgb', 'gamma', 'filmic', 'random'])
    @each_shape
    def test_linear_and_srgb_are_the_identity(self, shape: tuple[int, ...], response: Any, dtype: torch.dtype) -> None:
        clean = smooth(shape, dtype)
        assert torch.equal(CameraNoise('srgb', 0, 0)(clean, seeded()), clean)
        distorted = CameraNoise('linear', 0, 0, response)(clean, seeded())
        torch.testing.assert_close(distorted, clean, atol=1e-4, rtol=0)

    @pytest.mark.parametrize('channels', [3, 1])
    def test_raw_is_demosaicing_alone(self, channels: int) -> None:
        """Interpolation is exact where the signal is linear: a blurred image changes by a few levels, a flat not."""
        flat = torch.full((4, channels, 9, 12), 0.3, dtype=torch.float64)
        torch.testing.assert_close(CameraNoise('raw', 0, 0)(flat, seeded()), flat, atol=1e-12, rtol=0)
        sharp = smooth((8, channels, 40, 40))
        soft = torch.from_numpy(ndimage.gaussian_filter(sharp.numpy(), (0, 0, 3, 3)))
        losses = [(CameraNoise('raw', 0, 0)(image, seeded()) - image).abs().mean().item() for image in (sharp, soft)]
        assert losses[1] < 0.1 * losses[0]
        assert losses[1] < 1 / 255

    def test_raw_is_what_kornia_makes_of_the_mosaic(self) -> None:
        clean = smooth((1, 3, 24, 32))
        camera = isp.draw_camera('filmic', clean, seeded())
        ours = noise_in_raw(clean, camera, torch.tensor([isp.PATTERNS.index('GRBG')]), 0, 0, seeded())
        cfa = kornia.color.CFA.GB
        sensor = kornia.color.raw_to_rgb(kornia.color.rgb_to_raw(camera.unprocess(clean), cfa), cfa)
        torch.testing.assert_close(ours[..., 1:-1, 1:-1], camera.process(sensor)[..., 1:-1, 1:-1], atol=1e-12, rtol=0)

    def test_raw_takes_the_four_patterns_alike(self) -> None:
        """A lone white pixel comes back in the colour in which the sensor sees it."""
        seen = []
        for column in (4, 5):
            point = torch.zeros(800, 3, 9, 9, dtype=torch.float64)
            point[:, :, 4, column] = 1
            seen.append(CameraNoise('raw', 0, 0)(point, seeded())[:, :, 4, column].argmax(1))
        red, green, blue = range(3)
        counts = [((seen[0] == left) & (seen[1] == right)).sum().item()
                  for left, right in ((red, green), (green, red), (green, blue), (blue, green))]
        assert sum(counts) == 800
        assert stats.chisquare(counts).pvalue > 1e-3

    def test_raw_has_a_camera_per_sample(self) -> None:
        clean = smooth((1, 3, 16, 16)).expand(64, -1, -1, -1)
        losses = (CameraNoise('raw', 0, 0, 'srgb')(clean, seeded()) - clean).abs().flatten(1).mean(1)
        assert len(losses.mul(1e9).round().unique()) == 64

    def test_jpeg_is_the_codec_of_opencv(self) -> None:
        clean = (smooth((1, 3, 64, 64)) * 255).round() / 255
        ours = CameraNoise('srgb_jpeg', 0, 0, quality=60)(clean, seeded())[0].permute(1, 2, 0).numpy() * 255
        pixels = (clean[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        _, stream = cv2.imencode('.jpg', pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])
        theirs = cv2.imdecode(stream, cv2.IMREAD_COLOR)[..., ::-1].astype(float)
        assert abs(ours - theirs).mean() < 0.1 * abs(theirs - pixels).mean()

    def test_jpeg_quality_is_per_sample(self) -> None:
        clean = smooth((1, 3, 64, 64)).expand(32, -1, -1, -1)
        losses = (CameraNoise('srgb_jpeg', 0, 0)(clean, seeded()) - clean).square().flatten(1).mean(1)
        ends = [(CameraNoise('srgb_jpeg', 0, 0, quality=q)(clean[:1], seeded()) - clean[:1]).square().mean()
                for q in (100, 60)]
        assert len(losses.unique()) > 15
        assert (losses >= ends[0]).all()
        assert (losses <= ends[1]).all()


class TestAnyDistortion:

    @each_space
    @each_shape
    @pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16, torch.float16])
    def test_shape_dtype_and_range(self, space: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        clean = smooth(shape, dtype)
        before = clean.clone()
        distorted = CameraNoise(space)(clean, seeded())
        assert (distorted.shape, distorted.dtype) == (clean.shape, dtype)
        assert 0 <= distorted.min() <= distorted.max() <= 1
        assert torch.equal(clean, before)
        assert not torch.equal(distorted, clean)

    @each_space
    @pytest.mark.parametrize('response', ['srgb', 'gamma', 'filmic', 'random'])
    def test_strongest_noise_stays_in_range(self, space: Any, response: Any) -> None:
        clean = torch.rand(4, 3, 16, 16, generator=seeded()).round()
        chosen = {'response': response} if space in ('raw', 'linear') else {}
        distorted = CameraNoise(space, 1, 1, **chosen)(clean, seeded())
        assert distorted.isfinite().all()
        assert 0 <= distorted.min() <= distorted.max() <= 1

    @each_space
    def test_same_seed_same_image(self, space: Any) -> None:
        clean = smooth(SHAPES[0])
        first, again, other = (CameraNoise(space)(clean, seeded(seed)) for seed in (7, 7, 8))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    @each_space
    def test_generator_leaves_the_global_stream(self, space: Any) -> None:
        state = torch.get_rng_state()
        CameraNoise(space)(smooth(SHAPES[0]), seeded())
        assert torch.equal(torch.get_rng_state(), state)

    @each_space
    def test_without_generator_the_global_one_is_used(self, space: Any) -> None:
        clean = smooth(SHAPES[0])
        torch.manual_seed(3)
        first = CameraNoise(space)(clean)
        torch.manual_seed(3)
        assert torch.equal(CameraNoise(space)(clean), first)

    @pytest.mark.parametrize('space', PIPELINES)
    def test_no_sample_takes_anothers_image(self, space: str) -> None:
        """With the same draws, another first image leaves the second as it was."""
        clean = smooth((2, 3, 16, 16))
        changed = torch.stack([1 - clean[0], clean[1]])
        first, second = (CameraNoise(space)(images, seeded()) for images in (clean, changed))
        assert torch.equal(first[1], second[1])
        assert not torch.equal(first[0], second[0])

    def test_no_sample_takes_anothers_response(self) -> None:
        clean = smooth((3, 3, 16, 16))
        response = isp.draw_response('random', clean, seeded(5))
        shot = torch.tensor([0.1, 0, 0.1], dtype=torch.float64)
        noisy = noise_in_linear(clean, response, shot, 0, seeded())
        torch.testing.assert_close(noisy[1], clean[1], atol=1e-12, rtol=0)

    @pytest.mark.parametrize(('space', 'least'), [('raw', 2), ('linear', 1), ('srgb', 1), ('srgb_jpeg', 1)])
    def test_least_size(self, space: Any, least: int) -> None:
        distortion = CameraNoise(space)
        assert distortion.min_size == least
        assert distortion(torch.rand(2, 3, least, least, generator=seeded()), seeded()).isfinite().all()

    def test_too_small_an_image(self) -> None:
        with pytest.raises(ValueError, match=r'CameraNoise\(space=raw\): .*at least 2x2 pixels, got 1x8'):
            CameraNoise('raw')(torch.rand(1, 3, 1, 8))

    @each_space
    @pytest.mark.parametrize('channels', [2, 4])
    def test_neither_colour_nor_gray(self, space: Any, channels: int) -> None:
        with pytest.raises(ValueError, match=f'space={space}.*expected 3 channels, or 1 for grey, got {channels}'):
            CameraNoise(space)(torch.rand(1, channels, 8, 8))

    @each_space
    @pytest.mark.parametrize('channels', [3, 1])
    def test_reads_nothing_back_from_the_device(self, space: Any, channels: int) -> None:
        """Tensors on the meta device have no values that the host could wait for."""
        clean = torch.zeros(2, channels, 9, 8, device='meta')
        assert CameraNoise(space)(clean).shape == clean.shape


class TestYaml:

    def test_four_confounders(self) -> None:
        confounders = parse('- {type: CameraNoise, space: [raw, linear, srgb, srgb_jpeg]}')
        assert list(confounders) == [CameraNoise(space) for space in SPACES]
        assert confounders.labels == [f'CameraNoise(space={space})' for space in SPACES]

    def test_ranges_and_products(self) -> None:
        [first, second] = parse('- {type: CameraNoise, space: raw, shot: [0.1, {uniform: [0, 0.2]}], read: 0.01, '
                                'response: filmic}')
        assert first == CameraNoise('raw', 0.1, 0.01, 'filmic')
        assert second == CameraNoise('raw', Uniform((0, 0.2)), 0.01, 'filmic')

    @pytest.mark.parametrize(('options', 'message'), [
        ('', r"option 'space' is missing"),
        ('space: yuv', r'distortions\[0\].space: .*yuv.*allowed: .*raw'),
        ('space: raw, shot: -0.1', r'distortions\[0\].shot: .*-0.1'),
        ('space: raw, read: {uniform: [-1, 1]}', r'distortions\[0\].read.uniform\[0\]: .*>= 0'),
        ('space: raw, read: {uniform: [0.2, 0.1]}', r'distortions\[0\].*low <= high'),
        ('space: raw, response: log', r'distortions\[0\].response: .*allowed: .*filmic'),
        ('space: srgb_jpeg, quality: 0', r'distortions\[0\].quality: .*>= 1'),
        ('space: srgb_jpeg, quality: {uniform: [50, 101]}', r'distortions\[0\].quality.uniform\[1\]: .*<= 100'),
        ('space: raw, sigma: 3', r"unknown option 'sigma'"),
    ])
    def test_errors_name_the_option(self, options: str, message: str) -> None:
        with pytest.raises(OptionError, match=message):
            parse(f'- {{type: CameraNoise, {options}}}')
