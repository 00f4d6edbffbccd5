"""Smaller versions of a training image, as Real-ESRGAN prepares DF2K."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import PIL.Image

from dil_plugin.data_preparation.images import Image
from dil_plugin.errors import DataError

FACTORS = (0.75, 0.5, 1 / 3)
SHORTEST_EDGE = 400  # pixels, of the last version
ENDINGS = tuple(f'T{number}' for number in range(len(FACTORS) + 1))


def smaller_versions(image: Image) -> Iterator[tuple[str, Image]]:
    """The image at 0.75, 0.5 and 1/3 of its size, and with a shortest edge of 400 pixels, by Pillow's LANCZOS.

    Sides are rounded down, as in Real-ESRGAN's ``generate_multiscale_DF2K.py``, whose endings are ``T0`` to ``T3`` too.
    An image whose shortest edge is no longer than 400 pixels has no ``T3``, since it would be enlarged.

    Args:
        image: ``(h, w)`` or ``(h, w, 3)``, uint8.

    Yields:
        The name's ending and the version, of the same form.

    Raises:
        DataError: The image is not of 8 bits.
    """
    if image.dtype != np.uint8:
        raise DataError(f'has pixels of {image.dtype}; allowed with multiscale: 8 bits')
    height, width = image.shape[:2]
    sizes = [(int(width * factor), int(height * factor)) for factor in FACTORS]
    if min(height, width) > SHORTEST_EDGE:
        ratio = max(height, width) / min(height, width)
        longest = int(SHORTEST_EDGE * ratio)
        sizes.append((SHORTEST_EDGE, longest) if width < height else (longest, SHORTEST_EDGE))
    whole = PIL.Image.fromarray(image)  # the order of the colours does not matter
    for ending, size in zip(ENDINGS, sizes, strict=False):
        if min(size) > 0:
            yield ending, np.asarray(whole.resize(size, PIL.Image.Resampling.LANCZOS))
