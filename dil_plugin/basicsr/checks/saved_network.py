"""Whether a checkpoint holds the whole network: built anew and loaded from it, it must restore as the trained one."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dil_plugin.basicsr.checks.first_failure import said
from dil_plugin.basicsr.checks.network_scale import built
from dil_plugin.checkpoints import load_checkpoint
from dil_plugin.errors import OptionError
from dil_plugin.learning.objective import select_outputs
from dil_plugin.networks.evaluating import evaluating

_SEEDS = 1, 2
_ROUNDING = {'cpu': 1e-5, 'cuda': 1e-3}
"""Of values in [0, 1]: another layout in memory, or another kernel of a GPU, rounds in another way."""


def check_saved_network(network: nn.Module, block: Mapping[str, Any], path: str, image: Tensor, outputs: str) -> str:
    """Loads a checkpoint into a network that is built anew, and compares what both make of an image.

    Args:
        network: The trained one, on its device.
        block: ``network_g``, of which it was built.
        path: The checkpoint, with its parameters as ``params_theta`` or ``params``.
        image: ``(1, C, h, w)`` in [0, 1], on that device.
        outputs: Which of several outputs is the image.

    Returns:
        A warning where the network never restores an image twice alike; else ''.

    Raises:
        OptionError: The checkpoint cannot be loaded, or the network that comes of it restores in another way.
    """
    name = type(network).__name__
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # and not as the trained one was begun
        again = built(block, 'cpu')
    try:
        saved = load_checkpoint(path, 'checkpoint')
        again.load_state_dict(saved.get('params_theta', saved['params']))
    except Exception as error:  # torch's RuntimeError, or what a module's own state raises
        raise OptionError(f'network_g: {name} cannot be loaded from its own checkpoint '
                          f'({said(error, type(network))}); allowed: a network whose state_dict has the same names and '
                          'shapes when it is built') from error
    restored, other = (_restored(network, image, outputs, seed) for seed in _SEEDS)
    reloaded = _restored(again.to(image.device), image, outputs, _SEEDS[0])
    if restored.shape != reloaded.shape or not _near(restored, reloaded):
        raise OptionError(f'network_g: {name} restores differently after it was saved and loaded '
                          f'(by up to {_apart(restored, reloaded):.3g} of 255 after the first steps), since it uses '
                          'numbers that its state_dict does not hold; allowed: layers in an nn.ModuleList instead of '
                          'a list, tensors as parameters or buffers')
    return '' if _near(restored, other) else (
        f'{name} restores an image differently every time (by up to {_apart(restored, other):.3g} of 255), in '
        'validation too')


def _restored(network: nn.Module, image: Tensor, outputs: str, seed: int) -> Tensor:
    devices = [image.device] if image.is_cuda else []
    with evaluating(network), torch.no_grad(), torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        return select_outputs(network(image.clone()), outputs)[-1].float()


def _near(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=0, atol=_ROUNDING.get(one.device.type, 1e-3), equal_nan=True)


def _apart(one: Tensor, other: Tensor) -> float:
    return 255 * float((one - other).abs().max()) if one.shape == other.shape else float('inf')
