"""Writes benchmarks in the layouts in which they are published."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

Image = npt.NDArray[np.uint8]


def picture(seed: int, height: int = 12, width: int = 16) -> Image:
    """A random uint8 image (height, width, 3), BGR."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Image]:
    """Writes a random image to a path below the folder of data sets and returns its pixels."""
    counter = iter(range(10_000))

    def write_one(relative: str, height: int = 12, width: int = 16) -> Image:
        path = tmp_path / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = picture(next(counter), height, width)
        assert cv2.imwrite(str(path), pixels)
        return pixels

    return write_one
