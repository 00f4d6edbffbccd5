"""Parameters and modules that a network keeps in lists, tuples and dictionaries, of which ``nn.Module`` knows nothing.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

_REGISTRIES = tuple(vars(nn.Module()))  # what every module keeps itself: its parameters, its children, hooks


def containers(network: nn.Module) -> Iterator[tuple[str, nn.Module, str, Any]]:
    """The lists, tuples and dictionaries that are attributes of modules: path, module, attribute and value."""
    for path, module in network.named_modules():
        for name, value in vars(module).items():
            if name not in _REGISTRIES and isinstance(value, list | tuple | dict):
                yield f'{path}.{name}'.lstrip('.'), module, name, value


def items(value: Any, path: str = '', around: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """What stands in nested containers, each with its place, as in ``layers[0]``; not those that stand in themselves.

    Args:
        value: A container, or anything else.
        path: Its place.
        around: Ids of the containers that it stands in.
    """
    if isinstance(value, list | tuple | dict):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if id(item) not in (*around, id(value)):
                yield from items(item, f'{path}[{key!r}]', (*around, id(value)))
    else:
        yield path, value


def replaced(value: Any, new: Mapping[int, Tensor], around: tuple[int, ...] = ()) -> Any:
    """The container with other tensors in the places of parameters, by their ids; what holds none stays itself.

    So does a container that stands in itself, in that place. See ``items``.
    """
    if isinstance(value, nn.Parameter):
        return new.get(id(value), value)
    if id(value) in around:
        return value
    if type(value) in (list, tuple):
        return type(value)(replaced(item, new, (*around, id(value))) for item in value)
    if type(value) is dict:
        return {key: replaced(item, new, (*around, id(value))) for key, item in value.items()}
    return value


def unregistered(network: nn.Module) -> list[str]:
    """Parameters, and modules with some, that stand in containers alone: no optimiser sees them, no checkpoint."""
    known = {id(p) for p in network.parameters()}
    return [place for path, _, _, value in containers(network) for place, item in items(value, path)
            if any(id(p) not in known for p in _parameters(item))]


def _parameters(item: Any) -> list[nn.Parameter]:
    if isinstance(item, nn.Parameter):
        return [item]
    return list(item.parameters()) if isinstance(item, nn.Module) else []
