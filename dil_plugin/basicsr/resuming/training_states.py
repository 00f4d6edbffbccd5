"""Which training state a run goes on from: the newest that is whole, with its network and the states of all ranks."""

import os
import sys
from collections.abc import Mapping
from typing import Any

from torch import distributed

from dil_plugin.checkpoints import load_checkpoint
from dil_plugin.errors import DataError

KEY = 'path.resume_state'


class DrawnSeed(int):
    """A ``manual_seed`` that was drawn because the YAML gives none; a resumed run takes the one that it began with."""


def rank_state_path(state_path: str, rank: int) -> str:
    """Where rank 1, 2, … keeps its part of a training state; BasicSR looks for names that end in ``state``."""
    return f'{state_path}.rank{rank}'


def load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    """The training state to resume from, or None; as BasicSR's, for any device and from any working directory.

    With ``--auto_resume`` it is the newest state of this experiment that is whole, as are its network and, with as many
    processes as then, the states of their ranks; what is damaged is named on standard error and in the log. Otherwise
    it is ``path.resume_state``. All ranks take the same one.

    Raises:
        DataError: The state that is named is damaged or missing, or all of those that ``--auto_resume`` finds.
        OptionError: It is of another optimiser, schedule or network than the options say.
    """
    from basicsr.utils import check_resume

    from dil_plugin.basicsr.data.draw_sampler import DrawSampler
    from dil_plugin.basicsr.resuming.fitting_states import check_fitting
    DrawSampler.resumed = None
    path = opt['path'].get('resume_state')
    newest_first: list[str] = [path] if path else []
    if opt['auto_resume']:
        folder = os.path.join(opt['root_path'], 'experiments', opt['name'], 'training_states')
        iterations = sorted(saved_iterations(folder), reverse=True)
        newest_first = [os.path.join(folder, f'{k}.state') for k in iterations] or newest_first
    if opt['dist']:  # one rank's view of the folder
        seen = [newest_first]
        distributed.broadcast_object_list(seen, src=0)
        newest_first = seen[0]
    if not newest_first:
        return None
    state, path, warnings = _newest_whole(opt, newest_first)
    check_fitting(opt, state, path)
    _take_seed(opt, state)
    DrawSampler.resumed = state
    opt['path']['resume_state'] = path
    check_resume(opt, state['iter'])
    state['warnings'] = warnings
    return state


def saved_iterations(folder: str) -> list[int]:
    """The iterations K of the files ``K.state`` in a folder."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return [int(name[:-6]) for name in names if name.endswith('.state') and name[:-6].isdigit()]


def _newest_whole(opt: Mapping[str, Any], paths: list[str]) -> tuple[dict[str, Any], str, list[str]]:
    """The first state that all ranks can read, its path, and what there is to say about those before it."""
    warnings: list[str] = []
    for path in paths:
        state, problem = None, ''
        try:
            state = _whole_state(opt, path)
        except DataError as error:
            problem = str(error)
        problems = [problem]
        if opt['dist']:
            problems = [''] * int(opt['world_size'])
            distributed.all_gather_object(problems, problem)
        found = next(filter(None, problems), None)
        if state is not None and found is None:
            for warning in warnings if opt['rank'] == 0 else []:
                sys.stderr.write(f'Warning: {warning}\n')
            return state, path, warnings
        warnings.append(f'{found}; the training state before it is taken')
    last = warnings[-1].removesuffix('; the training state before it is taken')
    if len(warnings) > 1:
        last = f'{KEY}: none of the {len(warnings)} training states of this run is whole; the oldest: {last}'
    raise DataError(last)


def _whole_state(opt: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Reads a training state, with this rank's part of it, and makes sure of the network.

    Raises:
        DataError: One of the files is missing or damaged.
    """
    state = load_checkpoint(path, KEY)  # on the CPU; load_state_dict moves what belongs elsewhere
    if not isinstance(state, dict) or not {'epoch', 'iter', 'optimizers', 'schedulers'} <= set(state):
        raise DataError(f'{KEY}: {path} is not a training state')
    ignored = opt['path'].get('ignore_resume_networks') or ()
    for network in (key for key in opt if key.startswith('network_') and key not in ignored):
        name = f'net_{network.removeprefix("network_")}_{state["iter"]}.pth'
        load_checkpoint(os.path.join(opt['path']['models'], name), KEY)
    ours = state.get('dil')
    rank = int(opt['rank'])
    if ours and rank > 0 and ours.get('world_size') == opt['world_size']:
        ours.update(load_checkpoint(rank_state_path(path, rank), KEY))
    return state


def _take_seed(opt: dict[str, Any], state: Mapping[str, Any]) -> None:
    """A seed that was drawn must be the run's first one; a seed that the YAML gives stays."""
    from basicsr.utils import set_random_seed
    seed = state.get('dil', {}).get('manual_seed')
    if seed is None or not isinstance(opt['manual_seed'], DrawnSeed):
        return
    opt['manual_seed'] = DrawnSeed(seed)
    for dataset in opt['datasets'].values():
        if isinstance(dataset.get('seed'), DrawnSeed):
            dataset['seed'] = opt['manual_seed']
    set_random_seed(seed + opt['rank'])
