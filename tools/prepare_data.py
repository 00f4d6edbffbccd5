"""Cuts images into sub-images and packs them into an LMDB that BasicSR reads, or writes them as PNG files.

python tools/prepare_data.py --dataset DF2K --data datasets       # sub-images of DIV2K and Flickr2K
python tools/prepare_data.py --dataset RealSR --data datasets     # test pairs, for validation during training
python tools/prepare_data.py --dataset DRealSR --data datasets
python tools/prepare_data.py -i datasets/DF2K/HR -o datasets/DF2K_HR_sub.lmdb --size 256 --step 128

What is missing of a set is named, with the place where its authors publish it. An interrupted call continues when the
same command is given again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dil_plugin.data_preparation import CutSettings, prepare_data
from dil_plugin.data_preparation.tool import (
    DATASETS,
    DF2K_SIZE,
    Packing,
    describe,
    for_yaml,
    prepare_df2k,
    prepare_pairs,
)
from dil_plugin.errors import DILError, OptionError


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line (None: that of this process)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('-i', '--input', type=Path, metavar='FOLDER', help='folder of source images')
    what.add_argument('--dataset', choices=DATASETS, help='a published set, as it was downloaded and unpacked')
    parser.add_argument(
        '-o', '--output', type=Path,
        help='LMDB to write if it ends in .lmdb, else a folder of PNG files; of pairs what the names of both LMDBs '
        'begin with (default with --dataset: in --data)'
    )
    parser.add_argument(
        '--data', type=Path, metavar='FOLDER', help='folder of data sets, with --dataset (default: datasets)'
    )
    parser.add_argument('--scale', type=int, help='of the test pairs of RealSR and DRealSR: 2, 3 or 4 (default: 4)')
    parser.add_argument(
        '--allow-incomplete', action='store_true', help='with --dataset: pack what is there of a set (or crops of it)'
    )
    parser.add_argument(
        '--multiscale', action='store_true',
        help='also cut versions at 0.75, 0.5 and 1/3 of the size and one of shortest edge 400, as Real-ESRGAN'
    )
    parser.add_argument('--recursive', action='store_true', help='take images from folders below as well')
    parser.add_argument(
        '--size', type=int, help='side of the sub-images in pixels (default: whole images; DF2K: 400)'
    )
    parser.add_argument('--step', type=int, help='distance between sub-images in pixels (default: half of the size)')
    parser.add_argument(
        '--thresh', type=int, default=0, help='largest remainder at the border, in pixels, to leave out (default: 0)'
    )
    parser.add_argument(
        '--small',
        choices=('keep', 'skip', 'error'),
        help='images smaller than the size: store whole, leave out, or stop; of --multiscale versions, error leaves '
        'out too (default: keep, with --multiscale skip)',
    )
    parser.add_argument(
        '--on-bad-image', choices=('error', 'skip'), default='error',
        help='an image that cannot be read or decoded: stop and name it, or leave it out and say so at the end; not of '
        'pairs (default: error)'
    )
    parser.add_argument('--workers', type=int, help='processes (default: number of processors, 8 at most)')
    parser.add_argument('--compress-level', type=int, default=1, help='PNG compression, 0 to 9 (default: 1)')
    parser.add_argument('--overwrite', action='store_true', help='remove what an earlier call wrote and start anew')
    parser.add_argument('--verify', action='store_true', help='check an output that is already complete once more')
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> list[str]:
    """Prepares what was asked for; returns what to tell the user."""
    size = DF2K_SIZE if options.dataset == 'DF2K' and options.size is None else options.size
    settings = CutSettings(
        size, options.step, options.thresh, options.small, options.compress_level, options.multiscale
    )
    how = Packing(options.workers, options.overwrite, options.verify, options.on_bad_image)
    if options.dataset is None:
        for name in ('data', 'scale', 'allow_incomplete'):
            if getattr(options, name):
                raise OptionError(f'--{name.replace("_", "-")}: only with --dataset; remove it')
        if options.output is None:
            raise OptionError('-o: missing; give the LMDB or folder to write')
        summary = prepare_data(options.input, options.output, settings, recursive=options.recursive, **how._asdict())
        lines = describe(options.output, summary, settings, options.verify)
        return [*lines, *for_yaml({'dataroot_gt': options.output})]
    if options.recursive:
        raise OptionError('--recursive: only with -i; remove it')
    data = options.data or Path('datasets')
    if options.dataset == 'DF2K':
        if options.scale is not None:
            raise OptionError('--scale: DF2K has clean images alone; remove it')
        return prepare_df2k(data, options.output, settings, options.allow_incomplete, how)
    scale = 4 if options.scale is None else options.scale
    return prepare_pairs(data, options.dataset, options.output, scale, settings, options.allow_incomplete, how)


def main() -> int:
    """Runs the tool; returns the exit status: 0, 2 for a user mistake, 130 after Ctrl-C."""
    options = parse_arguments()
    try:
        lines = run(options)
    except DILError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted; give the same command again to continue', file=sys.stderr)
        return 130
    print('\n'.join(lines))
    return 0


if __name__ == '__main__':
    sys.exit(main())
