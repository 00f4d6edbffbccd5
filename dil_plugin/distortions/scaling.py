"""How confounders come to divide the resolution, in the words of a YAML."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from dil_plugin.distortions.base import DISTORTION_REGISTRY


def scaling_entry(raw: Sequence[Mapping[str, Any]], scale: int) -> str:
    """What to write so that the confounders of a ``distortions`` block divide the resolution by ``scale``.

    Args:
        raw: The block, valid but for its scale.
        scale: Clean size divided by distorted size.

    Returns:
        For a message. Entries of types that have a ``scale`` get it; the first one of the others is shown as an entry
        that is complete: with ``Downsample`` before it, or after it where it looks at the neighbours of a pixel (blur).
    """
    types = {entry['type']: DISTORTION_REGISTRY.get(entry['type']) for entry in raw}
    having = [name for name, cls in types.items() if 'scale' in cls.__struct_fields__]
    if having or scale == 1:
        return f'scale: {scale} in the entries of type {" and ".join(having)}' if having and scale > 1 else \
            'confounders that keep it'
    inner = {name: value for name, value in raw[0].items() if name != 'draws'}
    steps = [{'type': 'Downsample', 'scale': scale}, inner]
    if max(one.min_size for one in DISTORTION_REGISTRY.parse(inner, '')) > 1:
        steps.reverse()
    entry = {'type': 'Compose', 'distortions': steps, **{k: v for k, v in raw[0].items() if k == 'draws'}}
    text = yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, width=10000).strip()
    return f'entries that divide it by {scale}, of type Downsample, RealESRGAN or Compose, as in - {text}'
