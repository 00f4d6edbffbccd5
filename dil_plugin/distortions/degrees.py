"""Degrees of a distortion: one number, or a range from which every sample draws its own."""

import hashlib
from collections.abc import Sequence

import msgspec
import torch
from torch import Tensor


class Uniform(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A degree that every sample of a batch draws for itself, uniform in [low, high]; ``{uniform: [low, high]}``.

    Attributes:
        uniform: ``(low, high)``, in the unit of the degree.

    Raises:
        ValueError: low is above high.
    """

    uniform: tuple[float, float]

    def __post_init__(self) -> None:
        low, high = self.uniform
        if not low <= high:
            raise ValueError(f'.uniform: expected [low, high] with low <= high, got [{low:g}, {high:g}]')

    def __str__(self) -> str:
        return f'{self.uniform[0]:g}..{self.uniform[1]:g}'


def lowest(degree: float | Uniform) -> float:
    """The least value that the degree takes."""
    return degree.uniform[0] if isinstance(degree, Uniform) else degree


def highest(degree: float | Uniform) -> float:
    """The greatest value that the degree takes."""
    return degree.uniform[1] if isinstance(degree, Uniform) else degree


def draw(degree: float | Uniform, images: Tensor, generator: torch.Generator | None) -> float | Tensor:
    """The degree of each sample of a batch.

    Args:
        degree: A number or a range.
        images: The batch, ``(B, C, H, W)``; it gives B, dtype and device.
        generator: Source of randomness on the device of ``images``.

    Returns:
        The number itself, or ``(B,)`` of independent draws, ``low + (high - low) u`` with u ~ U[0, 1).
    """
    if not isinstance(degree, Uniform):
        return degree
    low, high = degree.uniform
    unit = torch.rand(images.shape[0], dtype=images.dtype, device=images.device, generator=generator)
    return unit.mul_(high - low).add_(low).clamp_(low, high)  # rounding can leave the range


def per_sample(value: float | Tensor) -> float | Tensor:
    """A parameter ``(B,)`` as ``(B, 1, 1, 1)``, so that it meets its sample of a batch; a number as it is."""
    return value.view(-1, 1, 1, 1) if isinstance(value, Tensor) else value


def as_batch(value: float | Tensor, images: Tensor) -> Tensor:
    """A parameter as ``(B,)``, on the device and in the dtype of ``images``."""
    if isinstance(value, Tensor):
        return value.to(images.device, images.dtype).expand(images.shape[0])
    return torch.full((images.shape[0], ), float(value), dtype=images.dtype, device=images.device)


def host_generator(generator: torch.Generator | None) -> torch.Generator | None:
    """A CPU generator for what the host itself must know: sizes and branches.

    Reading a draw back from a GPU would make the host wait for it. Instead the state of the GPU's generator, which
    lives on the host, seeds a CPU generator, and the GPU's generator is moved on.

    Args:
        generator: The source of randomness that a distortion was given.

    Returns:
        ``generator`` itself if it is on the CPU (None: the global one), else a new one that depends on its state.
    """
    if generator is None or generator.device.type == 'cpu':
        return generator
    digest = hashlib.sha256(generator.get_state().numpy().tobytes()).digest()
    torch.empty(1, device=generator.device).uniform_(generator=generator)
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], 'big'))


def constant(values: Sequence[float], images: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A short list of numbers as a tensor beside ``images``, copied without waiting for the device."""
    return torch.tensor(values, dtype=dtype or images.dtype).to(images.device, non_blocking=True)


def draw_indices(weights: Sequence[float], images: Tensor, generator: torch.Generator | None) -> Tensor:
    """``(B,)`` int64: for each sample k with probability ``weights[k] / sum(weights)``, drawn on the images' device.

    ``torch.multinomial`` would make the host wait for the device, to see whether the weights are probabilities.
    """
    edges = constant([sum(weights[:k + 1]) / sum(weights) for k in range(len(weights) - 1)], images, torch.float64)
    unit = torch.rand(images.shape[0], dtype=torch.float64, device=images.device, generator=generator)
    return torch.bucketize(unit, edges, right=True)
