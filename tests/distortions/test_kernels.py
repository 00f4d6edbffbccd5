"""Batched kernels and filters against BasicSR's, which make them one by one, and against OpenCV."""

import math

import dil_plugin.basicsr  # noqa: F401  BasicSR needs its shims

# isort: split
import cv2
import numpy as np
import pytest
import torch
import yaml
from basicsr.data import degradations
from basicsr.utils.img_process_util import USMSharp, usm_sharp
from basicsr.utils.img_process_util import filter2D as basicsr_filter2d
from scipy import special
from torch import Tensor

from dil_plugin.distortions import (
    AnisotropicGaussianBlur,
    GaussianBlur,
    GeneralizedGaussianBlur,
    PlateauBlur,
    SincBlur,
    Uniform,
    parse_distortions,
    usm_sharpen,
)
from dil_plugin.distortions.filtering import filter2d, filter_separable
from dil_plugin.distortions.kernels import (
    gaussian_kernels,
    gaussian_profiles,
    generalized_gaussian_kernels,
    plateau_kernels,
    pulse,
    sinc_kernels,
)
from dil_plugin.errors import OptionError

SIGMA_X = torch.tensor([0.2, 0.7, 1.5, 3.0, 2.0], dtype=torch.float64)
SIGMA_Y = torch.tensor([0.4, 2.7, 0.5, 3.0, 1.0], dtype=torch.float64)
THETA = torch.tensor([-math.pi, -0.4, 0.0, 1.1, 3.0], dtype=torch.float64)
BETA = torch.tensor([0.5, 0.9, 1.0, 2.3, 4.0], dtype=torch.float64)
EXTENTS = torch.tensor([7, 21, 13, 9, 15])


def each(make, *parameters) -> list[np.ndarray]:
    """BasicSR's kernels, one after the other, at their own sizes padded to 21."""
    kernels = []
    for size, *values in zip(EXTENTS.tolist(), *(p.tolist() for p in parameters), strict=True):
        kernels.append(np.pad(make(size, *values), (21 - size) // 2))
    return kernels


def same(ours: Tensor, theirs: list[np.ndarray], atol: float = 1e-12) -> None:
    torch.testing.assert_close(ours, torch.from_numpy(np.stack(theirs)), rtol=0, atol=atol)


def image(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


class TestKernels:

    def test_gaussian(self) -> None:
        theirs = each(lambda k, x, y, t: degradations.bivariate_Gaussian(k, x, y, t, isotropic=False), SIGMA_X, SIGMA_Y,
                      THETA)
        same(gaussian_kernels(SIGMA_X, SIGMA_Y, THETA, 21, EXTENTS), theirs)

    def test_isotropic_gaussian(self) -> None:
        theirs = each(lambda k, x: degradations.bivariate_Gaussian(k, x, x, 0, isotropic=True), SIGMA_X)
        same(gaussian_kernels(SIGMA_X, SIGMA_X, torch.zeros_like(THETA), 21, EXTENTS), theirs)

    def test_generalized_gaussian(self) -> None:
        theirs = each(lambda k, x, y, t, b: degradations.bivariate_generalized_Gaussian(k, x, y, t, b, isotropic=False),
                      SIGMA_X, SIGMA_Y, THETA, BETA)
        same(generalized_gaussian_kernels(SIGMA_X, SIGMA_Y, THETA, BETA, 21, EXTENTS), theirs)

    def test_plateau(self) -> None:
        theirs = each(lambda k, x, y, t, b: degradations.bivariate_plateau(k, x, y, t, b, isotropic=False), SIGMA_X,
                      SIGMA_Y, THETA, BETA)
        same(plateau_kernels(SIGMA_X, SIGMA_Y, THETA, BETA, 21, EXTENTS), theirs)

    def test_sinc(self) -> None:
        cutoff = torch.tensor([math.pi / 5, 1.0, 2.0, 3.0, math.pi], dtype=torch.float64)
        same(sinc_kernels(cutoff, 21, EXTENTS), each(lambda k, w: degradations.circular_lowpass_kernel(w, k), cutoff),
             atol=2e-7)
        same(sinc_kernels(cutoff[:1], 21), [degradations.circular_lowpass_kernel(math.pi / 5, 21)], atol=2e-7)

    def test_sinc_is_a_low_pass(self) -> None:
        """Closed form without BasicSR: the centre is the limit of ``w J_1(w r) / (2 pi r)``."""
        kernel = sinc_kernels(torch.tensor([1.3], dtype=torch.float64), 9)[0].numpy()
        radius = np.hypot(*np.mgrid[-4:5, -4:5])
        radius[4, 4] = 1e-9
        expected = 1.3 * special.j1(1.3 * radius) / (2 * np.pi * radius)
        np.testing.assert_allclose(kernel, expected / expected.sum(), rtol=0, atol=2e-7)

    def test_pulse_changes_nothing(self) -> None:
        clean = image((2, 3, 15, 17))
        assert torch.equal(filter2d(clean, pulse(21, clean)[None, 4:-4, 4:-4]), clean)

    def test_profiles_are_opencvs(self) -> None:
        sigma = torch.tensor([0.3, 1, 2.5, 4], dtype=torch.float64)
        for profile, s in zip(gaussian_profiles(sigma, 12), sigma.tolist(), strict=True):
            size = 2 * math.ceil(3 * s) + 1
            expected = np.pad(cv2.getGaussianKernel(size, s, cv2.CV_64F)[:, 0], (25 - size) // 2)
            np.testing.assert_allclose(profile.numpy(), expected, rtol=0, atol=1e-14)

    def test_profile_of_sigma_zero_is_the_pulse(self) -> None:
        assert gaussian_profiles(torch.tensor([0.0, 1.0]), 3)[0].tolist() == [0, 0, 0, 1, 0, 0, 0]


class TestFilters:

    @pytest.mark.parametrize('shape', [(3, 3, 20, 31), (1, 3, 17, 16), (2, 1, 12, 12), (1, 1, 11, 40)])
    def test_own_kernel_for_each_sample(self, shape: tuple[int, ...]) -> None:
        """Asymmetric kernels: neither flipped nor transposed; borders as OpenCV's BORDER_REFLECT_101."""
        clean, kernels = image(shape), image((shape[0], 21, 21))
        filtered = filter2d(clean, kernels)
        for sample, kernel, ours in zip(clean, kernels, filtered, strict=True):
            for plane, our_plane in zip(sample, ours, strict=True):
                expected = cv2.filter2D(plane.numpy(), -1, kernel.numpy(), borderType=cv2.BORDER_REFLECT_101)
                np.testing.assert_allclose(our_plane.numpy(), expected, rtol=0, atol=1e-11)

    def test_equals_basicsr(self) -> None:
        clean, kernels = image((3, 3, 20, 20), torch.float32), image((3, 21, 21), torch.float32) / 220
        torch.testing.assert_close(filter2d(clean, kernels), basicsr_filter2d(clean, kernels.contiguous()), rtol=0,
                                   atol=1e-6)

    def test_one_kernel_for_all(self) -> None:
        clean, kernel = image((3, 3, 20, 20)), image((1, 5, 5))
        torch.testing.assert_close(filter2d(clean, kernel), filter2d(clean, kernel.expand(3, 5, 5)), rtol=0, atol=1e-12)

    def test_separable(self) -> None:
        clean, profiles = image((3, 3, 20, 23)), image((3, 7))
        outer = profiles[:, :, None] * profiles[:, None, :]
        torch.testing.assert_close(filter_separable(clean, profiles), filter2d(clean, outer), rtol=0, atol=1e-12)


class TestUSM:

    @pytest.mark.parametrize('shape', [(2, 3, 64, 51), (1, 1, 26, 90)])
    def test_equals_basicsr(self, shape: tuple[int, ...]) -> None:
        clean = image(shape, torch.float32)
        torch.testing.assert_close(usm_sharpen(clean), USMSharp()(clean), rtol=0, atol=1e-5)

    def test_equals_basicsr_numpy(self) -> None:
        clean = image((1, 3, 70, 60))
        expected = usm_sharp(clean[0].permute(1, 2, 0).numpy(), weight=0.8, threshold=25)
        ours = usm_sharpen(clean, weight=0.8, threshold=25)[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)

    def test_too_small(self) -> None:
        with pytest.raises(ValueError, match='at least 26x26 pixels, got 25x40'):
            usm_sharpen(image((1, 3, 25, 40)))


BLURS = {
    'aniso': (AnisotropicGaussianBlur(3.0, 0.8, 0.7, 15),
              lambda: degradations.bivariate_Gaussian(15, 3, 0.8, 0.7, isotropic=False)),
    'generalized': (GeneralizedGaussianBlur(2.0, 3.0),
                    lambda: degradations.bivariate_generalized_Gaussian(21, 2, 2, 0, 3, isotropic=True)),
    'generalized aniso': (GeneralizedGaussianBlur(2.0, 0.7, 4.0, -1.0, 9),
                          lambda: degradations.bivariate_generalized_Gaussian(9, 2, 4, -1, 0.7, isotropic=False)),
    'plateau': (PlateauBlur(2.0, 1.5), lambda: degradations.bivariate_plateau(21, 2, 2, 0, 1.5, isotropic=True)),
    'plateau aniso': (PlateauBlur(2.0, 1.5, 1.0, 0.3, 7),
                      lambda: degradations.bivariate_plateau(7, 2, 1, 0.3, 1.5, isotropic=False)),
    'sinc': (SincBlur(1.0, 13), lambda: degradations.circular_lowpass_kernel(1.0, 13)),
}


class TestBlurs:

    @pytest.mark.parametrize('name', BLURS)
    @pytest.mark.parametrize('shape', [(2, 3, 33, 40), (1, 1, 21, 17)])
    def test_equals_opencv_with_basicsr_kernel(self, name: str, shape: tuple[int, ...]) -> None:
        blur, make = BLURS[name]
        clean = image(shape)
        expected = [[cv2.filter2D(plane.numpy(), -1, make(), borderType=cv2.BORDER_REFLECT_101) for plane in planes]
                    for planes in clean]
        atol = 1e-6 if isinstance(blur, SincBlur) else 1e-11
        torch.testing.assert_close(blur(clean), torch.from_numpy(np.array(expected)).clamp(0, 1), rtol=0, atol=atol)

    def test_range_draws_for_each_sample(self) -> None:
        """A point becomes its sample's kernel, whose second moments are the drawn widths."""
        clean = torch.zeros(400, 1, 61, 61)  # single precision: there is no fast convolution in double
        clean[..., 30, 30] = 1
        blur = AnisotropicGaussianBlur(Uniform((1, 2)), Uniform((3, 4)), 0.0, 41)
        kernels = blur(clean, torch.Generator().manual_seed(0))[:, 0].double()
        offsets = torch.arange(61, dtype=torch.float64) - 30
        sigma_x = (kernels.sum(1) * offsets**2).sum(1).sqrt()
        sigma_y = (kernels.sum(2) * offsets**2).sum(1).sqrt()
        for widths, low, high in ((sigma_x, 1, 2), (sigma_y, 3, 4)):
            assert low - 1e-3 < widths.min() < low + 0.02
            assert high - 0.02 < widths.max() < high + 1e-3
            assert widths.mean().item() == pytest.approx((low + high) / 2, abs=0.05)
        assert abs(np.corrcoef(sigma_x, sigma_y)[0, 1]) < 0.2

    def test_gaussian_range_equals_fixed_degrees(self) -> None:
        """Each sample of a range is blurred as by a fixed sigma of its value, kernel size included."""
        clean = image((6, 3, 40, 40))
        blur = GaussianBlur(Uniform((0.2, 4)))
        ours = blur(clean, torch.Generator().manual_seed(5))
        sigmas = torch.rand(6, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 3.8 + 0.2
        for sample, sigma, blurred in zip(clean, sigmas.tolist(), ours, strict=True):
            size = 2 * math.ceil(3 * sigma) + 1
            expected = cv2.GaussianBlur(sample.permute(1, 2, 0).numpy(), (size, size), sigma,
                                        borderType=cv2.BORDER_REFLECT_101)
            np.testing.assert_allclose(blurred.permute(1, 2, 0).numpy(), expected, rtol=0, atol=1e-12)

    @pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize('name', BLURS)
    def test_half_precision(self, name: str, dtype: torch.dtype) -> None:
        clean = image((2, 3, 32, 32), dtype)
        blurred = BLURS[name][0](clean)
        assert blurred.dtype == dtype
        torch.testing.assert_close(blurred, BLURS[name][0](clean.float()).to(dtype), rtol=0, atol=0)

    @pytest.mark.parametrize(('text', 'words'), [
        ('{type: SincBlur, cutoff: 4}', ['distortions[0].cutoff', '4', '<= 3.14']),
        ('{type: SincBlur, cutoff: 1, kernel_size: 8}', ['distortions[0].kernel_size', 'odd', '8']),
        ('{type: PlateauBlur, sigma_x: 2, beta: {uniform: [0, 2]}}', ['distortions[0].beta.uniform[0]', '> 0.0', '0']),
        ('{type: AnisotropicGaussianBlur, sigma_x: 2}', ['distortions[0]', 'missing', 'sigma_y']),
    ])
    def test_mistakes(self, text: str, words: list[str]) -> None:
        with pytest.raises(OptionError) as error:
            parse_distortions([yaml.safe_load(text)])
        assert all(word in str(error.value) for word in words), error.value
