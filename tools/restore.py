"""Restores images with a trained network: a folder or a file in, a folder out.

python tools/restore.py -i photographs -o restored --checkpoint experiments/denoising_sf/models/net_g_latest.pth

A checkpoint of DILModel says itself what network it is of; for others give --opt, the YAML that they were trained with.
Bit depth, alpha, grey and colour profiles are kept. Results that are there already are skipped, so an interrupted call
continues when the same command is given again. docs/restore.md has the details.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dil_plugin.errors import DILError

if TYPE_CHECKING:
    from dil_plugin.evaluation.restore import Plan, Summary


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line (None: that of this process)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('-i', '--input', required=True, type=Path, metavar='PATH', help='an image or a folder of them')
    parser.add_argument('-o', '--output', required=True, type=Path, metavar='FOLDER', help='where the results go')
    parser.add_argument('--checkpoint', required=True, type=Path, metavar='FILE', help='the trained network, a .pth')
    parser.add_argument('--opt', type=Path, metavar='YAML', help='its training options, if it does not hold them')
    parser.add_argument('--param-key', metavar='KEY',
                        help='params or params_ema (default: params_ema where it is there)')
    parser.add_argument('--tile', type=int, default=512, metavar='PIXELS',
                        help='largest side of the input that is restored at once; 0: no tiles (default: 512)')
    parser.add_argument('--overlap', type=int, default=32, metavar='PIXELS',
                        help='how much of its neighbours a tile sees (default: 32)')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N (default: auto)')
    parser.add_argument('--suffix', default='', metavar='TEXT', help='put behind the names, as in _restored')
    parser.add_argument('--ext', default='auto', metavar='ENDING',
                        help="png, tif, jpg, webp, bmp or ppm (default: auto, the source's; png for JPEG)")
    parser.add_argument('--recursive', action='store_true', help='take images from folders below as well')
    parser.add_argument('--overwrite', action='store_true', help='write results anew that are there already')
    return parser.parse_args(arguments)


def describe(summary: Summary, plan: Plan, options: argparse.Namespace) -> str:
    """What is told to the user at the end, some lines."""
    lines = [f'{options.output}: images restored: {summary.written}']
    if summary.skipped:
        lines.append(f'skipped, because their results are there already (--overwrite: anew): {summary.skipped}')
    if plan.left_out:
        lines.append(f'left out, because they are results of other images: {len(plan.left_out)}')
    lines += [f'{path}: {lost} not kept, the format cannot' for path, lost in summary.reduced]
    if summary.failed:
        lines.append(f'images that could not be restored: {len(summary.failed)}')
    return '\n'.join(lines)


def main() -> int:
    """Runs the tool; returns 0, 1 where an image failed, 2 for a user mistake, 130 after Ctrl-C."""
    options = parse_arguments()
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'SILENT')  # what fails is told below
    try:
        # Here, not above: --help needs no torch.
        from dil_plugin.evaluation.devices import choose_device
        from dil_plugin.evaluation.networks import load_network
        from dil_plugin.evaluation.restore import make_folder, plan_outputs, restore_files
        from dil_plugin.evaluation.tiling import check_tiles
        plan = plan_outputs(options.input, options.output, options.suffix, options.ext, options.recursive)
        network = load_network(options.checkpoint, options.opt, options.param_key, choose_device(options.device))
        check_tiles(options.tile, options.overlap)
        make_folder(options.output)  # at once: where it cannot be, no image could be written
        print(f'{options.checkpoint}: {network.selection}', file=sys.stderr)
        summary = restore_files(network, plan.jobs, options.tile, options.overlap, options.overwrite)
    except DILError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted; give the same command again to continue', file=sys.stderr)
        return 130
    print(describe(summary, plan, options))
    for path, reason in summary.failed:
        print(f'failed: {path}: {reason}', file=sys.stderr)
    return 1 if summary.failed else 0


if __name__ == '__main__':
    sys.exit(main())
