"""Restores some images of every validation set, with every metric: the largest one, the smallest, one of odd sides."""

import copy
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from dil_plugin.basicsr.checks.first_failure import lacks_memory
from dil_plugin.basicsr.checks.unexpected import in_words
from dil_plugin.basicsr.data.image_list import HEADERS, image_size
from dil_plugin.data_preparation.storage import read_meta
from dil_plugin.errors import DILError, OptionError

_PATIENCE = 180.0  # seconds that all of them may take on a CPU
_TIMED = 64  # side of the image, in pixels, by which the time of larger ones is estimated

Size = tuple[int, int]


class Tried(NamedTuple):
    """An image that is tried: its number in the data set, its size as the network gets it, and why it was chosen."""

    index: int
    size: Size | None
    why: str


def trial_validation(model: Any, datasets: list[Any], val: Mapping[str, Any], folder: str) -> Iterator[str]:
    """Validates on a few images of each set as a run does, without a trace.

    Args:
        model: A BasicSR model.
        datasets: The validation sets.
        val: The block ``val``.
        folder: Where pictures are written, if ``val.save_img`` says so.

    Yields:
        A line on each image.

    Raises:
        OptionError: The network, a metric or writing fails; the message names image, size, and what failed.
    """
    if not datasets:
        return
    part = copy.copy(model)
    part.opt = {**model.opt, 'val': {**val, 'pbar': False},
                'path': {**model.opt['path'], 'visualization': folder}}
    part.best_metric_results, part._log_validation_metric_values = {}, lambda *_: None
    done: dict[tuple[Any, ...], str] = {}
    left = _PATIENCE
    for dataset in datasets:
        name, images = dataset.opt['name'], _images(dataset)
        if images is not None and done.setdefault(images, name) != name:
            yield f'{name}: the images of {done[images]}, of which some are restored'
            continue
        for tried in chosen(lq_sizes(dataset), len(dataset)):
            start, expected = time.perf_counter(), _expected_seconds(part, dataset, tried)
            if expected is not None and expected > left:
                yield (f'{name}: {_size(tried)} ({tried.why}) not restored here: that takes about {expected:.0f} s on '
                       'this CPU, in every validation')
            else:
                yield _try(part, dataset, tried, bool(val.get('save_img')))
            left -= time.perf_counter() - start


def lq_sizes(dataset: Any) -> dict[int, Size]:
    """Heights and widths of a data set's inputs by number, of the first 500 files' headers, or of an LMDB's list.

    None of data sets that keep no list of ``paths``, as BasicSR's do.
    """
    paths, opt = getattr(dataset, 'paths', None), getattr(dataset, 'opt', {})
    if not isinstance(paths, list) or not paths:
        return {}
    pairs = isinstance(paths[0], Mapping)
    names = [path.get('lq_path', '') if isinstance(path, Mapping) else path for path in paths[:HEADERS]]
    given = 'dataroot_lq' if pairs or not opt.get('dataroot_gt') else 'dataroot_gt'
    scale = int(opt.get('scale', 1)) if given == 'dataroot_gt' else 1
    root = opt.get(given)
    if (opt.get('io_backend') or {}).get('type') == 'lmdb' and isinstance(root, str):
        known = {record.key: (record.height, record.width) for record in read_meta(Path(root))}
        found = {number: known.get(name) for number, name in enumerate(names)}
    else:
        found = {number: image_size(name) for number, name in enumerate(names)}
    return {number: (size[0] // scale, size[1] // scale) for number, size in found.items() if size is not None}


def chosen(sizes: Mapping[int, Size], count: int) -> list[Tried]:
    """The smallest image, the largest of those with odd sides, the largest of all; the first where no size is known."""
    if not sizes:
        return [Tried(0, None, 'the first')] if count else []
    if len(set(sizes.values())) == 1:
        number = min(sizes)
        return [Tried(number, sizes[number], 'as all')]

    def area(number: int) -> int:
        return sizes[number][0] * sizes[number][1]

    odd = {number: height % 2 + width % 2 for number, (height, width) in sizes.items() if height % 2 or width % 2}
    picked = [(min(sizes, key=lambda number: (min(sizes[number]), area(number))), 'the smallest')]
    if odd:
        picked.append((max(odd, key=lambda number: (odd[number], area(number))), 'of odd sides'))
    picked.append((max(sizes, key=area), 'the largest'))
    return [Tried(number, sizes[number], ', '.join(why for other, why in picked if other == number))
            for number in dict.fromkeys(number for number, _ in picked)]


def _images(dataset: Any) -> tuple[Any, ...] | None:
    """What says which images a set has: sets of the same ones, as under several degrees, are tried once."""
    opt = dataset.opt
    roots = tuple(value for key, value in sorted(opt.items()) if key.startswith(('dataroot', 'meta_info')))
    return (opt.get('type'), opt.get('scale'), str(roots)) if any(roots) else None


def _size(tried: Tried) -> str:
    return f'{tried.size[0]}x{tried.size[1]} pixels' if tried.size else 'an image'


def _try(part: Any, dataset: Any, tried: Tried, save_img: bool) -> str:
    name, size = dataset.opt['name'], _size(tried)
    loader = DataLoader(dataset, batch_size=1, sampler=[tried.index])
    start = time.perf_counter()
    try:
        part.nondist_validation(loader, 0, None, save_img)
    except DILError:
        raise
    except Exception as error:
        if lacks_memory(error):
            raise OptionError(f'datasets: {name}: restoring {size} ({tried.why} of this set) needs more memory than '
                              f'{part.device} has; allowed: smaller images, or no validation on them') from error
        raise OptionError(in_words(error)) from error
    results = getattr(part, 'metric_results', {}) if part.opt['val'].get('metrics') else {}
    measured = ', '.join(f'{metric} {float(value):.4g}' for metric, value in results.items())
    return (f'{name}: {size} ({tried.why}) restored in {time.perf_counter() - start:.2g} s'
            f'{": " if measured else ""}{measured}')


def _expected_seconds(part: Any, dataset: Any, tried: Tried) -> float | None:
    """How long an image will take on a CPU; None where that is short, not known, or a GPU's matter."""
    if part.device.type != 'cpu' or tried.size is None or max(tried.size) <= _TIMED:
        return None
    lq = dataset[tried.index].get('lq')
    if not isinstance(lq, torch.Tensor):
        return None
    start = time.perf_counter()
    try:
        part.feed_data({'lq': lq[None, :, :_TIMED, :_TIMED]})
        part.test()
    except Exception:  # which the whole image will raise
        return None
    area = min(tried.size[0], _TIMED) * min(tried.size[1], _TIMED)
    return (time.perf_counter() - start) * tried.size[0] * tried.size[1] / area
