"""What sizes a network takes, and how an image of any size is given to it."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dil_plugin.learning.objective import select_outputs
from dil_plugin.networks.evaluating import evaluating

_UNSHUFFLED = {1: 4, 2: 2}  # RRDBNet divides the resolution by this at these scales
_KNOWN = {'SwinIR': 7, **dict.fromkeys(('ECBSR', 'EDSR', 'MSRResNet', 'RCAN', 'RIDNet', 'RRDBNet', 'RRDBNetNoUpsample',
                                       'SRVGGNetCompact'), 1)}  # and their window_size where the YAML has none
_FACTORS = (1, 2, 4, 8, 16, 32, 64, 3, 6, 12, 24, 48)  # that are tried; with windows of 3, 6, …
_SMALL, _LARGE = 19, 67  # pixels; neither 2^k nor 2^k + 1, where networks that halve an image fit by chance
INPUT_CHANNELS = ('num_in_ch', 'in_chans', 'in_channels', 'inp_channels', 'img_channel', 'in_ch', 'in_nc')
"""Options by which networks say of how many channels their input is."""


@dataclass(frozen=True)
class SizeNeeds:
    """The sides that a network takes, in pixels of its input.

    Attributes:
        minimum: No side may be less.
        multiple_of: Both sides must be multiples of this.
    """

    minimum: int = 1
    multiple_of: int = 1

    def fit(self, *sides: int) -> bool:
        """Whether an image of these sides goes through the network as it is."""
        return all(side == self.padded(side) for side in sides)

    def padded(self, side: int) -> int:
        """The least side that the network takes and that is not less than ``side``."""
        return -(-max(side, self.minimum) // self.multiple_of) * self.multiple_of

    def pad(self, images: Tensor) -> Tensor:
        """Pads ``(…, H, W)`` below and on the right by reflection, by the last pixel where there is less to reflect.

        The result is a copy in any case: a network that works on its input in place leaves ``images`` as they are.
        """
        result = images
        for dim, side in ((-2, images.shape[-2]), (-1, images.shape[-1])):
            missing = self.padded(side) - side
            if missing:
                pads = (0, 0, 0, missing) if dim == -2 else (0, missing, 0, 0)
                result = nn.functional.pad(result, pads, 'reflect' if missing < side else 'replicate')
        return images.clone() if result is images else result

    def crop(self, output: Tensor, height: int, width: int) -> Tensor:
        """What a network made of a padded image, without what became of the padding.

        Args:
            output: ``(…, s * H', s * W')`` for an image that was padded to ``(H', W')``; s is a whole number.
            height: Of the image before.
            width: Of the image before.
        """
        scale = output.shape[-1] // self.padded(width)
        return output[..., :height * scale, :width * scale]


def known_needs(options: Mapping[str, Any]) -> SizeNeeds | None:
    """The needs of an architecture of BasicSR's or ours by its options; None of others.

    Args:
        options: The ``network_g`` block of a YAML.
    """
    name = str(options.get('type')).removesuffix('_basicsr')
    if name not in _KNOWN:
        return None
    unshuffled = _UNSHUFFLED.get(options.get('scale', 4), 1) if name == 'RRDBNet' else 1
    return _multiple(math.lcm(unshuffled, *_sides(options.get('window_size', _KNOWN[name]))))


def size_needs(network: nn.Module, options: Mapping[str, Any], window_size: int | None = None,
               channels: int | None = None, outputs: str = 'all') -> SizeNeeds:
    """What sizes a network takes, as ``found_needs``; where that is not found, whole windows, or any size."""
    return found_needs(network, options, window_size, channels, outputs) or _multiple(_windows(network, options))


def found_needs(network: nn.Module, options: Mapping[str, Any], window_size: int | None = None,
                channels: int | None = None, outputs: str = 'all') -> SizeNeeds | None:
    """What sizes a network takes; None where it fails at every size that is tried.

    In this order: what the user says; what is known of its architecture; what comes of images that are sent through it:
    of odd sides, and where it fails on these, or gives another size than a whole multiple of theirs, of multiples of 2,
    4, …, 64, then 3, 6, …, 48 (of its windows where it has a ``window_size``).

    Args:
        network: On the device where it is to be tried; the meta device does where it can do without values. It is
            tried in evaluation mode, without a gradient, and is left as it was.
        options: The ``network_g`` block of a YAML.
        window_size: The user's word, ``val.window_size``: sides are multiples of this.
        channels: Of its input; None: as its options say.
        outputs: Which of several outputs is the image; see ``select_outputs``.
    """
    known = known_needs(options)
    if window_size is not None:
        return _multiple(math.lcm(window_size, (known or SizeNeeds()).multiple_of))
    if known is not None:
        return known
    return tried_needs(network, _windows(network, options), channels or input_channels(options), outputs)


def _windows(network: nn.Module, options: Mapping[str, Any]) -> int:
    return math.lcm(*_sides(options.get('window_size', getattr(network, 'window_size', 1))))


def tried_needs(network: nn.Module, windows: int, channels: int, outputs: str = 'all') -> SizeNeeds | None:
    """The needs that come of trying; None where it fails at every size. See ``found_needs``.

    Args:
        network: As there.
        windows: The sides that are tried are multiples of this.
        channels: Of the images.
        outputs: As there.
    """
    device = next((tensor.device for tensor in _tensors(network)), torch.device('cpu'))
    devices = [device] if device.type == 'cuda' else []
    with evaluating(network), torch.no_grad(), torch.random.fork_rng(devices):
        return _first_that_fits(lambda *sides: _fits(network, channels, sides, device, outputs), windows)


def input_channels(options: Mapping[str, Any]) -> int:
    """Channels of the images that a network takes, by the options that say so; 3 where there are none."""
    return next((int(options[name]) for name in INPUT_CHANNELS if isinstance(options.get(name), int)), 3)


def _first_that_fits(fits: Callable[[int, int], bool], windows: int) -> SizeNeeds | None:
    largest = _odd_and_even(windows, _SMALL)
    multiple = windows
    if not fits(*largest):
        for factor in _FACTORS:
            multiple, largest = windows * factor, _odd_and_even(windows * factor, _LARGE)
            if fits(*largest):
                break
        else:
            return None
    minimum = multiple
    while not fits(minimum, minimum):
        if minimum >= max(largest):
            return None
        minimum *= 2
    return SizeNeeds(minimum, multiple)


def _odd_and_even(multiple: int, least: int) -> tuple[int, int]:
    """An odd multiple and twice an odd multiple, with no other common divisor than ``multiple`` and its own."""
    count = -(-least // multiple)
    odd, half = count | 1, -(-count // 2) | 1
    while math.gcd(odd, half) > 1:
        odd += 2
    return multiple * odd, multiple * 2 * half


def _fits(network: nn.Module, channels: int, sides: tuple[int, ...], device: torch.device, outputs: str) -> bool:
    try:
        result = network(torch.zeros(1, channels, *sides, device=device))
        shape = select_outputs(result, outputs)[-1].shape
    except Exception:  # of any network
        return False
    height, width = sides
    return len(shape) == 4 and shape[-1] % width == 0 and shape[-2:] == (
        shape[-1] // width * height, shape[-1] // width * width)


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def _multiple(multiple: int) -> SizeNeeds:
    return SizeNeeds(multiple, multiple)


def _sides(window: Any) -> list[int]:
    """A window's sides; of what is none, a pixel."""
    found = list(window) if isinstance(window, list | tuple) else [window]
    return [side for side in found if isinstance(side, int) and not isinstance(side, bool) and side > 0] or [1]
