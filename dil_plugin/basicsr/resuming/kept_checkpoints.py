"""``logger.keep_last``: the checkpoints of the last N saves stay, older ones are removed."""

import glob
import os
import re
from collections.abc import Mapping

from dil_plugin.basicsr.resuming.training_states import saved_iterations
from dil_plugin.digest import damage

_STATE = re.compile(r'(\d+)\.state(\.rank\d+)?')
_NETWORK = re.compile(r'net_g_(\d+)\.pth')


def remove_older(paths: Mapping[str, str], newest: int, keep_last: int | None) -> None:
    """Removes training states and networks of iterations before the last N that have a state.

    Nothing is removed unless what was just written can be read back as it was written. ``net_g_latest.pth`` and
    ``net_g_best_….pth`` have names that do not match, and files of later iterations, left by a run that was taken back
    to an earlier one, are left alone.

    Args:
        paths: With ``models`` and ``training_states``.
        newest: The iteration that was just saved.
        keep_last: N; None keeps all.
    """
    states, models = paths['training_states'], paths['models']
    if keep_last is None:
        return
    written = [os.path.join(models, f'net_g_{newest}.pth'),
               *glob.glob(os.path.join(glob.escape(states), f'{newest}.state*'))]
    if any(map(damage, written)):
        return
    kept = sorted((k for k in saved_iterations(states) if k <= newest), reverse=True)[:keep_last]
    # a state goes before its network: without one, a state is no good
    for folder, pattern in ((states, _STATE), (models, _NETWORK)):
        for name in sorted(os.listdir(folder)):
            match = pattern.fullmatch(name)
            if match and int(match[1]) < kept[-1]:
                os.unlink(os.path.join(folder, name))
