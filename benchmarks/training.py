"""The distortions' share of training: all confounders of one clean batch against one meta-step of ``sf``."""

import functools
from typing import Any, NamedTuple

import dil_plugin.basicsr  # noqa: F401  BasicSR needs its shims

# isort: split
import torch
from basicsr.archs.rrdbnet_arch import RRDBNet
from case import photographs
from measuring import Contender
from torch import nn

from dil_plugin.basicsr.archs.rrdb_no_upsample_arch import RRDBNetNoUpsample
from dil_plugin.distortions import DistortionSet, parse_distortions
from dil_plugin.learning import MetaBatch, NetworkLoss, Pair, ReptileWalk, SerialFirstOrder


class Training(NamedTuple):
    """A kind of training.

    Attributes:
        name: Unique.
        distortions: The confounders, as in YAML.
        network: Class of the network.
        count: Clean images in a batch.
        size: Their height and width.
        target: The share allowed.
        seeds: How many draws are timed.
    """

    name: str
    distortions: list[dict[str, Any]]
    network: type[nn.Module]
    count: int
    size: int
    target: float
    seeds: int = 1


TRAININGS = (
    Training('training, denoising', [{'type': 'GaussianNoise', 'sigma': [5, 10, 15, 20]}], RRDBNetNoUpsample, 16, 64,
             target=0.03),
    Training('training, Real-ESRGAN order 1', [{'type': 'RealESRGAN', 'order': 1, 'draws': 4}], RRDBNet, 8, 128,
             target=0.25, seeds=3),
)
WIDTH = {'num_feat': 32, 'num_block': 4, 'num_grow_ch': 16}
NARROW = {'num_feat': 8, 'num_block': 1, 'num_grow_ch': 4}


def contenders(training: Training, device: str, tiny: bool) -> dict[str, Contender]:
    """``distortions``: the counterfactuals of a clean batch; ``step``: the meta-step that they are made for."""
    confounders = parse_distortions(training.distortions)
    count, size = (2, 96) if tiny else (training.count, training.size)
    clean, generator = photographs(count, size, device).images, torch.Generator(device)
    options = {} if confounders.scale == 1 else {'scale': confounders.scale}
    network = training.network(num_in_ch=3, num_out_ch=3, **options, **(NARROW if tiny else WIDTH)).to(device)
    step = meta_step(network, confounders, clean, generator)
    return {'distortions': lambda seed: confounders.counterfactuals(clean, generator.manual_seed(seed)), 'step': step}


def meta_step(network: nn.Module, confounders: DistortionSet, clean: torch.Tensor,
              generator: torch.Generator) -> Contender:
    """n inner steps of Adam, one per confounder, then one of the outer Adam; the distorted images are there already."""
    batch = MetaBatch([Pair(distorted, clean) for distorted in confounders.counterfactuals(clean, generator)], None)
    loss = NetworkLoss(network, nn.L1Loss())
    params, adam = loss.parameters(), functools.partial(torch.optim.Adam, lr=1e-4)
    variant, outer = SerialFirstOrder(ReptileWalk(params, adam)), adam(list(params.values()))

    def step(seed: int) -> None:
        for param, grad in zip(params.values(), variant(loss, params, batch).grads, strict=True):
            param.grad = grad
        outer.step()

    return step
