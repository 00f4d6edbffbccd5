"""Transforms after ``CounterfactualDistortions`` that would move the pixels of some of its images alone."""

import logging
from collections.abc import Iterator
from typing import Any

from mmcv.transforms import BaseTransform

from dil_plugin.errors import OptionError
from dil_plugin.mmagic.transforms import CounterfactualDistortions
from dil_plugin.mmagic.wording import say

_MOVING = {
    'CenterCropLongEdge', 'Crop', 'CropAroundCenter', 'CropAroundFg', 'CropAroundUnknown', 'CropLike', 'FixedCrop',
    'Flip', 'InstanceCrop', 'MATLABLikeResize', 'ModCrop', 'NumpyPad', 'PairedRandomCrop', 'RandomAffine',
    'RandomCropLongEdge', 'RandomDownSampling', 'RandomResize', 'RandomResizedCrop', 'RandomRotation',
    'RandomTransposeHW', 'Resize',
}
"""Transforms of mmagic that move pixels."""

_STILL = {
    'BinarizeImage', 'Clip', 'ColorJitter', 'CopyValues', 'Normalize', 'PackInputs', 'RandomBlur',
    'RandomJPEGCompression', 'RandomNoise', 'RescaleToZeroOne', 'SetValues', 'UnsharpMasking',
}
"""Those that change values, or nothing of an image."""


def check_alignment(dataset: Any) -> None:
    """Looks at the pipeline of a data set, and of those inside of it.

    Raises:
        OptionError: After ``CounterfactualDistortions`` pixels of one image are moved, and not of the others.
    """
    for transforms in _pipelines(dataset):
        for k, ours in enumerate(transforms):
            if isinstance(ours, CounterfactualDistortions):
                _check(ours, transforms[k + 1:])


def check_confounders(dataset: Any, labels: list[str]) -> None:
    """Compares the versions that the pipelines of a data set make and pack with the confounders of the model.

    Args:
        dataset: Of the training.
        labels: The confounders of the model, by name.

    Raises:
        OptionError: They are others, or in another order, so that a loss would be named after another confounder.
    """
    for transforms in _pipelines(dataset):
        for k, ours in enumerate(transforms):
            if not isinstance(ours, CounterfactualDistortions) or not _packed(transforms[k + 1:]):
                continue
            made = ours.options.mode == 'random' and ours.options.counterfactuals
            if made and ours.distortions.labels != labels:
                raise OptionError(f'CounterfactualDistortions.distortions: {", ".join(ours.distortions.labels)}; '
                                  'allowed with this model.distortions: the same, in the same order: '
                                  f'{", ".join(labels)}')


def _pipelines(dataset: Any) -> Iterator[list[Any]]:
    """Of a data set, and of what ConcatDataset, RepeatDataset and the like hold."""
    pipeline = getattr(getattr(dataset, 'pipeline', None), 'transforms', None)
    if pipeline is not None:
        yield list(_unpacked(pipeline))
        return
    inner = getattr(dataset, 'dataset', None)
    for one in [*getattr(dataset, 'datasets', ()), *([] if inner is None else [inner])]:
        yield from _pipelines(one)


def _unpacked(transforms: Any) -> Iterator[Any]:
    """Transforms in their order; of RandomApply, KeyMapper and the like those inside."""
    for transform in transforms:
        inside = getattr(transform, 'transforms', None)
        inside = getattr(inside, 'transforms', inside)  # of a Compose
        if isinstance(inside, list) and inside and all(isinstance(one, BaseTransform) for one in inside):
            yield from _unpacked(inside)
        else:
            yield transform


def _packed(later: list[Any]) -> bool:
    """Whether a transform gives the versions to the model."""
    return any('counterfactuals' in getattr(one, 'data_keys', ()) for one in later)


def _check(ours: CounterfactualDistortions, later: list[Any]) -> None:
    images = {'img', ours.options.key}
    if _packed(later):
        images.add('counterfactuals')
    for transform in later:
        name = type(transform).__name__
        touched = images & _keys(transform)
        # a stack of counterfactuals is no image to any transform, so that none moves it as it moves an image
        if not touched or name in _STILL or (touched == images and 'counterfactuals' not in images):
            continue
        moved = touched - {'counterfactuals'} or touched
        what = f'{name} after CounterfactualDistortions changes {", ".join(sorted(moved))}'
        left = ', '.join(sorted(images - moved))
        advice = 'put it before CounterfactualDistortions'
        if any(kind.__name__ in _MOVING for kind in type(transform).__mro__):
            raise OptionError(f'pipeline: {what} and not {left}, which then shows other pixels; {advice}' +
                              ('' if 'counterfactuals' in images else f', or give it all of {sorted(images)}'))
        say(f'pipeline: {what} and not {left}; where it moves pixels, {advice}.', logging.WARNING)


def _keys(transform: Any) -> set[str]:
    """The results that a transform says it changes."""
    found: set[str] = set()
    for name in ('keys', 'key', 'lq_key', 'gt_key', 'target_key'):
        value = getattr(transform, name, ())
        found |= {value} if isinstance(value, str) else {one for one in value or () if isinstance(one, str)}
    return found
