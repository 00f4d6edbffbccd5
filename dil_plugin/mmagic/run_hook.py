"""The hook that joins every run: it looks at a run before it begins, and keeps its average, log and steps in order."""

import os
from typing import Any

from mmengine.hooks import Hook, LoggerHook
from mmengine.model import is_model_wrapper

from dil_plugin.mmagic.alignment import check_alignment, check_confounders
from dil_plugin.mmagic.averages import average_after_steps_alone, check_averages
from dil_plugin.mmagic.models import DILEditModel
from dil_plugin.mmagic.run_checks import check_batches, warn_of_order
from dil_plugin.mmagic.wording import names_of_the_config


class RunHook(Hook):
    """Checks pipelines with ``CounterfactualDistortions``; in a training of a ``DILEditModel`` all of the run.

    A run of other models and other pipelines is left as it is.
    """

    priority = 'VERY_HIGH'  # before the hooks that average, log and save

    def __init__(self) -> None:
        self._model: DILEditModel | None = None
        self._interval = 10

    @names_of_the_config()
    def before_train(self, runner: Any) -> None:
        """Weights are loaded, loaders and hooks are there.

        Raises:
            OptionError: The run would end, or average nothing, or train on images that do not belong together.
        """
        check_alignment(runner.train_dataloader.dataset)
        self.before_val(runner)  # not after hours
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not isinstance(model, DILEditModel):
            return
        check_confounders(runner.train_dataloader.dataset, model.distortions.labels)
        check_averages(runner.hooks, model.options.is_use_ema)
        check_batches(runner.train_dataloader, model.options, model.distortions)
        warn_of_order(runner)
        if self._model is not model:
            self._model = model
            average_after_steps_alone(runner.hooks, lambda: model.took_a_step(runner.optim_wrapper))
        model.prepare_training(runner.optim_wrapper, os.path.abspath(runner.work_dir))
        self._interval = next((hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)), 10)

    @names_of_the_config()
    def before_val(self, runner: Any) -> None:
        """See ``check_alignment``."""
        _check_loop(runner.val_loop)

    @names_of_the_config()
    def before_test(self, runner: Any) -> None:
        """See ``check_alignment``."""
        _check_loop(runner.test_loop)

    @names_of_the_config()
    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None,
                         outputs: dict[str, Any] | None = None) -> None:
        """Ends an iteration whose step another took, and hands the skipped steps to the log."""
        if self._model is None:
            return
        self._model.finish_iteration(runner.optim_wrapper)
        if self.every_n_inner_iters(batch_idx, self._interval) or self.is_last_train_iter(runner) or \
                self.end_of_epoch(runner.train_dataloader, batch_idx):  # an epoch may be shorter than the interval
            skipped = self._model.skipped_steps()
            if skipped:
                runner.message_hub.update_scalar('train/skipped', skipped)


def _check_loop(loop: Any) -> None:
    for loader in getattr(loop, 'dataloaders', None) or [getattr(loop, 'dataloader', None)]:
        check_alignment(getattr(loader, 'dataset', None))
