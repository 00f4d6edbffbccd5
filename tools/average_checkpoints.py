"""Averages the weights of checkpoints: stochastic weight averaging (SWA), after a training that has saved them.

python tools/average_checkpoints.py experiments/NAME/models/net_g_{2400,2800,3200,3600}.pth -o net_g_swa.pth

The checkpoints are those of one run at equal distances (logger.save_checkpoint_freq, without logger.keep_last), from
an iteration on; the learning rate should not have become small by then. The file holds the mean as params, and every
tool takes it as any other checkpoint.
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
    parser.add_argument('input', type=Path, nargs='+', metavar='FILE', help='two checkpoints of a network or more')
    parser.add_argument('-o', '--output', required=True, type=Path, metavar='FILE', help='the .pth to write')
    parser.add_argument('--param-key', metavar='KEY',
                        help='which of their parameters: params, params_ema, params_theta (default: params_ema where '
                        'it is there)')
    parser.add_argument('--overwrite', action='store_true', help='replace the output if it is there')
    return parser.parse_args(arguments)


def main() -> int:
    """Runs the tool; returns 0, or 2 for a user mistake."""
    options = parse_arguments()
    try:
        # Here, not above: --help needs no torch.
        from dil_plugin.checkpoint_averaging import average_files
        selection = average_files(options.input, options.output, options.param_key, options.overwrite)
    except DILError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'{options.output}: the mean of {len(options.input)} checkpoints: {selection}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
