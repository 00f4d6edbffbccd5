"""A SHA-256 at the end of a checkpoint, where zip archives may have a comment, which other readers skip.

``torch.save`` writes a zip archive with a CRC-32 of each record, and ``torch.load`` checks none of them: a flipped bit
among the weights is loaded without a word. The digest here is of every byte that ``torch.save`` wrote.
"""

import hashlib
import os
import struct
from typing import BinaryIO

_MARK = b'sha256:'
_COMMENT = len(_MARK) + 2 * hashlib.sha256().digest_size
_END = struct.Struct('<4s4H2LH')  # the last record of an archive; its last field is the length of the comment behind it
_SIGNATURE = b'PK\x05\x06'
_LONGEST_END = _END.size + 2**16
_PIECE = 2**20


class DigestingFile:
    """What ``torch.save`` writes to; the digest grows with each piece, so that nothing is read again.

    Args:
        file: A file that can be sought in, at its start.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        """Takes the next bytes of the archive."""
        self._hash.update(data)
        try:
            return self._file.write(data)
        except OSError as error:  # torch reports an error of its own, which does not say why
            self.failure = error
            raise

    def flush(self) -> None:
        """For ``torch.save``."""
        self._file.flush()

    def finish(self) -> None:
        """Writes the digest as the archive's comment."""
        self._file.seek(-2, os.SEEK_END)
        self._file.write(struct.pack('<H', _COMMENT) + _MARK + self._hash.hexdigest().encode())


def damage(path: str | os.PathLike[str]) -> str | None:
    """What is wrong with a checkpoint as far as its bytes can tell, or None.

    A file without a digest, written by others, is checked for its end alone, and one that is no zip archive not at all.
    """
    size = os.path.getsize(path)
    with open(path, 'rb') as file:
        archive = file.read(4) == b'PK\x03\x04'
        file.seek(max(0, size - _LONGEST_END))
        tail = file.read()
        ours = tail[-_COMMENT - _END.size:-_COMMENT].startswith(_SIGNATURE)
        if tail[-_COMMENT:].startswith(_MARK) or ours:
            whole = tail[-_COMMENT:] == _MARK + _digest(file, size - _COMMENT).encode()
            return None if whole else 'its bytes are not those that were written'
    return None if not archive or _ends_whole(tail) else 'it is truncated'


def _ends_whole(tail: bytes) -> bool:
    """Whether an archive's last record, with the comment that it announces, is the end of the file."""
    end = tail.rfind(_SIGNATURE)
    if end == -1 or len(tail) - end < _END.size:
        return False
    return int(_END.unpack_from(tail, end)[-1]) == len(tail) - end - _END.size


def _digest(file: BinaryIO, size: int) -> str:
    """Of the archive as it was before its comment, whose length was 0."""
    digest = hashlib.sha256()
    file.seek(0)
    left = size - 2
    while left > 0:
        piece = file.read(min(_PIECE, left))
        digest.update(piece)
        left -= len(piece)
    length = file.read(2)
    digest.update(b'\0\0' if length == struct.pack('<H', _COMMENT) else length)
    return digest.hexdigest()
