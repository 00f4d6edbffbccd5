"""Checks and completes the options that BasicSR parsed, before anything is built from them."""

import random
import sys
from collections.abc import Mapping
from typing import Any

import torch

from dil_plugin.basicsr.checks.best_network import check_kept_best
from dil_plugin.basicsr.checks.built_from import check_blocks_of_basicsr
from dil_plugin.basicsr.checks.moving_average import warn_of_the_start
from dil_plugin.basicsr.checks.network_check import check_network
from dil_plugin.basicsr.checks.prefetching import complete_prefetching
from dil_plugin.basicsr.checks.pretrained import check_pretrained, check_pretrained_file, complete_from_checkpoint
from dil_plugin.basicsr.checks.required_options import MODEL, check_names, check_required, check_values
from dil_plugin.basicsr.checks.step_options import check_step_options
from dil_plugin.basicsr.data.basicsr_sets import (
    check_roots,
    of_basicsr,
)
from dil_plugin.basicsr.data.checking_data import DATASET, PAIRED_DATASET, check_data
from dil_plugin.basicsr.data.options import NO_OPTIONS, parse_dataset_options, refuse_options_of_others
from dil_plugin.basicsr.data.paired_images import PAIRS
from dil_plugin.basicsr.data.paired_options import parse_paired_options
from dil_plugin.basicsr.resuming.training_states import DrawnSeed
from dil_plugin.basicsr.yaml_options.checking import check_blocks, refuse_unknown_options
from dil_plugin.basicsr.yaml_options.reading import import_modules
from dil_plugin.basicsr.yaml_options.real_esrnet_options import patch_size, take_flat_options
from dil_plugin.basicsr.yaml_options.relations import check_relations
from dil_plugin.distortions import DistortionSet, parse_distortions, scaling_entry
from dil_plugin.errors import MissingOption, OptionError
from dil_plugin.learning.options import DILOptions, parse_dil_options
from dil_plugin.mistakes import Mistakes
from dil_plugin.sampling import PairedSets, build_sampler


def complete_options(opt: dict[str, Any]) -> None:
    """Checks the whole YAML and hands the top level's ``distortions`` and seed to our data sets, in place.

    Args:
        opt: The options as BasicSR's ``parse_options`` returns them.

    Raises:
        OptionError: Something is unknown, wrong or missing; the message names the key, the value and what is allowed.
    """
    _draw_missing_seed(opt)
    mistakes = Mistakes()
    with mistakes:
        import_modules(opt)
    ours, training = opt.get('model_type') == MODEL, bool(opt['is_train'])
    if ours:
        with mistakes:
            refuse_unknown_options(opt)
    with mistakes:
        check_required(opt)
    if mistakes.spare('custom_imports'):
        with mistakes:
            check_names(opt)
    if not mistakes.spare('model_type'):
        mistakes.end()  # all else depends on it
    for check in (_check_device, check_values, check_blocks_of_basicsr):
        with mistakes:
            check(opt)
    if not training:
        with mistakes:
            complete_from_checkpoint(opt)
        if isinstance(opt.get('val'), dict):
            opt['val'].setdefault('suffix', None)  # BasicSR reads it without asking
    if training and isinstance(opt.get('logger'), dict):
        opt['logger'].setdefault('use_tb_logger', False)  # BasicSR's loggers ask for it
    dil, distortions = _check_method(opt, mistakes) if ours and training else (None, None)
    if training and not ours and 'dil' in (opt.get('train') or {}):
        sys.stderr.write(f'Warning: train.dil has no effect with model_type {opt.get("model_type")} (only {MODEL}).\n')
    for name, dataset in opt['datasets'].items():
        _check_data_or_block(opt, name, dataset, mistakes)
    if training and not ours:
        with mistakes:
            warn_of_the_start(opt)
    if ours:
        for check_with in (check_blocks, check_relations):
            with mistakes:
                check_with(opt, mistakes.spare)
        _check_run(opt, dil, distortions, mistakes)
    mistakes.end()


def _check_method(opt: dict[str, Any], mistakes: Mistakes) -> tuple[DILOptions | None,
                                                                    DistortionSet | PairedSets | None]:
    """Checks ``train.dil`` and the confounders, each for itself and together; returns those that are right."""
    dil, distortions = None, None
    if mistakes.spare('distortions', 'custom_imports'):
        with mistakes:
            take_flat_options(opt)
    if mistakes.spare('train.dil'):
        with mistakes:
            dil = _parse_dil(opt)
    if mistakes.spare('distortions', 'datasets.train.type', 'datasets.train.confounders', 'custom_imports'):
        with mistakes:
            distortions = _parse_confounders(opt)
    expected = opt.get('scale', 1)
    if isinstance(distortions, DistortionSet) and mistakes.spare('scale') and distortions.scale != expected:
        mistakes.add(OptionError(f'scale: {expected}, but the confounders of the distortions block divide the '
                                 f'resolution by {distortions.scale}; allowed: scale: {distortions.scale} at the top '
                                 f'level, or {scaling_entry(opt["distortions"], expected)}'))
    if dil is not None and distortions is not None and mistakes.spare('datasets.train.batch_size_per_gpu'):
        with mistakes:
            _check_batch_size(opt, dil, distortions)
    if dil is not None:
        with mistakes:
            _check_use_of_pairs(opt, dil)
    return dil, distortions


def _check_data_or_block(opt: Mapping[str, Any], name: str, dataset: Any, mistakes: Mistakes) -> None:
    """Checks a data set; where something is wrong with its options, or with what it takes, what can be told then."""
    key, ours, kind = f'datasets.{name}', opt.get('model_type') == MODEL, dataset.get('type')
    takes = ['scale', 'manual_seed', 'gt_usm', 'gt_size'] if kind in (DATASET, PAIRED_DATASET) else []
    made_of = ['distortions'] if kind == DATASET and dataset.get('distortions') is None else []
    if kind in NO_OPTIONS:
        with mistakes:
            refuse_options_of_others(dataset, kind, key)
    if ours or kind == DATASET or of_basicsr(kind):
        with mistakes:
            check_roots(key, dataset)
    if mistakes.spare(key, 'custom_imports', *takes, *made_of):
        with mistakes:
            check_data(opt, name, dataset, ours)
    elif kind == DATASET and mistakes.spare(*takes):
        with mistakes:
            parse_dataset_options(dataset, key)


def _check_run(opt: Mapping[str, Any], dil: DILOptions | None, distortions: DistortionSet | PairedSets | None,
               mistakes: Mistakes) -> None:
    """Checks what takes options that are right: how a step is computed, the network, its weights."""
    step = ('train.total_iter', 'train.accum_iter', 'train.amp', 'train.ema_decay', 'train.pixel_opt',
            'train.perceptual_opt', 'network_g', 'scale', 'num_gpu', 'gt_size', 'datasets.train.gt_size')
    if dil is not None and distortions is not None and mistakes.spare(*step):
        with mistakes:
            check_step_options(opt, dil, build_sampler(dil, distortions).erm_steps if dil.variant == 'erm' else 1)
    for check in (check_kept_best, check_pretrained_file) if opt['is_train'] else ():
        with mistakes:
            check(opt)
    if mistakes.spare('network_g', 'custom_imports'):
        if mistakes.spare('scale', 'num_gpu', 'gt_size', 'datasets.train.gt_size'):
            with mistakes:
                check_network(opt)
        if mistakes.spare('path', 'network_g'):
            with mistakes:
                check_pretrained(opt)


def _draw_missing_seed(opt: dict[str, Any]) -> None:
    """Draws ``manual_seed`` where ``--force_yml`` takes it away: BasicSR draws for what stands in the file."""
    if opt['manual_seed'] is not None:
        return
    seeds = [random.SystemRandom().randint(1, 10000)]  # the global generator is seeded already
    if opt['dist']:
        torch.distributed.broadcast_object_list(seeds, src=0)
    opt['manual_seed'] = DrawnSeed(seeds[0])


def parse_training_options(opt: Mapping[str, Any]) -> tuple[DILOptions, DistortionSet | PairedSets]:
    """The typed ``train.dil`` block and the confounders: of the ``distortions`` block, or the sets of paired data.

    Raises:
        OptionError: A block is missing or wrong.
    """
    return _parse_dil(opt), _parse_confounders(opt)


def _parse_dil(opt: Mapping[str, Any]) -> DILOptions:
    if 'dil' not in (opt.get('train') or {}):
        raise MissingOption('train.dil: the block is missing; model_type DILModel needs it, as in '
                            'dil: {variant: sf, inner: {type: Adam, lr: 0.0001}}', ('train.dil', ))
    return parse_dil_options(opt['train']['dil'])


def _parse_confounders(opt: Mapping[str, Any]) -> DistortionSet | PairedSets:
    train = opt['datasets'].get('train') or {}
    if train.get('type') == PAIRED_DATASET:
        _, sets = parse_paired_options(train, 'datasets.train')
        return PairedSets(tuple(one.name for one in sets))
    if opt.get('distortions') is None and train.get('type') in PAIRS and _variant(opt) == 'erm':
        return PairedSets(('pairs', ))  # plain steps on what the data set gives
    if opt.get('distortions') is None:
        raise MissingOption('distortions: the block is missing; DILModel makes the counterfactuals from it, as in '
                            '- {type: GaussianNoise, sigma: [5, 10, 15, 20]}', ('distortions', ))
    return parse_distortions(opt['distortions'])


def _variant(opt: Mapping[str, Any]) -> Any:
    dil = opt['train'].get('dil') if isinstance(opt.get('train'), Mapping) else None
    return dil.get('variant') if isinstance(dil, Mapping) else None


def _check_use_of_pairs(opt: Mapping[str, Any], dil: DILOptions) -> None:
    train = opt['datasets'].get('train', {})
    if train.get('type') != DATASET and train.get('dataroot_lq') and dil.variant in ('sf', 'mldg', 'erm'):
        if dil.variant == 'erm' and dil.erm_sampling == 'serial':
            raise OptionError('train.dil.erm_sampling: serial, but datasets.train is of type '
                              f'{train["type"]}, of whose pairs nobody knows the confounders; allowed: mixed')
        if dil.variant == 'erm' and opt.get('distortions') is None:
            return
        effect = 'erm trains on the pairs: the distortions block gives no more than the default of erm_steps' \
            if dil.variant == 'erm' else \
            f'{dil.variant} has no query batch: dataroot_lq has no effect (pf, ss and ps use it)'
        sys.stderr.write(f'Warning: datasets.train is of type {train["type"]}, and {effect}.\n')


def _check_device(opt: Mapping[str, Any]) -> None:
    gpus = opt['num_gpu']
    if gpus != 0 and not torch.cuda.is_available():
        raise OptionError(f'num_gpu: {gpus}, but torch sees no CUDA device; allowed here: 0 or auto')
    if opt.get('model_type') == MODEL and gpus > 1 and not opt['dist']:
        raise OptionError(f'num_gpu: {gpus} in one process; allowed for {MODEL}: 0, 1, or one process per GPU by '
                          'torchrun with --launcher pytorch')
    complete_prefetching(opt)


def _check_batch_size(opt: Mapping[str, Any], dil: DILOptions, distortions: DistortionSet | PairedSets) -> None:
    train = opt['datasets'].get('train')
    if train is not None:
        size = train.get('batch_size_per_gpu')
        if not isinstance(size, int) or size < 1:
            raise OptionError(f'datasets.train.batch_size_per_gpu: expected an integer >= 1, got {size!r}')
        build_sampler(dil, distortions, crop=patch_size(opt), queue_size=opt.get('queue_size')).check_batch_size(size)
