"""Restores an image piece by piece, so that memory depends on the tile and not on the image."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dil_plugin.errors import OptionError


class TileableNetwork(Protocol):
    """What tiling needs to know of a network; ``RestorationNetwork`` is one.

    Attributes:
        scale: Side of the result divided by side of the input.
        multiple: Input sides that are multiples of this many pixels are not padded.
        device: Where it computes.
    """

    @property
    def scale(self) -> int:
        """Side of the result divided by side of the input."""

    @property
    def multiple(self) -> int:
        """Input sides that are multiples of this many pixels are not padded."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def __call__(self, batch: Tensor) -> Tensor:
        """Restores ``(B, C, H, W)`` to ``(B, C', sH, sW)``, for any H and W."""


class Span(NamedTuple):
    """A tile along one axis, in input pixels: ``keep`` is written, ``read`` is what the network sees."""

    keep_start: int
    keep_end: int
    read_start: int
    read_end: int

    @property
    def kept(self) -> slice:
        """The part that is written, inside what is read."""
        return slice(self.keep_start - self.read_start, self.keep_end - self.read_start)


@torch.no_grad()
def restore_tiled(network: TileableNetwork, batch: Tensor, tile: int, overlap: int,
                  progress: Callable[[int, int], None] | None = None) -> Tensor:
    """Restores images in tiles, whose margins are computed and cut away.

    The result equals that of the whole image, up to rounding, wherever the network looks at most ``overlap`` pixels far
    and uses no statistics of the whole image (as channel attention does). Tiles begin on multiples of
    ``network.multiple``, so the windows of a network such as SwinIR lie where they lie without tiles.

    Args:
        network: The network.
        batch: Images ``(B, C, H, W)`` on any device; only the tile in work lies on the network's.
        tile: Largest side of a tile without its margins, in input pixels; rounded down to whole multiples, but at least
            one of them. 0, or a tile that holds the image: no tiles.
        overlap: Least margin on the sides where the image goes on, in input pixels; rounded up to whole multiples.
        progress: Called after every tile with the number done and the number of all.

    Returns:
        Images ``(B, C', sH, sW)`` on the device of ``batch``, in the network's dtype, not clamped.

    Raises:
        OptionError: ``tile`` or ``overlap`` is negative.
    """
    check_tiles(tile, overlap)
    height, width = batch.shape[-2:]
    rows, columns = (list(_spans(side, tile, overlap, network.multiple)) for side in (height, width))
    pieces = [(row, column) for row in rows for column in columns]
    scale, result = network.scale, None
    for done, (row, column) in enumerate(pieces, 1):
        read = batch[..., row.read_start:row.read_end, column.read_start:column.read_end]
        restored = network(read.to(network.device))[..., _scaled(row.kept, scale), _scaled(column.kept, scale)]
        if result is None:  # only the network knows its channels and dtype
            result = batch.new_empty((*restored.shape[:2], scale * height, scale * width), dtype=restored.dtype)
        result[..., _scaled(slice(*row[:2]), scale), _scaled(slice(*column[:2]), scale)] = restored
        if progress is not None:
            progress(done, len(pieces))
    assert result is not None
    return result


def check_tiles(tile: int, overlap: int) -> None:
    """Raises OptionError where a side is negative."""
    if tile < 0:
        raise OptionError(f'--tile: {tile} is negative; allowed: 0 (no tiles) or the side of a tile in pixels')
    if overlap < 0:
        raise OptionError(f'--overlap: {overlap} is negative; allowed: 0 or more pixels')


def _spans(side: int, tile: int, overlap: int, multiple: int) -> Iterator[Span]:
    """Tiles of an axis: as few as the tile allows, of nearly equal size."""
    if tile == 0 or side <= tile:
        yield Span(0, side, 0, side)
        return
    largest = max(tile // multiple, 1) * multiple
    count = -(-side // largest)
    step = _up(-(-side // count), multiple)
    margin = _up(overlap, multiple)
    for start in range(0, side, step):
        end = min(start + step, side)
        # The last tile is padded as the whole image is: by reflecting less than one multiple of pixels, which it holds.
        latest = max(side - multiple, 0) // multiple * multiple
        yield Span(start, end, max(min(start - margin, latest), 0), min(end + margin, side))


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _scaled(part: slice, scale: int) -> slice:
    return slice(scale * part.start, scale * part.stop)
