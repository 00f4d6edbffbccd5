"""Whether ``path.pretrain_network_g`` fits the network, found out before anything is made."""

import os
import warnings
from collections.abc import Mapping
from typing import Any

from dil_plugin.basicsr.checks.network_scale import built_to_look_at
from dil_plugin.basicsr.checks.required_options import MODEL
from dil_plugin.basicsr.models.pretrained_parameters import KEY, load_fitting, parameters_under
from dil_plugin.basicsr.resuming.training_states import saved_iterations
from dil_plugin.checkpoints import key_to_test, load_checkpoint, read_notes
from dil_plugin.errors import DataError
from dil_plugin.learning.objective import OUTPUTS
from dil_plugin.missing_files import no_such


def complete_from_checkpoint(opt: dict[str, Any]) -> None:
    """Sets what a test's YAML leaves open to what the other tools take of the checkpoint.

    These are ``path.param_key_g`` (BasicSR's default, ``params``, would measure another network than its training
    validated, and than restore.py uses) and, of a DILModel, ``train.dil.outputs`` and ``val.window_size`` of the notes.

    Args:
        opt: The options as BasicSR parsed them.

    Raises:
        DataError: The checkpoint cannot be read.
    """
    path = opt['path'].get('pretrain_network_g')
    if path is None or 'param_key_g' in opt['path'] and opt.get('model_type') != MODEL:
        return
    content = load_checkpoint(path, KEY)
    opt['path'].setdefault('param_key_g', (key_to_test(content) if isinstance(content, Mapping) else None) or 'params')
    notes = read_notes(content, path)
    if notes is None or opt.get('model_type') != MODEL:
        return
    train, val = opt.get('train') or {}, opt.get('val')
    dil = train.get('dil') or {} if isinstance(train, dict) else None
    if isinstance(dil, dict) and notes.outputs in OUTPUTS:
        opt['train'] = {**train, 'dil': {'outputs': notes.outputs, **dil}}
    if isinstance(val, dict) and val.get('window_size') is None and notes.window_size is not None:
        val['window_size'] = notes.window_size


def check_pretrained_file(opt: Mapping[str, Any]) -> None:
    """Raises DataError unless the checkpoint that a run begins with is there."""
    path = opt['path'].get('pretrain_network_g')
    if path is not None and not os.path.isfile(path):
        raise DataError(f'{KEY}: {no_such(path)}')


def check_pretrained(opt: Mapping[str, Any]) -> None:
    """Raises DataError unless the checkpoint that a run begins with, a file, is whole and fits ``network_g``.

    A run that goes on from a training state does not read it.

    Args:
        opt: The options as BasicSR parsed them.
    """
    path = opt['path'].get('pretrain_network_g')
    if path is None:
        return
    if opt['path'].get('resume_state') or opt['auto_resume'] and saved_iterations(opt['path']['training_states']):
        return
    network = built_to_look_at(opt['network_g'])
    if network is None:
        return
    whole = load_checkpoint(path, KEY)
    _, state = parameters_under(whole, path, opt['path'].get('param_key_g', 'params'))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that a network without memory takes shapes alone
        load_fitting(network, state, whole, path, opt['path'].get('strict_load_g', True))
