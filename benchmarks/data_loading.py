"""The ways to load the pairs of a meta-step that benchmarks/data.py compares, and the files that they read."""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from basicsr.data import build_dataloader, build_dataset
from basicsr.utils import get_root_logger
from basicsr.utils.lmdb_util import LmdbMaker
from torch import Tensor

from dil_plugin.basicsr.data.byte_images import on_device
from dil_plugin.basicsr.data.draw_sampler import Draw
from dil_plugin.distortions import DistortionSet, parse_distortions

STORAGES = ('disk', 'lmdb')
SAME, FRESH, HERE, WORKER, PAIRS, THEIRS, RELEASED = WAYS = (
    'DistortionAugmentedDataset, device, same',
    'DistortionAugmentedDataset, device, fresh',
    'DistortionAugmentedDataset, device, same, with distorting',
    'DistortionAugmentedDataset, worker, same',
    'PairedConfounderDataset',
    'PairedImageDataset, one distortion',
    'PairedImageDataset, a loader per distortion',
)
Batch = dict[str, Any]


class Load(NamedTuple):
    """What is asked of every way.

    Attributes:
        patches: Clean patches of an inner step.
        gt_size: Their side.
        confounders: n, levels of Gaussian noise.
        steps: Meta-steps of one call that is timed.
        workers: Data workers of each loader.
        device: Where the network would be.
    """

    patches: int
    gt_size: int
    confounders: int
    steps: int
    workers: int
    device: str

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The block ``distortions``."""
        return [{'type': 'GaussianNoise', 'sigma': [5 * (k + 1) for k in range(self.confounders)]}]


class Way(NamedTuple):
    """One way to load.

    Attributes:
        run: Loads ``steps`` meta-steps; called with a seed.
        pairs: Pairs of distorted and clean patches that a meta-step gets.
        decodes: Images that are decoded for them.
        size: Bytes that travel to the device for them.
    """

    run: Callable[[int], None]
    pairs: int
    decodes: int
    size: int


def write_images(images: list[np.ndarray], folder: Path, confounders: DistortionSet) -> None:
    """Writes ``gt`` and, prepared under each confounder, ``lq0``, ``lq1``, …, as folders and LMDBs of the same PNGs.

    Args:
        images: ``(H, W, 3)``, BGR, uint8.
        folder: Where to.
        confounders: Their results are rounded to eight bits.
    """
    generator = torch.Generator().manual_seed(0)
    _write(images, folder, 'gt')
    for i, confounder in enumerate(confounders):
        noisy = []
        for image in images:
            clean = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32) / 255)
            noisy.append((confounder(clean, generator)[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())
        _write(noisy, folder, f'lq{i}')


def _write(images: list[np.ndarray], folder: Path, side: str) -> None:
    (folder / side).mkdir()
    store = LmdbMaker(str(folder / f'{side}.lmdb'), map_size=len(images) * (images[0].nbytes + 2**16) + 2**20)
    for k, image in enumerate(images):
        _, png = cv2.imencode('.png', image, [cv2.IMWRITE_PNG_COMPRESSION, store.compress_level])
        (folder / side / f'{k:04}.png').write_bytes(png.tobytes())
        store.put(png.tobytes(), f'{k:04}', image.shape)
    store.close()


def ways(folder: Path, storage: str, load: Load) -> dict[str, Way]:
    """All ways by name, those of ``WAYS``; ``folder`` is what ``write_images`` wrote."""
    get_root_logger(log_level=logging.WARNING)
    one = load._replace(workers=0)
    return {name: Way(_runner(folder, storage, load, name), _pairs(load, name), *_count(folder, one, name))
            for name in WAYS}


def _pairs(load: Load, name: str) -> int:
    return load.patches * (1 if name == THEIRS else load.confounders)


def loaders(folder: Path, storage: str, load: Load, name: str) -> list[Any]:
    """The loaders of a way; a meta-step takes one batch of each."""
    if name in (THEIRS, RELEASED):
        return [_loader(load, _paired(_Roots(folder, storage, name), k), load.patches)
                for k in range(1 if name == THEIRS else load.confounders)]
    roots = _Roots(folder, storage, name)
    if name == PAIRS:
        sets = [{'name': f'lq{k}', 'dataroot_lq': roots(f'lq{k}'), 'dataroot_gt': roots('gt')}
                for k in range(load.confounders)]
        return [_loader(load, {'type': 'PairedConfounderDataset', 'confounders': sets, 'io_backend': {'type': storage}},
                        load.patches)]
    block = {'type': 'DistortionAugmentedDataset', 'dataroot_gt': roots('gt'), 'io_backend': {'type': storage},
             'distortions': load.entries, 'distort_on': 'worker' if name == WORKER else 'device'}
    return [_loader(load, block, load.patches * (load.confounders if name == FRESH else 1))]


class _Roots:
    """Paths of the data; of an LMDB a copy for every way, since lmdb opens none twice in one process."""

    def __init__(self, folder: Path, storage: str, name: str) -> None:
        self.folder, self.storage, self.copy = folder, storage, f'way{WAYS.index(name)}'

    def __call__(self, side: str, copy: str = '') -> str:
        """Where ``gt`` or ``lq0``, … lies; ``copy`` tells several data sets of one way apart."""
        if self.storage == 'disk':
            return str(self.folder / side)
        target = self.folder / f'{self.copy}{copy}' / f'{side}.lmdb'
        if not target.exists():
            shutil.copytree(self.folder / f'{side}.lmdb', target)
        return str(target)


def _paired(roots: _Roots, k: int) -> dict[str, Any]:
    return {'type': 'PairedImageDataset', 'dataroot_gt': roots('gt', f'-{k}'), 'dataroot_lq': roots(f'lq{k}', f'-{k}'),
            'io_backend': {'type': roots.storage}}


def _loader(load: Load, block: dict[str, Any], batch_size: int) -> Any:
    block = {'name': block['type'], 'phase': 'train', 'scale': 1, 'gt_size': load.gt_size, 'use_hflip': True,
             'use_rot': True, 'batch_size_per_gpu': batch_size, 'num_worker_per_gpu': load.workers,
             'persistent_workers': load.workers > 0, 'pin_memory': load.device == 'cuda', **block}
    dataset = build_dataset(block)
    draws = [Draw(k % len(dataset), k) for k in range(batch_size * load.steps)]
    return build_dataloader(dataset, block, num_gpu=0, sampler=draws, seed=0)


def _runner(folder: Path, storage: str, load: Load, name: str) -> Callable[[int], None]:
    sources = loaders(folder, storage, load, name)
    confounders = parse_distortions(load.entries)

    def run(seed: int) -> None:
        generator = torch.Generator(load.device).manual_seed(seed)
        for batches in zip(*sources, strict=True):
            moved = [on_device(tensor, load.device) for batch in batches for tensor in tensors(batch)]
            if name == HERE:
                confounders.counterfactuals(moved[0], generator)

    return run


def tensors(batch: Batch) -> list[Tensor]:
    """What of a batch travels to the device."""
    return [value for value in batch.values() if torch.is_tensor(value)]


def _count(folder: Path, load: Load, name: str) -> tuple[int, int]:
    """Decoded images and bytes of a meta-step; alike for all storages and numbers of workers."""
    with counted_decodes() as decodes:
        batches = [next(iter(loader)) for loader in loaders(folder, 'disk', load, name)]
    return len(decodes), sum(tensor.nbytes for batch in batches for tensor in tensors(batch))


@contextmanager
def counted_decodes() -> Iterator[list[int]]:
    """A list that grows by one with each image that OpenCV decodes in this process."""
    counted: list[int] = []
    decode = cv2.imdecode

    def counting(*arguments: Any) -> Any:
        counted.append(1)
        return decode(*arguments)

    cv2.imdecode = counting
    try:
        yield counted
    finally:
        cv2.imdecode = decode
