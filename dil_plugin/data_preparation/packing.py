"""Packing cut images into an LMDB or a PNG folder: in parallel, resumable, and checked afterwards.

While images are cut, a journal beside the output holds the settings (first line) and one line for each finished
source image. A source counts as done when it has its line and all of its records are stored; the file with the meta
information appears last, so its presence means that the output is complete and was checked.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from dil_plugin.data_preparation.checking import check_all, verify_data
from dil_plugin.data_preparation.cutting import cut_good_image, cut_image
from dil_plugin.data_preparation.images import (
    CutSettings,
    Entry,
    Source,
    find_images,
)
from dil_plugin.data_preparation.keys import key_stem, require_unique_keys
from dil_plugin.data_preparation.multiscale import ENDINGS
from dil_plugin.data_preparation.source_files import is_changed
from dil_plugin.data_preparation.storage import (
    Store,
    append_entries,
    journal_path,
    load_journal,
    meta_path,
    open_store,
    read_meta,
    write_durably,
)
from dil_plugin.data_preparation.workers import in_order, worker_count
from dil_plugin.errors import DataError, OptionError

# The arguments of ``cut_image``.
_Task = tuple[Path, str, str, tuple[int, int] | None, CutSettings]

# What an interruption loses at most; each commit waits for the disk, so that it should not come too often.
_COMMIT_BYTES = 32 * 1024 * 1024
_COMMIT_SECONDS = 1.0


@dataclass(frozen=True)
class Summary:
    """What a preparation did.

    Attributes:
        images: Number of source images.
        records: Number of images stored.
        small: Number of source images smaller than the size (stored whole or left out, as set).
        alpha: Number of source images whose alpha channel was dropped.
        resumed: Number of source images that an interrupted call had already finished.
        already_complete: The output was complete before, nothing was cut.
        bad: The images that were left out because they cannot be read or decoded, each with the reason.
    """

    images: int
    records: int
    small: int
    alpha: int
    resumed: int
    already_complete: bool
    bad: tuple[str, ...] = ()


def prepare_data(
    folder: Path,
    out: Path,
    settings: CutSettings,
    *,
    recursive: bool = False,
    workers: int | None = None,
    overwrite: bool = False,
    verify: bool = False,
    on_bad_image: Literal['error', 'skip'] = 'error',
) -> Summary:
    """Cuts the images of ``folder`` and stores them in ``out``, in the format BasicSR reads.

    Where the name of ``out`` ends in ``.lmdb`` it becomes an LMDB, otherwise a folder of PNG files; there the journal
    and the meta information are hidden files, as BasicSR takes every other file for an image.

    Worker processes are started by "spawn", so a script that calls this needs ``if __name__ == "__main__":``. Memory
    holds the pieces of at most ``workers`` + 2 source images, and some 32 MiB that wait to be committed.

    Args:
        folder: Source images.
        out: What to write. An interrupted call is continued, a complete output is left as it is.
        settings: How to cut. A call that continues an interrupted one must have the same.
        recursive: Take images from folders below as well.
        workers: Number of worker processes; None means the number of processors, 8 at most.
        overwrite: Remove what an earlier call wrote and start anew.
        verify: Check an output that is already complete once more (a new one is always checked).
        on_bad_image: What happens to an image that cannot be read or decoded: "error" stops, naming it; "skip" leaves
            it out, and says so in the summary. A call that continues another tries again what that one skipped.

    Raises:
        DataError: A source image is unusable, or ``out`` holds something else or cannot be written.
        OptionError: An argument is outside its range.
    """
    if folder.resolve() == out.resolve() or (recursive and folder.resolve() in out.resolve().parents):
        raise OptionError(f'output {out}: must not lie where the source images are searched, in {folder}')
    sources = []
    for path in find_images(folder, recursive):
        name = path.relative_to(folder)
        sources.append(Source(path, name.as_posix(), key_stem(name.with_suffix('').as_posix(), path)))
    return pack_images(sources, out, settings, workers=workers, overwrite=overwrite, verify=verify,
                       on_bad_image=on_bad_image)


def pack_images(
    sources: Sequence[Source],
    out: Path,
    settings: CutSettings,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    verify: bool = False,
    on_bad_image: Literal['error', 'skip'] = 'error',
) -> Summary:
    """As ``prepare_data``, for images from anywhere.

    Args:
        sources: The images, of unique names and of keys from ``key_stem``.
        out: As there; so are the next five.
        settings: How to cut.
        workers: Number of worker processes.
        overwrite: Remove what an earlier call wrote.
        verify: Check a complete output once more.
        on_bad_image: "error" or "skip".

    Raises:
        DataError: As there, or two images would get the same key.
        OptionError: An argument is outside its range.
    """
    workers = worker_count(workers)
    require_unique_keys(sources, ENDINGS if settings.multiscale else ())
    names = [source.name for source in sources]
    tasks: list[_Task] = [(*source, settings) for source in sources]
    if overwrite:
        _remove_output(out)
    complete = meta_path(out).is_file()
    if complete and not journal_path(out).is_file() and not verify:
        raise DataError(f'{out}: exists and was not written by this tool; give another output, or --verify to check it')
    entries = _begin_or_resume(out, _settings_of(settings, sources), complete)
    if complete:
        _require_unchanged(out, entries, tasks, verify)
        count = verify_data(out, workers) if verify else len(read_meta(out))
        return _summary(entries.values(), len(names), count, 0, True)
    resumed = _drop_unfinished(out, entries, tasks)
    _cut_missing(out, entries, tasks, workers, cut_image if on_bad_image == 'error' else cut_good_image)
    records = [record for name in names for record in entries[name].records]
    if not records:
        raise DataError(f'{out}: none of the {len(names)} images was stored: '
                        f'{_why_none(list(entries.values()), settings)}')
    check_all(out, records, workers)
    lines = (f'{key}.png ({h},{w},{c}) {settings.compress_level}\n' for key, h, w, c, _ in records)
    write_durably(meta_path(out), ''.join(lines))
    return _summary(entries.values(), len(names), len(records), resumed, False)


def _why_none(entries: Sequence[Entry], settings: CutSettings) -> str:
    bad = [f'{entry.source}: {entry.problem}' for entry in entries if entry.problem]
    if not bad:
        return f'all are smaller than the size {settings.size}'
    others = '' if len(bad) == len(entries) else f', the others are smaller than the size {settings.size}'
    return f'{len(bad)} cannot be read or decoded{others}; the first is {bad[0]}'


# Preparation


def _settings_of(settings: CutSettings, sources: Sequence[Source]) -> dict[str, Any]:
    names = [source.name if source.kept is None else f'{source.name} {source.kept}' for source in sources]
    digest = hashlib.sha256('\n'.join(names).encode()).hexdigest()
    kept = asdict(settings)
    if not settings.multiscale:
        del kept['multiscale']  # outputs from before there was this option go on
    return {**kept, 'number of images': len(names), 'names of the images': digest}


def _require_same_settings(out: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    changed = [
        f'the {name} changed' if name.startswith('names') else f'{name} was {before.get(name)}, now {value}'
        for name, value in {**dict.fromkeys(before), **now}.items()
        if before.get(name) != value
    ]
    if changed:
        raise DataError(
            f'{out}: was begun with other settings ({"; ".join(changed)}); '
            'give the same ones to continue, or --overwrite to start anew'
        )


def _summary(entries: Iterable[Entry], images: int, records: int, resumed: int, complete: bool) -> Summary:
    entries = list(entries)
    small, alpha = sum(entry.small for entry in entries), sum(entry.alpha for entry in entries)
    bad = tuple(f'{entry.source}: {entry.problem}' for entry in entries if entry.problem)
    return Summary(images, records, small, alpha, resumed, complete, bad)


def _remove_output(out: Path) -> None:
    """Removes only files that a preparation wrote: a mistyped output must not cost a folder of other things."""
    if not out.is_dir():
        return
    # The meta information goes first and the journal last: interrupted in between, the output is an incomplete one.
    if any(out.iterdir()) and not journal_path(out).is_file():
        raise DataError(f'{out}: was not written by this tool and is not overwritten; remove it by hand')
    files = [meta_path(out)]
    if out.suffix == '.lmdb':
        files += [out / 'data.mdb', out / 'lock.mdb']
    elif journal_path(out).is_file():
        entries = load_journal(journal_path(out))[1].values()
        files += [out / f'{record.key}.png' for entry in entries for record in entry.records]
    try:
        for path in [*files, journal_path(out)]:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f'{out}: cannot be removed: {error.strerror}') from error


def _begin_or_resume(out: Path, now: dict[str, Any], complete: bool) -> dict[str, Entry]:
    """Starts the journal, or reads that of an earlier call; returns the entries by source name."""
    journal = journal_path(out)
    if journal.is_file():
        before, entries = load_journal(journal)
        if not entries:  # nothing was cut yet, so nothing is lost by other settings
            write_durably(journal, json.dumps(now) + '\n')
            return entries
        _require_same_settings(out, before, now)
        content = journal.read_bytes()
        os.truncate(journal, content.rfind(b'\n') + 1)
        return entries
    if complete:
        return {}
    if out.exists() and (not out.is_dir() or any(not entry.name.startswith('.') for entry in out.iterdir())):
        raise DataError(f'{out}: exists and was not written by this tool; give another output or remove it')
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f'{out}: cannot be created: {error.strerror}') from error
    write_durably(journal, json.dumps(now) + '\n')
    return {}


def _drop_unfinished(out: Path, entries: dict[str, Entry], tasks: Sequence[_Task]) -> int:
    """Drops entries whose records were not all stored, or that were bad; returns the number of those that stay."""
    with open_store(out) as store:
        for _, name, *_ in tasks:
            entry = entries.get(name)
            if entry is None:
                continue
            if entry.problem is not None or not all(store.has(record.key) for record in entry.records):
                del entries[name]
    _require_unchanged(out, entries, tasks, False)
    return len(entries)


def _require_unchanged(out: Path, entries: dict[str, Entry], tasks: Sequence[_Task], thorough: bool) -> None:
    """Raises DataError where a source is another file than that which was packed."""
    known = [(path, entries[name]) for path, name, *_ in tasks if name in entries]
    try:
        changed = [path for path, entry in known if is_changed(path, entry, thorough)]
    except OSError as error:
        raise DataError(f'{error.filename}: cannot be read: {error.strerror}') from None
    if changed:
        others = f' (and {len(changed) - 1} more)' if len(changed) > 1 else ''
        raise DataError(f'{changed[0]}: changed since it was packed into {out}{others}; start anew with --overwrite')


def _cut_missing(out: Path, entries: dict[str, Entry], tasks: Sequence[_Task], workers: int,
                 cut: Callable[..., tuple[Entry, list[bytes]]]) -> None:
    """Cuts and stores the sources without an entry and adds their entries."""
    missing = [task for task in tasks if task[1] not in entries]
    if not missing:
        return
    bar = tqdm(total=len(tasks), initial=len(entries), desc='cut', unit='image', disable=None)
    batch: list[tuple[Entry, list[bytes]]] = []
    waiting, last_commit = 0, time.monotonic()
    with bar, open_store(out) as store, closing(in_order(cut, missing, workers)) as results:
        for entry, encoded in results:
            batch.append((entry, encoded))
            waiting += sum(map(len, encoded))
            if waiting >= _COMMIT_BYTES or time.monotonic() - last_commit >= _COMMIT_SECONDS:
                _commit(out, store, entries, batch)
                waiting, last_commit = 0, time.monotonic()
            bar.update()
        _commit(out, store, entries, batch)


def _commit(out: Path, store: Store, entries: dict[str, Entry], batch: list[tuple[Entry, list[bytes]]]) -> None:
    # The journal goes first: a line without its records is found out by looking them up, but records without a
    # line could not be told from finished ones, and their CRC would be lost.
    append_entries(journal_path(out), (entry for entry, _ in batch))
    items = [
        (record.key, content)
        for entry, encoded in batch
        for record, content in zip(entry.records, encoded, strict=True)
    ]
    store.write(items)
    entries.update((entry.source, entry) for entry, _ in batch)
    batch.clear()
