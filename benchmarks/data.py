"""Measures how fast the data path feeds meta-steps, beside BasicSR's data sets.

OMP_NUM_THREADS=1 python benchmarks/data.py --images path/to/BSDS400 --workers 0 2 --out docs/results/data_cpu.md

Without --images it takes crops of scikit-image's photographs, which are installed with the packages of the tests.
"""

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER.parent), str(FOLDER)]

import dil_plugin.basicsr  # noqa: E402, F401  BasicSR needs its shims

# isort: split
import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from case import photographs  # noqa: E402
from data_loading import STORAGES, Load, ways, write_images  # noqa: E402
from data_report import HEAD, Block, rows, write_page  # noqa: E402
from measuring import measure  # noqa: E402

from dil_plugin.distortions import parse_distortions  # noqa: E402
from dil_plugin.errors import DataError  # noqa: E402

LEAST = {'size': 16, 'gt_size': 1, 'count': 1, 'patches': 1, 'confounders': 1, 'steps': 1, 'repeats': 1, 'threads': 1}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=Path, metavar='FOLDER', help='of photographs; the first --count of them')
    parser.add_argument('--count', type=int, default=64, help='images (default: 64)')
    parser.add_argument('--size', type=int, default=256, help='side of their crops, which are stored (default: 256)')
    parser.add_argument('--gt-size', type=int, default=64, help='side of the training patches (default: 64)')
    parser.add_argument('--patches', type=int, default=8, help='of an inner step (default: 8)')
    parser.add_argument('--confounders', type=int, default=4, help='levels of noise (default: 4)')
    parser.add_argument('--workers', type=int, nargs='+', default=[0], metavar='N',
                        help='data workers of each loader; several numbers are measured in turn (default: 0)')
    parser.add_argument('--steps', type=int, default=8, help='meta-steps that are timed at once (default: 8)')
    parser.add_argument('--repeats', type=int, default=9, help='how often that is timed (default: 9)')
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'], help='where the batches are moved')
    parser.add_argument('--threads', type=int, default=1, help='of torch and OpenCV (default: 1)')
    parser.add_argument('--out', type=Path, metavar='FILE.md', help='also write a page of results')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit status: 0, or 2 for a user mistake."""
    args = parse_arguments(arguments)
    mistake = find_mistake(args)
    if mistake is not None:
        print(f'error: {mistake}', file=sys.stderr)
        return 2
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    try:
        images = read_images(args)
    except DataError as error:
        print(f'error: --images: {error}', file=sys.stderr)
        return 2
    load = Load(args.patches, args.gt_size, args.confounders, args.steps, 0, args.device)
    lines = list(HEAD)
    print('\n'.join(HEAD), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        write_images(images, Path(folder), parse_distortions(load.entries))
        for workers in args.workers:
            made = rows(compare(Path(folder), load._replace(workers=workers), args.repeats))
            print('\n'.join(made), flush=True)
            lines += made
    if args.out:
        script = shlex.join(['benchmarks/data.py', *(sys.argv[1:] if arguments is None else arguments)])
        threads = os.environ.get('OMP_NUM_THREADS')
        command = f'{f"OMP_NUM_THREADS={threads} " if threads else ""}python {script}'
        source = f'{len(images)} crops of {args.size}x{args.size} pixels, of ' + (
            "scikit-image's photographs" if args.images is None else f'the images of {args.images.name}')
        write_page(args.out, command, lines, load, source, args.repeats)
    return 0


def find_mistake(args: argparse.Namespace) -> str | None:
    """What is wrong with the arguments."""
    for name, least in LEAST.items():
        if getattr(args, name) < least:
            return f'--{name.replace("_", "-")}: {getattr(args, name)}; allowed: at least {least}'
    if min(args.workers) < 0:
        return f'--workers: {min(args.workers)}; allowed: at least 0'
    if args.gt_size > args.size:
        return f'--gt-size: {args.gt_size} is more than --size {args.size}'
    if args.images is None and args.size > 400:
        return f'--size: {args.size}; allowed for the photographs that are there without --images: at most 400'
    if args.images is not None and not args.images.is_dir():
        return f'--images: there is no folder {args.images}'
    if args.device == 'cuda' and not torch.cuda.is_available():
        return '--device: cuda, but torch sees no CUDA device; allowed here: cpu'
    return None


def read_images(args: argparse.Namespace) -> list[np.ndarray]:
    """``count`` crops of ``size``, ``(size, size, 3)``, BGR, uint8.

    Raises:
        DataError: The folder has too few images, or one is too small or cannot be read.
    """
    if args.images is None:
        return [(array * 255).round().astype(np.uint8) for array in photographs(args.count, args.size, 'cpu').arrays]
    paths = sorted(path for path in args.images.iterdir() if path.suffix.lower() in ('.png', '.jpg', '.jpeg', '.bmp'))
    if len(paths) < args.count:
        raise DataError(f'{args.images} holds {len(paths)} images, fewer than --count {args.count}')
    images = []
    for path in paths[:args.count]:
        image = cv2.imread(str(path))
        if image is None:
            raise DataError(f'{path} cannot be decoded')
        if min(image.shape[:2]) < args.size:
            raise DataError(f'{path} has {image.shape[0]}x{image.shape[1]} pixels, less than --size {args.size}')
        images.append(np.ascontiguousarray(image[:args.size, :args.size]))
    return images


def compare(folder: Path, load: Load, repeats: int) -> Block:
    """Measures all ways in turn, from all storages."""
    made = {(storage, name): way for storage in STORAGES for name, way in ways(folder, storage, load).items()}
    timings = measure({' '.join(key): way.run for key, way in made.items()}, repeats, 1, load.device)
    return Block(load, made, dict(zip(made, timings.values(), strict=True)))


if __name__ == '__main__':
    sys.exit(main())
