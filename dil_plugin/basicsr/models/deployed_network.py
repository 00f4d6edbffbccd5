"""The virtually updated network ``f_phi``, for validation and checkpoints (``train.dil.deploy: phi``)."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from basicsr.utils import get_root_logger
from torch import Tensor, nn

from dil_plugin.basicsr.models.deployment_patches import deployment_seed, draw_patches
from dil_plugin.basicsr.yaml_options.real_esrnet_options import patch_size
from dil_plugin.distortions import DistortionSet
from dil_plugin.learning import DILOptions, NetworkLoss, Pair, Params, virtual_update
from dil_plugin.learning.buffers import copy_buffers
from dil_plugin.learning.finite import all_finite
from dil_plugin.learning.gradients import mean_gradient
from dil_plugin.learning.objective import without_buffer_updates
from dil_plugin.learning.precision import AutocastLoss
from dil_plugin.sampling import PairedSets, build_sampler

T = TypeVar('T')


class DeployedNetwork:
    """``f_phi`` with ``phi = theta - alpha grad (1/n) sum_i L_i(theta)`` (Eq. 5) on fixed training patches.

    The second-order objectives minimise the loss at ``phi``, not at ``theta``. For ``ps`` this is the virtual update of
    training, on more patches. ``ss`` (Eq. 4) has an update ``phi_i`` for each confounder, and which of them an image at
    test time needs is unknown; their mean is this ``phi``.

    The gradient is computed as in training: in training mode and, where training does, in bfloat16. Running statistics
    and generators of the training are left alone; drop paths fall by a seed. Every process of a distributed run
    computes the same.

    Args:
        loss: Of the network.
        params: ``theta``, the network's own.
        alpha: The inner learning rate.
        pairs: For each confounder its patches, ``(P, C, h, w)`` and ``(P, C, H, W)``, on any device.
        part: So many images go through the network at a time.
        seed: Of drop paths.
        dtype: Of autocast; None: none.
    """

    def __init__(self, loss: NetworkLoss, params: Params, alpha: float, pairs: Sequence[Pair], part: int, seed: int = 0,
                 dtype: torch.dtype | None = None) -> None:
        self.params, self.alpha, self.pairs = params, alpha, pairs
        self.seed, self.dtype = seed, dtype
        self.device = next(iter(params.values())).device
        self._trained: nn.Module = loss.network
        self._network: nn.Module = copy.deepcopy(loss.network).requires_grad_(False)
        self._patch_loss = _PatchLoss(loss, self.device, part)
        self._current = False

    def forget(self) -> None:
        """``theta`` has changed."""
        self._current = False

    def current(self) -> nn.Module:
        """The network at the ``phi`` of the present ``theta``; at ``theta`` itself where ``phi`` is not finite."""
        if not self._current:
            phi = self.virtual_params()
            self._network.load_state_dict(self._trained.state_dict())
            copy_buffers(self._network, self._trained)  # also those that no state dict has
            own = dict(self._network.named_parameters())
            with torch.no_grad():
                torch._foreach_copy_([own[name] for name in phi], list(phi.values()))
            self._current = True
        return self._network

    def virtual_params(self) -> Params:
        """``phi``."""
        devices = [self.device] if self.device.type == 'cuda' else []
        with torch.random.fork_rng(devices), torch.autocast(self.device.type, self.dtype,
                                                            enabled=self.dtype is not None):
            torch.manual_seed(self.seed)
            grads, losses = mean_gradient(without_buffer_updates(self._patch_loss), self.params, self.pairs)
        logger = get_root_logger()
        if not bool(all_finite(grads)):
            logger.warning('The gradient on the patches of train.dil.deploy is not finite: theta is deployed.')
            return self.params
        logger.info(f'phi is deployed; the loss of its patches at theta is {float(losses.mean()):.4e}.')
        return virtual_update(self.params, grads, self.alpha)


class _PatchLoss:
    """The loss of patches that are moved to the device (a ``LossFunction``).

    The patches are computed in parts as large as those of training: statistics of a BatchNorm are of a part.
    """

    def __init__(self, loss: NetworkLoss, device: torch.device, micro_batch: int) -> None:
        self.loss, self.device, self.micro_batch = loss, device, micro_batch

    def __call__(self, params: Params, pair: Pair) -> Tensor:
        return AutocastLoss(self.loss)(params, Pair(*(images.to(self.device) for images in pair)))

    def at(self, params: Params, run: Callable[[], T]) -> T:
        return self.loss.at(params, run)

    def on_copies(self) -> '_PatchLoss':
        return _PatchLoss(self.loss.on_copies(), self.device, self.micro_batch)


def build_deployed(opt: Mapping[str, Any], dil: DILOptions, distortions: DistortionSet | PairedSets, loss: NetworkLoss,
                   dtype: torch.dtype | None, prepare: Callable[[Tensor], Tensor]) -> DeployedNetwork | None:
    """The network that ``train.dil.deploy`` asks for; None where it is the trained one. Says in the log which it is.

    Args:
        opt: The options of the run.
        dil: The block ``train.dil``.
        distortions: The confounders.
        loss: Of the network.
        dtype: Of autocast.
        prepare: What is done to clean patches before they are distorted.
    """
    count, params = dil.patches_to_deploy, loss.parameters()
    logger = get_root_logger()
    if count is None:
        if dil.variant in ('ss', 'ps'):
            logger.info('theta is validated and saved as params (train.dil.deploy: theta).')
        return None
    rows = opt['datasets']['train']['batch_size_per_gpu'] // build_sampler(dil, distortions).parts
    pairs = draw_patches(opt, distortions, count, rows, next(iter(params.values())).device, patch_size(opt), prepare)
    alpha = dil.inner_or_default.lr
    logger.info(f'phi, one virtual update of lr {alpha:g} on {count} training patches under {len(pairs)} confounders, '
                'is validated and saved as params, theta as params_theta (train.dil.deploy: phi).')
    return DeployedNetwork(loss, params, alpha, pairs, min(rows, dil.micro_batch or rows),
                           deployment_seed(int(opt['manual_seed'])), dtype)
