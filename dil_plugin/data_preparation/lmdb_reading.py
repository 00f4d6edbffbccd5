"""LMDBs that are read: one environment for each in a process, and never that of another process.

lmdb refuses to open an LMDB a second time in a process, so that a training and a validation set of the same one would
not go together; and an environment that was opened before a fork must not be used in the child (LMDB's documentation
says why: "Caveats"). Both are the reason for this file.
"""

from __future__ import annotations

import os
import weakref
from typing import Any

import lmdb


class _Environment:
    """An open environment, and the process that opened it; it is closed with the last reader that holds it."""

    def __init__(self, root: str, settings: dict[str, Any]) -> None:
        self.process = os.getpid()
        self.env = lmdb.open(root, readonly=True, **{'lock': False, 'readahead': False, **settings})

    def __del__(self) -> None:
        if hasattr(self, 'env'):  # lmdb lets the memory go only in the process that opened it
            self.env.close()


_open: weakref.WeakValueDictionary[str, _Environment] = weakref.WeakValueDictionary()


class LmdbReader:
    """Reads the records of an LMDB, from any process: after a fork, and after pickling (spawn), it opens its own.

    Readers of one LMDB in one process share an environment. Without locks any number of processes may read at once.

    Args:
        root: The LMDB's folder.
        settings: For ``lmdb.open``, of the reader that opens it first; default: no lock, no read-ahead.
    """

    def __init__(self, root: str | os.PathLike[str], **settings: Any) -> None:
        self._root = os.fspath(root)
        self._settings = settings
        self._environment: _Environment | None = None

    def get(self, key: str) -> bytes | None:
        """The record; None where there is none.

        Raises:
            lmdb.Error: The LMDB cannot be opened, or is damaged.
        """
        with self.env.begin() as transaction:
            content: bytes | None = transaction.get(key.encode('ascii'))
        return content

    @property
    def env(self) -> lmdb.Environment:
        """The environment of this process."""
        mine = self._environment
        if mine is None or mine.process != os.getpid():
            mine = self._environment = self._of_this_process()
        return mine.env

    def close(self) -> None:
        """Lets the environment go; reading opens it again."""
        self._environment = None

    def _of_this_process(self) -> _Environment:
        name = os.path.realpath(self._root)
        known = _open.get(name)
        if known is not None and known.process != os.getpid():
            known.env.close()  # the parent's: takes it off lmdb's list in this process, and nothing from the parent
            known = None
        if known is None:
            known = _open[name] = _Environment(self._root, self._settings)
        return known

    def __getstate__(self) -> dict[str, Any]:  # how it reaches spawned data workers
        return {**self.__dict__, '_environment': None}
