"""Training with DIL inside BasicSR."""

import warnings
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import torch
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn
from tqdm import tqdm

from dil_plugin.basicsr.checks.first_failure import first_in_one_line
from dil_plugin.basicsr.checks.losses_and_metrics import one_number, two_losses
from dil_plugin.basicsr.data.byte_images import on_device
from dil_plugin.basicsr.models.deployed_network import build_deployed
from dil_plugin.basicsr.models.deploying_model import DeployingModel
from dil_plugin.basicsr.models.mixed_precision import MixedPrecision
from dil_plugin.basicsr.models.outer_step import OuterStep
from dil_plugin.basicsr.models.spread_validation import SpreadValidationModel
from dil_plugin.basicsr.models.stopwatch import Stopwatch
from dil_plugin.basicsr.options import parse_training_options
from dil_plugin.basicsr.yaml_options.real_esrnet_options import patch_size
from dil_plugin.distortions import usm_sharpen
from dil_plugin.errors import DataError, OptionError
from dil_plugin.learning import MetaBatch, MetaGradient, Pair, average_over_ranks, build_loss, build_variant
from dil_plugin.learning.buffers import copy_buffers
from dil_plugin.learning.distributed import CommonBuffers, take_from_first_rank
from dil_plugin.learning.finite import average_where, begin_momentum, fused_on_gpus, keep_fused
from dil_plugin.learning.objective import select_outputs
from dil_plugin.networks.size_needs import SizeNeeds, size_needs
from dil_plugin.sampling import MetaBatchSampler, build_sampler, sampler_seed
from dil_plugin.training.idle_parameters import IdleParameters, note_on_unregistered
from dil_plugin.training.numerical_watch import NumericalWatch

PARTS = ('synthesis', 'inner', 'outer')


@MODEL_REGISTRY.register()
class DILModel(DeployingModel, SpreadValidationModel):
    """``SRModel`` whose gradient is one of DIL's meta-gradients.

    Options beside those of ``SRModel``: the blocks ``train.dil`` (``DILOptions``) and ``distortions`` (the
    confounders); ``gt_usm: true`` sharpens the training targets before they are distorted, as ``RealESRNetModel``;
    ``logger.pbar: true`` shows a progress bar. Checkpoints are those of ``SRModel``; training states also
    hold the inner optimiser's moments and the generators.

    Batches come from a ``DistortionAugmentedDataset``, or from any data set that gives ``gt``; where it gives ``lq``
    too (real pairs), counterfactuals are made from ``gt`` and the pair is the query batch. With a
    ``PairedConfounderDataset``, whose sets of pairs are the confounders, there is no ``distortions`` block.

    In a distributed run each process holds the bare network; inner and outer gradients are averaged over the images of
    all processes, so ranks together compute the meta-gradient of their joint batch, and validate together.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        if opt['is_train']:
            self.dil, self.distortions = parse_training_options(opt)
            self.outputs = self.dil.outputs
            train = opt['datasets'].get('train', {})
            self.sharpens = bool(opt.get('gt_usm')) and train.get('distort_on') != 'worker'  # workers do it themselves
        else:
            self.outputs = ((opt.get('train') or {}).get('dil') or {}).get('outputs', 'all')
        self.counterfactuals: Tensor | None = None
        self.lq: Tensor | None = None
        self._needs: SizeNeeds | None = None
        self.pairs: Pair | None = None
        try:
            super().__init__(opt)
        except NotImplementedError as error:  # BasicSR's word for an optimiser or scheduler it does not have
            raise OptionError(f'train: {error}') from None
        except TypeError as error:
            if '__init__() got an unexpected keyword' not in str(error):
                raise
            raise OptionError(f'network_g, a loss or a scheduler: {error}') from None

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """The bare network on the device, with rank 0's weights on every rank."""
        net = net.to(self.device, memory_format=self._memory_format())
        if self.opt['dist']:
            take_from_first_rank([*net.parameters(), *net.buffers()])
        return net

    def _memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.opt.get('train', {}).get('channels_last') else torch.preserve_format

    def get_optimizer(self, optim_type: str, params: Any, lr: float, **kwargs: Any) -> torch.optim.Optimizer:
        """As BasicSR's, and SGD; on a GPU one kernel for all parameters, which asks no host to leave a step out."""
        params = list(params)
        kwargs = {**fused_on_gpus(params), **kwargs}
        if 'betas' in kwargs:
            kwargs['betas'] = [float(beta) for beta in kwargs['betas']]  # torch refuses [0, 0.999]
        optimizer: torch.optim.Optimizer = torch.optim.SGD(params, lr, **kwargs) if optim_type == 'SGD' else \
            super().get_optimizer(optim_type, params, lr, **kwargs)
        begin_momentum(optimizer)
        keep_fused(optimizer)
        return optimizer

    def init_training_settings(self) -> None:
        """Losses, optimisers and schedulers as ``SRModel``, then the variant and its sampler."""
        if not any(p.requires_grad for p in self.net_g.parameters()):
            raise OptionError('network_g: all parameters are frozen (requires_grad: false); there is nothing to train')
        super().init_training_settings()
        seed, rank = int(self.opt['manual_seed']), int(self.opt['rank'])
        train = self.opt['train']
        self.loss = build_loss(self.dil, self.net_g, self._criterion, train.get('compile', False),
                               self._memory_format())
        self.params = self.loss.parameters()
        self.stopwatch = Stopwatch(self.device, PARTS)
        self.precision = MixedPrecision(train.get('amp'), self.dil.variant, self.device)
        self.outer = OuterStep(self.params, self.precision, train.get('accum_iter', 1), train.get('clip_grad_norm'))
        self.common_buffers = CommonBuffers(self.net_g)
        self.variant = build_variant(self.dil, self.params, seed, self.precision.guard, self.stopwatch.mark)
        self.sampler = self._sampler(0)
        self.watch = NumericalWatch(self.loss, self.params, self.dil, self.distortions.labels,
                                    self.opt['path'].get('experiments_root', ''), rank,
                                    lambda text: get_root_logger().warning(text))
        self.idle = IdleParameters(list(self.params))
        self.files: list[str] = []
        self.log_parts: dict[str, Tensor] = {}
        self.log_dict: OrderedDict[str, Any] = OrderedDict()
        self._pbar = tqdm(
            total=int(train['total_iter']), unit='iter', dynamic_ncols=True,
            disable=rank != 0 or not self.opt.get('logger', {}).get('pbar', False))
        # the schedule counts iterations; the first of them may lead to no step (accum_iter, skipped steps)
        warnings.filterwarnings('ignore', r'Detected call of `lr_scheduler\.step\(\)` before', UserWarning)
        logger = get_root_logger()
        logger.info(f'DIL variant {self.dil.variant}; confounders: {", ".join(self.distortions.labels)}')
        self.deployed = build_deployed(self.opt, self.dil, self.distortions, self.loss, self.precision.dtype,
                                       self._prepared)
        if self.ema_decay > 0:
            logger.info('Validation, the best results too, is of the moving average of the weights (train.ema_decay), '
                        'which is saved as params_ema; the weights themselves are saved as params.')
        if note := note_on_unregistered(self.net_g):
            logger.warning(note)
        for name in self.dil.unused():
            logger.warning(f'train.dil.{name} has no effect with variant {self.dil.variant}.')

    def _sampler(self, current_iter: int) -> MetaBatchSampler:
        seed, common = (sampler_seed(int(self.opt['manual_seed']), rank, current_iter)
                        for rank in (self.opt['rank'], 0))
        return build_sampler(self.dil, self.distortions, seed, self.device, patch_size(self.opt),
                             self.opt.get('queue_size'), common)

    def feed_data(self, data: dict[str, Any]) -> None:
        """Moves a batch to the device: ``gt``, and where the data set gives them ``lq``, ``counterfactuals`` and pairs.

        Pairs are ``confounder_lq``, ``confounder_gt`` of a ``PairedConfounderDataset``. uint8 becomes [0, 1] there.
        """
        self.pairs = None
        self.files = list(data.get('gt_path', []))
        if 'confounder_lq' in data:
            self.pairs = Pair(*(on_device(data[key], self.device) for key in ('confounder_lq', 'confounder_gt')))
        self.lq = self._to_device(data.get('lq'))
        self.counterfactuals = self._to_device(data.get('counterfactuals'))
        if 'gt' in data:
            self.gt = self._to_device(data['gt'])
        elif hasattr(self, 'gt'):
            del self.gt

    def _to_device(self, tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else on_device(tensor, self.device)

    @first_in_one_line('training step')
    def optimize_parameters(self, current_iter: int) -> None:
        """One meta-step; for ERM its equivalent in plain steps."""
        if self.pairs is None and not hasattr(self, 'gt'):
            raise DataError('datasets.train: the data set gives no gt; DIL needs the clean images')
        self.stopwatch.start()
        self.watch.start()
        steps: list[MetaGradient] = []
        taken: list[Tensor] = []
        batches = self._meta_batches()
        self.stopwatch.mark('synthesis')
        for batch in batches:
            self.watch.prepare()
            step = self.precision.gradient(self.variant, self.loss, self.params, batch)
            self.common_buffers.notice()
            self.idle.took(step.grads)
            outcome = self.outer.take(self.optimizer_g, step.grads)
            steps.append(replace(step, grads=[]))  # for the log; gradients are as large as the network
            if self.watch.took(outcome, steps[-1]):
                taken.append(outcome[0])
                self.idle.stepped()
        self.watch.finish(current_iter, batches, steps, self.files)
        self.common_buffers()
        if self.deployed is not None:
            self.deployed.forget()
        if taken and self.ema_decay > 0:
            self.model_ema(self.ema_decay, torch.stack(taken).any())
        self.stopwatch.mark('outer')
        self._log(steps)
        self._pbar.update(current_iter - self._pbar.n)
        if current_iter == self._pbar.total:
            self._pbar.close()

    def model_ema(self, decay: float = 0.999, where: Tensor | None = None) -> None:
        """As BasicSR's, bit for bit, with all parameters in one go; and all buffers are those of the network.

        BasicSR's average keeps the buffers that it began with: a BatchNorm's mean of 0 and variance of 1.

        Args:
            decay: Weight of the old.
            where: A boolean scalar: whether a step was taken, without which the average stays; None: it was.
        """
        average_where(list(self.net_g_ema.parameters()), list(self.net_g.parameters()), decay, where)
        copy_buffers(self.net_g_ema, self.net_g)

    def _meta_batches(self) -> list[MetaBatch]:
        if self.pairs is not None:
            return self.sampler.sample_pairs(*self.pairs)
        # here and not in feed_data, which validation calls too
        return self.sampler.sample(self._prepared(self.gt), self.lq, self.counterfactuals)

    def _prepared(self, gt: Tensor) -> Tensor:
        return usm_sharpen(gt) if self.sharpens else gt

    def _criterion(self, output: Tensor, gt: Tensor) -> Tensor:
        """The sum of the losses that the YAML names, a scalar."""
        parts = {}
        if self.cri_pix:
            parts['l_pix'] = one_number('train.pixel_opt', self.cri_pix(output, gt))
        if self.cri_perceptual:
            both = two_losses('train.perceptual_opt', self.cri_perceptual(output, gt))
            parts.update((name, value) for name, value in zip(('l_percep', 'l_style'), both, strict=True)
                         if value is not None)
        self.log_parts = {name: value.detach() for name, value in parts.items()}
        return torch.stack([value.reshape(()) for value in parts.values()]).sum()

    def _log(self, steps: list[MetaGradient]) -> None:
        """Keeps the losses as tensors on the device; they are read when BasicSR prints, not in every step."""
        log: OrderedDict[str, Tensor] = OrderedDict()
        inner = steps[-1].inner_losses
        if inner is not None:
            log['l_inner'] = inner.mean()
            log.update({f'l_inner_{label}': value for label, value in zip(self.distortions.labels, inner, strict=True)})
        outer = [step.outer_loss for step in steps if step.outer_loss is not None]
        if outer:
            log['l_outer'] = torch.stack(outer).mean()
        if len(self.log_parts) > 1:
            log.update(self.log_parts)
        self.log_dict = log

    def get_current_log(self) -> OrderedDict[str, float]:
        """The last step's losses, averaged over the processes, as numbers; and the time of a step by part.

        ``grad_norm`` is the 2-norm of the gradient of the optimiser's last step, all parameters together, before
        ``clip_grad_norm`` and averaged over accumulations and processes; of ``sf`` and ``pf`` that of theta - phi.
        ``skipped`` is the number of steps of the run that were skipped since a loss or the gradient was not finite.
        ``t_synthesis``, ``t_inner`` and ``t_outer`` are seconds, means over the steps since the last call: distorting
        the patches; the virtual updates; the outer gradient with its Hessian-vector products, optimiser and EMA. How
        long a step waited for its data BasicSR prints itself, in brackets.
        """
        if not self.log_dict:
            return OrderedDict()
        mine = torch.stack([v.detach().float() for v in self.log_dict.values()])
        values = average_over_ranks([mine], self.precision.guard.images)[0].tolist()
        log = OrderedDict(zip(self.log_dict, values, strict=True))
        if self.outer.norm is not None:
            log['grad_norm'] = float(self.outer.norm)
        log['skipped'] = self.watch.read()
        if message := self.idle.read():
            get_root_logger().warning(message)
        log.update({f't_{part}': seconds for part, seconds in self.stopwatch.means().items()})
        return log

    @first_in_one_line('restored image')
    def test(self) -> None:
        """Restores ``lq``; of a network with several outputs the one that ``train.dil.outputs`` says, or the last.

        For a network that does not take every size the image is padded by reflection and the result cropped, as
        BasicSR's SwinIRModel does it, and as ``RestorationNetwork``; see ``size_needs``.
        """
        assert self.lq is not None
        whole, needs = self.lq, self._size_needs(self.lq.shape[1])
        self.lq = needs.pad(whole)
        try:
            super().test()
        finally:
            self.lq = whole
        self.output = needs.crop(select_outputs(self.output, self.outputs)[-1], *whole.shape[-2:])

    def _size_needs(self, channels: int) -> SizeNeeds:
        if self._needs is None:
            self._needs = size_needs(self.get_bare_model(self.net_g), self.opt['network_g'],
                                     (self.opt.get('val') or {}).get('window_size'), channels, self.outputs)
        return self._needs

    def confounder_labels(self) -> list[str]:
        """The confounders, by name."""
        return list(self.distortions.labels)

    def skipped_in_a_row(self) -> int:
        """So many of the last steps were skipped since their numbers are not finite."""
        return self.watch.skipped.in_a_row()

    def training_state(self) -> dict[str, Any]:
        """The variant's state, the generators, and what a step in several parts has so far."""
        return {
            'variant': self.dil.variant,
            'state': self.variant.state_dict(),
            'sampler': self.sampler.state_dict(),
            'precision': self.precision.state_dict(),
            'outer': self.outer.state_dict(),
            'watch': self.watch.state_dict(),
            **self.run_state(),
        }

    def rank_state(self) -> dict[str, Any]:
        """The generators, and the pairs in the pool."""
        return {'sampler': self.sampler.state_dict()}

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        """Restores optimisers, schedulers, the inner optimiser's moments and the generators."""
        super().resume_training(resume_state)
        saved = resume_state.get('dil', {})
        self.precision.load_state_dict(saved.get('precision', {}))
        self.outer.load_state_dict(saved.get('outer', {}))
        self.watch.load_state_dict(saved.get('watch', {}))
        if saved.get('variant') == self.dil.variant:
            self.variant.load_state_dict(saved['state'])
        else:
            get_root_logger().warning(f'The training state is of variant {saved.get("variant", "none")}: the inner '
                                      f'state of variant {self.dil.variant} starts anew.')
        common = saved.get('world_size', 1) == self.opt['world_size']
        if saved and common and saved['sampler']['device'] == self.device.type:
            self.sampler.load_state_dict(saved['sampler'])
        else:  # generators of another number of ranks, or of another device: draw anew, and not what was drawn before
            get_root_logger().info('The draws of the confounders go on from a new seed.')
            self.sampler = self._sampler(resume_state['iter'])
        self.load_run_state(resume_state)
