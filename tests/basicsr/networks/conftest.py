"""Lets the tests of this folder import the modules beside them, as a user's ``custom_imports`` do; tiny images."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage

sys.path.insert(0, str(Path(__file__).resolve().parent))

PHOTOGRAPHS = Path(skimage.__file__).parent / 'data'
LQ_SIZES = {1: (37, 43), 2: (19, 23), 3: (13, 17), 4: (11, 13)}
"""Of the validation image, by scale: odd, and multiples of nothing that a network could need."""


@pytest.fixture(scope='session')
def images(tmp_path_factory):
    """A folder with ``clean``, three training images, and for each scale S one pair, ``gtS`` and ``lqS``."""
    root = tmp_path_factory.mktemp('images')
    photograph = cv2.imread(str(PHOTOGRAPHS / 'astronaut.png'))
    noise = np.random.default_rng(0)
    (root / 'clean').mkdir()
    for k in range(3):
        cv2.imwrite(str(root / f'clean/{k}.png'), photograph[60 + 60 * k:132 + 60 * k, 100:180])
    for scale, (height, width) in LQ_SIZES.items():
        clean = photograph[20:20 + scale * height, 180:180 + scale * width]
        small = cv2.resize(clean, (width, height), interpolation=cv2.INTER_AREA)
        noisy = (small + noise.normal(0, 20, small.shape)).round().clip(0, 255).astype(np.uint8)
        for kind, image in (('gt', clean), ('lq', noisy)):
            (root / f'{kind}{scale}').mkdir()
            cv2.imwrite(str(root / f'{kind}{scale}/odd.png'), image)
    return root
