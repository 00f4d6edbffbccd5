"""Whether there are images enough for a batch, workers to keep, and images large enough for the metrics."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dil_plugin.basicsr.data.image_list import HEADERS, image_size
from dil_plugin.data_preparation.storage import read_meta
from dil_plugin.errors import OptionError

_SSIM, _SSIM_WINDOW = 'calculate_ssim', 11
_NIQE, _NIQE_BLOCK = 'calculate_niqe', 96  # BasicSR's, which fits a Gaussian to the features of the blocks


def check_batches(opt: Mapping[str, Any], images: int) -> None:
    """Raises OptionError where an epoch has less than one batch.

    Args:
        opt: The options as BasicSR parsed them.
        images: Of the training set.
    """
    train = opt['datasets']['train']
    ratio, size, ranks = train.get('dataset_enlarge_ratio', 1), train['batch_size_per_gpu'], opt.get('world_size', 1)
    if math.ceil(images * ratio / ranks) < size:
        raise OptionError(f'datasets.train.dataset_enlarge_ratio: {ratio} times {images} images are less than one '
                          f'batch of {size * ranks}; give at least {-(-size * ranks // images)}')


def check_workers(key: str, dataset: Mapping[str, Any]) -> None:
    """Raises OptionError where workers are to be kept and there are none, with which no data loader is made."""
    train = dataset.get('phase') == 'train'
    if dataset.get('persistent_workers') and not (train and dataset.get('num_worker_per_gpu')):
        number = dataset.get('num_worker_per_gpu') if train else '0 in validation, whatever it says'
        raise OptionError(f'{key}.persistent_workers: true, but num_worker_per_gpu is {number}; allowed: false'
                          + (', or num_worker_per_gpu >= 1' if train else ''))


def check_metric_sizes(opt: Mapping[str, Any], key: str, paths: list[str], root: str, backend: str) -> None:
    """Raises OptionError where an image of a validation set is too small for a metric.

    Of a folder the first 500 images are looked at.

    Args:
        opt: The options.
        key: Where the data set's block stands.
        paths: Its files, or LMDB keys.
        root: Its folder or LMDB.
        backend: ``disk`` or ``lmdb``.
    """
    metrics = {f'val.metrics.{name}': metric for name, metric in ((opt.get('val') or {}).get('metrics') or {}).items()
               if metric.get('crop_border') or metric.get('type') in (_SSIM, _NIQE)}
    if not metrics:
        return
    if backend == 'lmdb':
        sizes = [(record.key, (record.height, record.width)) for record in read_meta(Path(root))]
    else:
        sizes = [(path, size) for path in paths[:HEADERS] if (size := image_size(path)) is not None]
    scale = opt.get('scale', 1)
    for name, (height, width) in sizes:
        for label, metric in metrics.items():
            cropped = (height // scale * scale, width // scale * scale)
            reason = _too_small(metric, f"image '{name}' of {key}, {height}x{width} pixels", *cropped)
            if reason:
                raise OptionError(f'{label}{reason}')


def _too_small(metric: Mapping[str, Any], image: str, height: int, width: int) -> str:
    """What is wrong with a metric for an image of this size; '' where nothing is."""
    border = metric.get('crop_border')
    border = border if isinstance(border, int) else 0
    inner = height - 2 * border, width - 2 * border
    kind = metric.get('type')
    if min(inner) < 1:
        return (f'.crop_border: {border}, which leaves nothing of {image}; allowed: at most '
                f'{(min(height, width) - 1) // 2}')
    if kind == _SSIM and min(inner) < _SSIM_WINDOW:
        return (f': {kind} takes windows of {_SSIM_WINDOW}x{_SSIM_WINDOW} pixels, which {image}, does not hold inside '
                f'of its crop_border of {border}; allowed: larger images, or another metric')
    blocks = math.prod(side // _NIQE_BLOCK for side in inner)
    if kind == _NIQE and blocks < 2:
        return (f': {kind} takes at least two blocks of {_NIQE_BLOCK}x{_NIQE_BLOCK} pixels, and {image}, has '
                f'{blocks} inside of its crop_border of {border}; allowed: larger images, or another metric')
    return ''
