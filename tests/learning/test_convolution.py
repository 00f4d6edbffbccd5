"""The convolutions with a fast double backward against PyTorch's own, and against differences."""

import contextlib
from typing import Any

import pytest
import torch
from learning_helpers import equal, meta_batch, network_loss, relative_error
from torch import Tensor, nn
from torch.nn import functional

from dil_plugin.learning.convolution import fast_double_backward, recorded_now
from dil_plugin.learning.gradients import gradient

CASES: dict[str, dict[str, Any]] = {
    'plain': {},
    'padding': {'padding': 1},
    'two paddings': {'padding': (2, 0)},
    'stride': {'stride': 2, 'padding': 1},
    'two strides': {'stride': (1, 3)},
    'dilation': {'dilation': 2, 'padding': 1},
    'groups': {'groups': 2, 'padding': 1},
    'depthwise': {'groups': 4, 'padding': (1, 0)},
    'padding by name': {'padding': 'same'},
}
cases = pytest.mark.parametrize('case', CASES)
with_bias = pytest.mark.parametrize('bias', [True, False], ids=['bias', 'no bias'])


def operands(case: str, bias: bool) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(2, 4, 7, 6), (4, 4 // CASES[case].get('groups', 1), 3, 3), (4, )]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
            for shape in (shapes if bias else shapes[:2])]


def second_derivatives(case: str, tensors: list[Tensor], fast: bool, wanted: list[int]) -> list[Tensor]:
    chosen = [tensors[i] for i in wanted]
    with fast_double_backward() if fast else contextlib.nullcontext():
        value = functional.conv2d(*tensors, **CASES[case]).sigmoid().square().sum()
    first = torch.autograd.grad(value, chosen, create_graph=True)
    return list(torch.autograd.grad(torch.stack([g.sin().sum() for g in first]).sum(), chosen))


@cases
@with_bias
@pytest.mark.parametrize('wanted', [[0, 1], [0], [1]], ids=['both', 'image', 'weight'])
def test_equals_pytorch(case: str, bias: bool, wanted: list[int]) -> None:
    tensors = operands(case, bias)
    wanted = wanted + [2] if bias else wanted
    fast, plain = (second_derivatives(case, tensors, which, wanted) for which in (True, False))
    assert relative_error(fast, plain) < 1e-13


@cases
@with_bias
def test_against_differences(case: str, bias: bool) -> None:
    with fast_double_backward():
        assert torch.autograd.gradgradcheck(lambda *t: functional.conv2d(*t, **CASES[case]), operands(case, bias))


def test_only_the_bias_is_wanted() -> None:
    image, weight, bias = operands('plain', True)
    image, weight = image.detach(), weight.detach()
    assert relative_error(second_derivatives('plain', [image, weight, bias], True, [2]),
                          second_derivatives('plain', [image, weight, bias], False, [2])) < 1e-13


def test_third_derivatives() -> None:
    def third(fast: bool) -> list[Tensor]:
        image, weight = operands('padding', False)
        with fast_double_backward() if fast else contextlib.nullcontext():
            value = functional.conv2d(image, weight, padding=1).sigmoid().sum()
        for _ in range(2):
            (first, ) = torch.autograd.grad(value, weight, create_graph=True)
            value = first.sin().sum()
        return list(torch.autograd.grad(value, [weight]))

    assert relative_error(third(True), third(False)) < 1e-13


def test_the_convolutions_are_ours_within_and_pytorchs_outside() -> None:
    layer, image = nn.Conv2d(3, 4, 3), torch.rand(1, 3, 5, 5)
    with fast_double_backward():
        assert recorded_now()
        inside = layer(image)
    assert not recorded_now()
    assert type(inside.grad_fn).__name__ == '_ConvolutionBackward'
    assert type(layer(image).grad_fn).__name__ == 'ConvolutionBackward0'
    assert torch.equal(inside, layer(image))


def test_first_gradients_are_bit_for_bit_pytorchs() -> None:
    loss, params = network_loss('rrdb', 'l1', torch.float32)
    pair = meta_batch(dtype=torch.float32).confounders[0]
    with fast_double_backward():
        ours = gradient(loss(params, pair), params)
    assert equal(ours, gradient(loss(params, pair), params))


def test_images_without_a_batch_and_other_convolutions_stay_pytorchs() -> None:
    image, transposed = torch.rand(3, 6, 6), nn.ConvTranspose2d(3, 4, 3)
    layer = nn.Conv2d(3, 4, 3)
    with fast_double_backward():
        assert layer(image).shape == (4, 4, 4)
        assert transposed(image[None]).shape == (1, 4, 8, 8)


def test_autocast_casts_as_it_does_for_pytorchs() -> None:
    layer, image = nn.Conv2d(3, 4, 3), torch.rand(2, 3, 6, 6)

    def gradients(fast: bool) -> list[Tensor]:
        with torch.autocast('cpu', torch.bfloat16, cache_enabled=False), \
                fast_double_backward() if fast else contextlib.nullcontext():
            output = layer(image)
            assert output.dtype is torch.bfloat16
            first = torch.autograd.grad(output.float().square().mean(), list(layer.parameters()), create_graph=True)
            assert {g.dtype for g in first} == {torch.float32}
            return list(torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum(),
                                            list(layer.parameters())))

    assert relative_error(gradients(True), gradients(False)) < 0.01
