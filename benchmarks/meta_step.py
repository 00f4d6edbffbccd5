"""Measures a training step of every variant, in time and memory, beside meta-learning libraries and plain scripts.

Run as a script: python benchmarks/meta_step.py --help
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER.parent), str(FOLDER)]

import torch  # noqa: E402
from measuring import Timing, measure  # noqa: E402
from meta_contenders import CONTENDERS, ON_GPUS, Setting, Step  # noqa: E402
from meta_report import Measured, lines_of, write_page  # noqa: E402
from peak_memory import measurable, peak  # noqa: E402

_RRDB = {'type': 'RRDBNetNoUpsample', 'num_in_ch': 3, 'num_out_ch': 3}
SETTINGS = {
    'rrdb-small': Setting({**_RRDB, 'num_feat': 32, 'num_block': 2}, confounders=4, patches=4, side=40),
    'msrresnet': Setting({'type': 'MSRResNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 64, 'num_block': 16,
                          'upscale': 4}, confounders=4, patches=4, side=24, scale=4),
    'swinir': Setting({'type': 'SwinIR', 'img_size': 32, 'window_size': 8, 'depths': [6, 6, 6, 6],
                       'num_heads': [6, 6, 6, 6], 'embed_dim': 60, 'mlp_ratio': 2, 'upscale': 1, 'upsampler': '',
                       'resi_connection': '1conv'}, confounders=4, patches=2, side=32),
    'rrdb': Setting({**_RRDB, 'num_feat': 64, 'num_block': 23}, confounders=4, patches=1, side=32),
}
SS = 'ours: ss'
SS_ALONE = 'ours: ss, n = 1'
SMALL = 8  # side of the patches that warm the libraries up before memory is measured


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('networks', nargs='*', metavar='NETWORK', help=f'of {", ".join(SETTINGS)} (default: all)')
    parser.add_argument('--repeats', type=int, default=5,
                        help='of each step, after one that is not counted (default: 5)')
    parser.add_argument('--side', type=int, metavar='PIXELS', help='of the patches (default: as fits a CPU)')
    parser.add_argument('--patches', type=int, metavar='B', help="of each confounder's batch (default: 1 to 4)")
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'])
    parser.add_argument('--threads', type=int, default=1, help='of torch (default: 1)')
    parser.add_argument('--output', type=Path, metavar='FILE.md', help='also write a page of results')
    parser.add_argument('--peak-of', metavar='CONTENDER', help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def mistake(args: argparse.Namespace) -> str | None:
    """What is wrong with the command line."""
    unknown = [name for name in args.networks if name not in SETTINGS]
    if unknown:
        return f'{unknown[0]}: no such network; allowed: {", ".join(SETTINGS)}'
    for name in ('repeats', 'side', 'patches', 'threads'):
        value = getattr(args, name)
        if value is not None and value < 1:
            return f'--{name}: {value}; allowed: at least 1'
    if args.device == 'cuda' and not torch.cuda.is_available():
        return '--device: cuda, but torch sees no CUDA device; allowed here: cpu'
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table for each network; returns the exit status: 0, or 2 for a user mistake."""
    args = parse_arguments(arguments)
    problem = mistake(args)
    if problem:
        print(f'error: {problem}', file=sys.stderr)
        return 2
    torch.set_num_threads(args.threads)
    if args.peak_of:
        print(_peak_here(args.peak_of, _setting(args.networks[0], args)))
        return 0
    lines = []
    for name in args.networks or list(SETTINGS):
        setting = _setting(name, args)
        new = lines_of(name, setting, _measured(name, setting, args))
        print('\n'.join(new), flush=True)
        lines += new
    if args.output:
        command = ' '.join(['python benchmarks/meta_step.py', *(arguments if arguments is not None else sys.argv[1:])])
        write_page(args.output, command, lines, args.device, args.repeats)
    return 0


def _setting(name: str, args: argparse.Namespace) -> Setting:
    setting = SETTINGS[name]
    return replace(setting, side=args.side or setting.side, patches=args.patches or setting.patches,
                   device=args.device)


def _measured(name: str, setting: Setting, args: argparse.Namespace) -> dict[str, Measured]:
    """Time and memory of all contenders."""
    steps = {contender: make(setting) for contender, make in _contenders(args.device).items()}
    times: dict[str, Timing] = measure(steps, args.repeats, 1, args.device)
    del steps
    found = {contender: Measured(timing, _peak(name, contender, args)) for contender, timing in times.items()}
    found[SS_ALONE] = Measured(None, _peak(name, SS_ALONE, args))
    return found


def _contenders(device: str) -> dict[str, Callable[[Setting], Step]]:
    return {**CONTENDERS, **ON_GPUS} if device == 'cuda' else CONTENDERS


def _peak(network: str, contender: str, args: argparse.Namespace) -> int | None:
    """Peak memory, measured in a process of its own."""
    if not measurable(args.device):
        return None
    command = [sys.executable, str(FOLDER / 'meta_step.py'), network, '--peak-of', contender, '--device', args.device,
               '--threads', str(args.threads)]
    for option in ('side', 'patches'):
        if getattr(args, option):
            command += [f'--{option}', str(getattr(args, option))]
    small_allocations = {'MALLOC_MMAP_THRESHOLD_': '65536'}  # all others go back to the system when they are freed
    done = subprocess.run(command, env={**os.environ, **small_allocations}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f'{" ".join(command)} failed:\n{done.stderr}')
    return int(done.stdout)


def _peak_here(contender: str, setting: Setting) -> int:
    if contender == SS_ALONE:
        contender, setting = SS, replace(setting, confounders=1)
    make = _contenders(setting.device)[contender]
    make(replace(setting, confounders=1, patches=1, side=SMALL))(0)  # the libraries load their code

    def two_steps() -> None:
        step = make(setting)
        for _ in range(2):  # the first allocates what the optimisers keep
            step(0)

    return peak(two_steps, setting.device)


if __name__ == '__main__':
    sys.exit(main())
