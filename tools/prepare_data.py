"""Cuts images into sub-images and packs them into an LMDB that BasicSR reads, or writes them as PNG files.

python tools/prepare_data.py -i datasets/DF2K/HR -o datasets/DF2K_HR_sub.lmdb --size 256 --step 128

An interrupted call continues when the same command is given again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dil_plugin.data_preparation import CutSettings, Summary, prepare_data
from dil_plugin.errors import DILError


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line (None: that of this process)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('-i', '--input', type=Path, required=True, metavar='FOLDER', help='folder of source images')
    parser.add_argument(
        '-o', '--output', type=Path, required=True, help='LMDB to write if it ends in .lmdb, else a folder of PNG files'
    )
    parser.add_argument('--recursive', action='store_true', help='take images from folders below as well')
    parser.add_argument('--size', type=int, help='side of the sub-images in pixels (default: whole images)')
    parser.add_argument('--step', type=int, help='distance between sub-images in pixels (default: half of the size)')
    parser.add_argument(
        '--thresh', type=int, default=0, help='largest remainder at the border, in pixels, to leave out (default: 0)'
    )
    parser.add_argument(
        '--small',
        choices=('keep', 'skip', 'error'),
        default='keep',
        help='images smaller than the size: store whole, leave out, or stop (default: keep)',
    )
    parser.add_argument('--workers', type=int, help='processes (default: number of processors, 8 at most)')
    parser.add_argument('--compress-level', type=int, default=1, help='PNG compression, 0 to 9 (default: 1)')
    parser.add_argument('--overwrite', action='store_true', help='remove what an earlier call wrote and start anew')
    parser.add_argument('--verify', action='store_true', help='check an output that is already complete once more')
    return parser.parse_args(arguments)


def describe(summary: Summary, options: argparse.Namespace) -> str:
    """What is told to the user at the end, some lines."""
    if summary.already_complete:
        checked = ', all of them verified' if options.verify else '; nothing to do (--verify checks it again)'
        return f'{options.output} is complete: {summary.records} records{checked}'
    lines = [f'{options.output}: {summary.records} records from {summary.images} images, all read back and compared']
    if summary.resumed:
        lines.append(f'images taken over from an interrupted call: {summary.resumed}')
    if summary.small:
        treated = 'stored whole' if options.small == 'keep' else 'left out'
        lines.append(f'images smaller than {options.size} pixels, {treated}: {summary.small}')
    if summary.alpha:
        lines.append(f'images whose alpha channel was dropped: {summary.alpha}')
    return '\n'.join(lines)


def main() -> int:
    """Runs the tool; returns the exit status: 0, 2 for a user mistake, 130 after Ctrl-C."""
    options = parse_arguments()
    try:
        settings = CutSettings(options.size, options.step, options.thresh, options.small, options.compress_level)
        summary = prepare_data(
            options.input,
            options.output,
            settings,
            recursive=options.recursive,
            workers=options.workers,
            overwrite=options.overwrite,
            verify=options.verify,
        )
    except DILError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted; give the same command again to continue', file=sys.stderr)
        return 130
    print(describe(summary, options))
    return 0


if __name__ == '__main__':
    sys.exit(main())
