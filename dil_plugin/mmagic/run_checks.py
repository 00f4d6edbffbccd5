"""What can be told of a run before its first iteration, and would end it, or spoil its resumption, later."""

import logging
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader

from dil_plugin.distortions import DistortionSet
from dil_plugin.errors import DataError, OptionError
from dil_plugin.mmagic.options import ModelOptions
from dil_plugin.mmagic.wording import say
from dil_plugin.sampling import build_sampler

_BATCH = 'train_dataloader.batch_size'


def check_batches(loader: DataLoader, options: ModelOptions, distortions: DistortionSet) -> None:
    """Divides the batches of a loader as the model will, the last one of an epoch too.

    Raises:
        OptionError: One cannot be divided.
        DataError: There is none.
    """
    if loader.batch_size is None or loader.batch_sampler is None:  # batches of others' making
        return
    sampler = build_sampler(options.dil, distortions, crop=options.gt_size, queue_size=options.queue_size)
    sampler.check_batch_size(loader.batch_size, _BATCH)
    if isinstance(loader.sampler, InfiniteSampler):
        return
    images = len(loader.sampler)  # type: ignore[arg-type]
    if len(loader) == 0:
        raise DataError(f'train_dataloader: {images} images make no batch of {loader.batch_size} with drop_last=True; '
                        f'allowed: a {_BATCH} of at most {images}')
    rest = images % loader.batch_size
    if loader.drop_last or not rest:
        return
    try:
        sampler.check_batch_size(rest, _BATCH)
    except OptionError as error:
        raise OptionError(f'train_dataloader: the last batch of an epoch has {rest} of {loader.batch_size} images '
                          f'(there are {images}); add drop_last=True to train_dataloader, since {error}') from None


def warn_of_order(runner: Any) -> None:
    """Says what keeps a resumed run from the images that the uninterrupted one would have seen."""
    resumed = runner.iter > 0
    if runner.cfg and (runner.cfg.get('randomness') or {}).get('seed') is None:
        if resumed:
            say('randomness.seed: the config has none, so that this resumed run takes its images in another order than '
                f'the run it goes on with; randomness = dict(seed={runner.seed}) has that order.', logging.WARNING)
        else:
            say('randomness.seed: the config has none; a run that is resumed from this one would take its images in '
                'another order. Add randomness = dict(seed=0), or another number.', logging.WARNING)
    within = runner.iter - runner.epoch * len(runner.train_dataloader)
    if resumed and isinstance(runner.train_loop, EpochBasedTrainLoop) and within > 0:
        say(f'The checkpoint is from within an epoch, after {within} of its {len(runner.train_dataloader)} iterations; '
            'EpochBasedTrainLoop begins that epoch anew. IterBasedTrainLoop goes on where it was.', logging.WARNING)
