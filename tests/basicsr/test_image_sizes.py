"""Odd sizes, images of exactly gt_size, and images of one pixel, from the data set to the restored image."""

import copy

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from basicsr.models import build_model

from dil_plugin.basicsr.data.draw_sampler import Draw
from dil_plugin.errors import DataError

RANDOM = np.random.default_rng(2)


@pytest.fixture
def sized(base, tmp_path):
    """A data set of one image of that size, and the image in RGB."""

    def build(height, width, **changes):
        image = RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8)
        folder = tmp_path / f'{height}x{width}'
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / 'a.png'), image)
        opt = {**copy.deepcopy(base['datasets']['train']), 'phase': 'train', 'scale': 1, 'dataroot_gt': str(folder),
               'distortions': [{'type': 'GaussianNoise', 'sigma': 0}], 'distort_on': 'worker'} | changes
        return build_dataset(opt), image[..., ::-1]

    return build


@pytest.mark.parametrize('size', [1, 15, 16])
def test_an_image_of_exactly_gt_size_is_the_patch(sized, size):
    dataset, image = sized(size, size, gt_size=size)
    expected = [np.rot90(one, k) for one in (image, image[:, ::-1]) for k in range(4)]
    seen = set()
    for draw in range(40):
        patch = dataset[Draw(0, draw)]['gt'].permute(1, 2, 0).numpy() * 255
        matches = {k for k, one in enumerate(expected) if np.array_equal(np.rint(patch), one)}
        assert matches
        seen |= matches
    assert len(seen) == 8


@pytest.mark.parametrize('sides', [(16, 15), (15, 16), (1, 40)])
def test_an_image_a_pixel_smaller_is_named(sized, sides):
    dataset, _ = sized(*sides, gt_size=16)
    with pytest.raises(DataError, match=rf'a\.png.*{sides[0]}x{sides[1]} pixels are less than .*gt_size 16'):
        dataset[Draw(0, 0)]


@pytest.mark.parametrize(('sides', 'cropped'), [((49, 43), (48, 40)), ((4, 7), (4, 4)), ((50, 48), (48, 48))])
def test_validation_crops_odd_sizes_to_a_multiple_of_the_scale(sized, sides, cropped):
    dataset, image = sized(*sides, phase='val', scale=4, distortions=[{'type': 'Downsample', 'scale': 4}])
    sample = dataset[0]
    assert np.array_equal(np.rint(sample['gt'].permute(1, 2, 0).numpy() * 255), image[:cropped[0], :cropped[1]])
    assert sample['lq'].shape == (3, cropped[0] // 4, cropped[1] // 4)


def test_validation_of_one_pixel(sized):
    dataset, image = sized(1, 1, phase='val')
    assert np.array_equal(np.rint(dataset[0]['lq'].numpy().ravel() * 255), image.ravel())


class Recorded(torch.nn.Module):
    """Gives back what it is given, and keeps its size."""

    def forward(self, x):
        self.size = tuple(x.shape[-2:])
        self.seen = x
        return x


@pytest.mark.parametrize(('sides', 'padded'), [((17, 23), (24, 24)), ((16, 24), (16, 24)), ((1, 1), (8, 8)),
                                               ((3, 9), (8, 16))])
def test_networks_with_windows_take_any_size(base, parsed, sides, padded):
    model = build_model(parsed(base))
    model.opt['network_g']['window_size'] = 8
    model.net_g_ema = Recorded()
    lq = torch.rand(1, 3, *sides)
    model.feed_data({'lq': lq})
    model.test()
    assert model.net_g_ema.size == padded
    assert torch.equal(model.output, lq)
    if min(sides) > 4:
        missing = ((0, 0), (0, padded[0] - sides[0]), (0, padded[1] - sides[1]))
        theirs = np.pad(lq[0].numpy(), missing, 'reflect')
        assert np.array_equal(model.net_g_ema.seen[0].numpy(), theirs)
