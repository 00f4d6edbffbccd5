"""What of a YAML is of another kind than BasicSR takes it for: its own error does not say where."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

_BLOCKS = ('datasets', 'path', 'train', 'val', 'logger', 'network_g')
_UNREADABLE = object()
_PATHS = ('dataroot_gt', 'dataroot_lq')


def misplaced(arguments: Sequence[str]) -> list[str]:
    """The keys that are no block or path where one should be, their values and what is expected.

    Args:
        arguments: The command line, with ``-opt FILE``.
    """
    options = _given(arguments)
    if options is _UNREADABLE:
        return []
    if not isinstance(options, Mapping):
        return [f'expected options by name, got {options!r:.100}']
    return list(_misplaced(options))


def _misplaced(options: Mapping[str, Any]) -> Iterator[str]:
    if 'name' in options and not isinstance(options['name'], str):
        number = isinstance(options['name'], int | float) and not isinstance(options['name'], bool)
        hint = f": write name: '{options['name']}'" if number else ''
        yield _expected('name', 'text', options['name']) + hint
    for name in _BLOCKS:
        if name in options and not isinstance(options[name], Mapping) and (name in ('datasets', 'path')
                                                                           or options[name] is not None):
            yield _expected(name, 'a block of options', options[name])
    for name, value in _block(options, 'path').items():
        if ('resume_state' in str(name) or 'pretrain_network' in str(name)) and not isinstance(value, str | None):
            yield _expected(f'path.{name}', 'a path', value)
    seed = options.get('manual_seed')
    if seed is not None and not isinstance(seed, int):
        yield _expected('manual_seed', 'a whole number between 0 and 2**32 - 1, or ~', seed)
    for name, dataset in _block(options, 'datasets').items():
        if not isinstance(dataset, Mapping):
            yield _expected(f'datasets.{name}', 'a block of options', dataset)
            continue
        for key in _PATHS:
            if dataset.get(key) is not None and not isinstance(dataset[key], str):
                yield _expected(f'datasets.{name}.{key}', 'a path', dataset[key])


def _block(options: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    block = options.get(name)
    return block if isinstance(block, Mapping) else {}


def seed_given(arguments: Sequence[str]) -> str:
    """The ``manual_seed`` of the command line: of ``--force_yml``, else of the file."""
    options = _given(arguments)
    return repr(options.get('manual_seed')) if isinstance(options, Mapping) else 'nothing'


def _given(arguments: Sequence[str]) -> Any:
    """The options of the file, with those of ``--force_yml``."""
    try:
        with open(arguments[list(arguments).index('-opt') + 1], encoding='utf-8') as file:
            options = yaml.safe_load(file)
    except (ValueError, IndexError, OSError, yaml.YAMLError):
        return _UNREADABLE
    for entry in _forced(arguments):
        *path, last = entry.split('=', 1)[0].strip().split(':')
        block = options
        for name in path:
            block = block.get(name) if isinstance(block, Mapping) else None
        if isinstance(block, dict):
            block[last] = _value(entry.split('=', 1)[1].strip())
    return options


def _forced(arguments: Sequence[str]) -> list[str]:
    """The entries ``KEY:KEY=VALUE`` of ``--force_yml``."""
    if '--force_yml' not in arguments:
        return []
    rest = list(arguments)[list(arguments).index('--force_yml') + 1:]
    end = next((k for k, argument in enumerate(rest) if argument.startswith('-')), len(rest))
    return [entry for entry in rest[:end] if '=' in entry]


def _value(text: str) -> Any:
    """As BasicSR reads it."""
    from basicsr.utils.options import _postprocess_yml_value
    try:
        return _postprocess_yml_value(text)
    except Exception:  # it evaluates lists
        return text


def _expected(key: str, what: str, got: Any) -> str:
    return f'{key}: expected {what}, got {got!r:.100}'
