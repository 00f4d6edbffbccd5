"""How BasicSR's PairedImageDataset reads with the plugin: damaged images are named or skipped, LMDBs shared."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import lmdb
from basicsr.utils import imfrombytes

from dil_plugin.basicsr.data.bad_images import MARKER, first_usable
from dil_plugin.data_preparation import incomplete_reason
from dil_plugin.data_preparation.lmdb_reading import LmdbReader
from dil_plugin.errors import DataError, UnusableImage


class SharedLmdbBackend:
    """BasicSR's LmdbBackend, whose LMDBs may be those of other data sets, after a fork and after pickling too.

    Args:
        db_paths: The LMDBs.
        client_keys: What each is called.
        settings: For ``lmdb.open``.
    """

    def __init__(self, db_paths: str | list[str], client_keys: str | list[str] = 'default', **settings: Any) -> None:
        paths, keys = ([value] if isinstance(value, str) else value for value in (db_paths, client_keys))
        settings.pop('readonly', None)  # they are
        self._readers = {key: LmdbReader(path, **settings) for key, path in zip(keys, paths, strict=True)}

    def get(self, filepath: object, client_key: str) -> bytes | None:
        """The record ``filepath`` of the LMDB called ``client_key``; None where there is none."""
        return self._readers[client_key].get(str(filepath))


def decode_whole(content: bytes | None, flag: str = 'color', float32: bool = False) -> Any:
    """BasicSR's ``imfrombytes``, which of a truncated file decodes what is there and fills up with grey.

    Raises:
        ValueError: The image is missing, truncated or cannot be decoded; the message is the reason.
    """
    reason = 'not in the LMDB' if content is None else incomplete_reason(bytes(content))
    if reason is not None:
        raise ValueError(reason)
    try:
        image = imfrombytes(content, flag, float32)
    except AttributeError:  # of None
        image = None
    if image is None:
        raise ValueError('not an image that OpenCV can decode, or a corrupt one')
    return image


def naming_bad_images(get: Callable[[Any, int], dict[str, Any]]) -> Callable[[Any, int], dict[str, Any]]:
    """``PairedImageDataset.__getitem__`` with errors that say which image it is, and with ``on_bad_image``."""
    if getattr(get, 'names_bad_images', False):
        return get

    def load(self: Any, index: int) -> dict[str, Any]:
        try:
            return get(self, index)
        except Exception as error:
            raise _explained(self, self.paths[index], error) from error

    @functools.wraps(get)
    def get_item(self: Any, index: int) -> dict[str, Any]:
        if self.opt.get('on_bad_image') != 'skip' or self.opt['phase'] != 'train':
            return load(self, index)
        where = f'datasets, {self.opt["name"]}'
        sample, skipped = first_usable(lambda one: load(self, one), index, len(self.paths), where)
        return {**sample, MARKER: '\n'.join(skipped)}

    get_item.names_bad_images = True  # type: ignore[attr-defined]
    return get_item


def _explained(dataset: Any, pair: dict[str, str], error: Exception) -> DataError:
    """What to raise in place of an error that says neither which image it is of nor, mostly, what is wrong with it."""
    where = f"datasets, {dataset.opt['name']}"
    for side, root in (('gt', dataset.gt_folder), ('lq', dataset.lq_folder)):
        name = f"image '{pair[f'{side}_path']}' in {root}"
        reason = _problem(dataset, pair[f'{side}_path'], side)
        if reason is not None:
            return UnusableImage(f'{where}: {name}: {reason}', name, reason)
    both = f"{pair['gt_path']} (of {dataset.gt_folder}) and {pair['lq_path']} (of {dataset.lq_folder})"
    reason = ' '.join(str(error).split())
    if reason.startswith('LQ ('):  # paired_random_crop's word for an input that is smaller than its patch
        return UnusableImage(f'{where}: the pair {both}: {reason}', f'the pair {both}', reason)
    return DataError(f'{where}: the pair {both} cannot be read; one of them may be damaged ({type(error).__name__}: '
                     f'{reason})')


def _problem(dataset: Any, path: str, side: str) -> str | None:
    """What is wrong with an image, read once more; None where it is good, or its LMDB cannot even be opened."""
    if dataset.file_client is None:
        return None
    try:
        decode_whole(dataset.file_client.get(path, side))
    except OSError as error:
        return f'cannot be read ({error.strerror})'
    except lmdb.Error as error:
        return f'cannot be read, the LMDB is damaged ({error})'
    except ValueError as error:
        return f'cannot be decoded ({error})'
    return None
