"""What DILModel is put together from: the sampler of meta-batches."""

import torch
from msgspec import UNSET

from dil_plugin.distortions import DistortionSet
from dil_plugin.learning.options import VARIANTS, DILOptions
from dil_plugin.sampling import MetaBatchSampler


def build_sampler(options: DILOptions,
                  distortions: DistortionSet,
                  seed: int = 0,
                  device: torch.device | str = 'cpu') -> MetaBatchSampler:
    """The sampler that the variant of ``options`` needs; ``seed`` must differ between ranks."""
    variant = VARIANTS[options.variant]
    erm_steps = None if options.erm_steps is UNSET else options.erm_steps
    return MetaBatchSampler(distortions, variant.uses_confounders, variant.uses_query, options.patches, erm_steps, seed,
                            device)
