"""Reads images of folders and LMDBs."""

from collections.abc import Mapping
from typing import Any

import lmdb
import numpy as np
from basicsr.utils import FileClient, imfrombytes

from dil_plugin.data_preparation import incomplete_reason
from dil_plugin.errors import DataError


class ImageReader:
    """Reads images of several roots; LMDBs are opened in the process that reads, each of them once.

    Two sets may share an LMDB, and lmdb refuses to open one a second time in the same process.
    """

    def __init__(self) -> None:
        self._clients: dict[str, FileClient] = {}

    def read(self, path: str, root: str, backend: Mapping[str, Any], where: str) -> np.ndarray:
        """The image, ``(H, W, 3)``, BGR, uint8.

        Args:
            path: The file, or the key in the LMDB.
            root: The folder or LMDB that holds it.
            backend: BasicSR's ``io_backend``.
            where: The option that gave the root; error messages begin with it.

        Raises:
            DataError: The image is missing, truncated or cannot be decoded.
        """
        where = f"{where}: image '{path}' in {root}"
        try:
            content = self._client(root, backend).get(path, 'image')
        except OSError as error:
            raise DataError(f'{where}: cannot be read ({error.strerror})') from None
        except lmdb.Error as error:
            raise DataError(f'{where}: cannot be read, the LMDB is damaged ({error})') from None
        if content is None:
            raise DataError(f'{where}: listed in meta_info.txt, but not in the LMDB')
        reason = incomplete_reason(bytes(content))
        image = None if reason else imfrombytes(content)
        if image is None:
            raise DataError(f'{where}: cannot be decoded ({reason or "not an image"})')
        return image

    def _client(self, root: str, backend: Mapping[str, Any]) -> FileClient:
        name = root if backend['type'] == 'lmdb' else 'disk'
        if name not in self._clients:
            settings = dict(backend)
            if settings['type'] == 'lmdb':
                settings.update(db_paths=[root], client_keys=['image'])
            self._clients[name] = FileClient(settings.pop('type'), **settings)
        return self._clients[name]
