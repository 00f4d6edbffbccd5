"""The batch that a run ended on, kept for inspection, and what there is to say of it."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from dil_plugin.checkpoints import save_atomically
from dil_plugin.errors import NumericalError
from dil_plugin.learning import MetaBatch, MetaGradient, Pair
from dil_plugin.training.skipped_steps import faults

_NAMED = 8  # files in the message; all of them stand in the dump
_SHOWN = 8  # patches of a confounder in its picture


@dataclass(frozen=True)
class SkippedBatch:
    """One iteration whose step was skipped, or may be.

    Attributes:
        iteration: Its number.
        labels: The confounders, by name.
        batches: Its meta-batches.
        steps: What was computed of each.
        files: The images that the patches are of, as the data set names them.
        rank: Of this process.
        to_unit: What the network sees as RGB in [0, 1], for the pictures.
    """

    iteration: int
    labels: Sequence[str]
    batches: Sequence[MetaBatch]
    steps: Sequence[MetaGradient]
    files: Sequence[str]
    rank: int = 0
    to_unit: Callable[[Tensor], Tensor] = Tensor.float

    def error(self, folder: str, allowed: int) -> NumericalError:
        """Writes ``iter_K.pth`` and pictures into the folder, and says what happened; see ``NumericalError``.

        Args:
            folder: Made where it is not there.
            allowed: ``train.dil.max_skipped``.
        """
        try:
            where = f'the batch and its losses are in {self._write(folder)}'
        except OSError as error:  # a full disk must not hide what happened
            where = f'the batch could not be written to {folder} ({error.strerror})'
        files = ', '.join(self.files[:_NAMED]) + (', …' if len(self.files) > _NAMED else '')
        return NumericalError(f'iteration {self.iteration}: the last {allowed} or more steps in a row were skipped '
                              f'(train.dil.max_skipped: {allowed}); {self.reason()}; images of its batch: '
                              f'{files or "unknown"}; {where}; lower the learning rates (train.dil.inner.lr, '
                              'train.optim_g.lr), or look for what is wrong with these images; steps that were '
                              'skipped are not saved')

    def reason(self) -> str:
        """What was not finite, by the confounders' names."""
        confounders: list[str] = []
        outer = False
        for step in self.steps:
            found = faults(step, len(self.labels)).tolist()
            confounders += [label for label, bad in zip(self.labels, found, strict=False) if bad]
            outer |= found[-1]
        if confounders:
            return f'the inner loss of {", ".join(dict.fromkeys(confounders))} is not finite'
        if outer and all(step.inner_losses is None for step in self.steps):
            return 'the loss is not finite'
        what = 'the outer loss is not finite, all inner losses are' if outer else \
            'all losses are finite, the gradient is not'
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        return f'{what} (or a loss of another process is not)' if several else what

    def _write(self, folder: str) -> str:
        os.makedirs(folder, exist_ok=True)
        name = f'iter_{self.iteration}' + (f'_rank_{self.rank}' if self.rank else '')
        path = os.path.join(folder, f'{name}.pth')
        content: dict[str, Any] = {
            'iter': self.iteration, 'labels': list(self.labels), 'files': list(self.files), 'reason': self.reason(),
            'steps': [{'confounders': [_stored(pair) for pair in batch.confounders], 'query': _stored(batch.query),
                       'inner_losses': _on_cpu(step.inner_losses), 'outer_loss': _on_cpu(step.outer_loss)}
                      for batch, step in zip(self.batches, self.steps, strict=True)],
        }
        save_atomically(content, path)
        last = self.batches[-1]
        pairs = {**{f'confounder_{k + 1}': pair for k, pair in enumerate(last.confounders)}, 'query': last.query}
        for part, pair in pairs.items():
            if pair is not None:
                cv2.imwrite(os.path.join(folder, f'{name}_{part}.png'), self._picture(pair))
        return path

    def _picture(self, pair: Pair) -> np.ndarray:
        """Distorted patches above their clean ones, uint8 BGR; pixels that are not finite are black."""
        lq, gt = (self.to_unit(images[:_SHOWN].detach().float()).cpu() for images in pair)
        lq = nn.functional.interpolate(lq, size=gt.shape[-2:], mode='nearest')
        rows = torch.cat([torch.cat(list(images), -1) for images in (lq, gt)], -2).nan_to_num(0, 0, 0)
        pixels = rows.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
        return np.ascontiguousarray(pixels[..., ::-1])


def _stored(pair: Pair | None) -> dict[str, Tensor] | None:
    return None if pair is None else {'lq': pair.lq.detach().cpu(), 'gt': pair.gt.detach().cpu()}


def _on_cpu(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().cpu()
