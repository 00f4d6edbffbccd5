"""Takes one small meta-gradient of a network from outside, so that what has none is one line before the run."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from dil_plugin.basicsr.checks.network_scale import built, randomness_kept
from dil_plugin.errors import DILError, OptionError
from dil_plugin.learning import MetaBatch, Pair, build_loss, build_variant
from dil_plugin.learning.objective import select_outputs
from dil_plugin.learning.options import DILOptions
from dil_plugin.networks.size_needs import input_channels, size_needs

_SIDE = 16  # pixels of the image, or the least that the network takes


def check_gradient(opt: Mapping[str, Any], dil: DILOptions) -> None:
    """Raises OptionError where the network of the block has no gradient of the kind that the variant takes.

    Networks of BasicSR and of this package have them, and are not tried. Other errors, as of a network that does not do
    with so small an image, are left to the training step.

    Args:
        opt: The options as BasicSR parsed them.
        dil: The block ``train.dil``.
    """
    from basicsr.utils.registry import ARCH_REGISTRY
    block = opt['network_g']
    if ARCH_REGISTRY.get(block['type']).__module__.startswith(('basicsr.', 'dil_plugin.')):
        return
    try:
        network = built(block, 'cpu').train()
        loss = build_loss(dil, network, nn.functional.mse_loss)
        with randomness_kept(), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # the training says it again
            batch = _batch(network, block, dil)
            params = loss.parameters()
            build_variant(dil, params)(loss, params, batch)
    except DILError:
        raise
    except Exception:  # of any network
        return


def _batch(network: nn.Module, block: Mapping[str, Any], dil: DILOptions) -> MetaBatch:
    channels = input_channels(block)
    side = size_needs(network, block, None, channels, dil.outputs).padded(_SIDE)
    lq = torch.rand(1, channels, side, side)
    with torch.no_grad():
        outputs = select_outputs(network(lq.clone()), dil.outputs)
    if len({output.shape for output in outputs}) > 1:
        shapes = ', '.join('x'.join(map(str, output.shape[1:])) for output in outputs)
        raise OptionError(f'train.dil.outputs: {dil.outputs}, but {block["type"]} returns outputs of several shapes '
                          f'({shapes}), and the loss takes all of them; allowed: first or last')
    gt = torch.rand_like(outputs[-1])
    return MetaBatch([Pair(lq, gt)] * (dil.held_out_or_default + 1), Pair(lq, gt))
