"""Reading a finished output back and comparing it with what was stored."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from dil_plugin.data_preparation.images import Record, record_problem
from dil_plugin.data_preparation.storage import meta_path, open_store, read_meta
from dil_plugin.data_preparation.workers import in_order, worker_count
from dil_plugin.errors import DataError

_CHECKED_TOGETHER = 64


def verify_data(out: Path, workers: int | None = None) -> int:
    """Checks each record of a complete output against its meta information; also an LMDB made by BasicSR's own tools.

    Every record is decoded and its shape compared; where the journal is there, the pixels are compared as well.

    Returns:
        The number of records.

    Raises:
        DataError: The output is incomplete or damaged; the message names up to five records.
    """
    records = read_meta(out)
    if len({record.key for record in records}) != len(records):
        raise DataError(f'{meta_path(out)}: names a record twice')
    check_all(out, records, worker_count(workers))
    return len(records)


def check_all(out: Path, records: Sequence[Record], workers: int) -> None:
    """Raises DataError unless ``out`` holds these records and no others, each of the noted shape and pixels."""
    with open_store(out, readonly=True) as store:
        count = store.count()
    if count != len(records):
        raise DataError(f'{out}: holds {count} records, expected are {len(records)}; run again with --overwrite')
    chunks = [(out, records[start : start + _CHECKED_TOGETHER]) for start in range(0, count, _CHECKED_TOGETHER)]
    problems: list[str] = []
    bar = tqdm(total=count, desc='verify', unit='record', disable=None)
    with bar, closing(in_order(_check_records, chunks, workers)) as results:
        for (_, chunk), found in zip(chunks, results, strict=True):
            problems += found
            bar.update(len(chunk))
    if problems:
        more = f'; and {len(problems) - 5} more' if len(problems) > 5 else ''
        raise DataError(f'{out}: {"; ".join(problems[:5])}{more}; run again with --overwrite')


def _check_records(out: Path, records: Sequence[Record]) -> list[str]:
    """Reads stored records back and compares them; runs in a worker process."""
    with open_store(out, readonly=True) as store:
        checked = ((record, record_problem(store.read(record.key), record)) for record in records)
        return [f'record {record.key} {problem}' for record, problem in checked if problem]
