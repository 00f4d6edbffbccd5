"""Reads YAML files that a user named."""

from pathlib import Path
from typing import Any

import yaml

from dil_plugin.errors import DataError, OptionError
from dil_plugin.missing_files import no_such

_Loader: Any = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)


class StrictLoader(_Loader):
    """PyYAML's safe loader, which runs no code that a file asks for; a key that stands twice in a block is an error.

    PyYAML itself takes the last of them without a word.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._looked_at: set[int] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merges what ``<<`` names, as PyYAML; before that, each key must stand there once."""
        if id(node) not in self._looked_at:
            self._looked_at.add(id(node))  # its own keys and merged ones look alike from now on
            _refuse_twice(node)
        super().flatten_mapping(node)


def _refuse_twice(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key '{key.value}' stands twice in a block",
                                                        key.start_mark)
            seen.add(key.value)


def ordered_yaml() -> tuple[Any, Any]:
    """In place of BasicSR's loader and dumper, whose loader runs code; a block is a dictionary, in the file's order."""
    return StrictLoader, getattr(yaml, 'CDumper', yaml.Dumper)


def read_yaml(path: Path, option: str) -> Any:
    """What a YAML file holds.

    Args:
        path: The file.
        option: What gave its name, as in ``-opt``; error messages begin with it.

    Raises:
        OptionError: It is not YAML.
        DataError: It cannot be read.
    """
    try:
        return yaml.load(path.read_text(encoding='utf-8'), StrictLoader)
    except FileNotFoundError:
        raise DataError(f'{option}: {no_such(path)}') from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'{option}: {path} cannot be read ({getattr(error, "strerror", None) or error})') from None
    except yaml.YAMLError as error:
        raise OptionError(f'{option}: {path} is not a YAML file: {" ".join(str(error).split())}') from None
