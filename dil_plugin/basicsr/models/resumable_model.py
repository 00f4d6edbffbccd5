"""A model whose training can be interrupted anywhere and goes on as if it had not been."""

import abc
import math
from typing import Any

from basicsr.data import build_dataloader, build_dataset
from basicsr.utils import get_root_logger

from dil_plugin.basicsr.data.draw_sampler import DrawSampler
from dil_plugin.basicsr.models.checkpoint_files import CheckpointFiles
from dil_plugin.basicsr.models.learning_rates import update_rates
from dil_plugin.basicsr.resuming.changed_options import (
    PROCESSES,
    changes,
    changes_without_effect,
    recorded_options,
)
from dil_plugin.basicsr.resuming.kept_checkpoints import remove_older
from dil_plugin.basicsr.resuming.numbered_steps import seed_step
from dil_plugin.basicsr.resuming.rank_agreement import RankAgreement
from dil_plugin.basicsr.resuming.stop_signals import StopSignals, received_signal, stop_message


class ResumableModel(CheckpointFiles):
    """``SRModel`` that seeds its steps, ends cleanly on SIGTERM and SIGINT, and keeps the checkpoints it is told to.

    Options: ``logger.keep_last``, ``val.keep_best``.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        if opt['is_train']:
            self._options = recorded_options(opt, DrawSampler.images)  # BasicSR takes types out of the blocks
        super().__init__(opt)

    def init_training_settings(self) -> None:
        """As ``SRModel``; from now on signals are noted."""
        super().init_training_settings()
        self.agreement = RankAgreement()
        self._saved_at = -1
        self._save_due = False
        self._validated: dict[str, float] = {}
        self._best: dict[str, Any] = {}
        if StopSignals.current is not None:
            StopSignals.current.listen()

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """``update_rates``; BasicSR calls it first in an iteration. Ends the run before it where a signal has come.

        Raises:
            SystemExit: With 128 and the signal's number, once everything is saved.
        """
        number = self.agreement.largest_so_far(received_signal())
        if (number or self._save_due) and not self.skipped_in_a_row():
            if self._save_due:
                self.save(DrawSampler.latest_epoch, current_iter - 1)
            if number:
                self._stop(number, current_iter - 1)
        self.iteration = current_iter
        update_rates(self.schedulers, current_iter, warmup_iter)
        seed_step(int(self.opt['manual_seed']), int(self.opt['rank']), current_iter)

    def _stop(self, number: int, done: int) -> None:
        if done > 0 and self._saved_at != done:
            self.save(DrawSampler.latest_epoch, done)
        self.agreement.finish()
        get_root_logger().warning(stop_message(number, done))
        raise SystemExit(128 + number)

    def save(self, epoch: int, current_iter: int) -> None:
        """As BasicSR's; where ``K.state`` is, all that belongs to it is there. Fails on all ranks or on none.

        While steps are being skipped nothing is saved: the weights may be what makes them fail, and the states before
        are what a run can go on from. It is made up for after the next step that is taken. ``net_g_latest.pth``, at
        the end, is written in any case.
        """
        skipped = self.skipped_in_a_row()
        self._save_due = bool(skipped) and current_iter != -1
        if self._save_due:
            get_root_logger().warning(f'Iteration {current_iter} is not saved: it ends on {skipped} skipped steps in a '
                                      'row; the next step that is taken is.')
            return
        with self.agreement.failing_together('saving a checkpoint'):
            self.begin_saving(current_iter)
            self._save_networks(current_iter)
            self.save_rank_state(current_iter)
        with self.agreement.failing_together('saving a training state'):
            self.save_training_state(epoch, current_iter)
            if current_iter != -1 and self.opt['rank'] == 0:
                remove_older(self.opt['path'], current_iter, self.opt['logger'].get('keep_last'))
        self._saved_at = current_iter

    @abc.abstractmethod
    def skipped_in_a_row(self) -> int:
        """So many of the last steps were skipped; the same on all ranks."""

    def _save_networks(self, name: int | str) -> None:
        if hasattr(self, 'net_g_ema'):
            self.save_network([self.net_g, self.net_g_ema], 'net_g', name, param_key=['params', 'params_ema'])
        else:
            self.save_network(self.net_g, 'net_g', name)

    def validation(self, dataloader: Any, current_iter: Any, tb_logger: Any, save_img: bool = False) -> None:
        """As BasicSR's; then the network is kept if it is the best so far (``val.keep_best``)."""
        super().validation(dataloader, current_iter, tb_logger, save_img)
        metric = self.opt['val'].get('keep_best') if self.is_train else None
        if metric is None:
            return
        self._validated[dataloader.dataset.opt['name']] = float(self.metric_results[metric])
        if len(self._validated) == len(self._validation_sets()):
            mean = math.fsum(self._validated.values()) / len(self._validated)
            self._validated = {}
            self._keep_if_best(metric, mean, current_iter)

    def _log_validation_metric_values(self, current_iter: Any, dataset_name: str, tb_logger: Any) -> None:
        """As BasicSR's; a test has no iterations, of which one could be the best."""
        if not self.is_train:
            self.__dict__.pop('best_metric_results', None)
        super()._log_validation_metric_values(current_iter, dataset_name, tb_logger)

    def _keep_if_best(self, metric: str, value: float, iteration: int) -> None:
        if math.isnan(value):
            get_root_logger().warning(f'val.keep_best: {metric} of iteration {iteration} is not a number; the network '
                                      'is not kept.')
            return
        if skipped := self.skipped_in_a_row():
            get_root_logger().warning(f'val.keep_best: the network of iteration {iteration} is not kept ({metric}: '
                                      f'{value:.4f}): it ends on {skipped} skipped steps in a row.')
            return
        lower = self.opt['val']['metrics'][metric].get('better', 'higher') == 'lower'
        best = self._best.get('value') if self._best.get('metric') == metric else None
        if best is not None and (value > best if lower else value < best):  # as good is better, as in BasicSR's log
            return
        with self.agreement.failing_together('saving the best network'):
            self._save_networks(f'best_{metric}')
        self._best = {'metric': metric, 'value': value, 'iter': iteration}
        get_root_logger().info(f'net_g_best_{metric}.pth is of iteration {iteration} ({metric}: {value:.4f}).')

    def _restore_best(self, saved: dict[str, dict[str, Any]]) -> None:
        """The best results of the metrics that there are now; a new one begins anew."""
        self.best_metric_results: dict[str, dict[str, Any]] = {}
        for name, metrics in saved.items():
            self._initialize_best_metric_results(name)
            known = self.best_metric_results[name]
            known.update({metric: dict(best) for metric, best in metrics.items() if metric in known})

    def _validation_sets(self) -> list[dict[str, Any]]:
        return [block for phase, block in self.opt['datasets'].items() if phase.split('_')[0] == 'val']

    def run_state(self) -> dict[str, Any]:
        """What of the training state has nothing to do with the method; the same on all ranks."""
        results = {name: {metric: {**best, 'val': float(best['val'])} for metric, best in metrics.items()}
                   for name, metrics in getattr(self, 'best_metric_results', {}).items()}  # NumPy's floats are refused
        return {'manual_seed': int(self.opt['manual_seed']), 'world_size': int(self.opt['world_size']),
                'best_metric_results': results, 'best': self._best, 'options': self._options}

    def load_run_state(self, resume_state: dict[str, Any]) -> None:
        """Restores ``run_state``, and repeats a validation that the run may have been killed in.

        A training state is written before the validation of the same iteration, so that it survives an end there.
        """
        saved = resume_state.get('dil', {})
        logger = get_root_logger()
        for warning in resume_state.get('warnings', ()):
            logger.warning(warning)
        self.iteration = self._saved_at = resume_state['iter']
        if saved.get('best_metric_results') and (self.opt.get('val') or {}).get('metrics'):
            self._restore_best(saved['best_metric_results'])
        self._best = dict(saved.get('best', {}))
        if saved.get('manual_seed', self.opt['manual_seed']) != self.opt['manual_seed']:
            logger.warning(f'manual_seed is {self.opt["manual_seed"]}, the run began with {saved["manual_seed"]}: it '
                           'goes on with other draws than without the interruption.')
        before = {PROCESSES: str(saved.get('world_size', 1)), **saved.get('options', self._options)}
        differ = changes(before, self._options)
        if differ:
            kept = (' Optimisers and schedulers go on with what was saved: learning rates, betas, milestones.'
                    if changes_without_effect(before, self._options) else '')
            logger.warning(f'Options that differ from those of the interrupted run: {differ}.{kept}')
        val = self.opt.get('val')
        if val is not None and self.iteration % val['val_freq'] == 0 and self._validation_sets():
            logger.info(f'The validation of iteration {self.iteration} is repeated: it came after the training state.')
            for block in self._validation_sets():
                loader = build_dataloader(build_dataset(block), block, num_gpu=self.opt['num_gpu'],
                                          dist=self.opt['dist'], sampler=None, seed=self.opt['manual_seed'])
                self.validation(loader, self.iteration, None, False)
