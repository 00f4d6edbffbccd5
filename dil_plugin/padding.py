"""Padding images to what networks with windows need."""

from torch import Tensor, nn


def pad_to_multiple(batch: Tensor, multiple: int) -> Tensor:
    """Pads below and on the right to multiples, by reflection, and by the last pixel where there is less to reflect."""
    for dim, side in ((-2, batch.shape[-2]), (-1, batch.shape[-1])):
        missing = -side % multiple
        if missing:
            pads = (0, 0, 0, missing) if dim == -2 else (0, missing, 0, 0)
            batch = nn.functional.pad(batch, pads, 'reflect' if missing < side else 'replicate')
    return batch
