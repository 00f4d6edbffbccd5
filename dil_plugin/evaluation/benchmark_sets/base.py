"""What all readers of benchmarks share: the set, its samples, and how a file becomes pixels."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dil_plugin.data_preparation import read_image
from dil_plugin.data_preparation.decoding import eight_bit_colour
from dil_plugin.data_preparation.images import Image
from dil_plugin.errors import DataError


class MissingSet(DataError):
    """A benchmark is not in the folder of data sets; the message names all places that were looked at."""


class Sample(NamedTuple):
    """One image of a benchmark, uint8 of shape (H, W, 3) in BGR order.

    Attributes:
        gt: The clean image; None where the benchmark keeps it to itself (DND).
        lq: The set's own distorted image, ``scale`` times smaller; None where only clean images were asked for.
    """

    gt: Image | None
    lq: Image | None


class BenchmarkSet(ABC):
    """A benchmark on disk.

    Attributes:
        name: As in ``BENCHMARKS``.
        root: The folder of the set.
        names: Its images, sorted, each once, without file ending; ``Canon/001`` where folders tell them apart.
        remark: A sentence on what sets this copy apart from the published set, or None.
        paired: Whether ``read`` gives the set's own distorted images.
        has_gt: Whether its clean images are public.
    """

    has_gt = True

    def __init__(self, name: str, root: Path, names: Sequence[str], paired: bool, remark: str | None = None) -> None:
        self.name = name
        self.root = root
        self.names = sorted(names)
        self.paired = paired
        self.remark = remark
        self._checksums: dict[Path, str] = {}

    @abstractmethod
    def files(self, name: str) -> list[Path]:
        """The files that hold an image, as far as they are there."""

    def fingerprint(self, name: str) -> str:
        """Tells an image from another of the same name: CRC-32 and size of its files."""
        for path in self.files(name):
            if path not in self._checksums:
                self._checksums[path] = _checksum(path)
        return ' '.join(self._checksums[path] for path in self.files(name))

    @abstractmethod
    def read(self, name: str) -> Sample:
        """Reads one image, or pair of images.

        Raises:
            DataError: There is none of that name; or a file is missing, damaged or of the wrong size. The message
                names the file.
        """

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.name}, {len(self)} images in {self.root})'


def _checksum(path: Path) -> str:
    crc = size = 0
    try:
        with path.open('rb') as file:
            while part := file.read(1 << 24):
                crc, size = zlib.crc32(part, crc), size + len(part)
    except OSError:
        return 'unreadable'
    return f'{crc:08x}-{size}'


def read_bgr(path: Path) -> Image:
    """An image file as uint8 (H, W, 3) in BGR order.

    Grey becomes three equal channels, 16 bits become 8 (the nearest of ``value / 257``), alpha is dropped, and the
    EXIF orientation is applied: as in training.

    Raises:
        DataError: The file cannot be read, is truncated or corrupt.
    """
    image, _ = read_image(path)
    return eight_bit_colour(image)


def count_remark(found: int, published: int | None, where: str) -> str | None:
    """The remark on a copy with another number of images than the published set; None where they agree."""
    if published is None or found == published:
        return None
    return f'{found} images in {where}, not the {published} of the published set'
