"""Finds out, before anything is made, whether the network enlarges by the scale of the YAML."""

import contextlib
import inspect
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dil_plugin.errors import OptionError

_SIDE = 16  # pixels of the input that is sent through the network; a multiple of its windows where it has some
_SCALE_OPTIONS = ('scale', 'upscale', 'upscale_factor')


def check_network_scale(opt: Mapping[str, Any]) -> None:
    """Raises OptionError unless ``network_g`` enlarges by ``scale``.

    The network is built without memory for its parameters and sent a small input without values (torch's meta device);
    where it cannot do with that, it is built on the CPU. A network that takes neither is not judged.

    Args:
        opt: The options as BasicSR parsed them.
    """
    scale = opt.get('scale', 1)
    found = network_scale(opt['network_g'])
    if found is None or found == scale:
        return
    name, block = opt['network_g']['type'], opt['network_g']
    option = next((one for one in _SCALE_OPTIONS if one in _parameters(block)), None)
    value = block.get(option, _parameters(block)[option].default) if option else None
    hint = f'; allowed: network_g.{option}: {scale} (it is {value} now)' if option else ''
    raise OptionError(f'network_g: {name} enlarges by {found:g}, but scale is {scale}{hint}, or scale: {found:g} at '
                      'the top level')


def network_scale(block: Mapping[str, Any]) -> float | None:
    """By what factor the network of the block enlarges; None where that cannot be found out."""
    for device in ('meta', 'cpu'):
        try:
            with _randomness_kept(), torch.device(device), torch.no_grad():
                return _enlargement(_build(block), block, device)
        except Exception:  # of any network, and what is wrong with it BasicSR says when it builds it
            continue
    return None


def built_to_look_at(block: Mapping[str, Any]) -> nn.Module | None:
    """The network of the block, without memory for its parameters where it can be built so; None: it cannot be built.
    """
    for device in ('meta', 'cpu'):
        try:
            with _randomness_kept(), torch.device(device):
                return _build(block)
        except Exception:  # of any network, and what is wrong with it BasicSR says when it builds it
            continue
    return None


def _build(block: Mapping[str, Any]) -> nn.Module:
    from basicsr.utils.registry import ARCH_REGISTRY
    options = {name: value for name, value in block.items() if name != 'type'}
    network: nn.Module = ARCH_REGISTRY.get(block['type'])(**options)
    return network.eval()


def _enlargement(network: nn.Module, block: Mapping[str, Any], device: str) -> float:
    window = block.get('window_size')
    side = window * -(-_SIDE // window) if isinstance(window, int) and window > 0 else _SIDE
    channels = next((block[name] for name in ('num_in_ch', 'in_chans') if name in block), 3)
    output: Tensor | Sequence[Tensor] = network(torch.zeros(1, channels, side, side, device=device))
    last = output if isinstance(output, Tensor) else list(output)[-1]
    return last.shape[-1] / side


def _parameters(block: Mapping[str, Any]) -> Mapping[str, inspect.Parameter]:
    from basicsr.utils.registry import ARCH_REGISTRY
    return inspect.signature(ARCH_REGISTRY.get(block['type'])).parameters


@contextlib.contextmanager
def _randomness_kept() -> Iterator[None]:
    """Building a network draws its weights: the generators are put back, so that the run is the same without."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  what BasicSR's networks may draw from
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
