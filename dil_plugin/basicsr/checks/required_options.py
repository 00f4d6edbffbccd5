"""What any run needs, and the kinds and names of what stands at the top of a YAML; checked before all else."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from dil_plugin.basicsr.checks.losses_and_metrics import check_losses_and_metrics
from dil_plugin.basicsr.data.basicsr_sets import restores_images
from dil_plugin.basicsr.yaml_options.blocks import Train
from dil_plugin.basicsr.yaml_options.relations import check_name, check_registered
from dil_plugin.errors import MissingOption, OptionError
from dil_plugin.mistakes import Mistakes, raise_all
from dil_plugin.options import check_known, did_you_mean, yaml_hint

MODEL = 'DILModel'

_BLOCKS = ['train', 'val', 'logger', 'network_g']
_OUR_BLOCKS = ['train.optim_g', 'train.scheduler']

# What BasicSR's pipelines read of any model without asking whether it is there, and what DILModel needs besides.
_PIPELINE = {
    True: ['datasets.train.batch_size_per_gpu', 'datasets.train.num_worker_per_gpu', 'train.total_iter',
           'logger.print_freq', 'logger.save_checkpoint_freq'],
    False: ['val.save_img'],
}
_THEIRS = ['network_g.type']
"""What BasicSR's models of image restoration read besides; see ``check_blocks_of_basicsr``."""
_OURS = {True: [*_THEIRS, 'train.optim_g.type', 'train.optim_g.lr', 'train.scheduler.type'], False: _THEIRS}
_OF_TRAIN = {field.encode_name: field for field in msgspec.structs.fields(Train)}
_COMPARED = msgspec.defstruct('Compared', [(name, _OF_TRAIN[name].type, _OF_TRAIN[name].default)
                                           for name in ('ema_decay', 'warmup_iter')])
"""Options of ``train`` that BasicSR compares with a number when the run is made, or in its first step."""


def value_of(opt: Mapping[str, Any], key: str) -> Any:
    """The value of an option by its full key, as ``train.total_iter``; None where it is not there."""
    value: Any = opt
    for name in key.split('.'):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def check_required(opt: Mapping[str, Any]) -> None:
    """Raises OptionError for an option that is missing or is of a kind with which nothing can be begun."""
    mistakes = Mistakes()
    training, ours = opt['is_train'], opt.get('model_type') == MODEL
    if ours:
        with mistakes:
            check_name(opt)
    with mistakes:
        raise_all(_wrong_at_the_top(opt, ours))
    with mistakes:
        raise_all(OptionError(f'{key}: expected a block of options, got {value!r:.100}')
                  for key in _BLOCKS + (_OUR_BLOCKS if ours else [])
                  if (value := value_of(opt, key)) is not None and not isinstance(value, Mapping))
    theirs = restores_images(opt)
    with mistakes:
        raise_all(_missing(opt, _PIPELINE[training] + (_OURS[training] if ours else _THEIRS if theirs else [])))
    if training and theirs and isinstance(opt.get('train'), Mapping):
        with mistakes:
            check_known({name: opt['train'][name] for name in _OF_TRAIN.keys() & opt['train'].keys()
                         if name in _COMPARED.__struct_fields__}, _COMPARED, 'train')
    mistakes.end()


def _missing(opt: Mapping[str, Any], keys: Iterable[str]) -> Iterator[MissingOption]:
    """Of a block that is missing as a whole the first of its options alone."""
    said = set()
    for key in keys:
        names = key.split('.')
        absent = next((n for n in range(1, len(names) + 1) if value_of(opt, '.'.join(names[:n])) is None), None)
        if absent is not None and (what := '.'.join(names[:absent])) not in said:
            said.add(what)
            yield MissingOption(f'{key}: missing; BasicSR needs it', (what, ))


def _wrong_at_the_top(opt: Mapping[str, Any], ours: bool) -> Iterator[OptionError]:
    scale, gpus = opt.get('scale', 1), opt['num_gpu']
    if not isinstance(opt['manual_seed'], int) or not 0 <= opt['manual_seed'] < 2**32:
        yield OptionError(f"manual_seed: got {opt['manual_seed']!r}; allowed: whole numbers between 0 and 2**32 - 1, ~")
    if ours and (isinstance(scale, bool) or not isinstance(scale, int) or scale < 1):
        yield OptionError(f'scale: expected a whole number >= 1, got {scale!r} (clean size divided by distorted size)')
    if isinstance(gpus, bool) or not isinstance(gpus, int) or gpus < 0:
        yield OptionError(f'num_gpu: expected a whole number >= 0 or auto, got {gpus!r}')


def check_names(opt: Mapping[str, Any]) -> None:
    """Raises OptionError for a type that nothing is registered by."""
    from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, MODEL_REGISTRY

    mistakes = Mistakes()

    def check(key: str, block: Any, registry: Any) -> None:
        if isinstance(block, Mapping):
            check_type(f'{key}.type', block.get('type'), registry)
        else:
            mistakes.add(OptionError(f'{key}: expected a block of options with a type, got {block!r}'))

    def check_type(key: str, name: Any, registry: Any) -> None:
        known = [known_name.removesuffix('_basicsr') for known_name, _ in registry]  # BasicSR finds them by either
        if str(name).removesuffix('_basicsr') not in known:
            mistakes.add(OptionError(f'{key}: unknown name {name!r}; {did_you_mean(str(name), known)}'))

    check_type('model_type', opt.get('model_type'), MODEL_REGISTRY)
    for name, dataset in opt['datasets'].items():
        check(f'datasets.{name}', dataset, DATASET_REGISTRY)
    for key in (k for k in opt if k.startswith('network_') and opt[k]):
        check(key, opt[key], ARCH_REGISTRY)
    if opt['is_train'] and opt.get('model_type') == MODEL and opt.get('train'):
        with mistakes:
            check_registered(opt)
    with mistakes:
        check_losses_and_metrics(opt)
    mistakes.end()


def check_values(opt: Mapping[str, Any]) -> None:
    """Raises OptionError for a number of iterations, or a switch, that BasicSR would stumble over in the run."""
    raise_all(_wrong_values(opt))


def _wrong_values(opt: Mapping[str, Any]) -> Iterator[OptionError]:
    ours = opt.get('model_type') == MODEL
    if opt['is_train']:
        positive = ['train.total_iter', 'logger.print_freq', 'logger.save_checkpoint_freq']
        positive += ['train.optim_g.lr'] if ours else []
        positive += ['val.val_freq'] if opt.get('val') else []
        for key in positive:
            value = value_of(opt, key)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float('inf'):
                yield _refused(key, value, 'a number > 0', yaml_hint(value))
            elif ours and key != 'train.optim_g.lr' and value != int(value):
                yield OptionError(f'{key}: expected a whole number > 0 of iterations, got {value!r}')
        if ours and not any(value_of(opt, f'train.{name}') for name in ('pixel_opt', 'perceptual_opt')):
            yield MissingOption('train.pixel_opt: missing; give it, as in {type: L1Loss}, or train.perceptual_opt',
                                ('train.pixel_opt', ))
    if not isinstance(opt.get('gt_usm') or False, bool):
        yield OptionError(f"gt_usm: expected true or false, got {opt['gt_usm']!r}")
    if opt.get('val') and not isinstance(opt['val'].get('save_img'), bool):
        yield _refused('val.save_img', opt['val'].get('save_img'), 'true or false')


def _refused(key: str, value: Any, expected: str, hint: str = '') -> OptionError:
    return MissingOption(f'{key}: missing; expected {expected}', (key, )) if value is None else \
        OptionError(f'{key}: expected {expected}, got {value!r}{hint}')
