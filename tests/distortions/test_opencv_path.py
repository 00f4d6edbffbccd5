"""The path through OpenCV gives what PyTorch gives."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dil_plugin.distortions import GaussianBlur, Resize, Uniform
from dil_plugin.distortions.opencv_path import can_blur, can_interpolate, interpolate, opencv

SHAPES = [(3, 3, 40, 57), (1, 1, 33, 20), (2, 3, 64, 64)]


def image(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def both(distortion: Resize | GaussianBlur, clean: Tensor, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    """With OpenCV, and without."""
    first = distortion(clean, torch.Generator().manual_seed(1))
    monkeypatch.setattr('dil_plugin.distortions.opencv_path.opencv', lambda: None)
    return first, distortion(clean, torch.Generator().manual_seed(1))


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('sigma', [0.4, 3, Uniform((0, 5))])
@pytest.mark.parametrize(('dtype', 'atol'), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
def test_blur(shape: tuple[int, ...], sigma: float | Uniform, dtype: torch.dtype, atol: float,
              monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = both(GaussianBlur(sigma), image(shape, dtype), monkeypatch)
    torch.testing.assert_close(one, other, rtol=0, atol=atol)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('mode', ['area', 'bilinear', 'bicubic', 'random'])
@pytest.mark.parametrize('factor', [0.37, 0.5, 1.6, 2, Uniform((0.1, 2.5))])
def test_resize(shape: tuple[int, ...], mode: str, factor: float | Uniform, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = both(Resize(factor, mode), image(shape), monkeypatch)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize('mode', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('size', [(1, 1), (7, 90), (80, 114), (20, 28), (41, 56)])
def test_interpolate(mode: str, size: tuple[int, int]) -> None:
    clean = image(SHAPES[0])
    expected = functional.interpolate(clean, size=size, mode=mode)
    torch.testing.assert_close(interpolate(clean, size, mode), expected, rtol=0, atol=1e-5)


def test_memory_layout_and_input() -> None:
    clean = image(SHAPES[0])
    other = clean.contiguous(memory_format=torch.channels_last)
    for distortion in (GaussianBlur(2), Resize(0.5, 'bicubic')):
        assert torch.equal(distortion(clean), distortion(other))
        assert torch.equal(distortion(clean[:, :, ::2, 1:]), distortion(clean[:, :, ::2, 1:].clone()))
    assert torch.equal(clean, image(SHAPES[0]))


def test_when_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    single, double = image(SHAPES[0]), image(SHAPES[0], torch.float64)
    elsewhere = torch.empty(1, 3, 4, 4, device='meta')
    assert opencv() is not None
    assert [can_blur(x) for x in (single, double, elsewhere)] == [True, True, False]
    assert [can_interpolate(x, 'bicubic') for x in (single, double, elsewhere)] == [True, False, False]
    assert not can_interpolate(single, 'area')
    monkeypatch.setattr('dil_plugin.distortions.opencv_path.opencv', lambda: None)
    assert not can_blur(single)
    assert not can_interpolate(single, 'bicubic')
