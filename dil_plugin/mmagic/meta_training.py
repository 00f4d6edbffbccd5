"""What one training run of a ``DILEditModel`` consists of, beside the network."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dil_plugin.distortions import DistortionSet
from dil_plugin.errors import DataError, DILError, OptionError
from dil_plugin.learning import MetaBatch, MetaGradient, Params, build_loss, build_variant
from dil_plugin.learning.distributed import CommonBuffers
from dil_plugin.learning.precision import AutocastLoss, OverflowGuard, full_precision
from dil_plugin.mmagic.image_space import ImageSpace, bytes_to_unit
from dil_plugin.mmagic.options import ModelOptions
from dil_plugin.mmagic.outer_step import OuterStep
from dil_plugin.mmagic.wording import say
from dil_plugin.networks.size_needs import found_needs
from dil_plugin.pair_pool import replaced
from dil_plugin.sampling import build_sampler, sampler_seed
from dil_plugin.training.idle_parameters import IdleParameters
from dil_plugin.training.numerical_watch import NumericalWatch

_BLACK = 1.5  # of 255; no batch of photographs has nothing above it


class MetaTraining:
    """The variant, the sampler of meta-batches and their state.

    Args:
        options: The model's.
        distortions: The confounders.
        network: The bare generator, on its device.
        criterion: ``criterion(output, gt)``, a scalar.
        seed: Of the run; the same on all ranks.
        rank: Of this process.
        folder: Of the run, for the batch that it may end on.
    """

    def __init__(self, options: ModelOptions, distortions: DistortionSet, network: nn.Module,
                 criterion: Callable[[Tensor, Tensor], Tensor], seed: int, rank: int = 0, folder: str = '') -> None:
        self.options, self.distortions = options, distortions
        self._looked_at = False
        self.seed, self.rank = seed, rank
        self.loss = build_loss(options.dil, network, criterion)
        self.params: Params = self.loss.parameters()
        if not self.params:
            raise OptionError('model.generator: all parameters are frozen; there is nothing to train')
        self.device = next(iter(self.params.values())).device
        self.guard = OverflowGuard()
        self.variant = build_variant(options.dil, self.params, seed, self.guard)
        self.idle = IdleParameters(list(self.params))
        self.common_buffers = CommonBuffers(network)
        self.outer = OuterStep(self.device)
        self.watch = NumericalWatch(self.loss, self.params, options.dil, distortions.labels, folder, rank,
                                    partial(say, level=logging.WARNING))
        self.stepped = False
        self._to_unit: Callable[[Tensor], Tensor] = Tensor.float
        self.draw_anew(0)

    def draw_anew(self, iteration: int) -> None:
        """Draws of the confounders that were not drawn before ``iteration``."""
        seed, common = (sampler_seed(self.seed, rank, iteration) for rank in (self.rank, 0))
        self.sampler = build_sampler(self.options.dil, self.distortions, seed, self.device, self.options.gt_size,
                                     self.options.queue_size, common)

    @property
    def steps(self) -> int:
        """Optimiser steps per iteration."""
        return 1 if self.sampler.uses_confounders else self.sampler.erm_steps

    def start(self) -> None:
        """An iteration begins."""
        self.stepped = False
        self.watch.start()

    def meta_batches(self, clean: Tensor, distorted: Tensor | None, counterfactuals: Tensor | None, space: ImageSpace,
                     order: str) -> list[MetaBatch]:
        """The meta-batches of one iteration, as the network is to see them.

        Args:
            clean: Targets ``(B, C, H, W)``, normalised for the network.
            distorted: Their distorted versions ``(B, C, h, w)``, normalised alike, where the pipeline gives them.
            counterfactuals: ``(B, n, C, h, w)`` from 0 to 255, where the pipeline made them.
            space: The normalisation.
            order: Of the channels of ``counterfactuals``.

        Raises:
            OptionError: The batch cannot be divided as the options say.
            DataError: ``counterfactuals`` is of another number of confounders.
        """
        self._to_unit = space.to_unit
        self.sampler.check_batch_size(len(clean), 'train_dataloader.batch_size')
        n = len(self.distortions)
        if counterfactuals is not None and counterfactuals.shape[1] != n:
            raise DataError(f'the pipeline gives {counterfactuals.shape[1]} counterfactuals per image, but '
                            f'model.distortions has {n} confounders; CounterfactualDistortions must have the same '
                            'distortions')
        size = self.options.gt_size
        if size is not None and min(clean.shape[-2:]) < size:
            raise DataError(f'model.gt_size: {size}, but the pipeline gives patches of {clean.shape[-2]}x'
                            f'{clean.shape[-1]} pixels; allowed: at most their size')
        with full_precision(self.device), torch.no_grad():
            unit = space.to_unit(clean.float())
            pair = None if distorted is None else space.to_unit(distorted.float())
            versions = None if counterfactuals is None else bytes_to_unit(counterfactuals, order)
            try:
                batches = self.sampler.sample(unit, pair, versions)
            except DILError:
                raise
            except ValueError as error:  # the patches are too small for a confounder, or no multiple of its scale
                raise DataError(f'train_dataloader: {error}; give patches of another size (crop_size)') from None
            query = any(batch.query is not None for batch in batches)
            self._require_bytes({'gt': unit, 'img': pair if query else None})
            if space.same:
                return batches
            return replaced(batches, lambda tensors: [space.to_network(tensor) for tensor in tensors])

    def _require_bytes(self, images: Mapping[str, Tensor | None]) -> None:
        """Raises DataError where the first batch, as RGB in [0, 1], is all but black: its pipeline gave no 0 to 255.

        Args:
            images: By the names that they have in the pipeline; without those of which nothing is made.
        """
        if self._looked_at:  # once, since the host waits for the device
            return
        self._looked_at = True
        for name, tensor in images.items():
            if tensor is not None and 255 * float(tensor.max()) < _BLACK:
                raise DataError(f'train_dataloader: all values of {name} in the first batch are at most 1; expected 0 '
                                'to 255. Remove RescaleToZeroOne or the like, and give '
                                'model.data_preprocessor.mean and std on that scale')

    def gradient(self, batch: MetaBatch, scale: Tensor | None = None, lowered: bool = True) -> MetaGradient:
        """The meta-gradient; called within the context of autocast, if there is one.

        Args:
            batch: Of ``meta_batches``.
            scale: float16: the scale of the ``GradScaler``, a scalar on the device; None: no scaling.
            lowered: Whether the scale is lowered after an overflow.

        Raises:
            OptionError: The network does not take patches of this size.
        """
        self.watch.prepare()
        self.guard.start(scale is not None, batch.images)
        try:
            result = self.variant(AutocastLoss(self.loss, scale), self.params, batch)
        except DILError:
            raise
        except Exception as error:  # a network's own word for sizes that it does not take, of whatever kind
            self._refuse_patches(batch, error)
            raise
        self.idle.took(result.grads)
        grads = self.guard.marked(result.grads)
        self.common_buffers.notice()
        self.outer.saw(grads, scale if lowered else None)
        return MetaGradient(grads, result.inner_losses, result.outer_loss)

    def took(self, result: MetaGradient, stepped: bool) -> MetaGradient:
        """The optimiser's wrapper had a meta-gradient.

        Args:
            result: Of ``gradient``.
            stepped: Whether the wrapper's step was due with it.

        Returns:
            What is logged of it; gradients are as large as the network.
        """
        kept = replace(result, grads=[])
        if stepped:
            self.idle.stepped()
        self.stepped = self.watch.took(self.outer.outcome(stepped), kept) or self.stepped
        return kept

    def finish(self, iteration: int, batches: Sequence[MetaBatch], results: Sequence[MetaGradient],
               files: Sequence[str]) -> None:
        """An iteration has ended.

        Raises:
            NumericalError: As many steps in a row as ``dil.max_skipped`` says were skipped.
        """
        self.watch.finish(iteration, batches, results, files, self._to_unit)
        self.common_buffers()
        if message := self.idle.read():
            say(message, logging.WARNING)

    def _refuse_patches(self, batch: MetaBatch, error: Exception) -> None:
        """Raises OptionError where the network failed on patches of a size that it does not take."""
        lq, gt = batch.query or batch.confounders[0]
        height, width = lq.shape[-2:]
        needs = found_needs(self.loss.network, {}, None, lq.shape[1], self.options.dil.outputs)
        if needs is not None and not needs.fit(height, width):
            least = f' of at least {needs.minimum}' if needs.minimum > needs.multiple_of else ''
            raise OptionError(
                f'model.generator: {type(self.loss.network).__name__} gets patches of {height}x{width} pixels, but '
                f'takes sides{least} that are multiples of {needs.multiple_of}; allowed: clean patches (model.gt_size, '
                f'or of the pipeline) of multiples of {needs.multiple_of * gt.shape[-2] // height}') from error

    def losses(self, results: Sequence[MetaGradient]) -> dict[str, Tensor]:
        """What is logged of an iteration: ``loss``, and the inner and outer losses, scalars on the device."""
        log: dict[str, Tensor] = {}
        inner = results[-1].inner_losses
        if inner is not None:
            log['l_inner'] = inner.mean()
            log.update({f'l_inner_{label}': value for label, value in zip(self.distortions.labels, inner, strict=True)})
        outer = [result.outer_loss for result in results if result.outer_loss is not None]
        if outer:
            log['l_outer'] = torch.stack(outer).mean()
        return {'loss': log['l_outer'] if outer else log['l_inner'], **log}

    def state_dict(self) -> dict[str, Any]:
        """What an exact continuation needs: the inner optimiser's moments, the generators and the pool."""
        return {'variant': self.options.dil.variant, 'state': self.variant.state_dict(),
                'sampler': self.sampler.state_dict(), 'watch': self.watch.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], iteration: int, alone: bool) -> list[str]:
        """Continues at ``iteration`` from ``state_dict``.

        Args:
            state: Of rank 0.
            iteration: Iterations done.
            alone: Whether there is one process; of several each needs draws of its own.

        Returns:
            What could not be continued, in words.
        """
        notes = []
        self.watch.load_state_dict(state.get('watch', {}))
        if state['variant'] == self.options.dil.variant:
            self.variant.load_state_dict(state['state'])
        else:
            notes.append(f'The checkpoint is of variant {state["variant"]}: the inner state of variant '
                         f'{self.options.dil.variant} starts anew.')
        if alone and state['sampler']['device'] == self.device.type:
            self.sampler.load_state_dict(state['sampler'])
        else:
            notes.append('The draws of the confounders go on from a new seed.')
            self.draw_anew(iteration)
        return notes


class SavedWithTheLogs:
    """Stands in mmengine's message hub, and is saved as the state of the training at that moment.

    A checkpoint of mmengine holds the hub's copy of what stands there, and a resumed run finds it there again: the
    weights in the checkpoint remain those of any model, and no hook has to be configured.
    """

    KEY = 'dil_plugin'

    def __init__(self, training: MetaTraining) -> None:
        self.training = training

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return _copied(self.training.state_dict())


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    return type(value)(_copied(item) for item in value) if isinstance(value, list | tuple) else value
