"""The lines of the training log, which can be read whatever the number of confounders."""

from collections.abc import Iterator, Mapping
from typing import Any

from basicsr.utils import MessageLogger
from basicsr.utils.dist_util import master_only

_WIDTH = 160
_MAIN = ('epoch', 'iter', 'lrs', 'time', 'data_time', 'l_inner', 'l_outer', 'grad_norm')


class LogLines(MessageLogger):
    """BasicSR's ``MessageLogger``; of a DILModel the losses by confounder and the times stand in lines of their own.

    The first line is BasicSR's, with ``l_inner``, ``l_outer`` and ``grad_norm``. All else follows, in lines of at most
    160 characters before which the iteration stands: ``l_inner_CONFOUNDER``, the parts of the loss, ``skipped`` where
    steps were skipped, and the seconds ``t_…``. TensorBoard gets every number.
    """

    @master_only
    def __call__(self, log_vars: dict[str, Any]) -> None:
        """Writes the lines of an iteration.

        Args:
            log_vars: As BasicSR's; it takes its own out.
        """
        if 'skipped' not in log_vars:  # of another model
            super().__call__(log_vars)
            return
        iteration = log_vars['iter']
        others = {name: value for name, value in log_vars.items() if name not in _MAIN}
        super().__call__({name: log_vars[name] for name in _MAIN if name in log_vars})
        for line in _lines(f'[{self.exp_name[:5]}..][iter:{iteration:8,d}]', others):
            self.logger.info(line)
        if self.tb_logger is not None:
            for name, value in others.items():
                self.tb_logger.add_scalar(f'losses/{name}' if name.startswith('l_') else name, value, iteration)


def _lines(head: str, values: Mapping[str, float]) -> Iterator[str]:
    line = head
    for name, value in values.items():
        if name == 'skipped' and not value:
            continue
        item = f' {name}: {value:.4g}'
        if len(line) + len(item) > _WIDTH and line != head:
            yield line
            line = head
        line += item
    if line != head:
        yield line
