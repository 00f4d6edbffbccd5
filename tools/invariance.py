"""Measures how much the output of networks depends on the distortion of their input.

python tools/invariance.py --run ERM=a.pth --run DIL_sf=b.pth --data datasets/Kodak24

Writes invariance.md, invariance.json and invariance.png: the RMSE between outputs of the same image under different
confounders, beside that of the inputs and the error; and the cosines of the confounders' loss gradients.
docs/invariance.md says how to read them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dil_plugin.errors import DILError


def positive(text: str) -> int:
    """An integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'{text} is less than 1')
    return value


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line (None: that of this process)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--run', required=True, action='append', metavar='NAME=PATH',
                        help='a checkpoint and what to call it; once for every network')
    parser.add_argument('--data', required=True, type=Path, metavar='FOLDER', help='clean images')
    parser.add_argument('--distortions', type=Path, metavar='YAML',
                        help='the confounders: an options file or a list (default: those that the first checkpoint was '
                        'trained on, if it says so, else those of --opt)')
    parser.add_argument('--opt', type=Path, metavar='YAML',
                        help='a BasicSR options file for checkpoints that do not say what network they are of')
    parser.add_argument('--param-key', metavar='KEY',
                        help='which parameters of the checkpoints: params_ema (the default where they are) or params')
    parser.add_argument('-o', '--output', type=Path, default=Path('invariance'), metavar='FOLDER',
                        help='where the three files go (default: invariance)')
    parser.add_argument('--recursive', action='store_true', help='take images from folders below as well')
    parser.add_argument('--limit', type=positive, metavar='N', help='the first N images only')
    parser.add_argument('--size', type=positive, default=128, metavar='PIXELS',
                        help='side of the crop from the middle of each image (default: 128)')
    parser.add_argument('--patch', type=positive, default=64, metavar='PIXELS',
                        help='side of the patches of the gradients (default: 64)')
    parser.add_argument('--patches', type=positive, default=4, metavar='N',
                        help='how many patches each image gives (default: 4)')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N (default: auto)')
    parser.add_argument('--seed', type=int, default=0, help='seeds distortions and patches (default: 0)')
    return parser.parse_args(arguments)


def main() -> int:
    """Runs the tool; returns the exit status: 0, 2 for a user mistake, or 130 where it was interrupted."""
    options = parse_arguments()
    try:
        from dil_plugin.evaluation.invariance.tool import write_invariance  # here, not above: --help needs no torch
        from dil_plugin.evaluation.runs import parse_runs
        given = {name: value for name, value in vars(options).items() if name not in ('run', 'data', 'output')}
        for path in write_invariance(parse_runs(options.run), options.data, options.output, **given):
            print(path)
    except DILError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
