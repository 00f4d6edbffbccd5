"""What spandrel 0.4.2, which chaiNNer and others restore with, makes of a checkpoint: it guesses a network's options.

It sees the parameters alone, without the notes. What it cannot see there it assumes: the growth of dense layers, the
range of SwinIR's pixels. Facts of its sources, tried with the package; it is not needed here.
"""

from collections.abc import Mapping
from typing import Any

_GROWTH = 32  # the only num_grow_ch of its ESRGAN
_JPEG_WINDOW, _JPEG_RANGE = 7, 255.0  # SwinIR's networks against JPEG artefacts have these
_NEEDED = {'qkv_bias': True, 'patch_norm': True, 'ape': False}


def spandrel_problem(network_g: Mapping[str, Any]) -> str | None:
    """Why spandrel does not restore with a network as BasicSR does, in words; None where it does, or where it has none.

    Args:
        network_g: The block of a YAML. What is missing there has BasicSR's default.
    """
    name = str(network_g.get('type', '')).removesuffix('_basicsr')
    if name in ('RRDBNet', 'RRDBNetNoUpsample'):
        growth = network_g.get('num_grow_ch', _GROWTH)
        if growth != _GROWTH:
            return _cannot_load('num_grow_ch', growth, _GROWTH)
        if network_g.get('bias') is False:
            return _cannot_load('bias', 'false', 'true')
    if name == 'SwinIR':
        for option, value in _NEEDED.items():
            if bool(network_g.get(option, value)) != value:
                return _cannot_load(option, str(not value).lower(), str(value).lower())
        window, width = network_g.get('window_size', 7), float(network_g.get('img_range', 1.0))
        assumed = _JPEG_RANGE if window == _JPEG_WINDOW else 1.0
        if width != assumed:
            return (f'spandrel and chaiNNer load its checkpoints and compute other images: img_range is {width:g}, '
                    f'with window_size {window} they assume {assumed:g}')
    return None


def _cannot_load(option: str, value: object, known: object) -> str:
    return f'spandrel and chaiNNer cannot load its checkpoints: {option} is {value}, they know {known} alone'
