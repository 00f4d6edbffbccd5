"""Writing the files of a report: their names, and errors that name them."""

import re
from pathlib import Path

from dil_plugin.errors import DataError


def file_stem(*parts: str) -> str:
    """A file name without ending, from names of data sets, conditions and images.

    Whatever is neither letter, digit, dot nor hyphen becomes ``_``; so do leading dots. The parts are joined by ``_``.
    """
    return '_'.join(re.sub(r'^\.+|[^\w.-]+', '_', part) for part in parts)


def write_text(path: Path, text: str) -> Path:
    """Writes UTF-8 with line feeds, and the folder where there is none; returns the path.

    Raises:
        DataError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding='utf-8', newline='\n')
    except OSError as error:
        raise DataError(f'--output: {path} cannot be written ({error.strerror})') from None
    return path
