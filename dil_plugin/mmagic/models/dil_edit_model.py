"""Training with DIL inside mmagic."""

import copy
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from mmagic.models.base_models import BaseEditModel
from mmagic.registry import MODELS
from mmagic.structures import DataSample
from mmengine.dist import get_rank, get_world_size
from mmengine.logging import MessageHub
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor

from dil_plugin.errors import DataError, OptionError
from dil_plugin.learning import MetaBatch, MetaGradient
from dil_plugin.learning.objective import require_known_sizes, select_outputs
from dil_plugin.learning.options import SECOND_ORDER
from dil_plugin.learning.precision import is_half
from dil_plugin.mmagic.averages import AVERAGE, begin_average
from dil_plugin.mmagic.given_gradient import loss_with_gradient
from dil_plugin.mmagic.image_space import ImageSpace, check_preprocessor
from dil_plugin.mmagic.meta_training import MetaTraining, SavedWithTheLogs
from dil_plugin.mmagic.options import ModelOptions, parse_model_options
from dil_plugin.mmagic.wording import names_of_the_config, say
from dil_plugin.networks.size_needs import SizeNeeds, size_needs
from dil_plugin.options import did_you_mean
from dil_plugin.training.idle_parameters import note_on_unregistered

_WRAPPER = "model_wrapper_cfg = dict(type='DILDistributedDataParallel')"
_THEIRS = ('train_cfg', 'test_cfg', 'init_cfg', 'data_preprocessor')


@MODELS.register_module()
class DILEditModel(BaseEditModel):
    """``BaseEditModel`` whose gradient is one of DIL's meta-gradients.

    Batches hold the clean image ``gt``, of which the confounders are made on the model's device. Where the pipeline
    has ``CounterfactualDistortions``, its ``counterfactuals`` are taken; an ``img`` of a pair is the query batch of
    ``pf``, ``ss`` and ``ps``, and what ``erm`` trains on. Restoring and validating are those of ``BaseEditModel``, and
    so are the weights in checkpoints; the inner optimiser's moments and the generators are saved with mmengine's logs.
    A step whose losses or gradient are not finite is left out and counted.

    ``train_step`` works with ``OptimWrapper`` (accumulation, clipping), ``AmpOptimWrapper`` and either alone in an
    ``OptimWrapperDict``. In a distributed run the gradients are averaged over the processes by the model itself, so
    that ranks together compute the meta-gradient of their joint batch, with mmengine's default wrapper too.

    Args:
        generator: Config of the network.
        pixel_loss: Config of the loss.
        distortions: The confounders, a list of ``dict(type=NAME, DEGREE=VALUE or [VALUES])``.
        dil: The method, ``dict(variant='sf' | 'pf' | 'ss' | 'ps' | 'erm' | 'mldg', …)``; see
            ``DILOptions``.
        gt_size: See ``ModelOptions``.
        queue_size: See ``ModelOptions``.
        is_use_ema: See ``ModelOptions``.
        train_cfg: As ``BaseEditModel``.
        test_cfg: As ``BaseEditModel``.
        init_cfg: As ``BaseEditModel``.
        data_preprocessor: As ``BaseEditModel``; a ``DataPreprocessor``.
        unknown: There are none.

    Raises:
        OptionError: An option is unknown, wrong or missing.
    """

    @names_of_the_config()
    def __init__(self,
                 generator: dict[str, Any],
                 pixel_loss: dict[str, Any],
                 distortions: Any = None,
                 dil: Any = None,
                 gt_size: int | None = None,
                 queue_size: int | None = None,
                 is_use_ema: bool = False,
                 train_cfg: dict[str, Any] | None = None,
                 test_cfg: dict[str, Any] | None = None,
                 init_cfg: dict[str, Any] | None = None,
                 data_preprocessor: Any = None,
                 **unknown: Any) -> None:
        ours = {'distortions': distortions, 'dil': dil, 'gt_size': gt_size, 'queue_size': queue_size,
                'is_use_ema': is_use_ema}
        for name in unknown:
            known = did_you_mean(name, [*ours, *_THEIRS, 'generator', 'pixel_loss'])
            raise OptionError(f"model: unknown option '{name}'; {known}")
        options, confounders = parse_model_options(ours)
        if options.dil.micro_batch is not None and pixel_loss.get('reduction') == 'sum':
            raise OptionError("model.dil.micro_batch: with pixel_loss.reduction 'sum', which is no mean over the "
                              "images; allowed: reduction='mean', or no micro_batch")
        super().__init__(generator, pixel_loss, train_cfg, test_cfg, init_cfg, data_preprocessor)
        check_preprocessor(self.data_preprocessor)
        require_known_sizes(self.generator)
        self.options: ModelOptions = options
        self.distortions = confounders
        self._training: MetaTraining | None = None
        self._needs: SizeNeeds | None = None
        self._folder = ''
        self._unfinished: tuple[MetaBatch, MetaGradient] | None = None
        self._files: list[str] = []
        if options.is_use_ema:
            self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)
        for name in options.dil.unused():
            say(f'model.dil.{name} has no effect with variant {options.dil.variant}.', logging.WARNING)

    def init_weights(self) -> None:
        """As ``BaseModule``; ``generator_ema`` starts from the generator's weights."""
        super().init_weights()
        if hasattr(self, AVERAGE):
            self.generator_ema.load_state_dict(self.generator.state_dict())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """As ``Module``; weights without ``generator_ema`` are its own, too. Both torch and mmengine load by this."""
        if hasattr(self, AVERAGE):
            begin_average(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    @names_of_the_config()
    def train_step(self, data: dict[str, Any], optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """One meta-step; for ERM its equivalent in plain steps.

        Args:
            data: A batch of the data loader.
            optim_wrapper: Scales, accumulates, clips and steps.

        Returns:
            ``loss``, ``l_inner``, ``l_inner_<confounder>`` and ``l_outer``, as far as the variant has them; scalars.
        """
        optim_wrapper = _single(optim_wrapper)
        training = self._begin(optim_wrapper)
        training.start()
        batches, results = self._meta_batches(training, **self.data_preprocessor(data, True)), []
        for batch in batches:
            with optim_wrapper.optim_context(self):
                result = training.gradient(batch, self._scale(optim_wrapper), _is_dynamic(optim_wrapper))
                logged = training.losses([result])['loss']
            optim_wrapper.update_params(loss_with_gradient(logged, list(training.params.values()), result.grads))
            results.append(training.took(result, optim_wrapper.should_update()))
        training.finish(_iteration(), batches, results, self._files)
        return training.losses(results)

    def prepare_training(self, optim_wrapper: Any, folder: str) -> None:
        """Before the first iteration, which would else do it: what can be wrong with the run is found here.

        Args:
            optim_wrapper: Of the run.
            folder: Of the run, for the batch that it may end on.
        """
        self._folder = folder
        self._begin(_single(optim_wrapper))

    @names_of_the_config()
    def finish_iteration(self, optim_wrapper: Any) -> None:
        """After an iteration whose step mmengine's default wrapper for distributed runs took, with our loss.

        Whoever needs the result first calls it; called again it does nothing.
        """
        if self._unfinished is not None and self._training is not None:
            (batch, result), self._unfinished = self._unfinished, None
            kept = self._training.took(result, _single(optim_wrapper).should_update())
            self._training.finish(_iteration(), [batch], [kept], self._files)

    def took_a_step(self, optim_wrapper: Any) -> bool:
        """Whether the last iteration, which is finished by this, came to a step of the optimiser; others accumulate."""
        self.finish_iteration(optim_wrapper)
        return self._training is None or self._training.stepped

    def skipped_steps(self) -> int:
        """How many steps of the run were left out; says why in the log, since the last call. Waits for the device."""
        return 0 if self._training is None else self._training.watch.read()

    @names_of_the_config()
    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'tensor', **kwargs: Any) -> Any:
        """As ``BaseEditModel``; with mode ``loss`` a loss whose gradient is the meta-gradient.

        mmengine's default wrapper for distributed runs asks for that and makes one optimiser step of it.
        """
        if mode != 'loss':
            return super().forward(inputs, data_samples, mode, **kwargs)
        training = self._begin()
        if training.steps > 1:
            raise OptionError(f'model.dil.erm_steps: variant erm takes {training.steps} optimiser steps per iteration, '
                              f'the default wrapper of a distributed run takes one; add to the config: {_WRAPPER}')
        if is_half(training.device):
            raise OptionError('float16 needs the GradScaler, which the default wrapper of a distributed run does not '
                              f"hand on; add to the config: {_WRAPPER}, or dtype='bfloat16' to optim_wrapper")
        training.start()
        [batch] = self._meta_batches(training, inputs, data_samples)
        result = training.gradient(batch)
        self._unfinished = batch, replace(result, grads=[])
        losses = training.losses([result])
        return {**losses, 'loss': loss_with_gradient(losses['loss'], list(training.params.values()), result.grads)}

    def forward_tensor(self, inputs: Tensor, data_samples: Any = None, **kwargs: Any) -> Tensor:
        """The restored images; of a network with several outputs the one that ``dil.outputs`` says, or the last.

        In validation and testing an image of a size that the network does not take is padded by reflection, and the
        result cropped (``size_needs``).
        """
        if self.training:
            return select_outputs(self.generator(inputs.clone(), **kwargs), self.options.dil.outputs)[-1]
        network = self.generator_ema if self.options.is_use_ema else self.generator
        if self._needs is None:
            self._needs = size_needs(network, {}, None, inputs.shape[1], self.options.dil.outputs)
        outputs = select_outputs(network(self._needs.pad(inputs), **kwargs), self.options.dil.outputs)
        return self._needs.crop(outputs[-1], *inputs.shape[-2:])

    def _begin(self, optim_wrapper: OptimWrapper | None = None) -> MetaTraining:
        """The run's state, made at its first step: by then the weights are loaded and on their device."""
        if self._training is not None:
            if optim_wrapper is not None:
                self._training.outer.attach(optim_wrapper)
            return self._training
        if is_model_wrapper(self.generator):
            raise OptionError('model_wrapper_cfg: MMSeparateDistributedDataParallel saves the generator under other '
                              f'names than a single process loads; allowed: none, or {_WRAPPER}')
        hub = MessageHub.get_current_instance()
        iteration = hub.get_info('iter', 0)
        training = MetaTraining(self.options, self.distortions, self.generator, self._criterion,
                                int(hub.get_info('seed', 0) or 0), get_rank(), self._folder)
        saved = hub.get_info(SavedWithTheLogs.KEY)
        if isinstance(saved, Mapping):
            for note in training.load_state_dict(saved, iteration, alone=get_world_size() == 1):
                say(note, logging.WARNING)
        hub.update_info(SavedWithTheLogs.KEY, SavedWithTheLogs(training))
        if optim_wrapper is not None and training.steps > 1:  # mmengine counts one step per iteration
            last = hub.get_info('max_iters', -1)
            optim_wrapper.initialize_count_status(self, iteration * training.steps, max(-1, last * training.steps))
        labels = ', '.join(self.distortions.labels)
        say(f'DIL variant {self.options.dil.variant}; confounders: {labels}', logging.INFO)
        if note := note_on_unregistered(self.generator):
            say(note, logging.WARNING)
        if optim_wrapper is not None:
            training.outer.attach(optim_wrapper)
        self._training = training
        return training

    def _criterion(self, output: Tensor, gt: Tensor) -> Tensor:
        loss: Tensor = self.pixel_loss(output, gt)
        return loss.mean()

    def _meta_batches(self, training: MetaTraining, inputs: Any, data_samples: DataSample) -> list[MetaBatch]:
        """The meta-batches of what the data preprocessor gives."""
        if data_samples is None or 'gt_img' not in data_samples:
            raise DataError("train_dataloader: the pipeline gives no gt; DIL needs the clean images, as of "
                            "dict(type='LoadImageFromFile', key='gt') and dict(type='PackInputs')")
        info = data_samples.metainfo
        self._files = _listed(info.get('gt_path'))
        order = _common(info['gt_img_output_channel_order'])
        distorted = inputs.get('img') if isinstance(inputs, dict) else inputs
        if distorted is not None and _common(info['img_output_channel_order']) != order:
            raise DataError('train_dataloader: img and gt have their channels in different orders; give both the same '
                            'channel_order, or model.data_preprocessor.output_channel_order')
        return training.meta_batches(data_samples.gt_img, distorted, data_samples.get('counterfactuals'),
                                     ImageSpace(self.data_preprocessor, order),
                                     _common(info.get('gt_channel_order') or ['bgr']))

    def _scale(self, optim_wrapper: OptimWrapper) -> Tensor | None:
        """float16: by what the optimiser's GradScaler enlarges gradients, on the device; None: not float16."""
        training = self._begin()
        if not is_half(training.device):
            return None
        if self.options.dil.variant in SECOND_ORDER:
            raise OptionError(f'optim_wrapper.dtype: the Hessian-vector products of variant {self.options.dil.variant} '
                              "vanish in float16; allowed: 'bfloat16', or variant sf, pf or erm")
        scaled: Tensor = optim_wrapper.loss_scaler.scale(torch.ones((), device=training.device))
        return scaled


def _single(optim_wrapper: Any) -> OptimWrapper:
    if not isinstance(optim_wrapper, OptimWrapperDict):
        return optim_wrapper
    wrappers = dict(optim_wrapper.items())
    if list(wrappers) != ['generator']:
        raise OptionError(f'optim_wrapper: got optimisers of {", ".join(wrappers)}; allowed: that of generator alone')
    return wrappers['generator']


def _is_dynamic(optim_wrapper: OptimWrapper) -> bool:
    """Whether an overflow in float16 lowers the scale; a number for ``loss_scale`` stays."""
    return getattr(optim_wrapper, '_scale_update_param', None) is None


def _iteration() -> int:
    """The number of the iteration that is computed, from 1."""
    return int(MessageHub.get_current_instance().get_info('iter', 0)) + 1


def _listed(names: Any) -> list[str]:
    """The names of all samples of a batch."""
    return [str(name) for name in (names if isinstance(names, list) else [names]) if name is not None]


def _common(orders: Any) -> str:
    """The order of channels that all samples of a batch have."""
    found = {str(order) for order in (orders if isinstance(orders, list) else [orders])}
    if len(found) > 1:
        raise DataError(f'train_dataloader: the images of a batch have their channels in the orders {sorted(found)}')
    return found.pop()
