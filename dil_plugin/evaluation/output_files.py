"""Writing the files of a report: their names, and errors that name them."""

import re
from pathlib import Path

from matplotlib.figure import Figure

from dil_plugin.errors import DataError, OptionError
from dil_plugin.evaluation.plots import save_png


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


def write_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG, and its folder where there is none.

    Raises:
        OptionError: Its name does not end in .png.
        DataError: It cannot be written.
    """
    if path.suffix.lower() != '.png':
        raise OptionError(f'--output: {path} does not end in .png; only PNG is written')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_png(figure, path)
    except OSError as error:
        raise DataError(f'--output: {path} cannot be written ({error.strerror})') from None
