"""Scores on disk, one line each as they are computed, so that an interrupted evaluation continues."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

import msgspec
from typing_extensions import Self

from dil_plugin.errors import DataError, OptionError
from dil_plugin.evaluation.results import Score

Key = tuple[str, str, str, str]

_FORMAT = 1


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    settings: dict[str, str]


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    identity: str
    score: Score


class ScoreStore:
    """``scores.jsonl``: a header that says how the scores were measured, then one score a line.

    A line that a kill cut off is dropped. Images that failed are not kept, so that they are tried again.

    Args:
        path: The file.
        settings: What scores depend on; with others than these the file is refused.
        identities: For each run what it is (such as its checkpoint's SHA-256); scores of another are refused.
        overwrite: Starts anew.

    Raises:
        OptionError: The file is of other settings or of another checkpoint.
        DataError: It is no such file, or cannot be written.
    """

    def __init__(self,
                 path: Path,
                 settings: Mapping[str, str],
                 identities: Mapping[str, str],
                 overwrite: bool = False) -> None:
        self.path = path
        self.settings = dict(settings)
        self.identities = dict(identities)
        self.scores: dict[Key, Score] = {}
        self._file: IO[bytes] | None = None
        if overwrite or not path.exists() or path.stat().st_size == 0:
            self._create()
        else:
            self._read()

    def __enter__(self) -> Self:
        self._file = open(self.path, 'ab')
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None

    def add(self, scores: Sequence[Score]) -> None:
        """Appends scores; they are in the file when this returns."""
        assert self._file is not None
        for score in scores:
            self.scores[key_of(score)] = score
            if score.error is None:
                line = _Line(identity=self.identities.get(score.run, ''), score=score)
                self._file.write(msgspec.json.encode(line) + b'\n')
        self._file.flush()

    def _create(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            header = _Header(format=_FORMAT, settings=self.settings)
            self.path.write_bytes(msgspec.json.encode(header) + b'\n')
        except OSError as error:
            raise DataError(f'--output: {self.path} cannot be written ({error.strerror})') from None

    def _read(self) -> None:
        content = self.path.read_bytes()
        whole = content.rfind(b'\n') + 1
        first, *lines = content[:whole].splitlines() or [b'']
        try:
            header = msgspec.json.decode(first, type=_Header)
            entries = [msgspec.json.decode(line, type=_Line) for line in lines]
        except msgspec.MsgspecError as error:
            raise DataError(f'--output: {self.path} is not what an evaluation wrote ({error}); give another --output, '
                            'or --overwrite') from None
        for name in header.settings.keys() | self.settings.keys():
            before, now = header.settings.get(name), self.settings.get(name)
            if before != now:
                raise OptionError(f'--output: {self.path} was measured with {name} {before}, now it is {now}; give '
                                  'another --output, or --overwrite to measure anew')
        for entry in entries:
            wanted = self.identities.get(entry.score.run)
            if wanted is not None and wanted != entry.identity:
                raise OptionError(f'--output: {self.path} has scores of another checkpoint for run {entry.score.run}; '
                                  'give another --output or another name, or --overwrite to measure all anew')
            self.scores[key_of(entry.score)] = entry.score
        if whole < len(content):  # what a kill cut off
            with open(self.path, 'r+b') as file:
                file.truncate(whole)


def key_of(score: Score) -> Key:
    """What a score is of: run, data set, condition, image."""
    return score.run, score.dataset, score.condition, score.image
