"""A network that does not enlarge by the YAML's scale is named before anything is made."""

import random

import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from dil_plugin.basicsr.checks.network_scale import network_scale
from dil_plugin.errors import OptionError

SWINIR = {'type': 'SwinIR', 'in_chans': 3, 'img_size': 16, 'window_size': 8, 'depths': [2], 'embed_dim': 12,
          'num_heads': [2], 'mlp_ratio': 2}
RRDB = {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'num_grow_ch': 2}


@ARCH_REGISTRY.register()
class LooksAtValuesForTest(nn.Module):
    """A network that needs values, and gives two outputs."""

    def __init__(self, upscale=2):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.upscale = upscale if float(self.conv.weight.sum()) < 1e9 else 1

    def forward(self, x):
        return [self.conv(x), nn.functional.interpolate(self.conv(x), scale_factor=self.upscale)]


@ARCH_REGISTRY.register()
class NeedsMoreForTest(nn.Module):
    """A network that cannot do with an image alone."""

    def forward(self, x, sigma):
        return x * sigma


@pytest.mark.parametrize(('block', 'scale'), [
    *[({**RRDB, 'scale': s}, s) for s in (1, 2, 4)],
    (RRDB, 4),
    ({**RRDB, 'type': 'RRDBNetNoUpsample'}, 1),
    *[({**SWINIR, 'upscale': 4, 'upsampler': how}, 4) for how in ('nearest+conv', 'pixelshuffle')],
    ({**SWINIR, 'upscale': 2, 'upsampler': 'pixelshuffledirect'}, 2),
    ({**SWINIR, 'upscale': 1, 'upsampler': ''}, 1),
    *[({'type': 'MSRResNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'upscale': s}, s)
      for s in (2, 3, 4)],
    ({'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'upscale': 3}, 3),
    ({'type': 'LooksAtValuesForTest'}, 2),
])
def test_enlargement(block, scale):
    """As a real pass through the network says it."""
    assert network_scale(block) == scale
    output = build_network(dict(block))(torch.zeros(1, 3, 16, 16))
    assert (output if isinstance(output, torch.Tensor) else output[-1]).shape[-1] == 16 * scale


@pytest.mark.parametrize('block', [{'type': 'NeedsMoreForTest'}, {**RRDB, 'nonsense': 1}])
def test_what_cannot_be_tried_is_not_judged(block):
    assert network_scale(block) is None


def test_random_numbers_are_as_without(monkeypatch):
    """The draws of the network's initialisation afterwards are the same; on the CPU too, where values are drawn."""
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(3)
    before = torch.rand(2), random.random(), np.random.rand()  # noqa: NPY002
    for block in (RRDB, {'type': 'LooksAtValuesForTest'}):
        for seed in (torch.manual_seed, random.seed, np.random.seed):
            seed(3)
        network_scale(block)
        after = torch.rand(2), random.random(), np.random.rand()  # noqa: NPY002
        assert torch.equal(before[0], after[0])
        assert before[1:] == after[1:]


@pytest.mark.parametrize(('network', 'scale', 'words'), [
    ({**RRDB, 'scale': 2}, 4, ['RRDBNet enlarges by 2', 'scale is 4', 'network_g.scale: 4', 'it is 2 now']),
    (RRDB, 2, ['RRDBNet enlarges by 4', 'scale is 2', 'network_g.scale: 2', 'it is 4 now']),
    ({**SWINIR, 'upscale': 1, 'upsampler': ''}, 4, ['SwinIR enlarges by 1', 'network_g.upscale: 4']),
    ({**RRDB, 'type': 'RRDBNetNoUpsample'}, 4, ['RRDBNetNoUpsample enlarges by 1', 'scale: 1 at the top level']),
])
def test_another_scale_is_named_before_the_folder_is_made(base, pipeline, tmp_path, network, scale, words):
    base.update(network_g=network, scale=scale, distortions=[{'type': 'Downsample', 'scale': scale}])
    base['datasets']['train']['gt_size'] = 32
    with pytest.raises(OptionError) as error:
        pipeline(base)
    assert str(error.value).startswith('network_g: ')
    assert all(word in str(error.value) for word in words), error.value
    assert not (tmp_path / 'experiments').exists()


def test_convolutions_without_padding(base, parsed):
    """No scale can be set that would fit."""
    ARCH_REGISTRY._obj_map.setdefault('CropsForTest', CropsForTest)
    base['network_g'] = {'type': 'CropsForTest'}
    with pytest.raises(OptionError, match='CropsForTest gives images of 0.875 times the side') as error:
        parsed(base)
    assert 'scale is 1; allowed: a network that gives 1 times the side (convolutions' in str(error.value)
    assert 'scale: 0.875' not in str(error.value)


class CropsForTest(nn.Module):
    """A valid convolution."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 3, 3)

    def forward(self, x):
        return self.body(x)


@pytest.mark.parametrize(('output', 'kind'), [({'image': torch.zeros(1, 3, 16, 16)}, 'dict'), (None, 'NoneType')])
def test_no_image(output, kind, base, parsed, monkeypatch):
    monkeypatch.setattr(LooksAtValuesForTest, 'forward', lambda *_: output)
    base['network_g'] = {'type': 'LooksAtValuesForTest'}
    with pytest.raises(OptionError, match=f'must return a tensor or a list of tensors, got {kind}'):
        parsed(base)


class ImageAndFeaturesForTest(nn.Module):
    """An image and its features, in the order that is asked for."""

    def __init__(self, image_first=True):
        super().__init__()
        self.body, self.image_first = nn.Conv2d(3, 8, 3, padding=1), image_first
        self.tail = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x):
        features = self.body(x)
        both = self.tail(features), features
        return both if self.image_first else both[::-1]


@pytest.mark.parametrize(('image_first', 'outputs', 'told'), [
    (True, 'first', None), (False, 'last', None),
    (True, 'last', 'ImageAndFeaturesForTest gives images of 8 channels'),
    (True, 'all', r'train.dil.outputs: all, but ImageAndFeaturesForTest returns outputs of several shapes '
                  r'\(3x\d+x\d+, 8x\d+x\d+\)'),
])
def test_the_output_that_is_chosen_is_the_image(base, parsed, image_first, outputs, told):
    """One line for one mistake, and none where the training takes the image."""
    ARCH_REGISTRY._obj_map.setdefault('ImageAndFeaturesForTest', ImageAndFeaturesForTest)
    base['network_g'] = {'type': 'ImageAndFeaturesForTest', 'image_first': image_first}
    base['train']['dil']['outputs'] = outputs
    if told is None:
        parsed(base)
        return
    with pytest.raises(OptionError, match=told) as error:
        parsed(base)
    assert len(str(error.value).splitlines()) == 1
