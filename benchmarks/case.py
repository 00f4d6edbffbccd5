"""A case of the benchmark: a distortion, what it is compared with, and the photographs that both start from."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import skimage.data
import torch
from measuring import Contender
from torch import Tensor

from dil_plugin.distortions import Distortion

Array = np.ndarray
NUMPY, TORCH, KORNIA = COLUMNS = ('BasicSR arrays', 'BasicSR tensors', 'kornia')


class Batch(NamedTuple):
    """The same photographs as a batch of RGB on the device and as arrays of BGR, as OpenCV and BasicSR hold them."""

    images: Tensor
    arrays: list[Array]


class Case(NamedTuple):
    """A distortion and its alternatives.

    Attributes:
        name: Unique.
        distortion: Ours.
        alternatives: By their columns in the table: from a batch and a seed to the distorted images.
        seeds: How many draws are timed; more where the amount of work is random.
        alike: Whether the alternatives do the same; otherwise they are shown without a verdict.
        large: Whether it is for larger images: super-resolution.
    """

    name: str
    distortion: Distortion
    alternatives: dict[str, Callable[[Batch, int], Any]]
    seeds: int = 2
    alike: bool = True
    large: bool = False


def contenders(case: Case, batch: Batch) -> dict[str, Contender]:
    """The case's functions of a seed, ours first; none records for autograd (DiffJPEG has parameters)."""
    generator = torch.Generator(batch.images.device)

    def ours(seed: int) -> Tensor:
        return case.distortion(batch.images, generator.manual_seed(seed))

    def other(run: Callable[[Batch, int], Any]) -> Contender:
        return torch.no_grad()(lambda seed: run(batch, seed))

    return {'ours': ours, **{name: other(run) for name, run in case.alternatives.items()}}


def photographs(count: int, size: int, device: str) -> Batch:
    """Crops of scikit-image's photographs, at random places but always the same."""
    places, sources = np.random.default_rng(0), [getattr(skimage.data, n)() for n in ('astronaut', 'coffee', 'rocket')]
    arrays = []
    for k in range(count):
        source = sources[k % len(sources)]
        top, left = (places.integers(side - size + 1) for side in source.shape[:2])
        arrays.append(np.ascontiguousarray(source[top:top + size, left:left + size, ::-1], dtype=np.float32) / 255)
    images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).flip(1).contiguous()
    return Batch(images.to(device), arrays)


def each(function: Callable[[Array], Array]) -> Callable[[Batch, int], list[Array]]:
    """One array after the other."""
    return lambda batch, seed: [function(array) for array in batch.arrays]


def whole(function: Callable[[Tensor], Tensor]) -> Callable[[Batch, int], Tensor]:
    """The batch at once."""
    return lambda batch, seed: function(batch.images)


def uniform(low: float, high: float) -> float:
    """A number from numpy's global generator, which BasicSR draws from."""
    return np.random.uniform(low, high)  # noqa: NPY002


def rand(images: Tensor, low: float, high: float) -> Tensor:
    """One number per sample."""
    return torch.rand(len(images), device=images.device) * (high - low) + low
