"""Validation by all processes of a distributed run, each on its part of the images."""

import copy
from typing import Any

import torch
from basicsr.models.sr_model import SRModel
from torch import distributed
from torch.utils.data import DataLoader

from dil_plugin.errors import DataError


class SpreadValidationModel(SRModel):
    """``SRModel`` that validates on all ranks, where BasicSR lets them wait for rank 0.

    Of n images rank r of W restores r, r + W, r + 2W, …, writes them under the names that one process gives them and
    measures them. No image is seen twice; the metrics are those of one process up to the rounding of their sum, on
    every rank. A single process validates as ``SRModel`` does.
    """

    def dist_validation(self, dataloader: Any, current_iter: Any, tb_logger: Any, save_img: bool) -> None:
        """BasicSR's hook for distributed runs; all ranks must call it.

        Raises:
            DataError: On every rank if any of them failed; the failing rank raises its own error instead.
        """
        rank, world = distributed.get_rank(), distributed.get_world_size()
        images = range(rank, len(dataloader.dataset), world)
        names = list(self.opt['val'].get('metrics') or {})
        totals, failure = [0.0] * len(names), None
        try:
            totals = self._totals(dataloader, images, names, current_iter, save_img)
        except Exception as error:  # the others wait in the sum below, and would do so for ever
            failure = error
        failed = [float(failure is not None and r == rank) for r in range(world)]
        summed = torch.tensor([*failed, float(len(images)), *totals], dtype=torch.float64, device=self.device)
        distributed.all_reduce(summed)
        values = summed.tolist()
        failed, count, totals = values[:world], values[world], values[world + 1:]
        if failure is not None:
            raise failure
        if any(failed):
            ranks = ', '.join(str(r) for r in range(world) if failed[r])
            raise DataError(f'validation failed on rank {ranks}; its own message says why')
        if names:
            self._record(dataloader.dataset.opt['name'], {name: total / count
                                                          for name, total in zip(names, totals, strict=True)},
                         current_iter, tb_logger)

    def _totals(self, dataloader: Any, images: range, names: list[str], current_iter: Any,
                save_img: bool) -> list[float]:
        """Sums of the metrics over some of the images, by BasicSR's own loop.

        It runs on a shallow copy of the model, which has the same networks: what BasicSR records of a part of the
        images must not count as a result.
        """
        if not images:
            return [0.0] * len(names)
        part = copy.copy(self)
        part.best_metric_results = {}
        part._log_validation_metric_values = lambda *_: None
        if distributed.get_rank() != 0:
            part.opt = {**self.opt, 'val': {**self.opt['val'], 'pbar': False}}
        loader = DataLoader(dataloader.dataset, batch_size=1, sampler=images, collate_fn=dataloader.collate_fn,
                            pin_memory=dataloader.pin_memory)
        part.nondist_validation(loader, current_iter, None, save_img)
        return [float(part.metric_results[name]) * len(images) for name in names]

    def _record(self, dataset: str, results: dict[str, float], current_iter: Any, tb_logger: Any) -> None:
        """As the end of ``nondist_validation``: what is best so far, the log and TensorBoard."""
        self._initialize_best_metric_results(dataset)
        self.metric_results = results
        for metric, value in results.items():
            self._update_best_metric_result(dataset, metric, value, current_iter)
        self._log_validation_metric_values(current_iter, dataset, tb_logger)
