"""Networks that look at the whole image, or further than a tile's margin, are told from others before tiling."""

import pytest
import torch
from torch import Tensor, nn

from dil_plugin.evaluation.far_pixels import far_effects, tile_warning
from dil_plugin.evaluation.image_files import read_restorable
from dil_plugin.evaluation.inputs import write_png
from dil_plugin.evaluation.networks import RestorationNetwork, build_module
from dil_plugin.evaluation.restore import Job, restore_files
from dil_plugin.evaluation.tiling import restore_tiled

RRDB = {'type': 'RRDBNetNoUpsample', 'num_feat': 6, 'num_block': 1, 'num_grow_ch': 4}
SWIN = {'type': 'SwinIR', 'img_size': 16, 'window_size': 4, 'depths': [2], 'embed_dim': 12, 'num_heads': [2],
        'mlp_ratio': 2, 'upscale': 2, 'upsampler': 'pixelshuffle'}
UNSHUFFLED = {'type': 'RRDBNet', 'scale': 2, 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 6, 'num_block': 1,
              'num_grow_ch': 4}


class ChannelAttention(nn.Module):
    """Squeeze and excitation, as RCAN and NAFNet have it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.gate = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 3, 3, 1, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.first(x)
        return x + self.last(features * torch.sigmoid(4 * self.gate(features.mean((2, 3), keepdim=True))))


class Mean(nn.Module):
    """``0.1 x + 0.5 mean(x)``, of all pixels and channels."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return 0.1 * x + 0.5 * x.mean((1, 2, 3), keepdim=True)


class Dilated(nn.Module):
    """Looks 40 pixels far and no further."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, 1, 40, dilation=40)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def network(module: nn.Module) -> RestorationNetwork:
    return RestorationNetwork(module, {'type': type(module).__name__})


def image(height: int = 150, width: int = 200) -> Tensor:
    """Dark on the left, bright on the right: tiles have other means than the whole."""
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))
    return 0.5 * noise + torch.linspace(0, 0.5, width)


def test_channel_attention_is_noticed_and_tiles_change_what_it_restores() -> None:
    attention = network(ChannelAttention())
    tiled, whole = (restore_tiled(attention, image(), tile, 32) for tile in (64, 0))
    assert 255 * float((tiled - whole).abs().max()) > 0.5
    told = tile_warning(attention, image(), 64, 32)
    assert told is not None
    assert told.startswith('the network looks at the whole image (pixels 96 away change its output by up to ')
    assert told.endswith(' of 255 grey levels), so that tiles change the result; --tile 0 restores without')


@pytest.mark.parametrize('options', [RRDB, UNSHUFFLED, SWIN], ids=lambda options: options['type'])
def test_plain_networks_are_not_warned_of(options: dict) -> None:
    torch.manual_seed(0)
    plain = RestorationNetwork(build_module(options, ''), options, options.get('scale', options.get('upscale', 1)))
    tiled, whole = (restore_tiled(plain, image(), tile, 64) for tile in (64, 0))
    assert 255 * float((tiled - whole).abs().max()) < 0.01
    assert tile_warning(plain, image(), 64, 64) is None
    assert max(far_effects(plain, image(), 64)) < 0.01


def test_one_that_looks_further_than_the_margin_gets_a_larger_one() -> None:
    torch.manual_seed(0)
    dilated = network(Dilated())
    told = tile_warning(dilated, image(), 64, 32)
    assert told is not None
    assert told.startswith('the network looks further than --overlap 32 ')
    assert tile_warning(dilated, image(), 64, 40) is None


@pytest.mark.parametrize('overlap', [0, 16, 32])
def test_the_effect_is_that_of_the_pixels_that_differ(overlap: int) -> None:
    """The mean of 64 of the columns of uniform noise, beside black: half of a half of their share."""
    by_far, by_whole = far_effects(network(Mean()), image(), overlap)
    width = 16 + max(3 * overlap, 64) + 64
    assert by_whole == pytest.approx(255 * 0.25 * 64 / width, rel=0.02)
    assert by_far == pytest.approx(255 * 0.25 * (width - 16 - overlap) / width, rel=0.02)


@pytest.mark.parametrize('overlap', [0, 1])
def test_one_that_looks_some_pixels_far_does_not_look_at_the_whole_image(overlap: int) -> None:
    torch.manual_seed(0)
    for module in (nn.Conv2d(3, 3, 5, padding=2), build_module(RRDB, '')):
        told = tile_warning(network(module), image(), 64, overlap)
        assert told is not None
        assert told.startswith(f'the network looks further than --overlap {overlap} ')
    told = tile_warning(network(ChannelAttention()), image(), 64, overlap)
    assert told is not None
    assert told.startswith('the network looks at the whole image (pixels 64 away ')


class Strip(nn.Module):
    """The mean of each row, or of each column: strip pooling."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim, self.anchor = dim, nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x + 0.5 * x.mean(self.dim, keepdim=True)


def test_a_strip_is_noticed_in_either_direction() -> None:
    rows, columns = (far_effects(network(Strip(dim)), image(), 32) for dim in (3, 2))
    assert min(rows) > 10
    assert columns == pytest.approx(rows, rel=0.1)
    assert 'looks at the whole image' in str(tile_warning(network(Strip(2)), image(), 64, 32))


@pytest.mark.parametrize('error', [IndexError('index 70 is out of range'), KeyError('176'), ZeroDivisionError(),
                                   RuntimeError('sides must be 200')])
def test_a_network_that_fails_on_the_probe_is_not_told_of(error: Exception) -> None:
    class Failing(Mean):
        def forward(self, x: Tensor) -> Tensor:
            raise error

    assert tile_warning(network(Failing()), image(), 64, 32) is None


def test_nothing_is_computed_where_there_are_no_tiles() -> None:
    class Untouched(Mean):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError('sides must be 200')

    for tile in (0, 200, 512):
        assert tile_warning(network(Untouched()), image(), tile, 32) is None


def test_restoring_files_says_it_once(tmp_path, capsys) -> None:
    jobs = []
    for k, size in enumerate(((20, 30), (90, 80), (90, 80))):
        path = tmp_path / f'{k}.png'
        write_png((image(*size)[0] * 255).byte().numpy().transpose(1, 2, 0), path)
        jobs.append(Job(path, tmp_path / 'out' / path.name))
    assert restore_files(network(ChannelAttention()), jobs[:1], 64, 8).written == 1
    assert 'warning' not in capsys.readouterr().err
    assert restore_files(network(ChannelAttention()), jobs, 64, 8, overwrite=True).written == 3
    assert capsys.readouterr().err.count('warning: the network looks at the whole image') == 1
    assert read_restorable(jobs[2].target).rgb.shape == (1, 3, 90, 80)
