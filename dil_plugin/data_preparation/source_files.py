"""Whether a source image is still the file that was packed."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import NamedTuple

from dil_plugin.data_preparation.images import Entry

_PART = 1 << 24


class Stamp(NamedTuple):
    """What tells a file from another of the same name.

    Attributes:
        n_bytes: Its size.
        mtime_ns: When it was changed last, in nanoseconds.
        crc: CRC-32 of its bytes.
    """

    n_bytes: int
    mtime_ns: int
    crc: int


def stamp_of(path: Path) -> Stamp:
    """The stamp of a file; raises OSError where it cannot be read."""
    status = path.stat()
    return Stamp(status.st_size, status.st_mtime_ns, _crc(path))


def is_changed(path: Path, entry: Entry, thorough: bool) -> bool:
    """Whether a file is another one than that which an entry is of.

    Where size and time are the same it is taken for the same. Where the time alone differs, as of a copy, its bytes
    decide. Entries of earlier versions have the size alone, and none of an image that could not be read.

    Args:
        path: The file.
        entry: Of the journal.
        thorough: Compare the bytes in any case.
    """
    status = path.stat()
    if entry.problem is not None and not entry.n_bytes and entry.crc is None:  # an empty file has one, 0
        return False
    if status.st_size != entry.n_bytes:
        return True
    if entry.crc is None or (status.st_mtime_ns == entry.mtime_ns and not thorough):
        return False
    return _crc(path) != entry.crc


def _crc(path: Path) -> int:
    crc = 0
    with path.open('rb') as file:
        while part := file.read(_PART):
            crc = zlib.crc32(part, crc)
    return crc
