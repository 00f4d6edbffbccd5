"""Trains ERM and DIL on photographs with little noise, tests both on others with more; four minutes on two cores.

python tools/demo.py

Writes table.md, curve.png and crops.png. The photographs come with scikit-image and scikit-learn.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dil_plugin.errors import DILError  # noqa: E402


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--out', type=Path, default=Path('demo'), metavar='FOLDER',
        help='what is written goes here; relative to the project root; made anew each time (default: demo)')
    parser.add_argument(
        '--iters', type=int, metavar='N',
        help='training iterations of each method, of four image gradients each; fewer than some hundred leave the '
        'networks untrained (default: as in options/train/demo_*.yml)')
    return parser.parse_args()


def main() -> int:
    """Runs the demo; returns the exit status: 0, 1 where training failed, 2 for a user mistake, 130 after Ctrl-C."""
    arguments = parse_arguments()
    from dil_plugin.demo import TrainingFailed, run_demo  # here, not above: --help and spawned workers need no torch
    try:
        run_demo(ROOT / arguments.out, arguments.iters)
    except DILError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except TrainingFailed as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
