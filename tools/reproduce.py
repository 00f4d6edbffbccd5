"""Evaluates trained networks as a table of the paper does, and writes the table with the published numbers beside.

python tools/reproduce.py --table denoising --run ERM=erm.pth --run DIL_sf=sf.pth --data datasets
python tools/reproduce.py -opt options/benchmark/denoising.yml

Writes table.md, table.tex, summary.csv, images.csv, results.json, degree curves, crops and report.html. An interrupted
call continues when it is given again. docs/reproduce.md has the whole chain for every table.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dil_plugin.errors import DILError

LISTS = {'dataset': 'datasets', 'condition': 'conditions', 'metric': 'metrics'}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line (None: that of this process); what is not given is not in the namespace."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     argument_default=argparse.SUPPRESS)
    parser.add_argument('-opt', type=Path, default=None, metavar='FILE', dest='options',
                        help='a file of options/benchmark/; the command line replaces what stands in it')
    parser.add_argument('--table', help='denoising, deblurring, hybrid, real_denoising, deraining, realsr, backbones '
                        'or augmentation')
    parser.add_argument('--run', action='append', metavar='NAME=PATH',
                        help='a method and its checkpoint; may be repeated; replaces all runs of the file. ERM, '
                        'DIL_sf, DIL_ps … get the published numbers beside them; GROUP/NAME for backbones (RRDB, '
                        'SwinIR) and augmentation (D1, D2)')
    parser.add_argument('--data', metavar='DIR', help='folder of the test sets')
    parser.add_argument('-o', '--output', metavar='DIR', help='what is written goes here (default: results/TABLE)')
    parser.add_argument('--dataset', nargs='+', metavar='NAME', help="test sets (default: the table's)")
    parser.add_argument('--condition', nargs='+', metavar='NAME', help="degrees or levels (default: the table's)")
    parser.add_argument('--baseline', metavar='NAME', help='run to compare with (default: ERM, or the first)')
    parser.add_argument('--limit', type=int, metavar='N', help='the first N images of each set')
    parser.add_argument('--seed', type=int, help='seeds the test distortions (default: 0)')
    parser.add_argument('--batch', type=int, metavar='N',
                        help='images of equal size restored together (default: 8 on a GPU, 1 on a CPU)')
    parser.add_argument('--tile', type=int, metavar='PIXELS',
                        help='larger images are restored in tiles of this side; 0: never (default: 768)')
    parser.add_argument('--overlap', type=int, metavar='PIXELS', help='margin of a tile (default: 64)')
    parser.add_argument('--device', help='auto, cpu, cuda or cuda:N (default: auto)')
    parser.add_argument('--metric', nargs='+', metavar='NAME', help='metrics of pyiqa beside PSNR and SSIM, as lpips')
    parser.add_argument('--channel', help="RGB or Y (default: the table's)")
    parser.add_argument('--crop-border', type=int, metavar='PIXELS', help="border left out (default: the table's)")
    parser.add_argument('--pictures', type=int, metavar='N', help='images of each set that are shown (default: 2)')
    parser.add_argument('--save-inputs', action='store_true', help='write the distorted images too, as 16-bit PNG')
    parser.add_argument('--param-key', help='params or params_ema (default: params_ema where it is there)')
    parser.add_argument('--opt', metavar='FILE', dest='network_options',
                        help='YAML whose network_g serves checkpoints that do not say what network they are of')
    parser.add_argument('--overwrite', action='store_true', help='measure all anew')
    return parser.parse_args(arguments)


def given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The command line by the names of ``ReproduceOptions``."""
    from dil_plugin.evaluation.runs import parse_runs
    given = {LISTS.get(name, name): value for name, value in vars(arguments).items()
             if name not in ('options', 'run', 'network_options')}
    if 'run' in arguments:
        given['runs'] = {name: str(path) for name, path in parse_runs(arguments.run).items()}
    if 'network_options' in arguments:
        given['opt'] = arguments.network_options
    return given


def main() -> int:
    """Runs the tool; returns the exit status: 0, 1 where images failed, 2 for a user mistake, 130 after Ctrl-C."""
    arguments = parse_arguments()
    try:
        # here, not above: --help needs no torch
        from dil_plugin.evaluation.reproduce import reproduce, write_report
        from dil_plugin.evaluation.reproduce_options import make_plan, read_options
        plan = make_plan(read_options(arguments.options, given_options(arguments)))
        results = reproduce(plan, f'python tools/reproduce.py {shlex.join(sys.argv[1:])}')
        for path in write_report(results, plan.output):
            print(path)
    except DILError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted; the same command continues', file=sys.stderr)
        return 130
    for skipped in results.skipped:
        print(f'skipped: {skipped.dataset}: {skipped.reason}', file=sys.stderr)
    for failure in results.failures_in_words:
        print(f'failed: {failure}', file=sys.stderr)
    return 1 if results.failures else 0


if __name__ == '__main__':
    sys.exit(main())
