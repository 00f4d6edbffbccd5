"""Whether the options of a block are arguments of the class that BasicSR builds from it."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from dil_plugin.basicsr.yaml_options.registered import SCHEDULERS
from dil_plugin.errors import OptionError
from dil_plugin.mistakes import Mistakes, raise_all
from dil_plugin.options import did_you_mean, unknown_option

_BASICSR = 'basicsr.'


def parameters(cls: Any) -> Mapping[str, inspect.Parameter]:
    """The arguments of a class by name; none where Python does not know them."""
    try:
        return inspect.signature(cls).parameters
    except (TypeError, ValueError):
        return {}


def check_arguments(key: str, block: Mapping[str, Any], cls: Any, given: tuple[str, ...] = ()) -> None:
    """Raises OptionError for an option that the class does not take, and for one that it needs and is not there.

    Args:
        key: Where the block stands, as in ``network_g``.
        block: Its options, ``type`` and all.
        cls: What its ``type`` names.
        given: Arguments that BasicSR gives itself.
    """
    known = parameters(cls)
    named = {name: one for name, one in known.items() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    allowed = [name for name in named if name not in given]
    what = str(block['type'])
    errors: list[OptionError] = []
    if not any(one.kind is one.VAR_KEYWORD for one in known.values()) and known:
        errors = [unknown_option(key, str(name), allowed, of=what) for name in block
                  if name != 'type' and name not in allowed]
    if not errors:
        errors = [OptionError(f"{key}: option '{name}' is missing; {what} needs it") for name in allowed
                  if named[name].default is inspect.Parameter.empty and name not in block]
    raise_all(errors)


def check_blocks_of_basicsr(opt: Mapping[str, Any]) -> None:
    """Raises OptionError where a model of BasicSR's own could not build a network, loss, optimiser or schedule.

    Models of others may read their blocks in other ways, and are not judged.

    Args:
        opt: The options as BasicSR parsed them, with types that are registered.
    """
    from basicsr.models.sr_model import SRModel
    from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY

    model = MODEL_REGISTRY.get(opt['model_type'])
    if not model.__module__.startswith(_BASICSR):
        return
    mistakes = Mistakes()
    for key in opt:
        if key.startswith('network_') and isinstance(opt[key], Mapping) and opt[key]:
            with mistakes:
                check_arguments(key, opt[key], ARCH_REGISTRY.get(opt[key]['type']))
    if opt['is_train'] and issubclass(model, SRModel):  # StyleGAN2's has blocks of its own
        train = opt.get('train') or {}
        for name in ('optim_g', 'scheduler'):
            if not isinstance(train.get(name), Mapping) or 'type' not in train[name]:
                mistakes.add(OptionError(f'train.{name}: expected a block of options with a type, got '
                                         f'{train.get(name)!r}'))
        for name in ('pixel_opt', 'perceptual_opt'):
            if train.get(name):
                with mistakes:
                    check_arguments(f'train.{name}', train[name], LOSS_REGISTRY.get(train[name]['type']))
        for name, block in train.items():
            if name.startswith('optim_') and isinstance(block, Mapping) and mistakes.spare(f'train.{name}'):
                with mistakes:
                    _try_optimizer(f'train.{name}', block, model)
        if mistakes.spare('train.scheduler'):
            with mistakes:
                _check_scheduler(train['scheduler'])
    mistakes.end()


def _try_optimizer(key: str, block: Mapping[str, Any], model: Any) -> None:
    """Makes the model's optimiser of a parameter that nobody needs."""
    kind = getattr(torch.optim, str(block.get('type')), None)
    if kind is not None:
        check_arguments(key, block, kind, ('params', ))
    options = {name: value for name, value in block.items() if name != 'type'}
    try:
        model.get_optimizer(None, block.get('type'), [torch.nn.Parameter(torch.zeros(1))], **{'lr': 1e-3, **options})
    except (NotImplementedError, TypeError, ValueError) as error:
        raise OptionError(f'{key}: {dict(block)!r} is no optimiser of BasicSR ({error}); allowed: as in {{type: Adam, '
                          'lr: 0.0001}') from None


def _check_scheduler(block: Mapping[str, Any]) -> None:
    from basicsr.models import lr_scheduler
    kind = str(block['type'])
    if kind not in SCHEDULERS:
        raise OptionError(f'train.scheduler.type: unknown name {kind!r}; {did_you_mean(kind, SCHEDULERS)}')
    cls = getattr(lr_scheduler, 'MultiStepRestartLR' if kind == 'MultiStepLR' else kind)
    check_arguments('train.scheduler', block, cls, ('optimizer', 'last_epoch'))
