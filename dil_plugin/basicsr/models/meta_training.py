"""What DILModel is put together from: the sampler of meta-batches, and checkpoints that are never half written."""

import os
import tempfile
from typing import Any

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


def save_atomically(content: Any, path: str) -> None:
    """``torch.save`` into a temporary file beside ``path``, which takes its place only when it is whole and on disk."""
    folder, name = os.path.split(path)
    handle, temporary = tempfile.mkstemp(prefix=f'.{name}.', dir=folder)
    try:
        with os.fdopen(handle, 'wb') as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
