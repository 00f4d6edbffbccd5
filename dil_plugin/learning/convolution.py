"""Convolutions whose double backward costs what its arithmetic costs.

PyTorch's double backward of a convolution takes the derivatives to the input and to the weight as forward convolutions
of transposed tensors, the latter with kernels as large as the image, for which libraries have no fast path. Both are
what an ordinary backward pass computes, of other arguments: here one call of it gives them.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_Geometry = tuple[list[int], list[int], list[int], bool, list[int], int]
_aten = torch.ops.aten
_thread = threading.local()


@contextlib.contextmanager
def fast_double_backward() -> Iterator[None]:
    """Within it, two-dimensional convolutions (``torch.nn.functional.conv2d``) are recorded for a fast double backward.

    So is weight normalisation (``torch._weight_norm``), for a right one.

    Their values and gradients of any order are those of PyTorch up to rounding. Other functions, and convolutions that
    are not the plain case (padding by name, images without a batch dimension), stay PyTorch's.
    """
    before = recorded_now()
    _thread.recorded = True
    try:
        with _ReplacedConvolutions():
            yield
    finally:
        _thread.recorded = before


def recorded_now() -> bool:
    """Whether this code runs within ``fast_double_backward``; it counts for its own thread, as torch's modes do."""
    return getattr(_thread, 'recorded', False)


class _ReplacedConvolutions(TorchFunctionMode):

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        if func is torch.conv2d:
            return _conv2d(*args, **(kwargs or {}))
        if func is torch._weight_norm:
            return _weight_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
            dilation: Any = 1, groups: int = 1) -> Tensor:
    device = input.device.type
    if isinstance(padding, str) or input.dim() != 4 or input.is_complex():
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    if torch.is_autocast_enabled(device):  # as autocast does for a convolution; its cache is of no use here
        dtype = torch.get_autocast_dtype(device)
        input, weight = input.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    geometry = (_two(stride), _two(padding), _two(dilation), False, [0, 0], groups)
    result: Tensor = _Convolution.apply(input, weight, bias, geometry)
    return result


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """``g v / |v|``, by operations; PyTorch's single one takes ``|v|`` for a constant in its double backward."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _two(value: Any) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * 2 if len(values) == 1 else values


class _Convolution(torch.autograd.Function):
    """``y = w * x + b``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, geometry: _Geometry) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.geometry = geometry
        ctx.bias_sizes = None if b is None else list(b.shape)
        result: Tensor = _aten.convolution(x, w, b, *geometry)
        return result

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        needed = tuple(ctx.needs_input_grad[:3])
        return (*_ConvolutionBackward.apply(gy, x, w, ctx.bias_sizes, ctx.geometry, needed), None)


class _ConvolutionBackward(torch.autograd.Function):
    """``(dL/dx, dL/dw, dL/db)`` of a convolution, given ``gy = dL/dy``: linear in ``gy`` and bilinear with w and x."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, x: Tensor, w: Tensor, bias_sizes: list[int] | None, geometry: _Geometry,
                needed: tuple[bool, bool, bool]) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gy, x, w)
        ctx.geometry = geometry
        return tuple(_aten.convolution_backward(gy, x, w, bias_sizes, *geometry, list(needed)))

    @staticmethod
    def backward(ctx: Any, gx: Tensor | None, gw: Tensor | None, gb: Tensor | None) -> tuple[Tensor | None, ...]:
        gy, x, w = ctx.saved_tensors
        to_gy, to_x, to_w = ctx.needs_input_grad[:3]
        d_gy = _to_output(gx, gw, gb, gy, x, w, ctx.geometry) if to_gy else None
        to_x, to_w = to_x and gw is not None, to_w and gx is not None
        d_x = d_w = None
        if to_x or to_w:
            # gy with gw gives the derivative to x, as gy with w gives dL/dx; gy with gx that to w
            d_x, d_w, _ = _aten.convolution_backward(gy, x if gx is None else gx, w if gw is None else gw, None,
                                                     *ctx.geometry, [to_x, to_w, False])
        return d_gy, d_x, d_w, None, None, None


def _to_output(gx: Tensor | None, gw: Tensor | None, gb: Tensor | None, gy: Tensor, x: Tensor, w: Tensor,
               geometry: _Geometry) -> Tensor | None:
    """The derivative to ``gy``: ``w * gx + gw * x + gb``."""
    total: Tensor | None = None
    for image, kernel in ((gx, w), (x, gw)):
        if image is not None and kernel is not None:
            part = _aten.convolution(image, kernel, gb if total is None else None, *geometry)
            total = part if total is None else total.add_(part)
    if total is None and gb is not None:
        total = gb.view(1, -1, 1, 1).expand_as(gy)
    return total
