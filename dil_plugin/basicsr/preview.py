"""Previews that need BasicSR's side: the pairs of a ``PairedConfounderDataset``, which no distortion makes."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dil_plugin.basicsr.data.checking_data import PAIRED_DATASET
from dil_plugin.basicsr.data.draw_sampler import Draw
from dil_plugin.basicsr.data.paired_confounder_dataset import PairedConfounderDataset
from dil_plugin.basicsr.yaml_options.reading import import_modules
from dil_plugin.errors import OptionError
from dil_plugin.evaluation.output_files import write_figure
from dil_plugin.evaluation.plots import Panel, side_by_side
from dil_plugin.evaluation.preview_tool import write_previews
from dil_plugin.yaml_files import read_yaml


def write_any_preview(opt: Path, output: Path | None = None, source: Path | None = None, *, images: int = 2,
                      **settings: Any) -> Iterator[Path]:
    """Draws the contact sheet of any options file; the arguments are those of ``evaluation``'s ``write_previews``.

    Where the training data are sets of pairs, the sheet shows their first training patches: ``images`` of every set,
    input and target.

    Raises:
        OptionError: The file's distortions or data sets are wrong or missing.
        DataError: A file cannot be read or written, or images are too small.
    """
    options = None if opt.suffix == '.md' else read_yaml(opt, '-opt')
    if isinstance(options, Mapping):
        import_modules(options)
    datasets = options.get('datasets') if isinstance(options, Mapping) else None
    train = datasets.get('train') if isinstance(datasets, Mapping) else None
    if not isinstance(options, Mapping) or not isinstance(train, Mapping) or train.get('type') != PAIRED_DATASET:
        yield from write_previews(opt, output, source, images=images, **settings)
        return
    if source is not None:
        raise OptionError(f'--input: {source}, but the training data of {opt} are pairs, which stay as they are')
    path = output or Path(f'preview_{opt.stem}.png')
    write_figure(side_by_side(_rows(options, train, images), zoom=2), path)
    yield path


def _rows(options: Mapping[str, Any], train: Mapping[str, Any], count: int) -> list[list[Panel]]:
    seed = options.get('manual_seed') or 0
    block = {'seed': seed, **train, 'pairs': 'all', 'phase': 'train', 'scale': options.get('scale', 1)}
    dataset = PairedConfounderDataset(block)
    rows = []
    for k in range(count):
        sample = dataset[Draw(k % len(dataset), k)]
        pairs = zip(dataset.sets, sample['confounder_lq'], sample['confounder_gt'], strict=True)
        row = []
        for one, lq, gt in pairs:
            row += [Panel(_pixels(lq, gt.shape[-1] // lq.shape[-1]), one.name), Panel(_pixels(gt), 'target')]
        rows.append(row)
    return rows


def _pixels(image: Tensor, enlarge: int = 1) -> np.ndarray:
    pixels = image.permute(1, 2, 0).numpy()
    return np.ascontiguousarray(pixels.repeat(enlarge, 0).repeat(enlarge, 1))
