"""Checks and completes the blocks of data sets, and looks at what lies in their folders, before anything is made."""

from collections.abc import Mapping
from typing import Any

from dil_plugin.basicsr.checks.required_options import MODEL
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
from dil_plugin.basicsr.data.options import parse_dataset_options
from dil_plugin.basicsr.data.paired_images import PAIRS, check_paired_images, check_skipping
from dil_plugin.basicsr.data.paired_layouts import check_pair_sizes, list_pairs
from dil_plugin.basicsr.data.paired_options import parse_paired_options
from dil_plugin.basicsr.yaml_options.real_esrnet_options import THEIR_CROP
from dil_plugin.distortions import parse_distortions, scaling_entry
from dil_plugin.errors import OptionError

DATASET = 'DistortionAugmentedDataset'
PAIRED_DATASET = 'PairedConfounderDataset'


def check_data(opt: Mapping[str, Any], name: str, dataset: dict[str, Any], ours: bool) -> None:
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
