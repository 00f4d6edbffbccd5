"""The fixed training patches of ``train.dil.deploy: phi``, drawn once, alike in every run with the same seed."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from basicsr.data import build_dataset
from torch import Tensor
from torch.utils.data import default_collate

from dil_plugin.basicsr.data.byte_images import on_device
from dil_plugin.basicsr.data.draw_sampler import Draw
from dil_plugin.basicsr.data.numbered_samples import NumberedSamples
from dil_plugin.distortions import DistortionSet
from dil_plugin.learning import Pair
from dil_plugin.sampling import MetaBatchSampler, PairedSets

_NUMBER = 0x4450  # keeps these draws apart from all others
_FIRST_DRAW = 2**62  # beyond those of any training


def deployment_seed(seed: int) -> int:
    """The seed of the patches, their distortions and the virtual update, of a run's ``manual_seed``."""
    return int(np.random.SeedSequence((_NUMBER, seed)).generate_state(1)[0])


def draw_patches(opt: Mapping[str, Any],
                 distortions: DistortionSet | PairedSets,
                 count: int,
                 part: int,
                 device: torch.device,
                 crop: int | None = None,
                 prepare: Callable[[Tensor], Tensor] = lambda gt: gt) -> list[Pair]:
    """Patches of the training data set under every confounder; with sets of pairs, pairs of every set.

    They depend on ``manual_seed``, the data set and the kind of device alone: not on the training so far, nor on the
    number of processes, each of which draws all of them.

    Args:
        opt: The options of the run.
        distortions: The confounders.
        count: Patches; of as many different images as there are.
        part: So many are distorted at a time.
        device: Where they are distorted.
        crop: Side of the patches that are cut from distorted ones.
        prepare: What is done to clean patches first.

    Returns:
        A pair of ``count`` images on the CPU for each confounder.
    """
    seed = deployment_seed(int(opt['manual_seed']))
    dataset = NumberedSamples(build_dataset(opt['datasets']['train']), seed)
    images = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed)).tolist()
    sampler = MetaBatchSampler(distortions, True, False, 'same', seed=seed, device=device, crop=crop)
    parts: list[list[Pair]] = []
    for first in range(0, count, part):
        numbers = range(first, min(first + part, count))
        samples = [dataset[Draw(images[k % len(images)], _FIRST_DRAW + k)] for k in numbers]
        batch = {name: on_device(default_collate([sample[name] for sample in samples]), device)
                 for name, value in samples[0].items() if isinstance(value, Tensor)}
        if 'confounder_lq' in batch:
            [made] = sampler.sample_pairs(batch['confounder_lq'], batch['confounder_gt'])
        else:
            [made] = sampler.sample(prepare(batch['gt']), None, batch.get('counterfactuals'))
        parts.append([Pair(lq.cpu(), gt.cpu()) for lq, gt in made.confounders])
    return [Pair(*(torch.cat(side) for side in zip(*same, strict=True))) for same in zip(*parts, strict=True)]
