"""Whether there are images enough for a batch, and whether they are large enough for the metrics."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dil_plugin.basicsr.data.image_list import HEADERS, image_size
from dil_plugin.data_preparation.storage import read_meta
from dil_plugin.errors import OptionError


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


def check_crop_borders(opt: Mapping[str, Any], key: str, paths: list[str], root: str, backend: str) -> None:
    """Raises OptionError where a metric leaves nothing of an image of a validation set.

    Of a folder the first 500 images are looked at.

    Args:
        opt: The options.
        key: Where the data set's block stands.
        paths: Its files, or LMDB keys.
        root: Its folder or LMDB.
        backend: ``disk`` or ``lmdb``.
    """
    metrics = (opt.get('val') or {}).get('metrics') or {}
    borders = {name: metric.get('crop_border') for name, metric in metrics.items()}
    borders = {name: border for name, border in borders.items() if isinstance(border, int) and border > 0}
    if not borders:
        return
    metric = max(borders, key=lambda name: borders[name])
    if backend == 'lmdb':
        sizes = [(record.key, (record.height, record.width)) for record in read_meta(Path(root))]
    else:
        sizes = [(path, size) for path in paths[:HEADERS] if (size := image_size(path)) is not None]
    for name, (height, width) in sizes:
        if 2 * borders[metric] >= min(height, width):
            raise OptionError(f"val.metrics.{metric}.crop_border: {borders[metric]}, which leaves nothing of image "
                              f"'{name}' of {key}, {height}x{width} pixels; allowed: at most "
                              f'{(min(height, width) - 1) // 2}')
