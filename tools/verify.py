"""Recomputes golden vectors on this machine: ``python tools/verify.py [--vectors DIR] [--device cpu|cuda]``."""

import argparse
import os
import sys

sys.path.insert(0, os.path.abspath(os.path.join(__file__, os.pardir, os.pardir)))

import torch

import dil_plugin.basicsr  # noqa: F401
from dil_plugin.errors import DILError
from dil_plugin.verification import verify_folder
from dil_plugin.verification.golden import PACKAGED


def main() -> int:
    """Prints one line per comparison; 0 if all are within tolerance, 1 if not, 2 if there is nothing to compare."""
    parser = argparse.ArgumentParser(description='Recompute golden vectors through the plugin\'s own variants.')
    parser.add_argument('--vectors', default=PACKAGED, metavar='DIR',
                        help='folder with variants.npz and/or released_sf.npz (default: the packaged ones)')
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'])
    args = parser.parse_args()
    if args.device == 'cuda' and not torch.cuda.is_available():
        print('error: --device: cuda, but torch sees no CUDA device; allowed here: cpu', file=sys.stderr)
        return 2
    try:
        checks = verify_folder(args.vectors, args.device)
    except DILError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'{"":32}{"largest relative error":>24}{"allowed":>10}')
    for check in checks:
        print(f'{check.name:32}{check.error:24.2e}{check.tolerance:10.0e}  {"ok" if check.passed else "FAILED"}')
    failed = sum(not check.passed for check in checks)
    print(f'{len(checks) - failed} of {len(checks)} within tolerance (torch {torch.__version__}, {args.device})')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
