"""What the records of a source image are called."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from dil_plugin.data_preparation.images import Source
from dil_plugin.errors import DataError

# LMDB keys may have 511 bytes, file names on most file systems 255; the rest is for the suffix "T0_s0001.png".
_LONGEST_STEM = 240


def key_stem(name: str, path: Path) -> str:
    """What the keys of an image start with: its name, ``/``, dots and spaces replaced by ``_``.

    BasicSR takes what stands before the first dot of a line in meta_info.txt as the key, and what stands before
    the first space as the file name, so neither may occur in a key.

    Args:
        name: Of the image, without its ending.
        path: Its file, for messages.

    Raises:
        DataError: The name is not ASCII or too long.
    """
    stem = re.sub(r'[./\s]', '_', name)
    if not stem.isascii():
        raise DataError(f'{path}: the name must be ASCII, since LMDB keys of BasicSR are; rename the file')
    if len(stem) > _LONGEST_STEM:
        raise DataError(f'{path}: the key {stem!r} has {len(stem)} characters, allowed are {_LONGEST_STEM}')
    return stem


def require_unique_keys(sources: Sequence[Source], endings: Iterable[str]) -> None:
    """Raises DataError where two sources would get the same key.

    Args:
        sources: The images.
        endings: What follows the stem in the names of their smaller versions; none without multi-scale.
    """
    owners = {source.stem: source for source in reversed(sources)}
    for source in sources:
        other = owners[source.stem]
        if other is not source:
            raise DataError(f'{other.path} and {source.path} would both get the key {source.stem!r}; rename one of '
                            'them')
    for ending in endings:
        for source in sources:
            if taken := owners.get(source.stem + ending):
                raise DataError(f'{taken.path} and a smaller version of {source.path} would both get the key '
                                f'{taken.stem!r}; rename one of them, or remove --multiscale if the versions are there '
                                'already')
