"""Scores on disk, one line each as they are computed, so that an interrupted evaluation continues."""

import fcntl
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import msgspec
from typing_extensions import Self

from dil_plugin.errors import DataError, OptionError
from dil_plugin.evaluation.results import Score

Key = tuple[str, str, str, str]

_FORMAT = 1
_START = b'{"format":'


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    settings: dict[str, str]


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    identity: str
    image: str
    score: Score


class ScoreStore:
    """``scores.jsonl``: a header that says how the scores were measured, then one score a line.

    A line that a kill cut off is dropped. Images that failed are not kept, and those that have changed since are left
    out, so that both are measured again. One process at a time can hold the file.

    Args:
        path: The file.
        settings: What scores depend on; with others than these the file is refused.
        identities: For each run what it is (such as its checkpoint's SHA-256); scores of another are refused.
        fingerprint: Of an image, by data set and name; None where the set is not part of this evaluation.
        overwrite: Starts anew.

    Attributes:
        scores: All scores by run, data set, condition and image.
        existed: Whether there was such a file before.

    Raises:
        OptionError: The file is of other settings or of another checkpoint, or another process holds it.
        DataError: It is no such file, or cannot be read or written.
    """

    def __init__(self,
                 path: Path,
                 settings: Mapping[str, str],
                 identities: Mapping[str, str],
                 fingerprint: Callable[[str, str], str | None],
                 overwrite: bool = False) -> None:
        self.path = path
        self.identities = dict(identities)
        self.scores: dict[Key, Score] = {}
        self._fingerprint = fingerprint
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, 'a+b', buffering=0)  # noqa: SIM115  (closed by __exit__)
            content = self._locked_content()
        except OSError as error:
            raise self._unwritable(error) from None
        self.existed = content.startswith(_START)
        header = msgspec.json.encode(_Header(format=_FORMAT, settings=dict(settings))) + b'\n'
        if overwrite or header.startswith(content):  # new, or cut off inside its header
            self._file.truncate(0)
            self._append(header)
        else:
            self._read(content, dict(settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as failure:
            if error is None:
                raise self._unwritable(failure) from None
        finally:
            self._file.close()

    def add(self, scores: Sequence[Score]) -> None:
        """Appends scores; they are in the file when this returns.

        Raises:
            DataError: They cannot be written.
        """
        lines = []
        for score in scores:
            self.scores[key_of(score)] = score
            if score.error is None:
                lines.append(msgspec.json.encode(_Line(identity=self.identities[score.run], score=score,
                                                       image=self._fingerprint(score.dataset, score.image) or '')))
        self._append(b''.join(line + b'\n' for line in lines))

    def _append(self, content: bytes) -> None:
        """Adds whole lines, or none: what of them a full disk has taken is removed again."""
        before = os.fstat(self._file.fileno()).st_size
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[self._file.write(rest) or 0:]
        except OSError as error:
            self._file.truncate(before)
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> DataError:
        return DataError(f'--output: {self.path} cannot be written ({error.strerror}); what was measured before is '
                         'kept, and the same command goes on from there')

    def _locked_content(self) -> bytes:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise OptionError(f'--output: another evaluation is writing to {self.path.parent}; wait for it, or give '
                              'another folder') from None
        self._file.seek(0)
        return self._file.read()

    def _read(self, content: bytes, settings: dict[str, str]) -> None:
        whole = content.rfind(b'\n') + 1
        first, *lines = content[:whole].splitlines() or [content]
        try:
            header = msgspec.json.decode(first, type=_Header)
            entries = [msgspec.json.decode(line, type=_Line) for line in lines]
        except msgspec.MsgspecError as error:
            raise DataError(f'--output: {self.path} is not what an evaluation wrote ({error}); give another --output, '
                            'or --overwrite') from None
        for name in dict.fromkeys((*settings, *header.settings)):  # the table first
            before, now = header.settings.get(name), settings.get(name)
            if before != now:
                raise OptionError(f'--output: {self.path} was measured with {name} {before}, now it is {now}; give '
                                  'another --output, or --overwrite to measure anew')
        for entry in entries:
            wanted = self.identities.get(entry.score.run)
            if wanted is not None and wanted != entry.identity:
                raise OptionError(f'--output: {self.path} has scores of another checkpoint, network or param_key for '
                                  f'run {entry.score.run}; give another --output or name, or --overwrite to measure '
                                  'all anew (the network: network_g, scale, val.window_size)')
            if self._fingerprint(entry.score.dataset, entry.score.image) in (None, entry.image):
                self.scores[key_of(entry.score)] = entry.score
        self._file.truncate(whole)  # drops what a kill cut off


def key_of(score: Score) -> Key:
    """What a score is of: run, data set, condition, image."""
    return score.run, score.dataset, score.condition, score.image
