"""Reads YAML files that a user named."""

from pathlib import Path
from typing import Any

import yaml

from dil_plugin.errors import DataError, OptionError


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
        return yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'{option}: {path} cannot be read ({getattr(error, "strerror", None) or error})') from None
    except yaml.YAMLError as error:
        raise OptionError(f'{option}: {path} is not a YAML file: {" ".join(str(error).split())}') from None
