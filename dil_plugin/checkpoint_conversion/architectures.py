"""The networks that BasicSR and mmagic both have, with the same parameters under the same names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from dil_plugin.errors import DataError, OptionError
from dil_plugin.options import did_you_mean


@dataclass(frozen=True)
class Architecture:
    """One network under its two names.

    Attributes:
        basicsr: Its name in BasicSR.
        mmagic: Its name in mmagic.
        keys: Regular expression of all the names in its state dict.
        required: Names that every such state dict has.
        options: BasicSR's option to mmagic's, of the same meaning and default; one that is not here is an error.
        scale: BasicSR's option that says output size divided by input size, and its default; None: always 1.
    """

    basicsr: str
    mmagic: str
    keys: str
    required: tuple[str, ...]
    options: Mapping[str, str] = field(repr=False)
    scale: tuple[str, int] | None = None

    def unknown(self, state: Collection[str]) -> list[str]:
        """The names in a state dict that this network does not have."""
        return [name for name in state if not re.fullmatch(self.keys, name)]

    def missing(self, state: Collection[str]) -> list[str]:
        """The names that it has and the state dict has not."""
        wanted = list(self.required)
        if self.basicsr == 'SwinIR' and 'conv_up1.weight' in state:  # BasicSR's has this up-sampling by 4 alone
            wanted.append('conv_up2.weight')
        return [name for name in wanted if name not in state]

    def mmagic_generator(self, network_g: Mapping[str, Any]) -> dict[str, Any]:
        """mmagic's ``generator`` for BasicSR's ``network_g``.

        Raises:
            DataError: There is an option that mmagic's has not.
        """
        return {'type': self.mmagic, **self._renamed(network_g, self.options, "BasicSR's network_g")}

    def basicsr_network(self, generator: Mapping[str, Any]) -> dict[str, Any]:
        """BasicSR's ``network_g`` for mmagic's ``generator``.

        Raises:
            DataError: There is an option that BasicSR's has not.
        """
        names = {theirs: ours for ours, theirs in self.options.items()}
        return {'type': self.basicsr, **self._renamed(generator, names, "mmagic's generator")}

    def scale_of(self, network_g: Mapping[str, Any]) -> int:
        """Output size divided by input size, by BasicSR's options."""
        return 1 if self.scale is None else network_g.get(*self.scale)

    def _renamed(self, options: Mapping[str, Any], names: Mapping[str, str], source: str) -> dict[str, Any]:
        given = {key: value for key, value in options.items() if key not in ('type', 'init_cfg')}
        if unknown := [key for key in given if key not in names]:
            raise DataError(f'{source}: {", ".join(unknown)}: no such option of {self.basicsr} in the other package')
        return {names[key]: value for key, value in given.items()}


_TRUNK = r'(?:conv_first|conv_body|conv_hr|conv_last|body\.\d+\.rdb[1-3]\.conv[1-5])\.(?:weight|bias)'
_RRDB_OPTIONS = {'num_in_ch': 'in_channels', 'num_out_ch': 'out_channels', 'num_feat': 'mid_channels',
                 'num_block': 'num_blocks', 'num_grow_ch': 'growth_channels'}
_RRDB_REQUIRED = ('conv_first.weight', 'body.0.rdb1.conv1.weight', 'conv_body.weight', 'conv_hr.weight',
                  'conv_last.weight')
_SWINIR = (r'(?:conv_first|conv_last|conv_up[12]|conv_hr|conv_before_upsample\.0|upsample\.\d+|conv_after_body(?:\.\d)?'
           r'|norm|patch_embed\.norm)\.(?:weight|bias)|absolute_pos_embed'
           r'|layers\.\d+\.(?:conv(?:\.\d)?\.(?:weight|bias)|residual_group\.blocks\.\d+\.(?:attn_mask'
           r'|attn\.relative_position_(?:index|bias_table)'
           r'|(?:norm[12]|attn\.(?:qkv|proj)|mlp\.fc[12])\.(?:weight|bias)))')
_SWINIR_OPTIONS = ('img_size', 'patch_size', 'in_chans', 'embed_dim', 'depths', 'num_heads', 'window_size',
                   'mlp_ratio', 'qkv_bias', 'qk_scale', 'drop_rate', 'attn_drop_rate', 'drop_path_rate', 'ape',
                   'patch_norm', 'use_checkpoint', 'upscale', 'img_range', 'upsampler', 'resi_connection')

ARCHITECTURES = (
    Architecture('RRDBNet', 'RRDBNet', rf'{_TRUNK}|conv_up[12]\.(?:weight|bias)',
                 (*_RRDB_REQUIRED, 'conv_up1.weight', 'conv_up2.weight'),
                 {**_RRDB_OPTIONS, 'scale': 'upscale_factor'}, ('scale', 4)),
    Architecture('RRDBNetNoUpsample', 'RRDBNetNoUpsample', _TRUNK, _RRDB_REQUIRED,
                 {**_RRDB_OPTIONS, 'bias': 'bias'}),
    Architecture('SwinIR', 'SwinIRNet', _SWINIR,
                 ('conv_first.weight', 'layers.0.residual_group.blocks.0.attn.qkv.weight', 'norm.weight'),
                 {name: name for name in _SWINIR_OPTIONS}, ('upscale', 2)),
)

_REFUSED = {
    'MSRResNet': "the two packages' networks of this name compute different images from the same parameters: BasicSR "
                 "has a leaky ReLU after each up-sampling, mmagic 1.2.0 has none",
}


def find_architecture(name: str | None, state: Collection[str], source: str) -> Architecture:
    """The network that a state dict is of.

    Args:
        name: In BasicSR or in mmagic; None finds it by the names in the state dict.
        state: These names.
        source: What holds the state dict, for messages.

    Raises:
        OptionError: There is no network of this name that converts.
        DataError: The state dict is not of the network, or of none that converts.
    """
    known = ', '.join(architecture.basicsr for architecture in ARCHITECTURES)
    if name in _REFUSED or (name is None and _is_msrresnet(state)):
        raise DataError(f'{source}: {name or "MSRResNet"} is not converted: {_REFUSED["MSRResNet"]}')
    if name is not None:
        for architecture in ARCHITECTURES:
            if name in (architecture.basicsr, architecture.mmagic):
                return _checked(architecture, state, source)
        names = [n for architecture in ARCHITECTURES for n in (architecture.basicsr, architecture.mmagic)]
        raise OptionError(f'--arch: {name!r} does not convert; {did_you_mean(name, names)}')
    fitting = [a for a in ARCHITECTURES if not a.unknown(state) and not a.missing(state)]
    if fitting:
        return fitting[0]
    nearest = min(ARCHITECTURES, key=lambda a: len(a.unknown(state)) + len(a.missing(state)))
    if len(nearest.unknown(state)) == len(state):
        raise DataError(f'{source}: is of no network that converts ({known}); its first parameters are '
                        f'{", ".join(list(state)[:3])}')
    return _checked(nearest, state, source)


def _checked(architecture: Architecture, state: Collection[str], source: str) -> Architecture:
    if unknown := architecture.unknown(state):
        raise DataError(f'{source}: {architecture.basicsr} has no {_some(unknown)}')
    if missing := architecture.missing(state):
        raise DataError(f"{source}: lacks {architecture.basicsr}'s {_some(missing)}")
    return architecture


def _some(names: list[str]) -> str:
    more = f' and {len(names) - 5} more' if len(names) > 5 else ''
    return ', '.join(names[:5]) + more


def _is_msrresnet(state: Collection[str]) -> bool:
    """BasicSR's and mmagic's names of its first up-sampling, beside its residual blocks."""
    return ({'upconv1.weight', 'body.0.conv1.weight'} <= set(state)
            or {'upsample1.upsample_conv.weight', 'trunk_net.0.conv1.weight'} <= set(state))
