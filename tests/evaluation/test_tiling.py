"""Tiled against untiled networks."""

import pytest
import torch
from torch import Tensor, nn

from dil_plugin.errors import OptionError
from dil_plugin.evaluation.networks import RestorationNetwork, build_module
from dil_plugin.evaluation.tiling import restore_tiled

RRDB = {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 6, 'num_block': 1, 'num_grow_ch': 4}
SWIN = {'type': 'SwinIR', 'img_size': 16, 'window_size': 4, 'depths': [2], 'embed_dim': 12, 'num_heads': [2],
        'mlp_ratio': 2}
# Options, scale, and a radius: a 3x3 convolution looks 1 pixel far, a window of side 4 at most 3.
ARCHITECTURES = {
    'RRDBNetNoUpsample': ({'type': 'RRDBNetNoUpsample', **RRDB}, 1, 1 + 15 + 1 + 2),
    'RRDBNet x4': ({'type': 'RRDBNet', 'scale': 4, **RRDB}, 4, 1 + 15 + 1 + 2),
    'RRDBNet x2': ({'type': 'RRDBNet', 'scale': 2, **RRDB}, 2, 2 * (1 + 15 + 1) + 3),
    'SwinIR': ({**SWIN, 'upscale': 1, 'upsampler': ''}, 1, 1 + 2 * 3 + 3),
    'SwinIR x2': ({**SWIN, 'upscale': 2, 'upsampler': 'pixelshuffle'}, 2, 1 + 2 * 3 + 4),
}


class Recorder(nn.Module):
    """Notes what it is given."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.anchor = nn.Parameter(torch.zeros(()))
        self.seen: list[Tensor] = []

    def forward(self, batch: Tensor) -> Tensor:
        self.seen.append(batch)
        return self.module(batch)


class BlockMeans(nn.Module):
    """Every block of 8x8 becomes its mean, so nothing crosses the border of a block."""

    def forward(self, batch: Tensor) -> Tensor:
        assert batch.shape[-2] % 8 == batch.shape[-1] % 8 == 0
        return nn.functional.interpolate(nn.functional.avg_pool2d(batch, 8), scale_factor=8)


def images(height: int, width: int, count: int = 1) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(height * width))


def box_filters(radius: int) -> RestorationNetwork:
    """Convolutions whose every weight is positive, so every pixel within the radius counts."""
    layers = [nn.Conv2d(3, 3, 3, 1, 1) for _ in range(radius)]
    for layer in layers:
        nn.init.constant_(layer.weight, 1 / 27)
        nn.init.constant_(layer.bias, 0.1)
    return RestorationNetwork(nn.Sequential(*layers), {'type': 'Boxes'})


def block_means() -> RestorationNetwork:
    network = RestorationNetwork(Recorder(BlockMeans()), {'type': 'BlockMeans', 'window_size': 8})
    assert network.multiple == 8
    network.module.seen.clear()  # of finding that out
    return network


@pytest.mark.parametrize(('height', 'width'), [(40, 40), (41, 63), (7, 100), (16, 17), (1, 1), (3, 33)])
@pytest.mark.parametrize('tile', [16, 13, 1])
def test_equals_untiled_where_the_overlap_is_the_radius(height: int, width: int, tile: int) -> None:
    network, batch = box_filters(4), images(height, width, 2)
    torch.testing.assert_close(restore_tiled(network, batch, tile, 4), network(batch), atol=1e-5, rtol=0)


@pytest.mark.parametrize('overlap', [0, 3])
def test_seam_where_the_overlap_is_less_than_the_radius(overlap: int) -> None:
    network, batch = box_filters(4), images(40, 40)
    different = (restore_tiled(network, batch, 20, overlap) - network(batch)).abs().amax((0, 1)) > 1e-5
    distance = torch.tensor([abs(x + 0.5 - 20) for x in range(40)])
    near = torch.minimum(distance[:, None], distance[None, :]) < 4 - overlap
    torch.testing.assert_close(different, near)


@pytest.mark.parametrize('name', ARCHITECTURES)
@pytest.mark.parametrize(('height', 'width', 'tile'), [(70, 93, 32), (37, 85, 30), (9, 50, 2)])
def test_architectures(name: str, height: int, width: int, tile: int) -> None:
    options, scale, radius = ARCHITECTURES[name]
    torch.manual_seed(0)
    network = RestorationNetwork(build_module(options, 'test'), options, scale)
    for parameter in network.module.parameters():  # the default initialisation hardly looks around
        parameter.mul_(2 if 'RRDB' in name else 4)
    batch = images(height, width)
    untiled = network(batch)
    error = 1e-5 * untiled.std().item()
    torch.testing.assert_close(restore_tiled(network, batch, tile, radius), untiled, atol=error, rtol=1e-5)
    assert (restore_tiled(network, batch, tile, 0) - untiled).abs().max() > 10 * error


@pytest.mark.parametrize(('height', 'width'), [(64, 64), (65, 63), (17, 70), (9, 8), (10, 11), (25, 33)])
@pytest.mark.parametrize('tile', [1, 8, 20, 24])
@pytest.mark.parametrize('overlap', [0, 5])
def test_windows_and_padding_lie_as_without_tiles(height: int, width: int, tile: int, overlap: int) -> None:
    network, batch = block_means(), images(height, width)
    torch.testing.assert_close(restore_tiled(network, batch, tile, overlap), network(batch), atol=1e-6, rtol=0)


@pytest.mark.parametrize(('tile', 'overlap', 'most'), [(20, 5, 16 + 16), (24, 0, 24), (3, 8, 8 + 16), (100, 0, 72)])
def test_what_the_network_sees_is_limited(tile: int, overlap: int, most: int) -> None:
    network = block_means()
    restore_tiled(network, images(72, 50), tile, overlap)
    sides = [side for batch in network.module.seen for side in batch.shape[-2:]]
    assert max(sides) == most


@pytest.mark.parametrize(('tile', 'height', 'width', 'calls'), [(0, 50, 60, 1), (60, 50, 60, 1), (16, 50, 60, 4 * 4),
                                                                (32, 20, 64, 2), (512, 8, 8, 1)])
def test_number_of_tiles_and_progress(tile: int, height: int, width: int, calls: int) -> None:
    network, told = block_means(), []
    restore_tiled(network, images(height, width), tile, 0, lambda *counts: told.append(counts))
    assert len(network.module.seen) == calls
    assert told == [(k + 1, calls) for k in range(calls)]


def test_grey() -> None:
    network = RestorationNetwork(nn.Conv2d(1, 1, 3, 1, 1), {'num_in_ch': 1})
    batch = images(30, 40)[:, :1]
    torch.testing.assert_close(restore_tiled(network, batch, 16, 1), network(batch), atol=1e-6, rtol=0)


@pytest.mark.parametrize(('tile', 'overlap', 'message'), [(-1, 0, 'tile: -1 is negative'),
                                                          (0, -2, 'overlap: -2 is negative')])
def test_negative_sides(tile: int, overlap: int, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        restore_tiled(box_filters(1), images(8, 8), tile, overlap)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')
def test_result_stays_where_the_images_are() -> None:
    network, batch = box_filters(2), images(40, 50)
    expected = network(batch)
    network.module.cuda()
    found = restore_tiled(network, batch, 16, 2)
    assert found.device.type == 'cpu'
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
