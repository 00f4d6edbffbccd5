"""What the benchmark of the steps prints: a table for each network, with the targets, and a page around them."""

import datetime
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from measuring import Timing
from meta_contenders import Setting
from report import processor


class Measured(NamedTuple):
    """What was measured of one contender.

    Attributes:
        time: Of a step; None: not measured.
        peak: Bytes; None: this machine cannot tell.
    """

    time: Timing | None
    peak: int | None


class Target(NamedTuple):
    """A quotient that must not be larger than a limit.

    Attributes:
        text: What is divided by what.
        mine: The contender.
        other: What it is compared with.
        factor: So many times the other.
        limit: Of the quotient.
        of: time or memory.
    """

    text: str
    mine: str
    other: str
    factor: float
    limit: float
    of: str


def targets(n: int) -> list[Target]:
    """The targets, of a step with n confounders."""
    return [
        Target("erm in DILModel / BasicSR's SRModel", 'DILModel: erm', 'SRModel', 1, 1.02, 'time'),
        Target(f'sf / {n} plain steps', 'ours: sf', 'plain step', n, 1.05, 'time'),
        Target(f'pf / {n + 1} plain steps', 'ours: pf', 'plain step', n + 1, 1.10, 'time'),
        Target('ps, fast / higher', 'ours: ps, fast', 'higher: ps', 1, 0.85, 'time'),
        Target('ps, frugal / higher', 'ours: ps, frugal', 'higher: ps', 1, 1.3, 'time'),
        Target('ps, frugal / higher', 'ours: ps, frugal', 'higher: ps', 1, 0.3, 'memory'),
        Target('ps, frugal / a plain step on all images', 'ours: ps, frugal', 'plain step, n batches', 1, 1, 'memory'),
        Target('ps, finite difference / higher', 'ours: ps, finite difference', 'higher: ps', 1, 0.75, 'time'),
        Target('ps, finite difference / a plain step on all images', 'ours: ps, finite difference',
               'plain step, n batches', 1, 1.1, 'memory'),
        Target('sf, bf16, channels_last, compiled / two models', 'ours: sf, bf16, channels_last, compiled',
               'two models: sf', 1, 0.125, 'time'),
        Target(f'ss with {n} confounders / with 1', 'ours: ss', 'ours: ss, n = 1', 1, 1.05, 'memory'),
    ]


def lines_of(name: str, setting: Setting, measured: Mapping[str, Measured]) -> list[str]:
    """Both tables of a network."""
    unit = measured['plain step'].time
    count = sum(p.numel() for p in setting.network().parameters())
    lines = ['', f'## {name}', '',
             f'{setting.network_g["type"]}, {count / 1e6:.2f} million parameters; {setting.confounders} confounders, '
             f'{setting.patches} patch(es) of {setting.side}x{setting.side} each, and as many for the query.', '',
             '| a step of | seconds | plain steps | peak memory (MB) |', '|---|---:|---:|---:|']
    for contender, one in measured.items():
        if one.time is not None and unit is not None:
            lines.append(f'| {contender} | {one.time.least / 1000:.3g} / {one.time.median / 1000:.3g} | '
                         f'{one.time.least / unit.least:.2f} | {_megabytes(one.peak)} |')
    lines += ['', '| target | of | ratio | of medians | at most | met |', '|---|---|---:|---:|---:|---|']
    there = [target for target in targets(setting.confounders) if target.mine in measured]
    return lines + [line for target in there if (line := target_line(target, measured))]


def target_line(target: Target, measured: Mapping[str, Measured]) -> str | None:
    """A row of the second table; None where it was not measured."""
    mine, other = measured[target.mine], measured[target.other]
    if target.of == 'time':
        assert mine.time is not None
        assert other.time is not None
        ratio, median = (getattr(mine.time, of) / getattr(other.time, of) / target.factor for of in Timing._fields)
        beside = f'{median:.3f}'
    elif mine.peak is None or other.peak is None:
        return None
    else:
        ratio, beside = mine.peak / other.peak / target.factor, '–'
    met = 'yes' if ratio <= target.limit else 'no'
    return f'| {target.text} | {target.of} | {ratio:.3f} | {beside} | {target.limit} | {met} |'


def _megabytes(count: int | None) -> str:
    return '–' if count is None else f'{count / 1e6:.0f}'


def write_page(path: Path, command: str, lines: list[str], device: str, repeats: int) -> None:
    """The page of results."""
    machine = processor() if device == 'cpu' else torch.cuda.get_device_name()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join([
        f'# Time and memory of a training step on {machine}', '',
        f'{datetime.date.today()}, {processor()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, '
        f'Python {platform.python_version()}, {device}.', '', '```bash', command, '```', '',
        f'Seconds are minimum / median of {repeats} steps, in which all contenders take turns. The ratio is of the '
        'minima, since other work on a machine only ever adds time; beside it that of the medians. Peak memory is what '
        'two steps need above the network and the images, each contender in a process of its own: resident memory on a '
        'CPU, allocated memory on a GPU. What the contenders are is told in `benchmarks/meta_contenders.py`, and where '
        'a target is missed, `docs/performance.md` says why. `plain step` is one of B patches with Adam; all '
        'contenders take their outer step with Adam, too.', *lines, '']), encoding='utf-8')
