"""Builds and tries the network before anything is made: what is wrong with its block is one line."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from dil_plugin.basicsr.checks.built_from import check_arguments, parameters
from dil_plugin.basicsr.checks.first_failure import said
from dil_plugin.basicsr.checks.network_scale import SMALL_SIDE, Outcome, block_needs, built, check_scale, try_network
from dil_plugin.basicsr.checks.required_options import value_of
from dil_plugin.basicsr.yaml_options.real_esrnet_options import patch_size
from dil_plugin.errors import OptionError
from dil_plugin.learning.objective import OUTPUTS
from dil_plugin.networks.size_needs import INPUT_CHANNELS, SizeNeeds

_COLOUR_SETS = ('DistortionAugmentedDataset', 'PairedConfounderDataset', 'PairedImageDataset')
_CHANNELS_OUT = ('num_out_ch', 'out_chans')


def check_network(opt: Mapping[str, Any]) -> None:
    """Raises OptionError unless ``network_g`` can be built, takes the images, and enlarges them by ``scale``.

    It is built without memory for its parameters and sent a small image without values (torch's meta device). Where
    it cannot do with that it is built on the CPU, and where a small image is not enough one of a training patch's size
    is sent through it on the device of the training.

    Args:
        opt: The options of a run with ``model_type: DILModel``, complete.
    """
    from basicsr.utils.registry import ARCH_REGISTRY
    block = opt['network_g']
    check_arguments('network_g', block, ARCH_REGISTRY.get(block['type']))
    channels = image_channels(opt)
    outputs = _outputs(opt)
    needs = block_needs(block, channels, outputs=outputs)
    if needs is not None:
        _check_patch_side(opt, channels, needs)
    try:
        outcome = try_network(block, channels, None if needs is None else needs.padded(SMALL_SIDE), outputs=outputs)
    except Exception:  # of any network, which may do with a whole patch
        outcome = _whole_try(opt, channels)
    if outcome is None:
        return
    if opt['is_train'] and len(set(outcome.shapes)) > 1:  # of "all": check_gradient says that the loss takes them
        return
    check_scale(opt, outcome.factor)
    if channels is not None and outcome.channels != channels:
        raise OptionError(_wrong_channels(block, _CHANNELS_OUT, outcome.channels, channels)
                          or f'network_g.type: {block["type"]} gives images of {outcome.channels} channels, but those '
                             f'of the data have {channels}; allowed: a network that restores images')


def _outputs(opt: Mapping[str, Any]) -> str:
    """Which of several outputs is the image; that the value is right is told elsewhere."""
    outputs = value_of(opt, 'train.dil.outputs')
    return outputs if outputs in OUTPUTS else 'all'


def _check_patch_side(opt: Mapping[str, Any], channels: int | None, needs: SizeNeeds) -> None:
    """Raises OptionError where the training patches are not of a size that the network takes."""
    block, side, scale = opt['network_g'], patch_side(opt), opt.get('scale', 1)
    if side is None or needs.fit(side):
        return
    try:
        try_network(block, channels, side, outputs=_outputs(opt))
    except Exception:  # of any network
        train = opt['datasets'].get('train') or {}
        key = 'gt_size' if opt.get('gt_size') is not None and opt['gt_size'] != train.get('gt_size') \
            else 'datasets.train.gt_size'
        least = f' of at least {needs.minimum}' if needs.minimum > needs.multiple_of else ''
        raise OptionError(f'{key}: {side * scale}, of which network_g gets {side}x{side} pixels, but {block["type"]} '
                          f'takes sides{least} that are multiples of {needs.multiple_of}; allowed: multiples of '
                          f'{needs.multiple_of * scale}, as {needs.padded(side) * scale}') from None


def _whole_try(opt: Mapping[str, Any], channels: int | None) -> Outcome | None:
    """What comes of a training patch; None where that cannot be said."""
    block = opt['network_g']
    try:
        built(block, 'cpu')
    except Exception as error:
        raise OptionError(f'network_g: {block["type"]} cannot be built with these options '
                          f'({said(error, _class(block))}); options: {_options(block)}') from error
    side = patch_side(opt)
    if side is None or channels is None:
        return None
    try:
        return try_network(block, channels, side, 'cuda' if opt['num_gpu'] else 'cpu', _outputs(opt))
    except torch.OutOfMemoryError:
        return None
    except Exception as error:
        value = next((_value(block, name) for name in INPUT_CHANNELS if _value(block, name) is not None), channels)
        raise OptionError(
            _wrong_channels(block, INPUT_CHANNELS, value, channels)
            or f'network_g: {block["type"]} cannot take training patches of {channels}x{side}x{side} '
               f'({said(error, _class(block))}); allowed: a network that restores one image of any size; options: '
               f'{_options(block)}') from error


def image_channels(opt: Mapping[str, Any]) -> int | None:
    """How many channels the network's images have; None where they are of others' data sets."""
    sets = [one for name, one in opt['datasets'].items() if name == 'train' or not opt['is_train']]
    found = {1 if one.get('color') == 'y' else 3 for one in sets}
    known = all(one.get('type') in _COLOUR_SETS for one in sets)
    return found.pop() if known and len(found) == 1 else None


def patch_side(opt: Mapping[str, Any]) -> int | None:
    """Side of the network's input in training, in pixels."""
    if not opt['is_train']:
        return None
    size = patch_size(opt) or (opt['datasets'].get('train') or {}).get('gt_size')
    return size // opt.get('scale', 1) if isinstance(size, int) else None


def _value(block: Mapping[str, Any], name: str) -> Any:
    known = parameters(_class(block))
    default = known[name].default if name in known else None
    return block.get(name, None if default is inspect.Parameter.empty else default)


def _wrong_channels(block: Mapping[str, Any], names: tuple[str, ...], value: Any, channels: int) -> str:
    """That an option makes a network for other images; '' where there is none or it is right."""
    name = next((one for one in names if one in parameters(_class(block))), None)
    if name is None or value == channels or _value(block, name) != value:
        return ''
    return f'network_g.{name}: {value}, but the images have {channels} channels; allowed: {channels}'


def _class(block: Mapping[str, Any]) -> type[nn.Module]:
    from basicsr.utils.registry import ARCH_REGISTRY
    found: type[nn.Module] = ARCH_REGISTRY.get(block['type'])
    return found


def _options(block: Mapping[str, Any]) -> str:
    return ', '.join(f'{name}: {value}' for name, value in block.items() if name != 'type') or 'none'
