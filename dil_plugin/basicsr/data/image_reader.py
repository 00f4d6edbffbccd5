"""Reads images of folders and LMDBs."""

import errno
import os
from collections.abc import Mapping
from typing import Any

import lmdb
import numpy as np

from dil_plugin.data_preparation import incomplete_reason
from dil_plugin.data_preparation.decoding import decode_upright, eight_bit_colour
from dil_plugin.data_preparation.lmdb_reading import LmdbReader
from dil_plugin.errors import UnusableImage


class ImageReader:
    """Reads images of several roots. LMDBs are opened in the process that reads (``LmdbReader``)."""

    def __init__(self) -> None:
        self._lmdbs: dict[str, LmdbReader] = {}

    def read(self, path: str, root: str, backend: Mapping[str, Any], where: str) -> np.ndarray:
        """The image, ``(H, W, 3)``, BGR, uint8; what becomes of other formats, ``decoding.py`` says.

        Args:
            path: The file, or the key in the LMDB.
            root: The folder or LMDB that holds it.
            backend: BasicSR's ``io_backend``.
            where: The option that gave the root; error messages begin with it.

        Raises:
            UnusableImage: The image is missing, truncated or cannot be decoded.
        """
        name = f"image '{path}' in {root}"
        reason: str | None
        try:
            content = self._content(path, root, backend)
            reason = None if content is not None else 'listed in meta_info.txt, but not in the LMDB'
        except OSError as error:
            content, reason = None, f'cannot be read ({error.strerror})'
        except lmdb.Error as error:
            content, reason = None, f'cannot be read, the LMDB is damaged ({error})'
        if content is not None:
            reason = incomplete_reason(content)
            try:
                if reason is None:
                    return eight_bit_colour(decode_upright(content))
            except ValueError as error:
                reason = str(error)
            reason = f'cannot be decoded ({reason})'
        raise UnusableImage(f'{where}: {name}: {reason}', name, str(reason))

    def _content(self, path: str, root: str, backend: Mapping[str, Any]) -> bytes | None:
        if backend['type'] != 'lmdb':
            if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would wait for ever
                raise OSError(errno.EINVAL, 'it is no regular file')
            with open(path, 'rb') as file:
                return file.read()
        if root not in self._lmdbs:
            self._lmdbs[root] = LmdbReader(root, **{name: value for name, value in backend.items() if name != 'type'})
        return self._lmdbs[root].get(path)
