"""The randomness of a test image depends on what is named, and on nothing else."""

import hashlib

import numpy as np
import torch

from dil_plugin.distortions import GaussianNoise
from dil_plugin.distortions.fixed import fixed_generator


def noise(*arguments):
    return torch.randn(8, generator=fixed_generator(*arguments))


def test_the_same_names_give_the_same_noise():
    assert torch.equal(noise(0, 'CBSD68', '101085', 'd'), noise(0, 'CBSD68', '101085', 'd'))


def test_every_name_matters():
    draws = [noise(*names) for names in ((0, 'CBSD68', 'a', 'd'), (1, 'CBSD68', 'a', 'd'), (0, 'Set5', 'a', 'd'),
                                         (0, 'CBSD68', 'b', 'd'), (0, 'CBSD68', 'a', 'e'))]
    assert len({tuple(draw.tolist()) for draw in draws}) == len(draws)


def test_torchs_own_state_is_neither_used_nor_changed():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = noise(0, 'a', 'b', 'c')
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(noise(0, 'a', 'b', 'c'), first)


def test_the_seed_is_the_head_of_the_digest():
    """Written down so that others can draw the same noise."""
    seed = int(hashlib.sha256(b'3/CBSD68/101085/GaussianNoise(sigma=30)').hexdigest()[:14], 16)
    expected = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(seed))
    drawn = torch.randn(3, 2, 2, generator=fixed_generator(3, 'CBSD68', '101085', 'GaussianNoise(sigma=30)'))
    assert torch.equal(drawn, expected)


def test_noise_of_many_images_is_normal():
    clean = torch.full((1, 1, 8, 8), 0.5)
    distortion = GaussianNoise(sigma=10)
    noisy = torch.cat([distortion(clean, fixed_generator(0, 'set', str(k), distortion.label)) for k in range(200)])
    scaled = ((noisy - 0.5) * 255 / 10).numpy()
    assert abs(scaled.mean()) < 0.04
    assert abs(scaled.std() - 1) < 0.03
    assert np.abs(np.corrcoef(scaled.reshape(200, -1)[:20])[np.triu_indices(20, 1)]).max() < 0.6
