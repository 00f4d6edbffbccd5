"""Runs a study: a grid of trainings with equal image gradients; writes one table and one plot.

python tools/study.py -opt options/study/denoising_variants.yml --train-data datasets/train128.lmdb --jobs 2

Every training is that of tools/train.py. Cells that have ended are not run again, and interrupted ones go on, when the
same command is given again. docs/study.md explains the file and the table.
"""

from __future__ import annotations

import argparse
import os
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
    parser.add_argument('-opt', required=True, type=Path, metavar='FILE', help='a file of options/study/')
    parser.add_argument('-o', '--output', type=Path, metavar='DIR',
                        help='what is written goes here (default: studies/NAME)')
    parser.add_argument('--jobs', type=positive, default=1, metavar='N',
                        help='trainings at once, each with one thread (default: 1)')
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda (default: auto)')
    parser.add_argument('--train-data', metavar='PATH', help='LMDB or folder of training images (default: as the file '
                        'says)')
    parser.add_argument('--test-data', metavar='DIR', help='folder of clean test images (default: as the file says)')
    parser.add_argument('--only', metavar='PATTERN', help='run, or list, the cells whose names match, as "sf*"')
    parser.add_argument('--seeds', type=int, nargs='+', metavar='N', help="in place of the file's")
    parser.add_argument('--budget', type=positive, metavar='N', help="image gradients, in place of the file's")
    parser.add_argument('--points', type=positive, metavar='N', help="tests of each training, in place of the file's")
    parser.add_argument('--merge', type=Path, nargs='+', default=[], metavar='FILE',
                        help='results.json of other machines or studies; cells of the same settings are taken over')
    parser.add_argument('--report', action='store_true', help='run nothing: table and plot of what has ended')
    parser.add_argument('--list', action='store_true',
                        help='run nothing: the cells, their steps and image gradients, and which have ended')
    parser.add_argument('--retry', action='store_true', help='run failed cells again')
    parser.add_argument('--keep-checkpoints', action='store_true', help='do not delete the networks of finished cells')
    options = parser.parse_args(arguments)
    if options.list and (options.merge or options.report):
        parser.error('--list runs and writes nothing; allowed: without --merge and --report')
    return options


def main() -> int:
    """Runs the tool; returns the exit status: 0, 1 where cells did not end well, 2 for a user mistake, 130 Ctrl-C."""
    options = parse_arguments()
    given = {name: getattr(options, name) for name in ('seeds', 'budget', 'points') if getattr(options, name)}
    try:
        from dil_plugin.study.tool import StudyRun  # here, not above: --help needs no torch
        study = StudyRun(options.opt, options.output, given, options.train_data, options.test_data)
        if options.list:
            print(study.listing(options.only), flush=True)
            return 0
        if options.merge:
            study.merge(options.merge)
        if not options.report:
            study.run(options.device, options.jobs, options.only, options.keep_checkpoints, options.retry)
        for path in study.report():
            print(path)
        failed = {name: curve.error for name, curve in study.results().cells.items() if curve.status == 'failed'}
    except DILError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except BrokenPipeError:  # its reader has had enough, as head has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries to write the rest
        return 1
    except KeyboardInterrupt:
        print('interrupted; the same command continues', file=sys.stderr)
        return 130
    for name, error in failed.items():
        print(f'failed: {name}: {error}', file=sys.stderr)
    if failed:
        print('--retry runs them again', file=sys.stderr)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
