"""Tries a network without anything being made of it: by what factor it enlarges."""

import contextlib
import inspect
import random
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from dil_plugin.errors import OptionError
from dil_plugin.learning.objective import select_outputs
from dil_plugin.networks.size_needs import SizeNeeds, found_needs, input_channels, size_needs

SMALL_SIDE = 16  # pixels of the input that is sent through the network, or as many as it takes
_SCALE_OPTIONS = ('scale', 'upscale', 'upscale_factor')


class Outcome(NamedTuple):
    """What a network makes of an image: by what factor it enlarges, how many channels it gives, all outputs' shapes."""

    factor: float
    channels: int
    shapes: list[tuple[int, ...]]


def check_scale(opt: Mapping[str, Any], found: float) -> None:
    """Raises OptionError unless the factor by which ``network_g`` enlarges is ``scale``.

    Args:
        opt: The options as BasicSR parsed them.
        found: The factor.
    """
    scale = opt.get('scale', 1)
    if found == scale:
        return
    name, block = opt['network_g']['type'], opt['network_g']
    if found < 1 or found != int(found):
        raise OptionError(f'network_g: {name} gives images of {found:g} times the side of its input, but scale is '
                          f'{scale}; allowed: a network that gives {scale} times the side (convolutions without '
                          'padding, as nn.Conv2d(…, padding=0), make images smaller)')
    option = next((one for one in _SCALE_OPTIONS if one in _parameters(block)), None)
    value = block.get(option, _parameters(block)[option].default) if option else None
    hint = f'; allowed: network_g.{option}: {scale} (it is {value} now)' if option else ''
    raise OptionError(f'network_g: {name} enlarges by {found:g}, but scale is {scale}{hint}, or scale: {found:g} at '
                      'the top level')


def network_scale(block: Mapping[str, Any]) -> float | None:
    """By what factor the network of the block enlarges; None where that cannot be found out."""
    try:
        return try_network(block).factor
    except Exception:  # of any network
        return None


def try_network(block: Mapping[str, Any], channels: int | None = None, side: int | None = None,
                device: str | None = None, outputs: str = 'all') -> Outcome:
    """Builds the network and sends an image through it, without memory or values where it can do with that.

    Args:
        block: ``network_g``.
        channels: Of the image; None: as many as the network's options say.
        side: Of the image, in pixels; None: a small one of a size that it takes.
        device: Where it is built; None: torch's meta device, and where that does not do the CPU.
        outputs: Which of several outputs is the image (``train.dil.outputs``).

    Raises:
        Exception: What the network raises.
    """
    try:
        with randomness_kept(), torch.device(device or 'meta'), torch.no_grad():
            return _outcome(_build(block), block, channels, side, device or 'meta', outputs)
    except Exception:
        if device is not None:
            raise
    return try_network(block, channels, side, 'cpu', outputs)


def block_needs(block: Mapping[str, Any], channels: int | None = None,
                window_size: int | None = None, outputs: str = 'all') -> SizeNeeds | None:
    """What sizes the network of the block takes, found without memory or values where it can do with that.

    Args:
        block: ``network_g``.
        channels: Of the images; None: as many as the network's options say.
        window_size: ``val.window_size``.
        outputs: Which of several outputs is the image.

    Returns:
        None where it cannot be built or tried.
    """
    for device in ('meta', 'cpu'):
        with contextlib.suppress(Exception):  # of any network
            needs = found_needs(built(block, device), block, window_size, channels, outputs)
            if needs is not None:
                return needs
    return None


def built(block: Mapping[str, Any], device: str) -> nn.Module:
    """The network of the block; nothing is drawn from the global generators."""
    with randomness_kept(), torch.device(device):
        return _build(block)


def built_to_look_at(block: Mapping[str, Any]) -> nn.Module | None:
    """The network of the block, without memory for its parameters where it can be built so; None: it cannot be built.
    """
    for device in ('meta', 'cpu'):
        try:
            return built(block, device)
        except Exception:  # of any network, and what is wrong with it check_network says
            continue
    return None


def _build(block: Mapping[str, Any]) -> nn.Module:
    from basicsr.utils.registry import ARCH_REGISTRY
    options = {name: value for name, value in block.items() if name != 'type'}
    network: nn.Module = ARCH_REGISTRY.get(block['type'])(**options)
    return network.eval()


def _outcome(network: nn.Module, block: Mapping[str, Any], channels: int | None, side: int | None,
             device: str, outputs: str) -> Outcome:
    if channels is None:
        channels = input_channels(block)
    if side is None:
        side = size_needs(network, block, channels=channels, outputs=outputs).padded(SMALL_SIDE)
    given = select_outputs(network(torch.zeros(1, channels, side, side, device=device)), outputs)
    return Outcome(given[-1].shape[-1] / side, given[-1].shape[-3], [tuple(one.shape[1:]) for one in given])


def _parameters(block: Mapping[str, Any]) -> Mapping[str, inspect.Parameter]:
    from basicsr.utils.registry import ARCH_REGISTRY
    return inspect.signature(ARCH_REGISTRY.get(block['type'])).parameters


@contextlib.contextmanager
def randomness_kept() -> Iterator[None]:
    """Building a network draws its weights: the generators are put back, so that the run is the same without."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  what BasicSR's networks may draw from
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
