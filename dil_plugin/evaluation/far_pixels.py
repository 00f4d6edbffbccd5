"""Whether tiles change what a network restores: some look at the whole image, and some further than a tile's margin."""

from collections.abc import Callable

import torch
from torch import Tensor

from dil_plugin.evaluation.tiling import TileableNetwork

_KEPT, _FAR, _HEIGHT = 16, 64, 64  # pixels of the probe
_VISIBLE = 0.5  # of 255 grey levels: a rounding to 8 bits
_NOISE = 20260101


def tile_warning(network: TileableNetwork, batch: Tensor, tile: int, overlap: int) -> str | None:
    """What to tell the user if tiles change the result; None where they do not, or where there are none.

    A small piece of the image is restored three times: beside black, beside noise, and beside noise that is three
    times as far away as the margin of a tile, and 64 pixels at least. With channel attention, or another mean over the
    image, even the third differs from the first. The same again with what lies below the piece: a network may look
    far in one direction alone. The cost is that of some 300x300 pixels.

    Args:
        network: The network.
        batch: Images that are to be restored, ``(B, C, H, W)``.
        tile: As of ``restore_tiled``; so is ``overlap``.
        overlap: Margin of a tile, in pixels.
    """
    if tile == 0 or max(batch.shape[-2:]) <= tile:
        return None
    try:
        by_far, by_whole = far_effects(network, batch, overlap)
    except Exception:  # of any network: it does not take images of this size
        return None
    if by_whole > _VISIBLE:
        return (f'the network looks at the whole image (pixels {_distance(network, overlap)} away change its output by '
                f'up to {by_whole:.1f} of 255 grey levels), so that tiles change the result; --tile 0 restores without')
    if by_far > _VISIBLE:
        return (f'the network looks further than --overlap {overlap} (what lies beyond changes its output by up to '
                f'{by_far:.1f} of 255 grey levels); give a larger one, or --tile 0')
    return None


@torch.no_grad()
def far_effects(network: TileableNetwork, batch: Tensor, overlap: int) -> tuple[float, float]:
    """By how many of 255 grey levels pixels beyond the overlap change the output, and those beyond three times it.

    The second are 64 pixels away at least. Of pixels to the right and pixels below, whichever change it more.

    Args:
        network: The network.
        batch: Images, a piece of the first of which is restored.
        overlap: In pixels.
    """
    right = _effects(network, batch, overlap, lambda images: images)
    below = _effects(network, batch.transpose(-1, -2), overlap, lambda images: images.transpose(-1, -2))
    return max(right[0], below[0]), max(right[1], below[1])


def _effects(network: TileableNetwork, batch: Tensor, overlap: int,
             turn: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """Those of pixels to the right, in images that the network sees turned."""
    kept, margin, far, height = (_up(side, network.multiple) for side in (_KEPT, overlap, _FAR, _HEIGHT))
    distance = _distance(network, overlap)
    generator = torch.Generator().manual_seed(_NOISE)
    noise = torch.rand((batch.shape[1], height, kept + distance + far), generator=generator)
    top, left = (max(side - least, 0) // 2 for side, least in zip(batch.shape[-2:], (height, kept), strict=True))
    piece = batch[0, :, top:top + height, left:left + kept + margin].cpu().to(noise.dtype)
    noise[:, :piece.shape[1], :piece.shape[2]] = piece
    black, distant = noise.clone(), noise.clone()
    black[..., kept + margin:] = 0
    distant[..., kept + margin:kept + distance] = 0
    probe = torch.stack([black, noise, distant]).to(network.device)
    restored = turn(network(turn(probe).contiguous()))[..., :kept * network.scale].float().clamp(0, 1)
    by_far, by_whole = (float((one - restored[0]).abs().max()) * 255 for one in restored[1:])
    return by_far, by_whole


def _distance(network: TileableNetwork, overlap: int) -> int:
    """How far away pixels are, at least, that only a network sees which looks at the whole image."""
    return _up(max(3 * _up(overlap, network.multiple), _FAR), network.multiple)


def _up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple
