"""Odd sizes, images of exactly gt_size, and images of one pixel, from the data set to the restored image."""

import copy

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from basicsr.models import build_model
from basicsr.utils.registry import ARCH_REGISTRY

from dil_plugin.basicsr.data.draw_sampler import Draw
from dil_plugin.errors import DataError, OptionError
from dil_plugin.evaluation.networks import load_network
from dil_plugin.networks.size_needs import SizeNeeds

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


RRDB = {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'num_grow_ch': 2}


@ARCH_REGISTRY.register()
class HalvesThreeTimesForTest(torch.nn.Module):
    """Takes multiples of 8, as Restormer does, and fails elsewhere; says so by no option."""

    def __init__(self, scale=1):
        super().__init__()
        self.conv = torch.nn.Conv2d(192, 192 * scale**2, 3, padding=1)
        self.scale = scale

    def forward(self, x):
        return torch.nn.functional.pixel_shuffle(self.conv(torch.nn.functional.pixel_unshuffle(x, 8)), 8 * self.scale)


@ARCH_REGISTRY.register()
class SaysItsWindowForTest(torch.nn.Module):
    """Windows of two sides, as those of rectangular-window transformers."""

    def __init__(self, window_size=(4, 6)):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)
        self.window = window_size

    def forward(self, x):
        assert not x.shape[-2] % self.window[0]
        assert not x.shape[-1] % self.window[1]
        return self.conv(x)


@pytest.mark.parametrize(('network', 'scale', 'sides', 'window'), [
    ({**RRDB, 'scale': 1}, 1, (17, 23), None), ({**RRDB, 'scale': 2}, 2, (17, 23), None),
    ({**RRDB, 'scale': 1}, 1, (1, 2), None), ({'type': 'HalvesThreeTimesForTest'}, 1, (17, 23), None),
    ({'type': 'HalvesThreeTimesForTest'}, 1, (17, 23), 16),
    ({'type': 'HalvesThreeTimesForTest', 'scale': 2}, 2, (3, 9), None),
    ({'type': 'SaysItsWindowForTest', 'window_size': [4, 6]}, 1, (17, 23), None),
])
def test_validation_gives_what_restoring_gives(base, parsed, tmp_path, network, scale, sides, window):
    """To the bit, for networks that do not take the image's size; the checkpoint says all that is needed."""
    base.update(network_g=network, scale=scale)
    base['datasets']['train']['gt_size'] = 24 if scale == 1 else 32
    if scale > 1:
        base['distortions'] = [{'type': 'Downsample', 'scale': scale}]
    if window is not None:
        base['val'] = {'val_freq': 4, 'save_img': False, 'window_size': window}
    model = build_model(parsed(base))
    lq = torch.rand(1, 3, *sides)
    with pytest.raises((AssertionError, RuntimeError)):
        model.net_g(lq)
    model.feed_data({'lq': lq})
    model.test()
    assert model.output.shape == (1, 3, scale * sides[0], scale * sides[1])
    assert torch.equal(model.lq, lq)
    model.opt['path']['models'] = str(tmp_path)
    model._save_networks(4)
    restoring = load_network(tmp_path / 'net_g_4.pth')
    assert torch.equal(restoring(lq), model.output)
    assert window is None or restoring.needs == SizeNeeds(window, window)


@pytest.mark.parametrize(('network', 'scale', 'size', 'words'), [
    ({**RRDB, 'scale': 1}, 1, 30, ['datasets.train.gt_size: 30', '30x30', 'RRDBNet', 'multiples of 4', 'as 32']),
    ({**RRDB, 'scale': 2}, 2, 34, ['datasets.train.gt_size: 34', '17x17', 'allowed: multiples of 4, as 36']),
    ({'type': 'HalvesThreeTimesForTest'}, 1, 20, ['gt_size: 20', 'HalvesThreeTimesForTest', 'multiples of 8, as 24']),
    ({'type': 'SaysItsWindowForTest', 'window_size': [4, 6]}, 1, 32, ['gt_size: 32', 'multiples of 12, as 36']),
    ({'type': 'SwinIR', 'img_size': 16, 'window_size': 8, 'depths': [1], 'embed_dim': 4, 'num_heads': [1]}, 1, 20,
     ['datasets.train.gt_size: 20', '20x20', 'SwinIR', 'multiples of 8, as 24']),
])
def test_patches_that_a_network_cannot_take_are_named_before_the_run(base, parsed, network, scale, size, words):
    base.update(network_g=network, scale=scale)
    base['datasets']['train']['gt_size'] = size
    if scale > 1:
        base['distortions'] = [{'type': 'Downsample', 'scale': scale}]
    with pytest.raises(OptionError) as error:
        parsed(base)
    assert all(word in str(error.value) for word in words), error.value


def test_patches_that_go_through_in_training_are_left(base, parsed):
    """Whatever is known of other sizes: SwinIR without attention across windows of 4 takes 4 where it is told 8."""
    base['network_g'] = {'type': 'SwinIR', 'img_size': 4, 'window_size': 8, 'depths': [1], 'embed_dim': 4,
                         'num_heads': [1], 'upscale': 1}
    base['datasets']['train']['gt_size'] = 4
    parsed(base)
