"""What lies in an output: the records (in an LMDB or a folder), the journal and the meta information."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import lmdb

from dil_plugin.data_preparation.images import Entry, Record
from dil_plugin.data_preparation.lmdb_reading import LmdbReader
from dil_plugin.errors import DataError

_MIB = 1024 * 1024
_MAP_START = 16 * _MIB
_LARGEST_MAP_GROWTH = 4096 * _MIB
_UNWRITTEN_PAGES = 16  # the last pages may have been given up before they were written
_META_LINE = re.compile(r'(.+)\.png \((\d+),(\d+),(\d+)\) \d+')


class Store(Protocol):
    """Records, PNG bytes by key."""

    def write(self, items: Sequence[tuple[str, bytes]]) -> None:
        """Stores PNG bytes by key; what is there already is replaced."""

    def read(self, key: str) -> bytes | None:
        """Returns the PNG bytes, None where the key is missing."""

    def has(self, key: str) -> bool:
        """Says whether the key is there."""

    def count(self) -> int:
        """Returns the number of records."""

    def close(self) -> None:
        """Lets the files go."""


class _LmdbStore:
    """An LMDB that is written: its map grows by itself. Nobody else may have it open."""

    def __init__(self, path: Path) -> None:
        self._env = lmdb.open(str(path), map_size=_MAP_START, readahead=False)

    def write(self, items: Sequence[tuple[str, bytes]]) -> None:
        while True:
            try:
                with self._env.begin(write=True) as transaction:
                    for key, content in items:
                        transaction.put(key.encode('ascii'), content)
                return
            except lmdb.MapFullError:
                size = self._env.info()['map_size']
                self._env.set_mapsize(size + max(_MIB, min(size, _LARGEST_MAP_GROWTH)))

    def read(self, key: str) -> bytes | None:
        with self._env.begin() as transaction:
            content: bytes | None = transaction.get(key.encode('ascii'))
        return content

    def has(self, key: str) -> bool:
        with self._env.begin(buffers=True) as transaction:
            return transaction.get(key.encode('ascii')) is not None

    def count(self) -> int:
        return int(self._env.stat()['entries'])

    def close(self) -> None:
        self._env.close()


class _ReadLmdbStore:
    """An LMDB that is only read, by others of this process too."""

    def __init__(self, path: Path) -> None:
        self._reader = LmdbReader(path)
        self._require_all_pages(path)

    def _require_all_pages(self, path: Path) -> None:
        """Raises OSError where the file ends before its last page: reading beyond the end would kill the process."""
        page = self._reader.env.stat()['psize']
        needed, there = (self._reader.env.info()['last_pgno'] + 1) * page, (path / 'data.mdb').stat().st_size
        if there + _UNWRITTEN_PAGES * page < needed:
            self.close()
            raise OSError(f'data.mdb has {there} bytes, but its pages take {needed}: it is truncated')

    def write(self, items: Sequence[tuple[str, bytes]]) -> None:
        raise OSError('it was opened to be read')

    def read(self, key: str) -> bytes | None:
        return self._reader.get(key)

    def has(self, key: str) -> bool:
        return self._reader.get(key) is not None

    def count(self) -> int:
        return int(self._reader.env.stat()['entries'])

    def close(self) -> None:
        self._reader.close()


class _FolderStore:
    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, items: Sequence[tuple[str, bytes]]) -> None:
        for key, content in items:
            temporary = self._path / '.writing'
            temporary.write_bytes(content)
            os.replace(temporary, self._path / f'{key}.png')

    def read(self, key: str) -> bytes | None:
        return (self._path / f'{key}.png').read_bytes() if self.has(key) else None

    def has(self, key: str) -> bool:
        return (self._path / f'{key}.png').is_file()

    def count(self) -> int:
        return sum(entry.name.endswith('.png') for entry in os.scandir(self._path))

    def close(self) -> None:
        """Nothing stays open."""


@contextmanager
def open_store(out: Path, readonly: bool = False) -> Iterator[Store]:
    """Opens the LMDB or folder; failures of the disk inside the block become a DataError naming ``out``."""
    store: Store
    try:
        of_lmdb = _ReadLmdbStore if readonly else _LmdbStore
        store = of_lmdb(out) if out.suffix == '.lmdb' else _FolderStore(out)
        with closing(store):
            yield store
    except (OSError, lmdb.Error) as error:
        what = 'read' if readonly else 'written'
        raise DataError(f'{out}: cannot be {what}: {error}{"" if readonly else _room(out, error)}') from error


def _room(out: Path, error: OSError | lmdb.Error) -> str:
    """What to add to an error that a full disk may have caused: LMDB calls that an input/output error."""
    full = [os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)]
    if not out.is_dir() or not any(text in str(error) for text in full):
        return ''
    free = shutil.disk_usage(out).free // _MIB
    return f' (that disk has {free} MiB left; what is stored stays, and the same command goes on from there)'


def journal_path(out: Path) -> Path:
    """Where the settings and finished sources are noted."""
    return out / ('preparation.jsonl' if out.suffix == '.lmdb' else '.preparation.jsonl')


def meta_path(out: Path) -> Path:
    """Where BasicSR looks for the names of the records."""
    return out / ('meta_info.txt' if out.suffix == '.lmdb' else '.meta_info.txt')


def write_durably(path: Path, text: str) -> None:
    """Writes a small file so that, whatever happens, either all of it or nothing is there under its name."""
    temporary = path.with_name(f'.{path.name}.tmp')
    try:
        with temporary.open('w', encoding='utf-8', newline='\n') as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if os.name == 'posix':
            directory = os.open(path.parent, os.O_RDONLY)
            os.fsync(directory)
            os.close(directory)
    except OSError as error:
        raise DataError(f'{path}: cannot be written: {error.strerror}') from error


def append_entries(journal: Path, entries: Iterable[Entry]) -> None:
    """Adds a line for each entry and waits until it is on the disk."""
    with journal.open('a', encoding='utf-8', newline='\n') as file:
        file.writelines(json.dumps(entry) + '\n' for entry in entries)
        file.flush()
        os.fsync(file.fileno())


def load_journal(journal: Path) -> tuple[dict[str, Any], dict[str, Entry]]:
    """Reads the settings and the entries by source; a line that was not written to its end is dropped."""
    content = journal.read_bytes()
    whole = content[: content.rfind(b'\n') + 1]
    header, *lines = whole.splitlines() or [b'']
    try:
        settings = dict(json.loads(header))
        entries = [
            Entry(source, n_bytes, small, alpha, [Record(*record) for record in records], *later)
            for source, n_bytes, small, alpha, records, *later in map(json.loads, lines)
        ]
    except (ValueError, TypeError) as error:
        raise DataError(f'{journal}: damaged; remove {journal.parent} and start anew') from error
    return settings, {entry.source: entry for entry in entries}


def read_meta(out: Path) -> list[Record]:
    """Reads the records of a complete output; each CRC comes from the journal, None without one.

    Raises:
        DataError: The meta information is missing or damaged.
    """
    meta = meta_path(out)
    try:
        lines = meta.read_text(encoding='utf-8').splitlines()
    except OSError as error:
        raise DataError(f'{meta}: cannot be read ({error.strerror}); without it, {out} is incomplete') from error
    known: dict[str, int | None] = {}
    if journal_path(out).is_file():
        entries = load_journal(journal_path(out))[1].values()
        known = {record.key: record.crc for entry in entries for record in entry.records}
    records = []
    for number, line in enumerate(lines, 1):
        match = _META_LINE.fullmatch(line.strip())
        if match is None:
            raise DataError(f"{meta}, line {number}: {line!r} is not of the form 'NAME.png (h,w,c) COMPRESS_LEVEL'")
        key, height, width, channels = match.groups()
        records.append(Record(key, int(height), int(width), int(channels), known.get(key)))
    return records
