"""Files that are whole or not there."""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write into; it takes the name ``path`` only when the block has ended and all of it is on disk.

    What stood there before stays until then, and stays for good if the block raises.

    Raises:
        OSError: The folder is not there, or cannot be written to.
    """
    folder, name = os.path.split(os.fspath(path))
    handle, temporary = tempfile.mkstemp(prefix=f'.{name}.', suffix='.tmp', dir=folder or '.')
    try:
        with os.fdopen(handle, 'wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_folder(folder or '.')


def remove_temporary(folder: str | os.PathLike[str], age: float) -> None:
    """Removes what ``whole_file`` had begun in a folder when its process was killed.

    Args:
        folder: Nothing is done where there is none.
        age: In seconds; what was written to since is left alone.
    """
    oldest = time.time() - age
    for entry in os.scandir(folder) if os.path.isdir(folder) else ():
        if entry.name.startswith('.') and entry.name.endswith('.tmp'):
            with contextlib.suppress(FileNotFoundError):
                if entry.stat().st_mtime < oldest:
                    os.unlink(entry.path)


def _sync_folder(folder: str) -> None:
    """Puts the new name on disk; until then a power failure may bring the old file back, or none."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # some network file systems know no such thing; the file itself is on disk
        pass
    finally:
        os.close(handle)
