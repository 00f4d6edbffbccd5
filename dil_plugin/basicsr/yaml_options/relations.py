"""Mistakes that lie between options, or in names: what the type of one option alone cannot say."""

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from dil_plugin.basicsr.yaml_options.registered import OPTIMIZERS, SCHEDULERS
from dil_plugin.errors import OptionError
from dil_plugin.mistakes import Mistakes, raise_all
from dil_plugin.options import did_you_mean

_NAME_BYTES = 180
"""So many bytes of a name leave room for the dates that BasicSR puts into the names of folders and logs (255 bytes)."""


def check_name(opt: Mapping[str, Any]) -> None:
    """Raises OptionError unless ``name`` can be that of a folder."""
    name = opt['name']
    what = "expected the name of a folder below experiments/"
    if not name or name in ('.', '..') or '/' in name or os.sep in name:
        raise OptionError(f'name: got {name!r}, {what}')
    if not name.isprintable():
        raise OptionError(f'name: got {name!r}, {what}, without control characters')
    if len(name.encode('utf-8', 'surrogatepass')) > _NAME_BYTES:
        raise OptionError(f'name: got {name[:40]!r}…, {len(name)} characters; {what}, of at most {_NAME_BYTES} bytes')


def check_registered(opt: Mapping[str, Any]) -> None:
    """Raises OptionError for an optimiser or a schedule that there is not."""
    errors = []
    for key, known in (('optim_g', OPTIMIZERS), ('scheduler', SCHEDULERS)):
        block = opt['train'].get(key)
        name = block.get('type') if isinstance(block, Mapping) else None
        if not isinstance(name, str) or name not in known:
            errors.append(OptionError(f'train.{key}.type: unknown name {name!r}; {did_you_mean(str(name), known)}'))
    raise_all(errors)


def check_relations(opt: Mapping[str, Any], spare: Callable[..., bool]) -> None:
    """Raises OptionError where options contradict each other, and says on standard error what is odd.

    Args:
        opt: The options of a run with ``model_type: DILModel``, of blocks that are checked one by one.
        spare: Says of options whether nothing is known to be wrong with them.
    """
    mistakes = Mistakes()
    for check, options in _RELATIONS if opt['is_train'] else _RELATIONS[:2]:
        if spare(*options):
            with mistakes:
                check(opt)
    mistakes.end()


def _check_validation_names(opt: Mapping[str, Any]) -> None:
    first: dict[Any, str] = {}
    for key, dataset in opt['datasets'].items():
        name = dataset.get('name')
        if dataset.get('phase') == 'train' or name is None:
            continue
        if name in first:
            raise OptionError(f'datasets.{key}.name: {name!r} is that of datasets.{first[name]} too, and results go by '
                              'the name; allowed: another name')
        first[name] = key


def _check_ignored_networks(opt: Mapping[str, Any]) -> None:
    ignored = opt['path'].get('ignore_resume_networks')
    names = [ignored] if isinstance(ignored, str) else ignored or []
    known = [key for key in opt if key.startswith('network_')]
    for name in names:
        if name not in known:
            raise OptionError(f'path.ignore_resume_networks: {name!r}; {did_you_mean(name, known)}')


def _check_schedule(opt: Mapping[str, Any]) -> None:
    train = opt['train']
    total, scheduler = int(train['total_iter']), train['scheduler']
    if scheduler['type'] == 'CosineAnnealingRestartLR' and sum(scheduler['periods']) < total:
        periods = scheduler['periods']
        raise OptionError(f'train.scheduler.periods: {periods} are {sum(periods)} iterations in all, less than '
                          f'train.total_iter {total}')
    warmup = train.get('warmup_iter', -1)
    if warmup > total:
        sys.stderr.write(f'Warning: train.warmup_iter is {warmup} and total_iter {total}: the learning rate never '
                         'reaches its value.\n')


def _check_losses(opt: Mapping[str, Any]) -> None:
    """Refuses losses of which nothing is left, and layers that VGG does not have."""
    train = opt['train']
    perceptual = train.get('perceptual_opt')
    if perceptual and perceptual['type'] == 'PerceptualLoss':
        _check_layers(perceptual)
    factors = {
        f'train.{key}.{name}': train[key].get(name, default)
        for key in ('pixel_opt', 'perceptual_opt') if train.get(key)
        for name, default in ((('perceptual_weight', 1.0), ('style_weight', 0.0))
                              if train[key]['type'] == 'PerceptualLoss' else (('loss_weight', 1.0), ))
    }
    if not any(factors.values()):
        said = ', '.join(f'{name}: {value}' for name, value in factors.items())
        raise OptionError(f'{said}; there is no loss left; allowed: a factor other than 0')


def _check_layers(perceptual: Mapping[str, Any]) -> None:
    from basicsr.archs.vgg_arch import NAMES, insert_bn
    kind = perceptual.get('vgg_type', 'vgg19')
    plain = kind.removesuffix('_bn')
    if plain not in NAMES:
        kinds = [name + end for name in NAMES for end in ('', '_bn')]
        raise OptionError(f'train.perceptual_opt.vgg_type: {kind!r}; {did_you_mean(kind, kinds)}')
    layers = insert_bn(NAMES[plain]) if plain != kind else NAMES[plain]
    for name in perceptual['layer_weights']:
        if name not in layers:
            raise OptionError(f'train.perceptual_opt.layer_weights: {kind} has no layer {name!r}; '
                              f'{did_you_mean(name, layers)}')
    if not perceptual['layer_weights']:
        raise OptionError('train.perceptual_opt.layer_weights: got {}, expected layers and their weights, as in '
                          '{conv5_4: 1}')


def _check_loggers(opt: Mapping[str, Any]) -> None:
    if 'debug' in opt['name']:  # BasicSR makes none then
        return
    project, board = (opt['logger'].get('wandb') or {}).get('project'), opt['logger'].get('use_tb_logger')
    if project is not None and not board:
        raise OptionError(f'logger.wandb.project: {project!r}, which needs use_tb_logger, and that is {board}; '
                          'allowed: ~, or use_tb_logger: true')
    for key, value, module in (('wandb.project', project, 'wandb'), ('use_tb_logger', board, 'tensorboard')):
        if value and importlib.util.find_spec(module) is None:
            off = '~' if module == 'wandb' else 'false'
            raise OptionError(f'logger.{key}: {value!r}, but the package {module} is not installed; allowed here: '
                              f'{off}')


_RELATIONS: tuple[tuple[Callable[[Mapping[str, Any]], None], tuple[str, ...]], ...] = (
    (_check_validation_names, ()),
    (_check_ignored_networks, ('path.ignore_resume_networks', )),
    (_check_schedule, ('train.total_iter', 'train.scheduler', 'train.warmup_iter')),
    (_check_losses, ('train.pixel_opt', 'train.perceptual_opt')),
    (_check_loggers, ('name', 'logger.wandb', 'logger.use_tb_logger')),
)
"""What lies between options, and which; a test takes the first two alone."""
