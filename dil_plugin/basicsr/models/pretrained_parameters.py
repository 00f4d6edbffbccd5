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


def load_fitting(network: nn.Module, state: State, whole: Any, path: str, strict: bool) -> None:
    """``load_state_dict``; raises DataError, naming the file and what network it is of, where it does not fit.

    Args:
        network: Takes the parameters.
        state: The parameters.
        whole: All that the file holds.
        path: The file, for messages.
        strict: As of ``load_state_dict``.
    """
    try:
        network.load_state_dict(state, strict=strict)
    except RuntimeError as error:
        notes = read_notes(whole, path)
        of = f' (the file is of {dict(notes.network_g)})' if notes is not None else ''
        raise DataError(f'{KEY}: {path} does not fit network_g{of}: {" ".join(str(error).split())[:300]}') from None
