"""What the checkpoints of a training are worth: PSNR on every condition, of ``theta``, its average and ``phi``."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dil_plugin.basicsr  # noqa: F401  (adapts BasicSR, so it comes before it)

# isort: split
from basicsr.data import build_dataset
from basicsr.losses import build_loss
from basicsr.metrics import calculate_psnr, calculate_ssim

from dil_plugin.basicsr.data.draw_sampler import Draw
from dil_plugin.checkpoints import load_checkpoint
from dil_plugin.distortions import DistortionSet, parse_distortions
from dil_plugin.errors import NumericalError
from dil_plugin.evaluation.inputs import to_image
from dil_plugin.evaluation.invariance.measuring import METRICS, measure_invariance
from dil_plugin.evaluation.networks import RestorationNetwork, load_network
from dil_plugin.learning import NetworkLoss, Pair
from dil_plugin.learning.gradients import mean_gradient
from dil_plugin.learning.virtual_update import virtual_update
from dil_plugin.study.options import TestOptions
from dil_plugin.study.results import Scores
from dil_plugin.study.test_conditions import Condition, clean_crops

CHUNK = 8  # images that go through the network at a time
_METRICS = {'psnr': calculate_psnr, 'ssim': calculate_ssim}


def measure_checkpoints(checkpoints: Sequence[Path], conditions: Sequence[Condition], options: TestOptions,
                        kinds: Sequence[str], pairs: Sequence[Pair], alphas: Sequence[float], loss: dict[str, Any],
                        device: str) -> dict[str, Scores]:
    """Scores every checkpoint.

    Args:
        checkpoints: Of one training, in the order of its points.
        conditions: What they are tested on.
        options: The block ``test`` of the study.
        kinds: ``theta``, ``ema``, ``phi``.
        pairs: Training patches under every confounder, for ``phi``.
        alphas: Its learning rates.
        loss: The block ``train.pixel_opt``, for ``phi``.
        device: Where the networks run.

    Returns:
        By parameters, condition and metric, one number for each checkpoint: the mean over images.

    Raises:
        NumericalError: An output is not finite.
    """
    scores: dict[str, Scores] = {}
    network = load_network(checkpoints[0], param_key='params', device=device)
    criterion = NetworkLoss(network.module, build_loss(dict(loss)) if loss else torch.nn.L1Loss(), network.outputs)
    for path in checkpoints:
        for name, state in _parameters(network, load_checkpoint(path, 'checkpoint'), kinds, pairs, alphas, criterion):
            network.module.load_state_dict(state)
            for condition in conditions:
                of_condition = scores.setdefault(name, {}).setdefault(condition.name, {})
                for metric, value in _score(network, condition, options, f'{path.name}, {name}').items():
                    of_condition.setdefault(metric, []).append(value)
    return scores


def _parameters(network: RestorationNetwork, content: Mapping[str, Any], kinds: Sequence[str], pairs: Sequence[Pair],
                alphas: Sequence[float], loss: NetworkLoss) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """The parameters to test, by name."""
    theta: dict[str, Tensor] = dict(content.get('params_theta', content['params']))  # the trained parameters
    if 'theta' in kinds:
        yield 'theta', theta
    if 'ema' in kinds:
        yield 'ema', content['params_ema']
    if 'phi' in kinds and alphas:
        network.module.load_state_dict(theta)
        params = {name: p.detach().clone().requires_grad_() for name, p in network.module.named_parameters()}
        grads, _ = mean_gradient(loss, params, [Pair(*(image.to(network.device) for image in pair)) for pair in pairs])
        for alpha in alphas:
            yield f'phi {alpha:g}', {**theta, **virtual_update(params, grads, alpha)}


def _score(network: RestorationNetwork, condition: Condition, options: TestOptions, what: str) -> dict[str, float]:
    restored = torch.cat([network(part.to(network.device)).cpu() for part in condition.inputs.split(CHUNK)])
    if not torch.isfinite(restored).all():
        raise NumericalError(f'{what}: the output on {condition.name} is not finite')
    settings = {'crop_border': options.crop_border, 'test_y_channel': options.channel == 'Y'}
    totals = dict.fromkeys(options.metrics, 0.0)
    for image, clean in zip(restored, condition.clean, strict=True):
        eight_bits = to_image(image)
        for metric in options.metrics:
            totals[metric] += float(_METRICS[metric](eight_bits, clean, **settings))
    return {metric: total / len(condition.clean) for metric, total in totals.items()}


def fixed_patches(opt: Mapping[str, Any], count: int) -> list[Pair]:
    """Training patches under every confounder, the same ones whatever the seed of the training.

    Args:
        opt: The options of the training.
        count: How many clean patches; they are spread evenly over the data set.

    Returns:
        For every confounder its batch ``(count, 3, h, w)``, and the clean one.
    """
    block = {**opt['datasets']['train'], 'phase': 'train', 'scale': opt.get('scale', 1), 'distort_on': 'worker',
             'counterfactuals': True, 'seed': 0, 'gt_usm': opt.get('gt_usm') or False,
             'distortions': opt['distortions']}
    dataset = build_dataset(block)
    samples = [dataset[Draw(k * len(dataset) // count, k)] for k in range(count)]
    clean = torch.stack([sample['gt'] for sample in samples])
    return [Pair(lq, clean) for lq in torch.stack([sample['counterfactuals'] for sample in samples]).unbind(1)]


def invariance_of(checkpoint: Path, opt: Mapping[str, Any], options: TestOptions, device: str) -> dict[str, float]:
    """Means of the invariance report's metrics, on the study's clean test images under the training's confounders."""
    network = load_network(checkpoint, param_key='params', device=device)
    confounders: DistortionSet = parse_distortions(opt['distortions'])
    unit = network.scale * network.multiple
    patch = min(options.crop, opt['datasets']['train']['gt_size']) // unit * unit
    measured = measure_invariance(network, clean_crops(options, network.scale), confounders, options.seed,
                                  dataset='study', patch=patch, patches=1)
    values = {metric: measured.mean(metric) for metric in METRICS}
    return {metric: value for metric, value in values.items() if value is not None}
