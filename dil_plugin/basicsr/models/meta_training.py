"""What DILModel is put together from: the sampler of meta-batches."""

import torch
from msgspec import UNSET

from dil_plugin.distortions import DistortionSet
from dil_plugin.learning.options import VARIANTS, DILOptions
from dil_plugin.sampling import MetaBatchSampler


def build_sampler(options: DILOptions,
                  distortions: DistortionSet,
                  seed: int = 0,
                  device: torch.device | str = 'cpu',
                  crop: int | None = None,
                  queue_size: int | None = None) -> MetaBatchSampler:
    """The sampler that the variant of ``options`` needs.

    Args:
        options: The block ``train.dil``.
        distortions: The confounders.
        seed: Must differ between ranks.
        device: Where the patches are.
        crop: Side of the patches that are cut after the distortion.
        queue_size: Groups in the training pair pool; None: no pool.
    """
    variant = VARIANTS[options.variant]
    erm_steps = None if options.erm_steps is UNSET else options.erm_steps
    return MetaBatchSampler(distortions, variant.uses_confounders, variant.uses_query, options.patches, erm_steps, seed,
                            device, crop, queue_size)
