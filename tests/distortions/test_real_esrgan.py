"""Real-ESRGAN's degradations against ``RealESRNetModel.feed_data`` of BasicSR, given the same kernels and draws."""

import math
import random
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import dil_plugin.basicsr  # noqa: F401  BasicSR needs its shims

# isort: split
import numpy as np
import pytest
import skimage
import torch
import yaml
from basicsr.data import degradations
from basicsr.data.realesrgan_dataset import RealESRGANDataset
from basicsr.models import realesrnet_model
from basicsr.utils import DiffJPEG, USMSharp, img_process_util
from scipy import stats
from torch import Tensor
from torch.nn import functional

from dil_plugin.distortions import MixedBlur, RealESRGAN, parse_distortions, usm_sharpen
from dil_plugin.distortions.degradation import Draws, degrade
from dil_plugin.distortions.kernels import pulse
from dil_plugin.errors import OptionError

PROBABILITIES = {'gaussian_noise_prob': 0.5, 'gray_noise_prob': 0.4, 'second_blur_prob': 0.8}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photographs(size: int = 128) -> Tensor:
    images = [skimage.data.astronaut()[:size, 150:150 + size], skimage.data.coffee()[100:100 + size, 200:200 + size],
              skimage.data.rocket()[200:200 + size, 200:200 + size]]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255


def script(values: list[Any]) -> Callable[..., Any]:
    """A random function that answers what it is told, in order."""
    answers: Iterator[Any] = iter(values)
    return lambda *_, **__: next(answers)


@pytest.fixture
def fixed_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise that depends on the shape alone; BasicSR's grey noise is the same for all samples, so here ours is."""
    field, shared = torch.randn(3, 3, 256, 256, generator=seeded(1)), torch.randn(256, 256, generator=seeded(2))

    def randn(*shape: Any, **_: Any) -> Tensor:
        size = tuple(shape[0]) if len(shape) == 1 else shape
        height, width = size[-2:]
        if len(size) == 2:
            return shared[:height, :width].clone()
        if size[1] == 1:
            return shared[:height, :width].expand(size).clone()
        return field[:size[0], :size[1], :height, :width].clone()

    def poisson(rate: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return (rate + rate.sqrt() * field[:rate.shape[0], :rate.shape[1], :rate.shape[2], :rate.shape[3]]).round()

    monkeypatch.setattr(torch, 'randn', randn)
    monkeypatch.setattr(torch, 'poisson', poisson)


def basicsr_feed_data(gt: Tensor, draws: Draws, distortion: RealESRGAN, monkeypatch: pytest.MonkeyPatch,
                      gt_usm: bool = False) -> tuple[Tensor, Tensor]:
    """``lq`` and ``gt`` of BasicSR's model when its random functions answer with ``draws``.

    For first order the second pass is made to do nothing: no blur, no noise, a resize to the final size, no JPEG.
    """
    first, second = draws.first, draws.second
    passes = [first, second] if second else [first]
    options = {name: getattr(distortion, name) for name in distortion.__struct_fields__}
    if second is None:
        options.update(noise_range2=(0, 0))
    uniforms: list[float] = []
    for number, one in enumerate(passes):
        if number == 1:
            uniforms.append(0.0 if one.kernels is not None else 1.0)
        uniforms += [one.resize] if one.resize != 1 else []
        uniforms.append(0.0 if one.gaussian else 1.0)
    uniforms += [] if second else [1.0, 0.0]  # no second blur; Gaussian noise
    uniforms.append(0.0 if draws.jpeg_last or not second else 1.0)
    rands: list[Tensor] = []
    for suffix, one in zip(('', '2'), passes, strict=False):
        low, high = options[('noise_range' if one.gaussian else 'poisson_scale_range') + suffix]
        rands += [(one.level - low) / (high - low), 1.0 - (one.gray if one.gray is not None else one.level * 0)]
    kinds = [['up'] if one.resize > 1 else ['down'] if one.resize < 1 else ['keep'] for one in passes]
    modes = [one.mode for one in passes] + ([] if second else [draws.final_mode]) + [draws.final_mode]
    qualities = iter([one.quality for one in passes] + [None])
    codec = DiffJPEG(differentiable=False)

    def jpeger(images: Tensor, quality: Tensor) -> Tensor:
        chosen = next(qualities)
        return images if chosen is None else codec(images, quality=chosen.clone())  # it writes into its argument

    def add_noise(images: Tensor, sigma_range: tuple[float, float], **options: Any) -> Tensor:
        return images if sigma_range == (0, 0) else degradations.random_add_gaussian_noise_pt(images, sigma_range,
                                                                                               **options)

    monkeypatch.setattr(realesrnet_model, 'random_add_gaussian_noise_pt', add_noise)
    monkeypatch.setattr(realesrnet_model, 'random', SimpleNamespace(choices=script(kinds + [['keep']]),
                                                                     choice=script(modes)))
    monkeypatch.setattr(realesrnet_model.np.random, 'uniform', script(uniforms))
    monkeypatch.setattr(torch, 'rand', script(rands))
    # the faults that keep it from the CPU
    monkeypatch.setattr(torch.Tensor, 'cuda', lambda self: self)
    monkeypatch.setattr(img_process_util, 'F', SimpleNamespace(
        pad=lambda *args, **kwargs: functional.pad(*args, **kwargs).contiguous(), conv2d=functional.conv2d))
    monkeypatch.setattr(realesrnet_model, 'paired_random_crop', lambda gt, lq, *_: (gt, lq))
    model = realesrnet_model.RealESRNetModel.__new__(realesrnet_model.RealESRNetModel)
    model.is_train, model.device, model.queue_size = True, torch.device('cpu'), len(gt)
    model.opt = {**options, **PROBABILITIES, 'gaussian_noise_prob2': 0.5, 'gray_noise_prob2': 0.4, 'gt_usm': gt_usm,
                 'gt_size': gt.shape[-1]}
    model.jpeger, model.usm_sharpener = jpeger, USMSharp()
    none = pulse(21, gt).expand(len(gt), 21, 21)
    model.feed_data({
        'gt': gt,
        'kernel1': first.kernels,
        'kernel2': none if second is None or second.kernels is None else second.kernels,
        'sinc_kernel': none if draws.final_kernels is None else draws.final_kernels,
    })
    return model.lq, model.gt


@pytest.mark.usefixtures('fixed_noise')
class TestAgainstBasicSR:

    @pytest.mark.parametrize('seed', range(12))
    @pytest.mark.parametrize('order', [1, 2])
    def test_equals_feed_data(self, order: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """All draws, branches and degrees; single coefficients may be rounded otherwise, for floats that differ."""
        distortion, clean = RealESRGAN(order), photographs()
        draws, = distortion.draw([clean], seeded(seed))
        ours, = degrade([clean], 4, [draws])
        theirs, _ = basicsr_feed_data(clean, draws, distortion, monkeypatch)
        difference = (ours - theirs).abs() * 255
        assert ours.shape == (3, 3, 32, 32)
        assert (difference < 0.01).float().mean() > 0.99, difference.max()
        assert difference.mean() < 0.02

    def test_the_seeds_reach_all_branches(self) -> None:
        drawn = [RealESRGAN(2).draw([photographs()], seeded(seed))[0] for seed in range(12)]
        passes = [one for draws in drawn for one in (draws.first, draws.second)]
        assert {one.gaussian for one in passes} == {True, False}
        assert {one.mode for one in passes} == {'area', 'bilinear', 'bicubic'} == {d.final_mode for d in drawn}
        assert {np.sign(one.resize - 1) for one in passes} == {-1, 0, 1}
        assert {draws.jpeg_last for draws in drawn} == {True, False}
        assert {draws.second.kernels is None for draws in drawn} == {True, False}

    @pytest.mark.parametrize('scale', [1, 2])
    def test_other_scales(self, scale: int, monkeypatch: pytest.MonkeyPatch) -> None:
        distortion, clean = RealESRGAN(2, scale=scale), photographs(96)
        draws, = distortion.draw([clean], seeded(3))
        theirs, _ = basicsr_feed_data(clean, draws, distortion, monkeypatch)
        difference = (degrade([clean], scale, [draws])[0] - theirs).abs() * 255
        assert (difference < 0.01).float().mean() > 0.99

    def test_sharpened_target(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """``gt_usm``: the target is sharpened, and the distorted image made from the sharpened one."""
        distortion, clean = RealESRGAN(2), photographs()
        draws, = distortion.draw([clean], seeded(5))
        sharp = usm_sharpen(clean)
        theirs, target = basicsr_feed_data(clean, draws, distortion, monkeypatch, gt_usm=True)
        torch.testing.assert_close(sharp, target, rtol=0, atol=1e-5)
        assert ((degrade([sharp], 4, [draws])[0] - theirs).abs() * 255 < 0.01).float().mean() > 0.99


def basicsr_kernels(count: int, **changed: Any) -> np.ndarray:
    """``kernel1`` as ``RealESRGANDataset.__getitem__`` draws it, from the published options."""
    blur = MixedBlur(**changed)
    np.random.seed(0)  # noqa: NPY002  what BasicSR draws from
    random.seed(0)
    kernels = []
    for _ in range(count):
        size = random.choice(range(7, 22, 2))
        if random.random() < blur.sinc_prob:
            low = math.pi / 3 if size < 13 else math.pi / 5
            kernel = degradations.circular_lowpass_kernel(random.uniform(low, math.pi), size)
        else:
            kernel = degradations.random_mixed_kernels(
                blur.kernel_list, blur.kernel_prob, size, blur.blur_sigma, blur.blur_sigma, [-math.pi, math.pi],
                blur.betag_range, blur.betap_range, noise_range=blur.noise_range)
        kernels.append(np.pad(kernel, (21 - size) // 2))
    return np.stack(kernels)


def moments(kernels: np.ndarray) -> list[np.ndarray]:
    """Of each kernel: height of the centre, variance along both axes, covariance, least value, size."""
    y, x = np.mgrid[-10:11, -10:11]
    size = (np.abs(kernels).max(1) > 1e-12).sum(1)
    return [kernels[:, 10, 10], (kernels * x**2).sum((1, 2)), (kernels * y**2).sum((1, 2)),
            (kernels * x * y).sum((1, 2)), kernels.min((1, 2)), size]


class TestDraws:

    @pytest.mark.parametrize('changed', [{}, {'sinc_prob': 0.0}, {'sinc_prob': 0.0, 'noise_range': (0.75, 1.25)}, {
        'sinc_prob': 0.0, 'kernel_list': ('aniso', 'plateau_aniso'), 'kernel_prob': (0.3, 0.7)}])
    def test_kernels_are_distributed_as_basicsrs(self, changed: dict[str, Any]) -> None:
        ours = MixedBlur(**changed).kernels(torch.rand(3000, 1, 1, 1), seeded()).numpy()
        theirs = basicsr_kernels(3000, **changed)
        for one, other in zip(moments(ours), moments(theirs), strict=True):
            assert stats.ks_2samp(one, other).pvalue > 1e-3

    def test_sinc_kernels_of_each_size(self) -> None:
        """Kernels below 13 pixels have the higher least cut-off."""
        changed = {'sinc_prob': 1.0}
        ours = MixedBlur(**changed).kernels(torch.rand(6000, 1, 1, 1), seeded()).numpy()
        theirs = basicsr_kernels(6000, **changed)
        for size in range(7, 22, 2):
            one, other = (k[moments(k)[5] == size][:, 10, 10] for k in (ours, theirs))
            assert abs(len(one) - 750) < 110
            assert stats.ks_2samp(one, other).pvalue > 1e-3

    @pytest.mark.parametrize('family', ['iso', 'aniso', 'generalized_iso', 'generalized_aniso', 'plateau_iso',
                                        'plateau_aniso'])
    def test_single_families(self, family: Any) -> None:
        changed = {'sinc_prob': 0.0, 'kernel_list': (family, ), 'kernel_prob': (1.0, )}
        ours = MixedBlur(**changed).kernels(torch.rand(2000, 1, 1, 1), seeded()).numpy()
        for one, other in zip(moments(ours), moments(basicsr_kernels(2000, **changed)), strict=True):
            assert stats.ks_2samp(one, other).pvalue > 1e-3

    def test_published_defaults(self) -> None:
        """The option names are BasicSR's, so that a Real-ESRNet YAML can be copied; its dataset takes them as given."""
        needed = {'blur_kernel_size', 'kernel_list', 'kernel_prob', 'blur_sigma', 'betag_range', 'betap_range',
                  'sinc_prob', 'blur_kernel_size2', 'kernel_list2', 'kernel_prob2', 'blur_sigma2', 'betag_range2',
                  'betap_range2', 'sinc_prob2', 'final_sinc_prob'}
        fields = set(RealESRGAN.__struct_fields__)
        assert needed <= fields
        source = RealESRGANDataset.__init__.__code__.co_consts
        assert {name for name in source if isinstance(name, str) and name in fields} == needed

    def test_frequencies(self) -> None:
        small = RealESRGAN(2, blur_kernel_size=7, blur_kernel_size2=7)  # for speed alone
        drawn = [small.draw([torch.rand(3, 3, 1, 1)], seeded(seed))[0] for seed in range(1500)]
        resizes = np.array([draws.first.resize for draws in drawn])
        assert stats.chisquare([(resizes > 1).sum(), (resizes < 1).sum(), (resizes == 1).sum()],
                               [300, 1050, 150]).pvalue > 1e-3
        assert stats.kstest(resizes[resizes < 1], stats.uniform(0.15, 0.85).cdf).pvalue > 1e-3
        assert stats.kstest(resizes[resizes > 1], stats.uniform(1, 0.5).cdf).pvalue > 1e-3
        assert stats.binomtest(sum(d.second.kernels is not None for d in drawn), 1500, 0.8).pvalue > 1e-3
        assert stats.binomtest(sum(d.jpeg_last for d in drawn), 1500, 0.5).pvalue > 1e-3
        assert stats.binomtest(sum(d.first.gaussian for d in drawn), 1500, 0.5).pvalue > 1e-3
        gray = torch.cat([d.first.gray for d in drawn])
        assert stats.binomtest(int(gray.sum()), len(gray), 0.4).pvalue > 1e-3
        for values, low, high in ((torch.cat([d.first.quality for d in drawn]), 30, 95),
                                  (torch.cat([d.first.level for d in drawn if d.first.gaussian]), 1, 30),
                                  (torch.cat([d.second.level for d in drawn if not d.second.gaussian]), 0.05, 2.5)):
            assert stats.kstest(values.numpy(), stats.uniform(low, high - low).cdf).pvalue > 1e-3
        sinc = torch.cat([d.final_kernels[:, 3, 3] < 1 for d in drawn])
        assert stats.binomtest(int(sinc.sum()), len(sinc), 0.8).pvalue > 1e-3

    def test_independent_draws_on_one_clean_batch(self) -> None:
        confounders = parse_distortions([{'type': 'RealESRGAN', 'order': 1, 'draws': 4}])
        assert confounders.labels == ['RealESRGAN(order=1)'] + [f'RealESRGAN(order=1)#{k}' for k in (2, 3, 4)]
        assert confounders.scale == 4
        clean = photographs()
        one, other = confounders.counterfactuals(clean, seeded()), confounders.counterfactuals(clean, seeded())
        for k in range(4):
            assert torch.equal(one[k], other[k])
            assert all((one[k] - one[j]).abs().mean() > 1e-3 for j in range(k))


class TestCalls:

    @pytest.mark.parametrize('order', [1, 2])
    @pytest.mark.parametrize(('channels', 'height', 'width'), [(3, 76, 100), (1, 80, 92), (3, 148, 132)])
    def test_shapes_range_and_rounding(self, order: int, channels: int, height: int, width: int) -> None:
        for seed in range(6):
            clean = torch.rand(1 + seed % 2, channels, height, width, generator=seeded(seed))
            copy = clean.clone()
            out = RealESRGAN(order)(clean, seeded(seed))
            assert out.shape == (len(clean), channels, height // 4, width // 4)
            assert torch.equal(out, ((out * 255).round() / 255).clamp(0, 1))
            assert torch.equal(clean, copy)

    @pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
    def test_dtypes(self, dtype: torch.dtype) -> None:
        assert RealESRGAN(2)(photographs().to(dtype), seeded()).dtype == dtype

    @pytest.mark.parametrize('distortion', [
        RealESRGAN(1), RealESRGAN(2), RealESRGAN(1, final_sinc_prob=0), RealESRGAN(2, scale=1, final_sinc_prob=0),
        RealESRGAN(2, second_blur_prob=0.0), RealESRGAN(2, resize_range=(0.5, 2), blur_kernel_size2=9)])
    def test_least_size_suffices(self, distortion: RealESRGAN) -> None:
        side = -(-distortion.min_size // distortion.scale) * distortion.scale
        clean = torch.rand(2, 3, side, side, generator=seeded())
        for seed in range(60):
            distortion(clean, seeded(seed))

    def test_size_must_be_a_multiple(self) -> None:
        with pytest.raises(ValueError, match='98x100 is not a multiple of its scale 4'):
            RealESRGAN(1)(torch.rand(1, 3, 98, 100))

    @pytest.mark.parametrize(('text', 'words'), [
        ('{type: RealESRGAN}', ['distortions[0]', 'missing', 'order']),
        ('{type: RealESRGAN, order: 3}', ['distortions[0].order', '3', '1, 2']),
        ('{type: RealESRGAN, order: 1, noise_rang: [1, 2]}', ["'noise_rang'", "did you mean 'noise_range'?"]),
        ('{type: RealESRGAN, order: 1, noise_range: [30, 1]}', ['distortions[0].noise_range', '[30', 'low <= high']),
        ('{type: RealESRGAN, order: 1, jpeg_range2: [30, 105]}', ['distortions[0].jpeg_range2', '105', '100']),
        ('{type: RealESRGAN, order: 1, resize_prob: [0, 0, 0]}', ['distortions[0].resize_prob', '0.0', 'not all 0']),
        ('{type: RealESRGAN, order: 1, resize_range: [1.1, 2]}', ['distortions[0].resize_range', '1.1', '<= 1']),
        ('{type: RealESRGAN, order: 1, kernel_list: [iso], kernel_prob: [1, 2]}',
         ['distortions[0].kernel_prob', '[1.0, 2.0]', '(1)']),
        ('{type: RealESRGAN, order: 1, kernel_list2: [iso, round]}', ['distortions[0].kernel_list2', 'round']),
        ('{type: RealESRGAN, order: 1, blur_sigma2: [0, 1]}', ['distortions[0].blur_sigma2', '> 0']),
        ('{type: RealESRGAN, order: 1, betap_range: [1.5, 2]}', ['distortions[0].betap_range', 'low <= 1']),
        ('{type: RealESRGAN, order: 1, blur_kernel_size2: 20}', ['distortions[0].blur_kernel_size2', 'odd', '20']),
        ('{type: RealESRGAN, order: 1, sinc_prob: 1.5}', ['distortions[0].sinc_prob', '1.5', '<= 1']),
    ])
    def test_mistakes(self, text: str, words: list[str]) -> None:
        with pytest.raises(OptionError) as error:
            parse_distortions([yaml.safe_load(text)])
        assert all(word in str(error.value) for word in words), error.value


class TestTogether:

    @pytest.mark.usefixtures('fixed_noise')
    @pytest.mark.parametrize('order', [1, 2])
    def test_equals_one_after_the_other(self, order: int) -> None:
        """Given the same draws, batches of different length are degraded as if each were alone."""
        distortion = RealESRGAN(order)
        cleans = [photographs(), photographs()[1:], photographs()[:1], photographs()]
        draws = distortion.draw(cleans, seeded(7))
        assert [len(one.first.quality) for one in draws] == [3, 2, 1, 3]
        together = degrade(cleans, 4, draws)
        for clean, one, drawn in zip(cleans, together, draws, strict=True):
            alone, = degrade([clean], 4, [drawn])
            difference = (one - alone).abs() * 255
            assert (difference < 0.01).float().mean() > 0.999
            assert difference.mean() < 0.01

    def test_draws_of_each_batch_are_its_own(self) -> None:
        distortion = RealESRGAN(2)
        draws = distortion.draw([torch.rand(2, 3, 64, 64)] * 40, seeded())
        assert len({one.first.resize for one in draws}) > 25
        assert {one.jpeg_last for one in draws} == {True, False}
        assert 2 <= sum(one.second.kernels is None for one in draws) <= 16
        kernels = torch.cat([one.first.kernels for one in draws])
        assert len({tuple(kernel.flatten().tolist()) for kernel in kernels}) == 80

    def test_one_batch_draws_what_a_call_draws(self) -> None:
        """The order of the draws is that of a single call, so that a seed gives the same image as before."""
        clean = photographs()
        assert torch.equal(RealESRGAN(2)(clean, seeded(3)), RealESRGAN(2).together([clean], seeded(3))[0])

    def test_frequencies_in_a_set(self) -> None:
        """Equal confounders of a set are drawn together and still independently."""
        small = RealESRGAN(1, blur_kernel_size=7)
        resizes = np.array([one.first.resize for k in range(60)
                            for one in small.draw([torch.rand(1, 3, 1, 1)] * 25, seeded(k))])
        assert stats.chisquare([(resizes > 1).sum(), (resizes < 1).sum(), (resizes == 1).sum()],
                               [300, 1050, 150]).pvalue > 1e-3

    def test_batches_must_be_alike(self) -> None:
        with pytest.raises(ValueError, match='must be alike'):
            RealESRGAN(1).together([torch.rand(1, 3, 64, 64), torch.rand(1, 3, 68, 64)])
        with pytest.raises(ValueError, match='at least'):
            RealESRGAN(1).together([torch.rand(1, 3, 64, 64), torch.rand(1, 3, 8, 8)])
        assert RealESRGAN(1).together([]) == []

    def test_half_precision_comes_back(self) -> None:
        assert [image.dtype for image in RealESRGAN(1).together([torch.rand(1, 3, 64, 64).half()] * 2)] == [
            torch.float16] * 2

    def test_set_distorts_each_batch_by_its_own_confounder(self) -> None:
        """Equal ones together, whatever stands between them; results come back in their places."""
        confounders = parse_distortions([
            {'type': 'RealESRGAN', 'order': 1, 'draws': 2}, {'type': 'Downsample', 'scale': 4},
            {'type': 'RealESRGAN', 'order': 2}])
        clean = photographs(96)
        batches = [(0, clean), (2, clean), (3, clean[:1]), (1, clean[:2]), (2, clean[1:])]
        out = confounders.together(batches, seeded(1))
        assert [len(images) for images in out] == [3, 3, 1, 2, 2]
        small = functional.interpolate(clean, scale_factor=0.25, mode='bicubic').clamp(0, 1)
        torch.testing.assert_close(out[1], small, rtol=0, atol=1e-5)
        torch.testing.assert_close(out[4], small[1:], rtol=0, atol=1e-5)
        for images, (_, source) in zip(out, batches, strict=True):
            reference = functional.interpolate(source, scale_factor=0.25, mode='area')
            assert (images - reference).abs().mean() < 0.12  # of its own clean batch, and no other
