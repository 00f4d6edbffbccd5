"""What benchmarks/data.py prints: a Markdown table, and a page around it."""

import datetime
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from data_loading import Load, Way
from measuring import Timing
from report import processor

HEAD = ['| storage | workers | data set | pairs/s | ms of a meta-step | time of a pair | of medians | decodes | kB to '
        'the device |', '|---|---:|---|---:|---:|---:|---:|---:|---:|']


class Block(NamedTuple):
    """What was measured side by side, by storage and name; the first is the unit of the others."""

    load: Load
    ways: Mapping[tuple[str, str], Way]
    timings: Mapping[tuple[str, str], Timing]


def rows(block: Block) -> list[str]:
    """A line for each way."""
    lines = []
    units = [value / next(iter(block.ways.values())).pairs for value in next(iter(block.timings.values()))]
    for (storage, name), way in block.ways.items():
        timing = block.timings[storage, name]
        least, median = (value / block.load.steps for value in timing)
        ratios = [value / way.pairs / unit for value, unit in zip(timing, units, strict=True)]
        cells = [storage, str(block.load.workers), name, f'{1000 * way.pairs / least:,.0f}',
                 f'{least:.3g} / {median:.3g}', *(f'{ratio:.2f}' for ratio in ratios), str(way.decodes),
                 f'{way.size / 1000:,.0f}']
        lines.append('| ' + ' | '.join(cells) + ' |')
    return lines


def write_page(path: Path, command: str, lines: list[str], load: Load, images: str, repeats: int) -> None:
    """The page of results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    device = processor() if load.device == 'cpu' else f'{processor()}, {torch.cuda.get_device_name()}'
    path.write_text('\n'.join([
        f'# Speed of the data path on {processor()}', '',
        f'{datetime.date.today()}, {device}, {torch.get_num_threads()} thread(s) of each process, torch '
        f'{torch.__version__}, Python {platform.python_version()}.', '', '```bash', command, '```', '',
        *_explain(load, images, repeats), '', *lines, '']), encoding='utf-8')


def _explain(load: Load, images: str, repeats: int) -> list[str]:
    n = load.confounders
    return [
        f'{images}, as PNG files and in LMDBs, all in the page cache. A meta-step has {n} confounders (Gaussian noise) '
        f'and inner steps of {load.patches} patches, {load.gt_size}x{load.gt_size}.',
        '',
        '* pairs/s: pairs of a distorted and a clean patch that the meta-step gets, clean patches times confounders, '
        'per second, from the minimum.',
        f'* ms of a meta-step: minimum / median of {repeats} repeats of {load.steps} meta-steps each, in which all '
        'take turns, of loading, collating, moving to the device and, for uint8, conversion to [0, 1] there.',
        '* time of a pair: relative to that of the first line with as many workers, of the minima, since other work on '
        'a machine only ever adds time; beside it that of the medians. Where the two are far apart, there was such '
        'work.',
        '* decodes, kB to the device: counted in one meta-step.',
        '',
        'The data sets:',
        '',
        '* DistortionAugmentedDataset, device: clean patches as uint8, which `DILModel` distorts where the network is. '
        'same: one clean patch under every confounder (`patches: same`); fresh: patches of its own for each '
        f'(`patches: fresh`), {n} times as many. The distorting is part of the time in the line that says so alone, on '
        f'the {load.device} and in the process of the network.',
        '* DistortionAugmentedDataset, worker: each clean patch under every confounder and under one that is drawn, as '
        'float32, made by the data workers.',
        f'* PairedConfounderDataset: {n} sets of prepared pairs, a pair of each for every sample, as uint8.',
        "* PairedImageDataset, one distortion: BasicSR's, on pairs prepared for one confounder; its meta-step has that "
        'one alone.',
        f'* PairedImageDataset, a loader per distortion: {n} of them with a loader (and workers) each, as the '
        "authors' released script loads; input and target are decoded for every confounder. Its patches are fresh, so "
        'its counterpart is the line `device, fresh`.',
    ]
