"""Whether the options of a block are arguments of the class that BasicSR builds from it."""

import inspect
from collections.abc import Mapping
from typing import Any

from dil_plugin.errors import OptionError
from dil_plugin.options import did_you_mean

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
    if not any(one.kind is one.VAR_KEYWORD for one in known.values()) and known:
        for name in block:
            if name != 'type' and name not in allowed:
                raise OptionError(f"{key}: unknown option '{name}' of {what}; {did_you_mean(str(name), allowed)}")
    for name in allowed:
        if named[name].default is inspect.Parameter.empty and name not in block:
            raise OptionError(f"{key}: option '{name}' is missing; {what} needs it")


def check_blocks_of_basicsr(opt: Mapping[str, Any]) -> None:
    """Raises OptionError where a model of BasicSR's own could not build a network, a loss or Adam from its block.

    Models of others may read their blocks in other ways, and are not judged.

    Args:
        opt: The options as BasicSR parsed them, with types that are registered.
    """
    from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY
    from torch.optim import Adam

    if not MODEL_REGISTRY.get(opt['model_type']).__module__.startswith(_BASICSR):
        return
    for key in opt:
        if key.startswith('network_') and isinstance(opt[key], Mapping):
            check_arguments(key, opt[key], ARCH_REGISTRY.get(opt[key]['type']))
    train = (opt.get('train') or {}) if opt['is_train'] else {}
    for name, block in train.items():
        if not isinstance(block, Mapping) or 'type' not in block:
            continue
        if name.startswith('optim_') and block['type'] == 'Adam':
            check_arguments(f'train.{name}', block, Adam, ('params', ))
        elif name in ('pixel_opt', 'perceptual_opt'):
            check_arguments(f'train.{name}', block, LOSS_REGISTRY.get(block['type']))
