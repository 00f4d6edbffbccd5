"""What lies in a data root: the image files of a folder, and whether a folder is a whole LMDB."""

import os
from collections.abc import Iterator
from pathlib import Path

from dil_plugin.data_preparation.storage import open_store
from dil_plugin.errors import DataError

IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp', '.ppm')


def image_files(root: str, key: str, recursive: bool = False, skip: bool = False) -> list[str]:
    """The paths of the images in a folder, sorted.

    Args:
        root: The folder.
        key: The option that gave it, for messages.
        recursive: Also of the folders below it.
        skip: Also those that are no files (``on_bad_image: skip``): reading them fails, and they are counted.

    Raises:
        DataError: A name that is an image's is that of a link to nothing, or of a pipe.
    """
    files, others = [], []
    for entry in _entries(root, recursive):
        if not entry.name.startswith('.') and entry.name.lower().endswith(IMAGE_SUFFIXES):
            (files if entry.is_file() else others).append(entry.path)
    others.sort()
    if others and not skip:
        what = 'a link to a file that is not there' if os.path.islink(others[0]) else 'no file'
        more = f' (and {len(others) - 1} more images of this folder are no files)' if len(others) > 1 else ''
        raise DataError(f"{key}: image '{others[0]}' is {what}{more}; allowed: image files")
    return sorted(files + others)


def _entries(folder: str, recursive: bool) -> Iterator[os.DirEntry[str]]:
    """All that is in the folder but folders."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir():
                yield entry
            elif recursive:
                yield from _entries(entry.path, recursive)


def require_lmdb(root: str, key: str) -> None:
    """Raises DataError unless the folder has what an LMDB has, and that is not empty."""
    if not root.rstrip('/').endswith('.lmdb'):
        raise DataError(f'{key}: {root} is not an LMDB, whose folder must end with .lmdb (io_backend type lmdb)')
    _require_files(root, key, ('data.mdb', 'meta_info.txt'))


def require_store(root: str, key: str) -> None:
    """Raises DataError unless the folder holds an LMDB with records, of whatever name and without a list."""
    _require_files(root, key, ('data.mdb', ))
    if not _entries_of(root, key):
        raise DataError(f'{key}: {root} holds no records')


def _require_files(root: str, key: str, names: tuple[str, ...]) -> None:
    for name in names:
        path = os.path.join(root, name)
        if not os.path.isfile(path):
            raise DataError(f'{key}: {root} has no {name}; tools/prepare_data.py writes it')
        if os.path.getsize(path) == 0:
            raise DataError(f'{key}: {path} is empty (0 bytes); tools/prepare_data.py writes it')


def require_records(root: str, key: str, listed: int) -> None:
    """Raises DataError unless an LMDB holds as many records as its ``meta_info.txt`` lists, and it lists some."""
    if not listed:
        raise DataError(f'{key}: {root}/meta_info.txt lists no images; tools/prepare_data.py writes it')
    entries = _entries_of(root, key)
    if entries < listed:
        raise DataError(f'{key}: {root} holds {entries} records, but its meta_info.txt lists {listed}')


def _entries_of(root: str, key: str) -> int:
    try:
        with open_store(Path(root), readonly=True) as store:
            return store.count()
    except DataError as error:
        raise DataError(f'{key}: {error}') from None
