"""One thread: the networks are too small to share out, and sums stay in one order. Real images, where they are."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

@pytest.fixture
def shared_data():
    """Real images, where they are at hand."""
    folder = Path(os.environ.get('DIL_TEST_DATA', Path(__file__).parents[2] / 'shared' / 'data'))
    if not folder.is_dir():
        pytest.skip(f'no real images at {folder}')
    return folder
