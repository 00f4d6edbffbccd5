"""Options of ``train`` that say how a step is computed; those that cannot be had together are refused early."""

import os
import shutil
import sys
from collections.abc import Mapping
from typing import Any

from dil_plugin.basicsr.checks.gradient_check import check_gradient
from dil_plugin.basicsr.checks.moving_average import warn_of_the_start
from dil_plugin.basicsr.checks.network_scale import built_to_look_at
from dil_plugin.basicsr.models.mixed_precision import check_precision
from dil_plugin.errors import OptionError
from dil_plugin.learning.forward_passes import Checkpointed
from dil_plugin.learning.options import DILOptions, check_compilation

_CPP_COMPILERS = ('g++', 'clang++')


def check_step_options(opt: Mapping[str, Any], dil: DILOptions, steps: int = 1) -> None:
    """Raises OptionError where ``train`` asks for a step that cannot be computed.

    Args:
        opt: The options as BasicSR parsed them, with blocks that are checked already.
        dil: The block ``train.dil``.
        steps: Meta-gradients, or plain steps, of an iteration.
    """
    train = opt['train']
    check_precision(train.get('amp'), dil.variant)
    if train.get('compile'):
        check_compilation(dil)
        _check_compiler(opt)
    if dil.checkpointing:
        network = built_to_look_at(opt['network_g'])
        if network is not None:
            Checkpointed(network)
    check_gradient(opt, dil)
    if train.get('accum_iter', 1) > train['total_iter'] and dil.variant != 'erm':
        raise OptionError(f'train.accum_iter: {train["accum_iter"]}, but total_iter is {train["total_iter"]}: not one '
                          'step would be taken; allowed: at most total_iter')
    left = int(train['total_iter']) % train.get('accum_iter', 1)
    if left and dil.variant != 'erm':
        sys.stderr.write(f'Warning: train.accum_iter is {train["accum_iter"]} and total_iter {train["total_iter"]}: '
                         f'the last {left} meta-gradients lead to no step.\n')
    warn_of_the_start(opt, steps)
    if dil.micro_batch is not None:
        _check_means(train, 'micro_batch')
    if dil.patches_to_deploy is not None:
        _check_means(train, 'deploy')
        if train.get('ema_decay', 0) > 0:
            raise OptionError(f'train.dil.deploy: phi, with ema_decay: {train["ema_decay"]}, whose average would be '
                              'validated and restored with; allowed: one of them (ema_decay: 0, or deploy: theta)')


def _check_compiler(opt: Mapping[str, Any]) -> None:
    names = (os.environ['CXX'], ) if 'CXX' in os.environ else _CPP_COMPILERS
    if opt['num_gpu'] == 0 and not any(shutil.which(name) for name in names):
        raise OptionError('train.compile: true, which takes a C++ compiler on a CPU, and there is no '
                          f'{" or ".join(names)} (environment variable CXX); allowed here: false')


def _check_means(train: Mapping[str, Any], name: str) -> None:
    """The parts' losses are added up by their shares of the images, which is right for means."""
    for loss, option, value in (('pixel_opt', 'reduction', 'sum'), ('perceptual_opt', 'criterion', 'fro')):
        if (train.get(loss) or {}).get(option) == value:
            without = 'no micro_batch' if name == 'micro_batch' else 'deploy: theta'
            raise OptionError(f'train.dil.{name}: with {loss}.{option}: {value}, which is no mean over the images; '
                              f'allowed: another {option}, or {without}')
