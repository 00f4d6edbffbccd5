"""The parameters that a network begins with: out of a checkpoint, and into the network."""

from typing import Any

from torch import Tensor, nn

from dil_plugin.checkpoints import network_names, read_notes
from dil_plugin.errors import DataError

KEY = 'path.pretrain_network_g'

State = dict[str, Tensor]


def parameters_under(content: Any, path: str, key: str | None, other: str = 'params') -> tuple[str | None, State]:
    """The parameters in a checkpoint that a network begins with, under the names of BasicSR's networks.

    Args:
        content: What the file holds. A file without any key, as ESRGAN's RRDB_PSNR_x4.pth is one, holds the
            parameters themselves.
        path: The file, for messages.
        key: ``path.param_key_g``; None: the file itself is taken.
        other: The key that is taken where there is no such one.

    Returns:
        The key that they stood under, None for the file itself; and the parameters.

    Raises:
        DataError: There is neither key, or what stands there has no names.
    """
    used = None
    bare = isinstance(content, dict) and all(isinstance(value, Tensor) for value in content.values())
    if key is not None and not bare:
        used = next((one for one in (key, other) if isinstance(content, dict) and one in content), None)
        if used is None:
            found = ', '.join(map(str, list(content)[:3])) if isinstance(content, dict) else type(content).__name__
            raise DataError(f"{KEY}: {path} has no '{key}' (path.param_key_g), only {found}")
        content = content[used]
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise DataError(f'{KEY}: {path} holds no parameters by name, but a {type(content).__name__}; expected a '
                        'checkpoint with params or params_ema')
    return used, network_names(content)


def unfitting(network: nn.Module, state: State) -> str:
    """In what the parameters differ from those of the network: names that only one has, other shapes; '' in nothing."""
    own = network.state_dict()
    parts = {'missing': [name for name in own if name not in state],
             'unknown': [name for name in state if name not in own],
             'of another shape': [f'{name} {[*state[name].shape]}, not {[*own[name].shape]}'
                                  for name in _of_other_shapes(own, state)]}
    return '; '.join(f'{len(names)} {what}: {names[0]}{", …" * (len(names) > 1)}'
                     for what, names in parts.items() if names)


def _of_other_shapes(own: State, state: State) -> list[str]:
    return [name for name, tensor in state.items() if name in own and own[name].shape != tensor.shape]


def load_fitting(network: nn.Module, state: State, whole: Any, path: str, strict: bool) -> None:
    """``load_state_dict``; raises DataError, naming the file and what network it is of, where it does not fit.

    Args:
        network: Takes the parameters.
        state: The parameters.
        whole: All that the file holds.
        path: The file, for messages.
        strict: As of ``load_state_dict``. If false, parameters of other shapes are set aside, as BasicSR does
            (``path.strict_load_g: false``: an x4 network into an x2 one); nothing that fits is an error still.
    """
    own = network.state_dict()
    if not strict:
        aside = _of_other_shapes(own, state)
        state = {name: tensor for name, tensor in state.items() if name not in aside}
    try:
        if not strict and not set(own) & set(state):
            raise RuntimeError('path.strict_load_g is false, but not one of its parameters has the name and the shape '
                               'of one of network_g')
        network.load_state_dict(state, strict=strict)
    except RuntimeError as error:
        notes = read_notes(whole, path)
        of = f' (the file is of {dict(notes.network_g)})' if notes is not None else ''
        raise DataError(f'{KEY}: {path} does not fit network_g{of}: {" ".join(str(error).split())[:300]}') from None
