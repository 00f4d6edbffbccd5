"""What sizes networks take: by their options, by the user's word, by trying; and one way of padding everywhere."""

import inspect
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dil_plugin.evaluation.networks import RestorationNetwork, build_module
from dil_plugin.networks import size_needs as size_needs_module
from dil_plugin.networks.size_needs import SizeNeeds, input_channels, known_needs, size_needs, tried_needs

SWIN = {'img_size': 16, 'depths': [2], 'embed_dim': 12, 'num_heads': [2], 'mlp_ratio': 2}
RRDB = {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'num_grow_ch': 2}
PLAIN = {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 16, 'num_block': 1}
KNOWN = [
    ({'type': 'RRDBNet', **RRDB, 'scale': 1}, 4), ({'type': 'RRDBNet', **RRDB, 'scale': 2}, 2),
    ({'type': 'RRDBNet', **RRDB, 'scale': 4}, 1), ({'type': 'RRDBNet', **RRDB}, 1),
    ({'type': 'RRDBNetNoUpsample', **RRDB}, 1), ({'type': 'SwinIR', **SWIN, 'window_size': 8, 'upscale': 1}, 8),
    ({'type': 'SwinIR', **SWIN, 'img_size': 14, 'upscale': 2, 'upsampler': 'pixelshuffle'}, 7),
    ({'type': 'MSRResNet', **PLAIN}, 1), ({'type': 'EDSR', **PLAIN}, 1),
    ({'type': 'RCAN', **PLAIN, 'num_group': 1}, 1), ({'type': 'SRVGGNetCompact', 'num_feat': 4, 'num_conv': 1}, 1),
    ({'type': 'RIDNet', 'in_channels': 3, 'mid_channels': 16, 'out_channels': 3, 'num_block': 1}, 1),
    ({'type': 'ECBSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_block': 1, 'num_channel': 4, 'with_idt': False,
      'act_type': 'relu', 'scale': 2}, 1),
]


class UNet(nn.Module):
    """Halves an image several times, with a skip, as Restormer does: sides must be multiples of 2^levels."""

    def __init__(self, levels: int = 3, reflects: bool = False) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.PixelUnshuffle(2) for _ in range(levels))
        self.conv = nn.Conv2d(3 * 4**levels, 3 * 4**levels, 3, padding=1,
                              padding_mode='reflect' if reflects else 'zeros', groups=3 * 4**levels)
        self.up = nn.ModuleList(nn.PixelShuffle(2) for _ in range(levels))

    def forward(self, x: Tensor) -> Tensor:
        deep = x
        for one in self.down:
            deep = one(deep)
        deep = self.conv(deep)
        for one in self.up:
            deep = one(deep)
        return x + deep


class Strided(nn.Module):
    """Halves by a strided convolution and doubles again: of an odd side another size comes out, without an error."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(self.conv(x), scale_factor=2)


class Windows(nn.Module):
    """Attention within windows, as HAT: says its window, and fails elsewhere."""

    def __init__(self, window: object, levels: int = 1) -> None:
        super().__init__()
        self.window_size = window
        self.sides = [side * levels for side in (window if isinstance(window, tuple) else (window, window))]
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-2] % self.sides[0] == 0
        assert x.shape[-1] % self.sides[1] == 0
        return self.conv(x)


class Padding(nn.Module):
    """Pads by reflection itself, as NAFNet with an image of which there is enough to reflect."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 9, padding=4, padding_mode='reflect')

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(self.conv(x), scale_factor=2)


@pytest.mark.parametrize(('options', 'multiple'), KNOWN)
def test_what_is_known_of_an_architecture_is_true(options: dict, multiple: int) -> None:
    """The least image goes through it, and so it is found by trying; its defaults are BasicSR's."""
    assert known_needs(options) == SizeNeeds(multiple, multiple)
    assert known_needs({**options, 'type': f'{options["type"]}_basicsr'}) == SizeNeeds(multiple, multiple)
    network = build_module(options, 'test').eval()
    if options['type'] == 'SwinIR':
        from basicsr.archs.swinir_arch import SwinIR
        assert inspect.signature(SwinIR).parameters['window_size'].default == 7
        with pytest.raises(RuntimeError):
            network(torch.zeros(1, 3, multiple + 1, multiple))
    with torch.no_grad():
        network(torch.zeros(1, input_channels(options), multiple, 3 * multiple))
    assert tried_needs(network, multiple if 'SwinIR' in options['type'] else 1, 3) == SizeNeeds(multiple, multiple)


@pytest.mark.parametrize(('network', 'options', 'expected'), [
    (UNet(1), {}, (2, 2)), (UNet(3), {}, (8, 8)), (UNet(6), {}, (64, 64)), (UNet(2, reflects=True), {}, (8, 4)),
    (Strided(), {}, (2, 2)), (Padding(), {}, (8, 1)), (nn.Conv2d(3, 3, 3, padding=1), {}, (1, 1)),
    (Windows(7), {}, (7, 7)), (Windows(12), {'window_size': 12}, (12, 12)), (Windows((8, 12)), {}, (24, 24)),
    (Windows(8, levels=4), {}, (32, 32)), (Windows(16), {'type': 'HAT', 'window_size': 16}, (16, 16)),
])
def test_networks_from_outside_are_tried(network: nn.Module, options: dict, expected: tuple[int, int]) -> None:
    assert size_needs(network, options) == SizeNeeds(*expected)


class SilentWindows(Windows):
    """Does not say its window."""

    def __init__(self, window: int, largest: int = 9999) -> None:
        super().__init__(window)
        del self.window_size
        self.largest = largest

    def forward(self, x: Tensor) -> Tensor:
        assert max(x.shape[-2:]) <= self.largest
        return super().forward(x)


@pytest.mark.parametrize('window', [2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64])
def test_windows_that_a_network_does_not_say_are_found(window: int) -> None:
    network = RestorationNetwork(SilentWindows(window), {})
    assert network.needs == SizeNeeds(window, window)
    for sides in ((5 * window, 2 * window), (5 * window + 1, window - 1)):
        assert network(torch.rand(1, 3, *sides)).shape == (1, 3, *sides)


@pytest.mark.parametrize('windows', [1, 7, 8, 12])
@pytest.mark.parametrize('factor', [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64])
@pytest.mark.parametrize('least', [19, 67])
def test_tried_sides_have_no_other_divisor_in_common(windows: int, factor: int, least: int) -> None:
    sides = size_needs_module._odd_and_even(windows * factor, least)
    assert math.gcd(*sides) == windows * factor
    assert min(sides) >= min(least, 2 * windows * factor)


def test_a_least_side_is_one_that_fits() -> None:
    """Of sides from 66 to 80 the tried 67x70 is the one that fits; 128x128 is not."""
    class Few(SilentWindows):
        def forward(self, x: Tensor) -> Tensor:
            assert min(x.shape[-2:]) >= 66
            return super().forward(x)

    assert tried_needs(Few(1, largest=80), 1, 3) is None
    assert tried_needs(Few(1), 1, 3) == SizeNeeds(128, 1)


def test_the_meta_device_does() -> None:
    with torch.device('meta'):
        assert size_needs(UNet(3), {}) == SizeNeeds(8, 8)


class Classifier(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.LazyLinear(10))


@pytest.mark.parametrize('network', [Classifier(), nn.Conv2d(3, 3, 3, 2), nn.Conv2d(4, 4, 1)])
def test_of_what_fails_at_every_size_nothing_is_known(network: nn.Module) -> None:
    assert tried_needs(network, 1, 3) is None
    assert size_needs(network, {}, channels=3) == SizeNeeds()


def test_the_users_word_is_taken() -> None:
    assert size_needs(UNet(3), {}, window_size=16) == SizeNeeds(16, 16)
    assert size_needs(nn.Identity(), {'type': 'RRDBNet', 'scale': 1}, window_size=6) == SizeNeeds(12, 12)


def test_trying_leaves_everything_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout()).train()
    network[2].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    size_needs(network, {})
    assert torch.equal(torch.rand(3), expected)
    assert [module.training for module in network] == [True, True, False]
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(('side', 'padded'), [(1, 16), (16, 16), (17, 24), (24, 24), (33, 40)])
def test_sides(side: int, padded: int) -> None:
    needs = SizeNeeds(16, 8)
    assert needs.padded(side) == padded
    assert needs.fit(side) == (side == padded)
    assert SizeNeeds(5, 4).padded(1) == 8


@pytest.mark.parametrize(('sides', 'modes'), [((13, 18), ('reflect', 'reflect')), ((5, 9), ('reflect', 'reflect')),
                                              ((3, 16), ('edge', 'reflect')), ((1, 1), ('edge', 'edge'))])
def test_padding_is_numpys(sides: tuple[int, int], modes: tuple[str, str]) -> None:
    batch = torch.rand(2, 3, *sides, generator=torch.Generator().manual_seed(0))
    expected = batch.numpy()
    for axis, mode in zip((2, 3), modes, strict=True):
        missing = -sides[axis - 2] % 8
        expected = np.pad(expected, [(0, missing if k == axis else 0) for k in range(4)], mode)
    np.testing.assert_array_equal(SizeNeeds(8, 8).pad(batch).numpy(), expected)


@pytest.mark.parametrize('scale', [1, 2, 3])
def test_crop_takes_off_what_became_of_the_padding(scale: int) -> None:
    batch, needs = torch.rand(1, 3, 13, 18), SizeNeeds(8, 8)
    enlarged = nn.functional.interpolate(batch, scale_factor=scale)
    output = nn.functional.interpolate(needs.pad(batch), scale_factor=scale)
    assert torch.equal(needs.crop(output, 13, 18), enlarged)


@pytest.mark.parametrize('sides', [(13, 18), (1, 1), (40, 9)])
def test_any_size_is_restored_by_a_network_from_outside(sides: tuple[int, int]) -> None:
    network = RestorationNetwork(UNet(3), {'type': 'UNet'})
    assert network.multiple == 8
    assert network(torch.rand(1, 3, *sides)).shape == (1, 3, *sides)
    with pytest.raises(RuntimeError):
        network.module(torch.rand(1, 3, *sides))
