"""Which part of an image to show."""

from typing import Any

import numpy as np
import numpy.typing as npt


def most_detailed_window(clean: npt.NDArray[Any], size: int) -> tuple[int, int]:
    """The window of the largest gradient energy: where restored images differ most to the eye.

    The energy of a pixel is ``(I[y, x + 1] - I[y, x])**2 + (I[y + 1, x] - I[y, x])**2``, where I is the sum of the
    channels, and a difference across the border is 0; that of a window is their sum, by an integral image, in whole
    numbers. Of equal windows the upper one is taken, of these the left one.

    Args:
        clean: uint8 or uint16, ``(h, w, 3)``, BGR or RGB with the same outcome, or ``(h, w)``.
        size: Side in pixels; the window is cut to the image where it is larger.

    Returns:
        Its first row and column.
    """
    grey = clean.astype(np.int64) if clean.ndim == 2 else clean.sum(2, dtype=np.int64)
    energy = np.zeros_like(grey)
    energy[:, :-1] += np.diff(grey, axis=1)**2
    energy[:-1] += np.diff(grey, axis=0)**2
    height, width = min(size, grey.shape[0]), min(size, grey.shape[1])
    integral = np.pad(energy.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = (integral[height:, width:] - integral[:-height, width:] - integral[height:, :-width]
            + integral[:-height, :-width])
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(top), int(left)
