"""PSNR and SSIM against BasicSR with images on disk, and against scikit-image; pyiqa's interface."""

import sys
import types

import cv2
import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from dil_plugin.errors import OptionError
from dil_plugin.evaluation.metrics import PyiqaMetrics, psnr_ssim


def reference(restored, clean, channel, border):
    """scikit-image's PSNR, and its SSIM with the settings of Wang et al., on the valid part as BasicSR has it."""
    if border:
        restored, clean = (image[border:-border, border:-border] for image in (restored, clean))
    if channel == 'Y':  # MATLAB's coefficients, written out
        restored, clean = (image.astype(np.float64) @ [24.966, 128.553, 65.481] / 255 + 16
                           for image in (restored, clean))
        restored, clean = restored[..., None], clean[..., None]
    restored, clean = restored.astype(np.float64), clean.astype(np.float64)
    values = []
    for k in range(clean.shape[2]):
        full = structural_similarity(restored[..., k], clean[..., k], data_range=255, gaussian_weights=True, sigma=1.5,
                                     use_sample_covariance=False, full=True)[1]
        values.append(full[5:-5, 5:-5].mean())
    return peak_signal_noise_ratio(clean, restored, data_range=255), np.mean(values)


def noisy(clean, sigma, seed=0):
    noise = np.random.default_rng(seed).normal(0, sigma, clean.shape)
    return (clean + noise).clip(0, 255).round().astype(np.uint8)


@pytest.mark.parametrize('channel', ['RGB', 'Y'])
@pytest.mark.parametrize('border', [0, 4])
def test_scikit_image(channel, border):
    clean = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (50, 61, 3), np.uint8), (0, 0), 2)
    restored = noisy(clean, 12)
    values = psnr_ssim(restored, clean, channel, border)
    psnr, ssim = reference(restored, clean, channel, border)
    assert values['psnr'] == pytest.approx(psnr, abs=1e-4)
    assert values['ssim'] == pytest.approx(ssim, abs=1e-5)


def test_published_noisy_inputs(shared_data):
    """Real pairs as their authors published them: camera noise of Nam et al."""
    for name in ('01', '13'):
        restored, clean = (cv2.imread(str(shared_data / 'Nam' / part / f'{name}_{kind}.png'))
                           for part, kind in (('noisy', 'noise'), ('gt', 'gt')))
        for channel in ('RGB', 'Y'):
            values = psnr_ssim(restored, clean, channel)
            psnr, ssim = reference(restored, clean, channel, 0)
            assert values['psnr'] == pytest.approx(psnr, abs=1e-4)
            assert values['ssim'] == pytest.approx(ssim, abs=1e-5)


def test_basicsrs_own_call():
    """What a BasicSR user gets from ``calculate_metric`` with the same options."""
    from basicsr.metrics import calculate_metric
    clean = np.random.default_rng(2).integers(0, 256, (24, 30, 3), np.uint8)
    restored = noisy(clean, 20)
    for channel in ('RGB', 'Y'):
        for name in ('psnr', 'ssim'):
            options = {'type': f'calculate_{name}', 'crop_border': 3, 'test_y_channel': channel == 'Y'}
            expected = calculate_metric({'img': restored, 'img2': clean}, options)
            assert psnr_ssim(restored, clean, channel, 3)[name] == expected


def test_noise_of_a_known_variance():
    clean = np.full((200, 200, 3), 128, np.uint8)
    assert psnr_ssim(noisy(clean, 10), clean)['psnr'] == pytest.approx(20 * np.log10(255 / 10), abs=0.05)


def test_equal_images_have_no_finite_psnr():
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    assert psnr_ssim(image, image) == {'psnr': None, 'ssim': pytest.approx(1)}


def test_images_below_the_window_have_no_ssim():
    clean = np.random.default_rng(0).integers(0, 256, (10, 30, 3), np.uint8)
    values = psnr_ssim(noisy(clean, 5), clean)
    assert values['ssim'] is None
    assert values['psnr'] > 30


class FakeMetric(torch.nn.Module):
    """Mean absolute difference of the red channel, in [0, 1]; lower is better."""

    lower_better = True

    def forward(self, restored, clean):
        return (restored - clean)[:, 0].abs().mean()


@pytest.fixture
def pyiqa(monkeypatch):
    """A package of pyiqa's interface; the real one is too large for the tests."""
    module = types.ModuleType('pyiqa')
    module.__spec__ = types.SimpleNamespace()
    module.list_models = lambda: ['lpips', 'red']
    def create(name, device):
        if name == 'lpips':
            raise OSError('no network\nto download from')
        return FakeMetric()
    module.create_metric = create
    monkeypatch.setitem(sys.modules, 'pyiqa', module)


def test_pyiqas_metrics_get_rgb_in_unit_range(pyiqa):
    metrics = PyiqaMetrics(['red'])
    assert (metrics.names, metrics.lower_is_better) == (['red'], ['red'])
    restored, clean = np.zeros((5, 6, 3), np.uint8), np.zeros((5, 6, 3), np.uint8)
    restored[..., 2], restored[..., 0] = 51, 200  # BGR
    assert metrics(restored, clean) == {'red': pytest.approx(0.2)}


def test_metrics_that_pyiqa_cannot_give(pyiqa):
    with pytest.raises(OptionError, match="--metric: unknown metric 'lpip'; did you mean 'lpips'"):
        PyiqaMetrics(['lpip'])
    with pytest.raises(OptionError, match='--metric lpips: pyiqa cannot build it: no network to download from'):
        PyiqaMetrics(['lpips'])


def test_without_pyiqa(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    assert PyiqaMetrics([])(np.zeros((3, 3, 3), np.uint8), np.zeros((3, 3, 3), np.uint8)) == {}
    with pytest.raises(OptionError, match=r'--metric lpips: .*need pyiqa \(pip install pyiqa\)'):
        PyiqaMetrics(['lpips'])
