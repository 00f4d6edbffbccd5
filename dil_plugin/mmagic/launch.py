"""The command line of ``tools/train_mmagic.py``: that of mmagic's own training tool."""

import argparse
import os
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from dil_plugin.errors import OptionError
from dil_plugin.missing_files import no_such


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; None: that of the process."""
    parser = argparse.ArgumentParser(description='Trains a mmagic model by its config, with the arguments of '
                                     "mmagic's own tools/train.py.")
    parser.add_argument('config', type=Path, help='config of mmengine, as options/mmagic/quick_cpu.py')
    parser.add_argument('--work-dir', help='for logs and checkpoints (default: work_dirs/NAME_OF_CONFIG)')
    parser.add_argument('--resume', action='store_true', help='go on from the newest checkpoint of the work dir')
    parser.add_argument('--amp', action='store_true', help='mixed precision on a GPU; bfloat16 unless the config says '
                        'otherwise')
    parser.add_argument('--auto-scale-lr', action='store_true', help="scale the rate by the config's auto_scale_lr")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='overrides of the config, KEY.KEY=VALUE')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='starts several processes (default: none)')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def read_config(options: argparse.Namespace) -> Config:
    """The config, with what the command line changes.

    Raises:
        OptionError: There is no such file, or it has nothing that an argument could act on.
    """
    if not options.config.is_file():
        raise OptionError(f'config: {no_such(options.config)}')
    config = Config.fromfile(options.config)
    config.launcher = options.launcher
    if options.cfg_options:
        config.merge_from_dict(options.cfg_options)
    config.work_dir = options.work_dir or config.get('work_dir') or str(Path('work_dirs') / options.config.stem)
    if options.amp:
        _enable_amp(config)
    if options.auto_scale_lr:
        if not config.get('auto_scale_lr'):
            raise OptionError('--auto-scale-lr: the config has no auto_scale_lr, as in dict(base_batch_size=32)')
        config.auto_scale_lr.enable = True
    config.resume = options.resume or config.get('resume', False)
    return config


def _enable_amp(config: Config) -> None:
    wrapper = config.optim_wrapper
    # the settings of an OptimWrapperDict stand one level deeper
    blocks = [wrapper] if 'optimizer' in wrapper else [block for block in wrapper.values() if isinstance(block, dict)]
    for block in blocks:
        kind = block.get('type', 'OptimWrapper')
        if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
            raise OptionError(f'--amp: optim_wrapper.type is {kind!r}; allowed: OptimWrapper')
        block['type'] = 'AmpOptimWrapper'
        block.setdefault('dtype', 'bfloat16')


def train(arguments: list[str] | None = None) -> None:
    """Builds mmengine's Runner of the config and trains."""
    options = parse_arguments(arguments)
    os.environ.setdefault('LOCAL_RANK', str(options.local_rank))
    Runner.from_cfg(read_config(options)).train()
