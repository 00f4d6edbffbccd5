"""Measures every distortion beside BasicSR, OpenCV and kornia, and its share of a training step.

python benchmarks/distortions.py --out docs/results/distortions_cpu.md
python benchmarks/distortions.py --device cuda --only JPEG RealESRGAN

kornia is among the packages of the tests (make test installs them). Set OMP_NUM_THREADS as --threads.
"""

import argparse
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

import cv2  # noqa: E402
import torch  # noqa: E402
from case import Batch, Case, contenders, photographs  # noqa: E402
from cases import all_cases  # noqa: E402
from measuring import measure  # noqa: E402
from report import SHARE_HEAD, Row, share_line, table, write_page  # noqa: E402
from torch.autograd.profiler import profile  # noqa: E402
from tqdm import tqdm  # noqa: E402
from training import TRAININGS  # noqa: E402
from training import contenders as training_contenders  # noqa: E402

SIZES, LARGE_SIZES, TINY_SIZES = ((16, 64), (8, 256)), ((8, 128), (8, 256)), ((2, 96), )
TRAINING_REPEATS = 3  # at most; a step takes seconds


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line (None: that of this process)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'])
    parser.add_argument('--threads', type=_positive, default=1, help='of torch and OpenCV (default: 1)')
    parser.add_argument('--repeats', type=_positive, default=9, help='how often each is timed (default: 9)')
    parser.add_argument('--only', nargs='+', metavar='NAME', help='only rows whose names begin with one of these')
    parser.add_argument('--out', type=Path, metavar='FILE.md', help='also write a page of results')
    parser.add_argument('--tiny', action='store_true',
                        help='two images in a batch and small networks, to see that everything runs')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status: 0, or 2 for a user mistake."""
    args = parse_arguments(arguments)
    if args.device == 'cuda' and not torch.cuda.is_available():
        print('error: --device: cuda, but torch sees no CUDA device; allowed here: cpu', file=sys.stderr)
        return 2
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    warnings.filterwarnings('ignore', category=RuntimeWarning, module='basicsr')  # its sinc divides by 0 at the centre
    names = {row.name for row in [*all_cases(64), *TRAININGS]}
    for start in args.only or ():
        if not any(name.startswith(start) for name in names):
            print(f'error: --only: no row begins with {start}; there are {"; ".join(sorted(names))}', file=sys.stderr)
            return 2
    lines, missed = run(args)
    print('\n'.join(lines))
    if args.out:
        script = shlex.join(['benchmarks/distortions.py', *(sys.argv[1:] if arguments is None else arguments)])
        threads = os.environ.get('OMP_NUM_THREADS')
        command = f'{f"OMP_NUM_THREADS={threads} " if threads else ""}python {script}'
        write_page(args.out, command, lines, missed, args.device, args.repeats)
    return 0


def run(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Both tables, and a line for each missed target."""
    jobs = [(case, photographs(count, size, args.device)) for count, size, large in _sizes(args.tiny)
            for case in all_cases(size) if case.large == large and _chosen(case.name, args)]
    trainings = [training for training in TRAININGS if _chosen(training.name, args)]
    rows, shares, missed = [], [], []
    with tqdm(total=len(jobs) + len(trainings), file=sys.stderr) as progress:
        for case, batch in jobs:
            progress.set_postfix_str(f'{case.name}, {batch.images.shape[-1]} px')
            rows.append(compare(case, batch, args))
            if rows[-1].missed(args.device):
                missed.append(f'* {case.name}, {batch.images.shape[-1]} px, ratio {rows[-1].ratios[0]:.2f}: '
                              f'{hot_spots(case, batch)}.')
            progress.update()
        for training in trainings:
            progress.set_postfix_str(training.name)
            timings = measure(training_contenders(training, args.device, args.tiny),
                              min(args.repeats, TRAINING_REPEATS), training.seeds, args.device)
            shares.append(share_line(training.name, timings, training.target))
            if timings['distortions'].least >= training.target * timings['step'].least:
                missed.append(f'* {training.name}.')
            progress.update()
    order = {name: k for k, name in enumerate(case.name for case in all_cases(64))}
    rows.sort(key=lambda row: order[row.name])
    lines = table(rows, args.device) if rows else []
    return [*lines, *([''] if rows and shares else []), *(SHARE_HEAD + shares if shares else [])], missed


def compare(case: Case, batch: Batch, args: argparse.Namespace) -> Row:
    """Measures one case."""
    count, size = len(batch.images), batch.images.shape[-1]
    timings = measure(contenders(case, batch), args.repeats, 1 if args.tiny else case.seeds, args.device)
    return Row(case.name, count, size, timings, case.alike)


def hot_spots(case: Case, batch: Batch) -> str:
    """The operators that take the most time of the host in ours, with their shares of all operators' time."""
    ours = contenders(case, batch)['ours']
    with profile(use_kineto=False) as profiled:
        for seed in range(case.seeds):
            ours(seed)
    events = sorted(profiled.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return 'ours spends its time on ' + ', '.join(
        f'`{event.key.removeprefix("aten::")}` {event.self_cpu_time_total / total:.0%}' for event in events[:4])


def _sizes(tiny: bool) -> list[tuple[int, int, bool]]:
    """Batches as (count, size), and whether they are those of super-resolution."""
    small, large = (TINY_SIZES, TINY_SIZES) if tiny else (SIZES, LARGE_SIZES)
    return [*((*one, False) for one in small), *((*one, True) for one in large)]


def _chosen(name: str, args: argparse.Namespace) -> bool:
    return args.only is None or any(name.startswith(start) for start in args.only)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text} is less than 1')
    return number


if __name__ == '__main__':
    sys.exit(main())
