"""What is told about a conversion."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dil_plugin.checkpoint_conversion.converting import Conversion
from dil_plugin.networks.spandrel_facts import spandrel_problem


def describe(conversion: Conversion, output: Path) -> str:
    """The file, what it holds, what it does not, and the network's block for its config or YAML; some lines."""
    lines = [f'{output}: for {conversion.to}, {conversion.architecture.basicsr}, {" and ".join(conversion.parameters)}']
    if conversion.left_out:
        lines.append(f'left out: {", ".join(conversion.left_out)}')
    lines.append(_block(conversion))
    if conversion.to == 'mmagic' and not any(n.startswith('generator_ema.') for n in conversion.content['state_dict']):
        lines.append('for a model with is_use_ema=True convert with --ema generator_ema; with this file mmagic '
                     'leaves generator_ema as it was initialised, and a DILEditModel starts it at the same weights')
    problem = spandrel_problem(_network(conversion)) if conversion.to == 'BasicSR' else None
    return '\n'.join([*lines, *([f'warning: {problem}'] if problem else [])])


def _network(conversion: Conversion) -> Mapping[str, Any]:
    """Its options for BasicSR; where the file does not say them, what the parameters' shapes tell."""
    first = conversion.content[conversion.parameters[0]].get('body.0.rdb1.conv1.weight')
    if conversion.network is not None or first is None:
        return conversion.network or {}
    return {'type': conversion.architecture.basicsr, 'num_grow_ch': len(first)}


def _block(conversion: Conversion) -> str:
    if conversion.network is None:
        key = 'generator' if conversion.to == 'mmagic' else 'network_g'
        return f'{key}: options unknown ({conversion.remark})'
    if conversion.to == 'mmagic':
        return f'in the config: generator={_call(conversion.network)}'
    block = yaml.safe_dump({'network_g': conversion.network}, sort_keys=False, default_flow_style=None).rstrip()
    return f'in the YAML:\n{block}'


def _call(options: dict[str, Any]) -> str:
    return f'dict({", ".join(f"{key}={value!r}" for key, value in options.items())})'
