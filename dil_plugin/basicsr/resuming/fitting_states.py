"""Whether a run can go on from a training state with the options that it has now, found out before anything is made."""

import os
import warnings
from collections.abc import Mapping
from typing import Any

from dil_plugin.basicsr.checks.network_scale import built_to_look_at
from dil_plugin.basicsr.models.pretrained_parameters import parameters_under, unfitting
from dil_plugin.checkpoints import load_checkpoint
from dil_plugin.errors import OptionError

_OURS = 'DILModel'
_OPTIMIZERS = {'nesterov': 'SGD', 'betas': 'Adam'}
_SCHEDULERS = {'periods': 'CosineAnnealingRestartLR', 'milestones': 'MultiStepLR'}


def check_fitting(opt: Mapping[str, Any], state: Mapping[str, Any], path: str) -> None:
    """Raises OptionError where optimiser, schedule or network are not those of the interrupted run.

    Other learning rates, betas or milestones are no error: the saved ones go on.

    Args:
        opt: The options as BasicSR parsed them.
        state: The training state.
        path: Its file, for messages.
    """
    train = opt.get('train') or {}
    groups = state['optimizers'][0]['param_groups'] if state['optimizers'] else []
    schedule = state['schedulers'][0] if state['schedulers'] else {}
    _same_kind(path, 'optim_g', train, _OPTIMIZERS, groups[0] if groups else {}, 'an optimiser')
    _same_kind(path, 'scheduler', train, _SCHEDULERS, schedule, 'a schedule')
    if 'periods' in schedule and state['iter'] < int(train['total_iter']) > sum(schedule['periods']):
        ends = sum(schedule['periods'])
        raise OptionError(f'train.total_iter: {train["total_iter"]}, but the schedule that goes on from {path} '
                          f'(periods {list(schedule["periods"])}) ends at {ends}; allowed: at most {ends}, or a new '
                          'run from the network (path.pretrain_network_g)')
    if opt.get('model_type') == _OURS and 'network_g' not in (opt['path'].get('ignore_resume_networks') or ()):
        _check_network(opt, state, path, groups)


def _same_kind(path: str, block: str, train: Mapping[str, Any], marks: Mapping[str, str], saved: Mapping[str, Any],
               what: str) -> None:
    was = next((kind for mark, kind in marks.items() if mark in saved), None)
    now = str((train.get(block) or {}).get('type'))
    known = {'MultiStepRestartLR': 'MultiStepLR'}.get(now, now)  # two names of one
    if was is not None and known in marks.values() and known != was:
        raise OptionError(f'train.{block}.type: {now}, but {path} is of {what} of type {was}; allowed: {was}, or a new '
                          'run from the network (path.pretrain_network_g)')


def _check_network(opt: Mapping[str, Any], state: Mapping[str, Any], path: str, groups: list[dict[str, Any]]) -> None:
    network = built_to_look_at(opt['network_g'])
    if network is None:
        return
    file = os.path.join(opt['path']['models'], f'net_g_{state["iter"]}.pth')
    _, saved = parameters_under(load_checkpoint(file, 'path.resume_state'), file, 'params_theta', 'params')
    differing = ''
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that a network without memory takes shapes alone
        try:
            network.load_state_dict(saved)
        except RuntimeError as error:
            differing = unfitting(network, saved) or str(error)
    trained = sum(param.requires_grad for param in network.parameters())
    if not differing and len(groups) == 1 and len(groups[0]['params']) != trained:
        differing = f'{len(groups[0]["params"])} parameters are trained in {path}, {trained} now'
    if differing:
        raise OptionError(f'network_g: is not the network of {file} ({differing}); allowed: network_g as it was, or a '
                          'new run from the network (path.pretrain_network_g)')
