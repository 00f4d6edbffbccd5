"""Overrides of the options of a training: nested blocks or dotted names, and the product of several axes."""

import copy
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from dil_plugin.errors import OptionError


def nested(overrides: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Overrides without dotted names: ``{'train.dil': {'variant': 'sf'}}`` is ``{'train': {'dil': …}}``.

    Raises:
        OptionError: A name is empty or no text.
    """
    result: dict[str, Any] = {}
    for name, value in overrides.items():
        if not isinstance(name, str) or not all(name.split('.')):
            raise OptionError(f'{key}: expected names of options, as in train.dil.inner.lr; got {name!r}')
        for part in reversed(name.split('.')):
            value = {part: value}
        result = merged(result, value)
    return result


def merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``base`` in which blocks are merged and all else is replaced.

    A block of another ``type`` takes the place of what stood there: the options of an Adam are not those of an SGD.
    """
    result = dict(base)
    for name, value in overrides.items():
        block = result.get(name)
        if isinstance(block, Mapping) and isinstance(value, Mapping) \
                and value.get('type', block.get('type')) == block.get('type'):
            result[name] = merged(block, value)
        else:
            result[name] = copy.deepcopy(value)
    return result


def product(grid: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every combination of the axes' values: its label, as ``inner.lr=0.001``, and its overrides.

    Args:
        grid: For every axis, which is a dotted option, its values by their names.
    """
    for values in itertools.product(*(axis.items() for axis in grid.values())):
        label = ', '.join(f'{short(option)}={name}' for option, (name, _) in zip(grid, values, strict=True))
        yield label, {option: value for option, (_, value) in zip(grid, values, strict=True)}


def short(option: str) -> str:
    """The last two parts of a dotted option: they tell the inner from the outer learning rate."""
    return '.'.join(option.split('.')[-2:])


def axis_values(values: Any, key: str) -> dict[str, Any]:
    """The values of an axis by their names; those of a list are their own names.

    Raises:
        OptionError: There are none, or two of the same name.
    """
    if isinstance(values, Mapping) and values:
        return {str(name): value for name, value in values.items()}
    if not isinstance(values, list) or not values:
        raise OptionError(f'{key}: expected a list of values, or values by name; got {values!r}')
    names = [f'{value:g}' if isinstance(value, float) else str(value) for value in values]
    if twice := [name for k, name in enumerate(names) if name in names[:k]]:
        raise OptionError(f'{key}: {twice[0]} stands there twice')
    return dict(zip(names, values, strict=True))
