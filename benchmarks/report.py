"""What the benchmark prints: two Markdown tables, and a page around them."""

import datetime
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from case import COLUMNS, KORNIA, NUMPY, TORCH
from measuring import Timing

LIMITS = {'cpu': 2.0, 'cuda': 1.05}  # of ours / fastest alternative; 5 % for what the clock cannot tell apart
LIMIT_TEXTS = {'cpu': 'at most 2.0 times the fastest alternative',
               'cuda': 'not slower than the fastest alternative (ratio at most 1.05)'}


# Why targets are missed on a CPU, by the beginning of the rows' names; what was tried stands beside the code.
REASONS = {
    'Resize': 'a third of the ways are `area`, which is that of `F.interpolate`, as in Real-ESRGAN. OpenCV\'s area is '
              'another one, and several times as fast as PyTorch\'s pooling. The other modes go through OpenCV, whose '
              'interleaved layout they are copied to and from.',
}


class Row(NamedTuple):
    """What was measured of one case.

    Attributes:
        name: Of the case.
        count: Images in the batch.
        size: Their height and width.
        timings: Ours first.
        alike: Whether the alternatives do the same.
    """

    name: str
    count: int
    size: int
    timings: Mapping[str, Timing]
    alike: bool

    @property
    def ratios(self) -> tuple[float, float] | None:
        """Ours / fastest alternative, of the minima and of the medians; None: there is none."""
        others = [timing for name, timing in self.timings.items() if name != 'ours']
        if not others:
            return None
        return (self.timings['ours'].least / min(timing.least for timing in others),
                self.timings['ours'].median / min(timing.median for timing in others))

    def missed(self, device: str) -> bool:
        """Whether the target is missed."""
        return self.alike and self.ratios is not None and self.ratios[0] > LIMITS[device]


def table(rows: list[Row], device: str) -> list[str]:
    """The comparison, line by line."""
    head = ['distortion', 'batch', 'images/s', 'ours', *COLUMNS, 'ratio', 'of medians', 'target met']
    lines = ['| ' + ' | '.join(head) + ' |', '|---|---|' + '---:|' * (len(head) - 3) + '---|']
    for row in rows:
        times = [_times(row.timings.get(name)) for name in ('ours', *COLUMNS)]
        ratios, mark = row.ratios, '' if row.alike else '~'
        if ratios is None:
            verdict = ['none', 'none', '–']
        else:
            answer = ('no' if row.missed(device) else 'yes') if row.alike else '– (rough neighbour)'
            verdict = [f'{mark}{ratios[0]:.2f}', f'{mark}{ratios[1]:.2f}', answer]
        speed = f'{1000 * row.count / row.timings["ours"].least:,.0f}'
        cells = [row.name, f'{row.count}x3x{row.size}x{row.size}', speed, *times, *verdict]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return lines


def share_line(name: str, timings: Mapping[str, Timing], target: float) -> str:
    """A row of the second table."""
    distortions, step = timings['distortions'], timings['step']
    share, median = distortions.least / step.least, distortions.median / step.median
    return (f'| {name} | {_times(distortions)} | {_times(step)} | {_percent(share)} | {_percent(median)} | '
            f'below {target:.0%} | {"yes" if share < target else "no"} |')


SHARE_HEAD = ['| what | distortions of a batch | one step of sf | share | of medians | target | met |',
              '|---|---:|---:|---:|---:|---|---|']


def write_page(path: Path, command: str, lines: list[str], missed: list[str], device: str, repeats: int) -> None:
    """The page of results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join([
        f'# Speed of the distortions on {processor() if device == "cpu" else torch.cuda.get_device_name()}', '',
        f'{datetime.date.today()}, {processor()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, '
        f'Python {platform.python_version()}, {device}.', '', '```bash', command, '```', '', *_explain(device, repeats),
        '', *lines, '', '## Targets that were missed', '', *(missed or ['None.']),
        *_reasons(missed, device), '']), encoding='utf-8')


def _reasons(missed: list[str], device: str) -> list[str]:
    found = [f'* {name}: {text}' for name, text in REASONS.items() if any(m.startswith(f'* {name}') for m in missed)]
    return ['', 'What lies behind them:', '', *found] if found and device == 'cpu' else []


def _explain(device: str, repeats: int) -> list[str]:
    worker = ' They run on the CPU, in one process, and bring nothing to the GPU.' if device == 'cuda' else ''
    return [
        f'Times are milliseconds for the whole batch, minimum / median of {repeats} repeats in which all contenders '
        'take turns. The ratio is ours / the fastest alternative, of the minima, since other work on a machine only '
        f'ever adds time; beside it that of the medians. Target: {LIMIT_TEXTS[device]}.',
        '',
        f'* {NUMPY}: BasicSR\'s functions for arrays and OpenCV, one float32 image after the other as in a data '
        f'worker.{worker}',
        f'* {TORCH}: BasicSR\'s functions for batches, with DiffJPEG, `filter2D` and `F.interpolate`; kernels are '
        'made one by one as by its data set. Real-ESRGAN of order 2 is `RealESRNetModel.feed_data`, without its pool '
        'of pairs and its crop; of order 1 the same functions. Both have the sizes, interpolations and kinds of noise '
        'that ours draws. `Resize, range` has one factor for the batch, ours one per image.',
        f'* {KORNIA}: its functions for batches; noise and JPEG follow other conventions, kernels other than Gaussian '
        'are made as above and only applied by it. Its rain is a rough neighbour (~): lines of one grey.',
    ]


def _times(timing: Timing | None) -> str:
    return '–' if timing is None else f'{_number(timing.least)} / {_number(timing.median)}'


def _percent(share: float) -> str:
    return f'{share:.2%}' if share < 0.01 else f'{share:.1%}'


def _number(value: float) -> str:
    return f'{value:.0f}' if value >= 100 else f'{value:.1f}' if value >= 10 else f'{value:.2f}'


def processor() -> str:
    """The name of this machine's CPU."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')), platform.machine())
