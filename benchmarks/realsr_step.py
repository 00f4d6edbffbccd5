"""Measures a step of real-world super-resolution by part, and what it saves to synthesise all confounders in one go.

Run as a script: python benchmarks/realsr_step.py --help
"""

import argparse
import copy
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER.parent), str(FOLDER)]

import dil_plugin.basicsr  # noqa: E402, F401  BasicSR needs its shims

# isort: split
import cv2  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from case import photographs  # noqa: E402
from measuring import measure  # noqa: E402

from dil_plugin.basicsr.models.dil_model import DILModel  # noqa: E402
from dil_plugin.distortions import DistortionSet, parse_distortions  # noqa: E402

VARIANTS = {'small': {'ps': 'DIL_RealSR_small', 'sf': 'train/realsr_small_sf', 'erm': 'train/realsr_small_erm'},
            'full': {'ps': 'DIL_RealSR', 'sf': 'train/realsr_sf', 'erm': 'train/realsr_erm'}}
REPEATS = 3
SEEDS = 20  # draws of the degradation: the sizes of its resizes decide about the work, and differ between both ways


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--size', choices=list(VARIANTS), default='small',
                        help='the option files of the small network or of the full one (default: small)')
    parser.add_argument('--patches', type=int, metavar='N', help='of an inner step (default: as in the option file)')
    parser.add_argument('--steps', type=int, default=5,
                        help='measured of each variant, after one that is not counted (default: 5)')
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'])
    parser.add_argument('--threads', type=int, default=1, help='of torch and OpenCV (default: 1)')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints both tables; returns the exit status: 0, or 2 for a user mistake."""
    args = parse_arguments(arguments)
    for name in ('patches', 'steps', 'threads'):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            print(f'error: --{name}: {getattr(args, name)}; allowed: at least 1', file=sys.stderr)
            return 2
    if args.device == 'cuda' and not torch.cuda.is_available():
        print('error: --device: cuda, but torch sees no CUDA device; allowed here: cpu', file=sys.stderr)
        return 2
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    print('| variant | patches of a step | synthesis (ms) | inner (ms) | outer (ms) | synthesis / step |')
    print('|---|---|---:|---:|---:|---:|')
    for variant, name in VARIANTS[args.size].items():
        print(step_line(variant, read(name), args), flush=True)
    print('\n| confounders | n batches of | in one go (ms) | one after the other (ms) | ratio |')
    print('|---|---|---:|---:|---:|')
    for order in (1, 2):
        print(synthesis_line(order, read(VARIANTS[args.size]['ps']), args), flush=True)
    return 0


def read(name: str) -> dict[str, Any]:
    """An option file."""
    options: dict[str, Any] = yaml.safe_load((FOLDER.parent / f'options/{name}.yml').read_text())
    return options


def inner_patches(options: dict[str, Any], args: argparse.Namespace) -> tuple[int, int]:
    """Clean patches of an inner step, and how many sets of them a batch has."""
    sets = len(parse_distortions(options['distortions'])) if options['train']['dil'].get('patches') == 'fresh' else 1
    return args.patches or options['datasets']['train']['batch_size_per_gpu'] // sets, sets


def step_line(variant: str, options: dict[str, Any], args: argparse.Namespace) -> str:
    """The parts of ``DILModel``'s step, as its log has them."""
    options = copy.deepcopy(options)
    count, sets = inner_patches(options, args)
    options.update(num_gpu=int(args.device == 'cuda'), is_train=True, dist=False, rank=0, world_size=1,
                   queue_size=count)
    options['logger']['pbar'] = False
    train = options['datasets']['train']
    train.update(batch_size_per_gpu=count * sets, phase='train', scale=options['scale'])
    clean = photographs(count * sets, train['crop_pad_size'], args.device).images
    with tempfile.TemporaryDirectory() as folder:
        options['path'].update(experiments_root=folder, models=folder, training_states=folder)
        model = DILModel(options)
        for number in range(args.steps + 1):
            model.feed_data({'gt': clean})
            model.optimize_parameters(number + 1)
            if number == 0:
                model.stopwatch.means()  # warm-up, and the pool is full: from here on it exchanges
        parts = model.stopwatch.means()
    share = parts['synthesis'] / sum(parts.values())
    cells = ' | '.join(f'{1000 * parts[part]:.3g}' for part in ('synthesis', 'inner', 'outer'))
    size = train['gt_size']
    return f'| {variant} | {count * sets} of {size}x{size}, from {train["crop_pad_size"]} | {cells} | {share:.1%} |'


def synthesis_line(order: int, options: dict[str, Any], args: argparse.Namespace) -> str:
    """``DistortionSet.together`` against a call for each confounder, with equal numbers of images."""
    entry = {**options['distortions'][0], 'order': order}
    confounders = parse_distortions([entry])
    count, _ = inner_patches(options, args)
    side = options['datasets']['train']['crop_pad_size']
    clean = photographs(count, side, args.device).images
    timings = measure({'together': lambda seed: together(confounders, clean, seed),
                       'apart': lambda seed: apart(confounders, clean, seed)}, REPEATS, SEEDS, args.device)
    one, other = timings['together'], timings['apart']
    return (f'| RealESRGAN, order {order}, n = {len(confounders)} | {count} of {side}x{side} | {one.median:.4g} | '
            f'{other.median:.4g} | {one.median / other.median:.2f} |')


def together(confounders: DistortionSet, clean: torch.Tensor, seed: int) -> list[torch.Tensor]:
    """All confounders in one go."""
    return confounders.counterfactuals(clean, torch.Generator(clean.device).manual_seed(seed))


def apart(confounders: DistortionSet, clean: torch.Tensor, seed: int) -> list[torch.Tensor]:
    """A call for each."""
    generator = torch.Generator(clean.device).manual_seed(seed)
    return [confounder(clean, generator) for confounder in confounders]


if __name__ == '__main__':
    sys.exit(main())
