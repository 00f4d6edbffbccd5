"""What of a YAML is of another kind than BasicSR takes it for: its own error does not say where."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

_BLOCKS = ('datasets', 'path', 'train', 'val', 'logger', 'network_g')
_UNREADABLE = object()
_PATHS = ('dataroot_gt', 'dataroot_lq')


def misplaced(arguments: Sequence[str]) -> str:
    """The first key that is no block or path where one should be, its value and what is expected; '' for none.

    Args:
        arguments: The command line, with ``-opt FILE``.
    """
    options = _given(arguments)
    if options is _UNREADABLE:
        return ''
    if not isinstance(options, Mapping):
        return f'expected options by name, got {options!r:.100}'
    for name in _BLOCKS:
        if name in options and not isinstance(options[name], Mapping) and (name in ('datasets', 'path')
                                                                           or options[name] is not None):
            return _expected(name, 'a block of options', options[name])
    for name, dataset in (options.get('datasets') or {}).items():
        if not isinstance(dataset, Mapping):
            return _expected(f'datasets.{name}', 'a block of options', dataset)
        for key in _PATHS:
            if dataset.get(key) is not None and not isinstance(dataset[key], str):
                return _expected(f'datasets.{name}.{key}', 'a path', dataset[key])
    return ''


def seed_given(arguments: Sequence[str]) -> str:
    """The ``manual_seed`` of the command line: of ``--force_yml``, else of the file."""
    for argument in arguments:
        if argument.startswith('manual_seed='):
            return argument.split('=', 1)[1]
    options = _given(arguments)
    return repr(options.get('manual_seed')) if isinstance(options, Mapping) else 'nothing'


def _given(arguments: Sequence[str]) -> Any:
    try:
        with open(arguments[list(arguments).index('-opt') + 1], encoding='utf-8') as file:
            return yaml.safe_load(file)
    except (ValueError, IndexError, OSError, yaml.YAMLError):
        return _UNREADABLE


def _expected(key: str, what: str, got: Any) -> str:
    return f'{key}: expected {what}, got {got!r:.100}'
