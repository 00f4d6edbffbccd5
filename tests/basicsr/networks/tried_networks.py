"""The table: the networks that each go through all tools, and what each of them needs in a YAML."""

from typing import Any, NamedTuple


class Tried(NamedTuple):
    """A network of the table.

    Attributes:
        network: The block ``network_g``.
        scale: By which it enlarges.
        own: The module of a network that is not BasicSR's, for ``custom_imports``.
        gt_size: Of the training patches; None: 16, or 8 pixels of a network that enlarges more than twice.
        outputs: ``train.dil.outputs``.
        twin: The block of a network that computes the same by simpler means, for the plain loop; None: itself.
    """

    network: dict[str, Any]
    scale: int = 1
    own: str = ''
    gt_size: int | None = None
    outputs: str = 'all'
    twin: dict[str, Any] | None = None


_IN_OUT = {'num_in_ch': 3, 'num_out_ch': 3}
_RRDB = {'type': 'RRDBNet', **_IN_OUT, 'num_feat': 6, 'num_block': 1, 'num_grow_ch': 3}
_EDSR = {'type': 'EDSR', **_IN_OUT, 'num_feat': 6, 'num_block': 1}
_MSR = {'type': 'MSRResNet', **_IN_OUT, 'num_feat': 6, 'num_block': 1}
_SRVGG = {'type': 'SRVGGNetCompact', 'num_feat': 6, 'num_conv': 2}
_SWIN = {'type': 'SwinIR', 'img_size': 16, 'window_size': 4, 'depths': [2], 'num_heads': [2], 'embed_dim': 8,
         'mlp_ratio': 2}
_ECB = {'type': 'ECBSR', **_IN_OUT, 'num_block': 1, 'num_channel': 4, 'with_idt': True, 'act_type': 'prelu'}

TABLE = {
    'RRDBNet': Tried({**_RRDB, 'scale': 1}),
    'RRDBNet x2': Tried({**_RRDB, 'scale': 2}, 2),
    'RRDBNet x4': Tried({**_RRDB, 'scale': 4}, 4),
    'RRDBNetNoUpsample': Tried({'type': 'RRDBNetNoUpsample', 'num_feat': 6, 'num_block': 1, 'num_grow_ch': 3}),
    'MSRResNet x2': Tried({**_MSR, 'upscale': 2}, 2),
    'MSRResNet x4': Tried({**_MSR, 'upscale': 4}, 4),
    'EDSR x2': Tried({**_EDSR, 'upscale': 2}, 2),
    'EDSR x3': Tried({**_EDSR, 'upscale': 3}, 3),
    'RCAN x2': Tried({'type': 'RCAN', **_IN_OUT, 'num_feat': 8, 'num_group': 1, 'num_block': 1, 'squeeze_factor': 4,
                      'upscale': 2}, 2),
    'SRVGGNetCompact': Tried({**_SRVGG, 'upscale': 1}),
    'SRVGGNetCompact x4': Tried({**_SRVGG, 'upscale': 4}, 4),
    'SwinIR': Tried({**_SWIN, 'upscale': 1, 'upsampler': ''}),
    'SwinIR x2': Tried({**_SWIN, 'upscale': 2, 'upsampler': 'pixelshuffledirect', 'resi_connection': '3conv'}, 2),
    'SwinIR x4': Tried({**_SWIN, 'upscale': 4, 'upsampler': 'nearest+conv'}, 4),
    'ECBSR': Tried({**_ECB, 'scale': 1}),
    'ECBSR x2': Tried({**_ECB, 'scale': 2, 'with_idt': False}, 2),
    'RIDNet': Tried({'type': 'RIDNet', 'in_channels': 3, 'mid_channels': 16, 'out_channels': 3, 'num_block': 1}),
    'HiFaceGAN': Tried({'type': 'HiFaceGAN', 'num_feat': 1, 'crop_size': 64}, gt_size=64),
    'NAFStyle': Tried({'type': 'NAFStyle'}, own='outside_networks'),
    'RestormerStyle': Tried({'type': 'RestormerStyle'}, own='outside_networks'),
    'HATStyle': Tried({'type': 'HATStyle', 'window_size': 4}, own='outside_networks'),
    'HATStyle x2': Tried({'type': 'HATStyle', 'window_size': 4, 'upscale': 2}, 2, own='outside_networks'),
    'DnCNNStyle': Tried({'type': 'DnCNNStyle'}, own='outside_networks'),
    'AttentionStyle': Tried({'type': 'AttentionStyle'}, own='outside_networks'),
    'ListStyle': Tried({'type': 'ListStyle'}, own='outside_networks', twin={'type': 'ListStyle', 'listed': False}),
}

def _odd(kind: str, outputs: str = 'all', twin: dict[str, Any] | None = None, **options: Any) -> Tried:
    return Tried({'type': kind, **options}, own='odd_networks', outputs=outputs, twin=twin)


ODD = {
    **{kind: _odd(kind) for kind in (
        'HalfFrozen', 'GivesAList', 'WithDropout', 'DoubleBuffer', 'Counting', 'ReplacedBuffer', 'ComplexWeights',
        'Tied', 'OneModuleTwice', 'PartWithoutGradient', 'NeverUsed', 'ChangesItsInput', 'OfAtLeast', 'Scripted',
        'Recurrent', 'Deforming')},
    'GivesATuple': _odd('GivesATuple', 'last'),
    'SizedBuffer': _odd('SizedBuffer', persistent=False),
    'Recomputing': _odd('Recomputing', twin={'type': 'Residual'}),
    **{how: _odd('Parametrized', how=how) for how in ('spectral_norm', 'old_spectral_norm')},
    **{f'{old}weight_norm': _odd('Parametrized', how=f'{old}weight_norm',
                                 twin={'type': 'Parametrized', 'how': f'{old}written'}) for old in ('', 'old_')},
}
"""Networks with something odd about them that yet train as any other."""

VARIANTS = {
    'sf': {'variant': 'sf', 'inner': {'type': 'Adam', 'lr': 1e-4, 'eps': 1e-3}, 'order': 'fixed'},
    'ps': {'variant': 'ps', 'inner': {'type': 'SGD', 'lr': 0.01}, 'hvp': 'exact'},
    'erm': {'variant': 'erm'},
}

REFUSED = {
    'BasicVSR': ({'num_feat': 4, 'num_block': 1}, 'a video'),
    'BasicVSRPlusPlus': ({'mid_channels': 4, 'num_blocks': 1}, 'a video'),
    'DFDNet': ({'num_feat': 4, 'dict_path': 'parts.pth'}, 'a face and where its parts are'),
    'DUF': ({'num_layer': 16}, 'a video'),
    'EDVR': ({'num_feat': 8, 'deformable_groups': 2, 'num_extract_block': 1, 'num_reconstruct_block': 1}, 'a video'),
    'HiFaceGANDiscriminator': ({'num_feat': 2}, 'a discriminator'),
    'IconVSR': ({'num_feat': 4, 'num_block': 1}, 'a video'),
    'SpyNet': ({}, 'two images: it gives their optical flow'),
    'StyleGAN2Discriminator': ({'out_size': 8, 'narrow': 0.01}, 'a discriminator'),
    'StyleGAN2Generator': ({'out_size': 8, 'num_style_feat': 4, 'num_mlp': 1, 'narrow': 0.01}, 'a style'),
    'TOFlow': ({}, 'a video'),
    'UNetDiscriminatorSN': ({**{'num_in_ch': 3}, 'num_feat': 2}, 'a discriminator'),
    'VGGFeatureExtractor': ({'layer_name_list': ['conv1_1']}, 'gives features'),
    'VGGStyleDiscriminator': ({'num_in_ch': 3, 'num_feat': 2}, 'a discriminator'),
}
"""What else BasicSR 1.4.2 registers: options, and what it takes that is not an image, or gives."""


def document() -> str:
    """What docs/reliability.md says of the tables."""
    from dil_plugin.basicsr.checks.network_scale import block_needs
    rows = []
    for name, tried in TABLE.items():
        needs, window = block_needs(tried.network), tried.network.get('window_size')
        sides = f'multiples of {needs.multiple_of}' if needs.multiple_of > 1 else 'any'
        sides += f', at least {needs.minimum}' if needs.minimum > needs.multiple_of else ''
        sides += ', its `window_size`' if needs.multiple_of == window else ''
        source = 'the tests' if tried.own else 'BasicSR' if name != 'RRDBNetNoUpsample' else 'the plugin'
        rows.append(f'| {name.split()[0]} | {tried.scale} | {source} | {sides} |')
    refused = ', '.join(f'`{name}` ({what})' for name, (_, what) in REFUSED.items())
    odd = ', '.join(f'`{name}`' for name in ODD)
    return '\n'.join(['| network | scale | of | sides of an image that it takes |', '|---|---|---|---|', *rows, '',
                      f'With something odd about them, and yet as any other: {odd}.', '',
                      f'Registered by BasicSR, but no network of one image, and refused in one line: {refused}.'])
