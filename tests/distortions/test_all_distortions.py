"""What holds of every registered distortion, whatever it does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
import torch
import yaml
from scipy import stats
from torch import Tensor

from dil_plugin.distortions import (
    DISTORTION_REGISTRY,
    CameraNoise,
    Distortion,
    Downsample,
    GaussianNoise,
    RealESRGAN,
    parse_distortions,
)
from dil_plugin.errors import OptionError

CASES = Path(__file__).parents[1] / 'data' / 'distortions.yml'
ALL = [d for entry in yaml.safe_load(CASES.read_text()) for d in parse_distortions([entry])]
FIXED = [d for d in ALL if d.label in ('GaussianBlur(sigma=2)', 'JPEG(quality=40)', 'Resize(factor=0.5, mode=bicubic)',
                                      'Downsample(scale=2)')]
each = pytest.mark.parametrize('distortion', ALL, ids=lambda d: d.label)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photograph(height: int, width: int, batch: int = 1, channels: int = 3) -> Tensor:
    """Different crops of a photograph."""
    image = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[:channels] / 255
    return torch.stack([image[:, 3 * k:3 * k + height, 120 + k:120 + k + width] for k in range(batch)])


def test_every_class_is_here() -> None:
    ours = {name for name in DISTORTION_REGISTRY.names()
            if DISTORTION_REGISTRY.get(name).__module__.startswith('dil_plugin.')}
    assert {type(d).__name__ for d in ALL} == ours


@each
@pytest.mark.parametrize('shape', [(2, 3, 78, 110), (1, 3, 78, 82), (1, 1, 94, 78), (3, 1, 80, 80), (1, 3, 79, 101)])
def test_shape_range_and_input(distortion: Distortion, shape: tuple[int, ...]) -> None:
    """Any size (odd ones where the resolution stays), grey, a batch of one; values in [0, 1]; the input untouched."""
    batch, channels, height, width = shape
    if height % distortion.scale or width % distortion.scale:
        height, width = height + 1, width + 1
    clean = photograph(height, width, batch, channels)
    copy = clean.clone()
    out = distortion(clean, seeded())
    assert out.shape == (batch, channels, height // distortion.scale, width // distortion.scale)
    assert out.dtype == clean.dtype
    assert out.min() >= 0
    assert out.max() <= 1
    assert torch.equal(clean, copy)
    assert out.data_ptr() != clean.data_ptr()
    assert out.shape != clean.shape or not torch.equal(out, clean)


@each
def test_seed_decides_everything(distortion: Distortion) -> None:
    clean = photograph(80, 84, batch=3)
    torch.manual_seed(0)
    one = distortion(clean, seeded(7))
    torch.manual_seed(1)  # the global generator plays no part
    assert torch.equal(distortion(clean, seeded(7)), one)
    assert torch.equal(distortion(clean, seeded(8)), one) == (distortion in FIXED)


@each
def test_global_generator_serves_where_none_is_given(distortion: Distortion) -> None:
    clean = photograph(80, 84, batch=2)
    torch.manual_seed(0)
    one = distortion(clean)
    torch.manual_seed(0)
    assert torch.equal(distortion(clean), one)


@each
def test_no_gradient(distortion: Distortion) -> None:
    clean = photograph(80, 84).requires_grad_()
    assert not distortion(clean, seeded()).requires_grad


@each
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(distortion: Distortion, dtype: torch.dtype) -> None:
    clean = photograph(80, 84, batch=2).to(dtype)
    out = distortion(clean, seeded())
    assert out.dtype == dtype
    assert torch.equal(out, distortion(clean.float(), seeded()).to(dtype))


@each
def test_double_precision(distortion: Distortion) -> None:
    out = distortion(photograph(80, 84).double(), seeded())
    assert out.dtype == torch.float64


@each
def test_host_never_waits(distortion: Distortion) -> None:
    """On the meta device, whose tensors have no values, any look at one fails."""
    clean = torch.empty(4, 3, 80, 84, device='meta')
    out = distortion(clean)
    assert out.device.type == 'meta'
    assert out.shape == (4, 3, 80 // distortion.scale, 84 // distortion.scale)


@each
def test_layout_in_memory_does_not_matter(distortion: Distortion) -> None:
    clean = photograph(80, 84, batch=2)
    out = distortion(clean.contiguous(memory_format=torch.channels_last), seeded(3))
    torch.testing.assert_close(out, distortion(clean, seeded(3)), rtol=0, atol=2.1 / 255)  # JPEG may round otherwise
    assert (out - distortion(clean, seeded(3))).abs().mean() < 1e-4


def statistics(clean: Tensor, out: Tensor) -> list[np.ndarray]:
    """Of each sample: mean, spread, sharpness, and difference of the channels."""
    grey = out.mean(1)
    edges = (grey[:, 1:] - grey[:, :-1]).square().mean((1, 2)).log()
    colour = (out[:, 0] - out[:, 2]).std((1, 2))
    return [values.double().numpy() for values in (out.mean((1, 2, 3)), out.std((1, 2, 3)).log(), edges, colour)]


@each
def test_same_statistics_on_both_sides(distortion: Distortion) -> None:
    """``distort_on: device`` distorts whole batches, ``worker`` single patches: the distributions are the same.

    What is drawn once for a whole batch makes its samples alike, so there many small batches are drawn.
    """
    whole = type(distortion).__name__ == 'RealESRGAN'
    count, batch = 160, 4 if whole else 160
    clean = photograph(78, 78).expand(count, -1, -1, -1)
    device = torch.cat([distortion(part, seeded(k)) for k, part in enumerate(clean.split(batch))])
    worker = torch.cat([distortion(part, seeded(1000 + k)) for k, part in enumerate(clean.split(1))])
    sides = [statistics(clean, device), statistics(clean, worker)]
    if whole:  # one sample of each batch, so that they are independent
        sides[0] = [values[::batch] for values in sides[0]]
    for one, other in zip(*sides, strict=True):
        if distortion in FIXED:
            np.testing.assert_allclose(one, other, atol=1e-4)
        else:
            assert stats.ks_2samp(one, other).pvalue > 1e-4


def test_samples_of_a_batch_differ() -> None:
    clean = photograph(78, 78).expand(6, -1, -1, -1)
    for distortion in ALL:
        if distortion not in FIXED:
            out = distortion(clean, seeded(2))
            different = sum(not torch.equal(out[i], out[j]) for i in range(6) for j in range(i))
            assert different >= 12, distortion.label  # of 15; OneOf's noiseless member may come twice


@each
def test_too_small_an_image_is_refused_and_the_least_one_taken(distortion: Distortion) -> None:
    least = -(-distortion.min_size // distortion.scale) * distortion.scale
    for seed in range(20):
        distortion(torch.rand(2, 3, least, least + distortion.scale, generator=seeded(seed)), seeded(seed))
    if distortion.min_size > 1:
        with pytest.raises(ValueError, match='at least'):
            distortion(torch.rand(1, 3, distortion.min_size - 1, 200))


@each
def test_label_is_short_and_tells_degrees_apart(distortion: Distortion) -> None:
    assert len(distortion.label) < 120
    assert [d.label for d in ALL].count(distortion.label) == 1


@pytest.mark.parametrize(('make', 'words'), [
    (lambda: CameraNoise('rgb'), ['.space', "'rgb'", 'raw, linear, srgb, srgb_jpeg']),
    (lambda: RealESRGAN(order=3), ['.order', '3', '1, 2']),
    (lambda: GaussianNoise([5, 10]), ['.sigma', '[5, 10]', '{uniform: …}', '0-255 scale']),
    (lambda: GaussianNoise('5'), ['.sigma', "'5'"]),
    (lambda: GaussianNoise(float('inf')), ['.sigma', 'finite', 'inf']),
    (lambda: GaussianNoise(-1), ['.sigma', '-1', '>= 0']),
    (lambda: Downsample(4, mode='cubic'), ['.mode', "'cubic'", 'bicubic']),
    (lambda: CameraNoise('srgb', quality=50), ['.quality', 'srgb', 'srgb_jpeg']),
    (lambda: CameraNoise('srgb_jpeg', response='gamma'), ['.response', 'raw, linear']),
    (lambda: RealESRGAN(1, jpeg_range2=(10, 20)), ['.jpeg_range2', 'order 1']),
    (lambda: RealESRGAN(1, second_blur_prob=0.1), ['.second_blur_prob', 'order 1']),
])
def test_mistakes_in_python_are_refused_too(make: Callable[[], Distortion], words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        make()
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(('clean', 'generator', 'words'), [
    (photograph(20, 20) * 255, None, r'values in \[0, 1\], got \d+ to 193'),
    (photograph(20, 20) - 1, None, r'values in \[0, 1\], got -0.\d+ to -0.2'),
    (photograph(20, 20).numpy(), None, 'expected a tensor.*got ndarray'),
    (photograph(20, 20), 0, 'torch.Generator or None, got Tensor and int'),
])
def test_input_that_no_distortion_takes(clean: Any, generator: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GaussianNoise(5)(clean, generator)


def test_several_spaces_take_the_options_they_have_a_use_for() -> None:
    block = {'type': 'CameraNoise', 'space': ['raw', 'srgb', 'srgb_jpeg'], 'quality': [30, 60], 'response': 'gamma'}
    assert list(parse_distortions([block])) == [
        CameraNoise('raw', response='gamma'), CameraNoise('srgb'), CameraNoise('srgb_jpeg', quality=30),
        CameraNoise('srgb_jpeg', quality=60)]
    for wrong in ({'space': ['raw', 'linear'], 'quality': 30}, {'space': 'srgb', 'response': 'gamma'}):
        with pytest.raises(OptionError, match='no effect'):
            parse_distortions([{'type': 'CameraNoise', **wrong}])


def test_registry_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DISTORTION_REGISTRY, '_classes', dict(DISTORTION_REGISTRY._classes))
    with pytest.raises(ValueError, match='named JPEG is registered already'):

        @DISTORTION_REGISTRY.register
        class JPEG(Distortion, frozen=True):
            pass

    not_one: Any = int
    with pytest.raises(ValueError, match='int is not a Distortion'):
        DISTORTION_REGISTRY.register(not_one)
