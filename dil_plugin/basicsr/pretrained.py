"""Whether ``path.pretrain_network_g`` fits the network, found out before anything is made."""

import os
import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dil_plugin.basicsr.network_scale import built_to_look_at
from dil_plugin.basicsr.resuming import saved_iterations
from dil_plugin.checkpoints import load_checkpoint, network_names, read_notes
from dil_plugin.errors import DataError

KEY = 'path.pretrain_network_g'


def check_pretrained(opt: Mapping[str, Any]) -> None:
    """Raises DataError unless the checkpoint that a run begins with is whole and fits ``network_g``.

    A run that goes on from a training state does not read it.

    Args:
        opt: The options as BasicSR parsed them.
    """
    path = opt['path'].get('pretrain_network_g')
    if path is None:
        return
    if not os.path.isfile(path):
        raise DataError(f'{KEY}: there is no file {path}')
    if opt['path'].get('resume_state') or opt['auto_resume'] and saved_iterations(opt['path']['training_states']):
        return
    network = built_to_look_at(opt['network_g'])
    if network is None:
        return
    whole = load_checkpoint(path, KEY)
    state = _parameters(whole, path, opt['path'].get('param_key_g', 'params'))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # that a network without memory takes shapes alone
            network.load_state_dict(state, strict=opt['path'].get('strict_load_g', True))
    except RuntimeError as error:
        notes = read_notes(whole, path)
        of = f' (the file is of {dict(notes.network_g)})' if notes is not None else ''
        raise DataError(f'{KEY}: {path} does not fit network_g{of}: {" ".join(str(error).split())[:300]}') from None


def _parameters(content: Any, path: str, key: str | None) -> dict[str, Any]:
    """The parameters by name that ``CheckpointFiles.load_network`` would take."""
    bare = isinstance(content, dict) and all(isinstance(value, Tensor) for value in content.values())
    if key is not None and not bare:
        keys = [one for one in (key, 'params') if isinstance(content, dict) and one in content]
        if not keys:
            found = ', '.join(map(str, list(content)[:3])) if isinstance(content, dict) else type(content).__name__
            raise DataError(f"{KEY}: {path} has no '{key}' (path.param_key_g), only {found}")
        content = content[keys[0]]
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise DataError(f'{KEY}: {path} holds no parameters by name, but a {type(content).__name__}; expected a '
                        'checkpoint with params or params_ema')
    return network_names(content)
