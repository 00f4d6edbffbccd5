"""Converts a checkpoint of BasicSR to one of mmagic, or one of mmagic to one of BasicSR; which it is, it sees itself.

python tools/convert_checkpoint.py experiments/DIL_RealSR/models/net_g_latest.pth -o realsr_mmagic.pth
python tools/convert_checkpoint.py work_dirs/dil_rrdb/iter_100000.pth -o net_g_dil.pth

The networks are RRDBNet, RRDBNetNoUpsample and SwinIR; the converted one computes the same images. Optimisers and
other networks stay behind, so that training starts from it (load_from, pretrain_network_g) and does not resume.
Neither BasicSR nor mmagic needs to be installed. docs/mmagic.md has the details.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dil_plugin.errors import DILError


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line (None: that of this process)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('input', type=Path, metavar='FILE', help='a .pth of BasicSR or of mmagic')
    parser.add_argument('-o', '--output', required=True, type=Path, metavar='FILE', help='the .pth to write')
    parser.add_argument('--arch', metavar='NAME',
                        help='the network, by its name in either package (default: found by its parameters)')
    parser.add_argument('--ema', choices=('hook', 'generator_ema'),
                        help="where mmagic keeps averaged parameters: hook, as mmengine's EMAHook does, so that they "
                        "are loaded for testing; generator_ema, as models with is_use_ema=True do (default: reading, "
                        'what is there; writing, hook)')
    parser.add_argument('--overwrite', action='store_true', help='replace the output if it is there')
    return parser.parse_args(arguments)


def main() -> int:
    """Runs the tool; returns 0, or 2 for a user mistake."""
    options = parse_arguments()
    try:
        # Here, not above: --help needs no torch.
        from dil_plugin.checkpoint_conversion import convert_file, describe
        conversion = convert_file(options.input, options.output, options.arch, options.ema, options.overwrite)
    except DILError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(describe(conversion, options.output))
    return 0


if __name__ == '__main__':
    sys.exit(main())
