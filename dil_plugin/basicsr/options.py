"""Checks and completes the options that BasicSR parsed, before anything is built from them."""

import contextlib
import importlib
import os
import random
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import yaml

from dil_plugin.basicsr.checks.best_network import check_kept_best
from dil_plugin.basicsr.checks.built_from import check_blocks_of_basicsr
from dil_plugin.basicsr.checks.moving_average import warn_of_the_start
from dil_plugin.basicsr.checks.network_check import check_network
from dil_plugin.basicsr.checks.prefetching import complete_prefetching
from dil_plugin.basicsr.checks.pretrained import check_pretrained, complete_param_key
from dil_plugin.basicsr.checks.required_options import MODEL, check_names, check_required, check_values
from dil_plugin.basicsr.checks.step_options import check_step_options
from dil_plugin.basicsr.data.amounts import check_batches, check_metric_sizes, check_workers
from dil_plugin.basicsr.data.basicsr_sets import (
    check_basicsr_set,
    check_normalisation,
    check_roots,
    complete_defaults,
    of_basicsr,
    restores_images,
)
from dil_plugin.basicsr.data.image_list import check_file_sizes, clean_images
from dil_plugin.basicsr.data.options import NO_OPTIONS, parse_dataset_options, refuse_options_of_others
from dil_plugin.basicsr.data.paired_images import PAIRS, check_paired_images, check_skipping
from dil_plugin.basicsr.data.paired_layouts import check_pair_sizes, list_pairs
from dil_plugin.basicsr.data.paired_options import parse_paired_options
from dil_plugin.basicsr.resuming.training_states import DrawnSeed
from dil_plugin.basicsr.yaml_options.checking import check_blocks, refuse_unknown_options
from dil_plugin.basicsr.yaml_options.layout import misplaced, seed_given
from dil_plugin.basicsr.yaml_options.real_esrnet_options import THEIR_CROP, patch_size, take_flat_options
from dil_plugin.basicsr.yaml_options.relations import check_relations
from dil_plugin.distortions import DistortionSet, parse_distortions, scaling_entry
from dil_plugin.errors import DILError, MissingOption, OptionError
from dil_plugin.learning.options import DILOptions, parse_dil_options
from dil_plugin.missing_files import no_such
from dil_plugin.mistakes import Mistakes, raise_all
from dil_plugin.options import did_you_mean
from dil_plugin.sampling import PairedSets, build_sampler

DATASET = 'DistortionAugmentedDataset'
PAIRED_DATASET = 'PairedConfounderDataset'


@contextlib.contextmanager
def reading_options() -> Iterator[None]:
    """Turns what goes wrong while BasicSR reads a YAML file into errors that a user can act on."""
    try:
        yield
    except DILError:
        raise
    except FileNotFoundError as error:
        raise OptionError(f'-opt: {no_such(error.filename)}') from None
    except OSError as error:
        raise OptionError(f'-opt: {error.filename} cannot be read ({error.strerror})') from None
    except UnicodeDecodeError as error:
        file = sys.argv[sys.argv.index('-opt') + 1] if '-opt' in sys.argv[:-1] else 'the file'
        raise OptionError(f'-opt: {file} is not a text file in UTF-8 ({error}); allowed: YAML saved as UTF-8') from None
    except (ValueError, SyntaxError, NameError, IndexError) as error:
        if str(error).startswith('Seed must be'):  # NumPy's
            raise OptionError(f'manual_seed: {error}, got {seed_given(sys.argv)}') from None
        raise OptionError(f'--force_yml: expected KEY:KEY=VALUE with keys of the YAML ({error})') from None
    except yaml.YAMLError as error:
        raise OptionError(f'-opt: not a YAML file: {error}') from None
    except KeyError as error:
        raise OptionError(f'the options have no key {error} (needed by BasicSR, or named in --force_yml)') from None
    except (AttributeError, TypeError) as error:
        raise_all(OptionError(f'-opt or --force_yml: not laid out as BasicSR expects ({where})')
                  for where in misplaced(sys.argv) or [str(error)])


def read_yaml(path: str) -> dict[str, Any]:
    """The options as they stand in the file."""
    with open(path) as file:
        return yaml.safe_load(file)


def check_forced_keys(raw: Mapping[str, Any], entries: list[str]) -> None:
    """Raises OptionError where ``--force_yml`` names a key that the YAML does not have: BasicSR would ignore it."""
    mistakes = Mistakes()
    for entry in entries:
        block: Any = raw
        for name in entry.split('=')[0].strip().split(':'):
            if not isinstance(block, Mapping) or name not in block:
                keys = [str(key) for key in block] if isinstance(block, Mapping) else []
                known = did_you_mean(name, keys)
                mistakes.add(OptionError(f"--force_yml {entry}: the YAML has no key '{name}' there; {known}"))
                break
            block = block[name]
    mistakes.end()


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
            complete_param_key(opt)
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
            _check_data(opt, name, dataset, ours)
    elif kind == DATASET and mistakes.spare(*takes):
        with mistakes:
            parse_dataset_options(dataset, key)


def _check_run(opt: Mapping[str, Any], dil: DILOptions | None, distortions: DistortionSet | PairedSets | None,
               mistakes: Mistakes) -> None:
    """Checks what takes options that are right: how a step is computed, the network, its weights."""
    if dil is not None and distortions is not None \
            and mistakes.spare('train.total_iter', 'train.accum_iter', 'train.amp', 'train.ema_decay', 'network_g'):
        with mistakes:
            check_step_options(opt, dil, build_sampler(dil, distortions).erm_steps if dil.variant == 'erm' else 1)
    if opt['is_train'] and mistakes.spare('val', 'datasets'):
        with mistakes:
            check_kept_best(opt)
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


def _check_data(opt: Mapping[str, Any], name: str, dataset: dict[str, Any], ours: bool) -> None:
    """Checks a data set's block and what lies in its folders, and completes the block."""
    key, kind, images = f'datasets.{name}', dataset.get('type'), 0
    check_skipping(key, dataset)
    check_workers(key, dataset)
    complete_defaults(dataset, opt.get('scale', 1))
    if of_basicsr(kind) and (ours or restores_images(opt)):
        measured = dataset['phase'] != 'train' or ours
        check_normalisation(key, dataset, opt['model_type'], refuse=measured)
    if kind == DATASET:
        paths = _complete_dataset(opt, name, dataset)
        images = len(paths)
        if dataset['phase'] != 'train':
            check_metric_sizes(opt, key, paths, dataset['dataroot_gt'], dataset['io_backend']['type'])
    elif kind == PAIRED_DATASET:
        images = _complete_paired_dataset(opt, name, dataset)
    elif kind in PAIRS:
        paths = check_paired_images(key, dataset, opt.get('scale', 1), ours)
        images = len(paths)
        if ours and dataset['phase'] != 'train':
            check_metric_sizes(opt, key, paths, dataset['dataroot_gt'], dataset['io_backend']['type'])
    elif of_basicsr(kind):
        check_basicsr_set(key, dataset)
    elif ours:
        check_roots(key, dataset)
    if ours and images and dataset['phase'] == 'train' and opt['is_train']:
        check_batches(opt, images)


def parse_training_options(opt: Mapping[str, Any]) -> tuple[DILOptions, DistortionSet | PairedSets]:
    """The typed ``train.dil`` block and the confounders: of the ``distortions`` block, or the sets of paired data.

    Raises:
        OptionError: A block is missing or wrong.
    """
    return _parse_dil(opt), _parse_confounders(opt)


def _parse_dil(opt: Mapping[str, Any]) -> DILOptions:
    if 'dil' not in (opt.get('train') or {}):
        raise MissingOption('train.dil: the block is missing; model_type DILModel needs it, as in '
                            'dil: {variant: sf, inner: {type: Adam, lr: 0.0001}}', 'train', ('train.dil', ))
    return parse_dil_options(opt['train']['dil'])


def _parse_confounders(opt: Mapping[str, Any]) -> DistortionSet | PairedSets:
    train = opt['datasets'].get('train') or {}
    if train.get('type') == PAIRED_DATASET:
        _, sets = parse_paired_options(train, 'datasets.train')
        return PairedSets(tuple(one.name for one in sets))
    if opt.get('distortions') is None:
        raise MissingOption('distortions: the block is missing; DILModel makes the counterfactuals from it, as in '
                            '- {type: GaussianNoise, sigma: [5, 10, 15, 20]}', '', ('distortions', ))
    return parse_distortions(opt['distortions'])


def import_modules(opt: Mapping[str, Any]) -> None:
    """Imports the modules of the option ``custom_imports``: confounders, networks and data sets of the user's own.

    Raises:
        OptionError: It is no list of names, or a module cannot be imported.
    """
    names = opt.get('custom_imports') or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise OptionError(f'custom_imports: expected a list of module names, got {names!r}')
    if names and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a tool is started by its path, so its own folder stands there, not the user's
    mistakes = Mistakes()
    for name in names:
        with mistakes:
            _import(name)
    mistakes.end()


def _import(name: str) -> None:
    if not all(part.isidentifier() for part in name.split('.')):
        raise OptionError(f"custom_imports: {name!r} is no module's name; allowed: names with dots, without .py, as "
                          'my_networks for my_networks.py of the current folder')
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise OptionError(f'custom_imports: {name} cannot be imported: {error}; allowed: modules of the current '
                          'folder or of the Python path') from None


def _check_use_of_pairs(opt: Mapping[str, Any], dil: DILOptions) -> None:
    train = opt['datasets'].get('train', {})
    if train.get('type') != DATASET and train.get('dataroot_lq') and dil.variant in ('sf', 'mldg', 'erm'):
        if dil.variant == 'erm' and dil.erm_sampling == 'serial':
            raise OptionError('train.dil.erm_sampling: serial, but datasets.train is of type '
                              f'{train["type"]}, of whose pairs nobody knows the confounders; allowed: mixed')
        effect = 'erm trains on the pairs: the distortions block has no effect' if dil.variant == 'erm' else \
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


def _complete_dataset(opt: Mapping[str, Any], name: str, dataset: dict[str, Any]) -> list[str]:
    """The paths or keys of its images."""
    key = f'datasets.{name}'
    train = dataset['phase'] == 'train'
    ours = opt.get('model_type') == MODEL
    if train:
        dataset.setdefault('distort_on', 'device' if ours else 'worker')
        dataset.setdefault('counterfactuals', ours)
        dataset.setdefault('seed', opt['manual_seed'])
        dataset.setdefault('gt_usm', opt.get('gt_usm') or False)
        if ours and dataset['gt_usm'] != (opt.get('gt_usm') or False):
            raise OptionError(f'{key}.gt_usm: with {MODEL} it stands at the top level; remove it here')
        if dataset['distort_on'] == 'device' and not ours:
            raise OptionError(f'{key}.distort_on: device needs model_type {MODEL}, got {opt["model_type"]}; '
                              'allowed: worker')
        if not isinstance(dataset.get('gt_size'), int):
            raise OptionError(f'{key}.gt_size: expected the side of a training patch in pixels, got '
                              f'{dataset.get("gt_size")!r}')
        if ours and opt.get('gt_size') is not None:  # as a Real-ESRNet YAML has it
            dataset.setdefault('crop_pad_size', max(THEIR_CROP, opt['gt_size']))
    if dataset.get('distortions') is None:
        if opt.get('distortions') is None:
            raise OptionError(f'{key}.distortions: neither this data set nor the top level has a distortions block')
        dataset['distortions'] = opt['distortions']
    distortions = parse_distortions(dataset['distortions'], f'{key}.distortions')
    if not train and len(distortions) != 1:
        raise OptionError(f'{key}.distortions: a validation or test set takes one distortion, got '
                          f'{", ".join(distortions.labels)}; give one data set per degree')
    options = parse_dataset_options(dataset, key)
    paths = clean_images(options, key)  # before BasicSR makes the experiment's folder, and renames an earlier run's
    if options.io_backend['type'] == 'disk' and options.on_bad_image == 'error':
        check_file_sizes(paths, options.gt_size if train else distortions.min_size, key, 'gt_size' if train else
                         distortions.labels[0])
    if distortions.scale != options.scale:
        raise OptionError(f'{key}.distortions: they divide the resolution by {distortions.scale}, but scale is '
                          f'{options.scale}; allowed: {scaling_entry(dataset["distortions"], options.scale)}')
    if train and distortions.min_size > options.synthesis_size:
        names = ', '.join(dict.fromkeys(d.label for d in distortions))
        option = 'gt_size' if options.crop_pad_size is None else 'crop_pad_size'
        raise OptionError(f'{key}.{option}: {options.synthesis_size} is less than the {distortions.min_size} pixels '
                          f'that the distortions need ({names})')
    if train and ours and list(distortions) != list(parse_distortions(opt['distortions'])):
        raise OptionError(f'{key}.distortions: with {MODEL} the training data set takes the confounders of the top '
                          "level's distortions block; remove this one")
    return paths


def _complete_paired_dataset(opt: Mapping[str, Any], name: str, dataset: dict[str, Any]) -> int:
    """The number of samples in an epoch."""
    key = f'datasets.{name}'
    if dataset['phase'] == 'train':
        if opt.get('distortions') is not None:
            raise OptionError(f'distortions: {key} is of type {PAIRED_DATASET}, whose sets of pairs are the '
                              f'confounders; allowed: this block or {key}.confounders, not both')
        if opt.get('gt_usm'):
            raise OptionError(f'gt_usm: {opt["gt_usm"]!r}, but the pairs of {key} ({PAIRED_DATASET}) stay as they are; '
                              'allowed: false')
        dataset.setdefault('seed', opt['manual_seed'])
        ours = opt.get('model_type') == MODEL
        if dataset.setdefault('pairs', 'all' if ours else 'one') == 'one' and ours:
            raise OptionError(f'{key}.pairs: one, but {MODEL} needs the pair of every set; allowed: all')
        if not isinstance(dataset.get('gt_size'), int):
            raise OptionError(f'{key}.gt_size: expected the side of a training patch in pixels, got '
                              f'{dataset.get("gt_size")!r}')
    options, sets = parse_paired_options(dataset, key)
    most = 0
    for one in sets:  # before BasicSR makes the experiment's folder, and renames the one of an earlier run
        pairs = list_pairs(one, options)
        most = max(most, len(pairs))
        if one.io_backend['type'] == 'disk' and options.phase == 'train':
            check_pair_sizes(one, pairs, options)
    return options.length or most
