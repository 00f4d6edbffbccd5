"""How ``DILModel`` reads and writes its checkpoints and training states: the files are those of BasicSR."""

import abc
import contextlib
import os
from collections import OrderedDict
from typing import Any

from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import master_only
from torch import nn

from dil_plugin.atomic import remove_temporary
from dil_plugin.basicsr.models.pretrained_parameters import KEY, load_fitting, parameters_under
from dil_plugin.basicsr.resuming.training_states import rank_state_path, saved_iterations
from dil_plugin.checkpoints import (
    NOTES,
    forgotten_statistics,
    load_checkpoint,
    notes_of_training,
    save_atomically,
)
from dil_plugin.errors import DataError
from dil_plugin.learning.buffers import copy_buffers
from dil_plugin.networks.spandrel_facts import spandrel_problem

_OLD = 3600.0  # seconds


class CheckpointFiles(SRModel, abc.ABC):
    """``SRModel`` with files that are checked when they are read, and written atomically."""

    iteration = 0
    """The last iteration that was computed."""

    _told_of_spandrel = False

    @abc.abstractmethod
    def rank_state(self) -> dict[str, Any]:
        """What an exact continuation needs that differs between the ranks."""

    @abc.abstractmethod
    def training_state(self) -> dict[str, Any]:
        """What an exact continuation needs beside optimisers and schedulers."""

    @abc.abstractmethod
    def confounder_labels(self) -> list[str]:
        """The confounders that the network is trained on, by name."""

    def load_network(self,
                     net: nn.Module,
                     load_path: str,
                     strict: bool = True,
                     param_key: str | None = 'params') -> None:
        """As BasicSR's; raises DataError, naming the file, where it does not hold this network's parameters.

        A file without any key, as ESRGAN's RRDB_PSNR_x4.pth is one, holds the parameters themselves. A run that is
        resumed goes on from ``params_theta`` where that is not what was deployed, and needs all parameters whatever
        ``path.strict_load_g`` says. What the average of a network is not given, it has of the network.
        """
        logger = get_root_logger()
        whole = load_checkpoint(load_path, KEY)
        own = self._trained_key(load_path, whole)
        wanted = own if param_key == 'params' else param_key
        used, state = parameters_under(whole, load_path, wanted, own)
        averaged = net is getattr(self, 'net_g_ema', None)  # BasicSR asks for its params_ema, whatever the YAML says
        if used is not None:
            what = f'the moving average of {type(net).__name__}' if averaged else type(net).__name__
            logger.info(f'Loading {what} from {load_path}, param key: [{used}].')
        if used is not None and used != wanted and averaged:
            logger.info(f"The moving average (train.ema_decay) begins at '{used}': {load_path} has no '{wanted}'.")
        elif used is not None and used != wanted:
            logger.warning(f"{KEY}: '{used}' is taken: {load_path} has no '{wanted}', which path.param_key_g asks for.")
        if used is not None and (warning := forgotten_statistics(whole, load_path, used)):
            logger.warning(f'{KEY}: {warning}')
        strict = strict or self._resumes_from(load_path)
        if averaged:
            copy_buffers(net, self.net_g)
            if not strict:
                net.load_state_dict(self.net_g.state_dict())
        if not strict:  # otherwise each difference is an error
            self._print_different_keys_loading(net, state, strict)
        load_fitting(net, state, whole, load_path, strict)

    def _trained_key(self, load_path: str, content: Any) -> str:
        """Under what the parameters stand that training goes on from."""
        found = isinstance(content, dict) and 'params_theta' in content
        return 'params_theta' if found and self._resumes_from(load_path) else 'params'

    def _resumes_from(self, load_path: str) -> bool:
        path = self.opt['path']
        return bool(self.is_train and path.get('resume_state') and os.path.dirname(load_path) == path['models'])

    @master_only
    def save_network(self, net: Any, net_label: str, current_iter: int | str, param_key: Any = 'params') -> None:
        """As BasicSR's, the same file, written atomically; a failure to write is raised.

        Beside ``params`` and ``params_ema`` stands a note of what network it is and how it was trained, which others
        ignore (``dil_plugin.checkpoints``).

        Args:
            net: One network or several.
            net_label: ``net_g``.
            current_iter: The number or word that the file is named by; -1: latest.
            param_key: As many keys as networks.

        Raises:
            DataError: The file cannot be written.
        """
        nets, keys = (x if isinstance(x, list) else [x] for x in (net, param_key))
        content = {
            key: OrderedDict((name, tensor.cpu()) for name, tensor in self.get_bare_model(one).state_dict().items())
            for one, key in zip(nets, keys, strict=True)
        }
        if net_label == 'net_g':
            self._tell_of_spandrel()
            iteration = self.iteration if isinstance(current_iter, str) or current_iter == -1 else current_iter
            content[NOTES] = notes_of_training(self.opt, iteration, self.confounder_labels())
        name = f'{net_label}_{"latest" if current_iter == -1 else current_iter}.pth'
        self._write(content, os.path.join(self.opt['path']['models'], name))

    def _tell_of_spandrel(self) -> None:
        """Warns once where others would restore other images with what is saved, or could not load it."""
        problem = None if self._told_of_spandrel else spandrel_problem(self.opt['network_g'])
        self._told_of_spandrel = True
        if problem is not None:
            get_root_logger().warning(f'network_g: {problem}.')

    @master_only
    def begin_saving(self, current_iter: int) -> None:
        """Removes a state of this iteration, which belongs to the network that is about to be replaced.

        Also removes what killed runs left half written, an hour ago or longer: others may be writing right now.
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._state_path(current_iter))
        for folder in (self.opt['path']['models'], self.opt['path']['training_states']):
            remove_temporary(folder, _OLD)

    @master_only
    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """As BasicSR's, with the variant's state and the generators, written atomically."""
        if current_iter == -1:
            return
        state = {
            'epoch': epoch,
            'iter': current_iter,
            'optimizers': [optimizer.state_dict() for optimizer in self.optimizers],
            'schedulers': [scheduler.state_dict() for scheduler in self.schedulers],
            'dil': self.training_state(),
        }
        self._write(state, self._state_path(current_iter))

    def save_rank_state(self, current_iter: int) -> None:
        """What of the training state is this rank's own; that of rank 0 stands in its training state."""
        if self.opt['rank'] > 0 and current_iter != -1:
            self._write(self.rank_state(), rank_state_path(self._state_path(current_iter), self.opt['rank']))

    def _state_path(self, current_iter: int) -> str:
        return os.path.join(self.opt['path']['training_states'], f'{current_iter}.state')

    def _write(self, content: Any, path: str) -> None:
        try:
            save_atomically(content, path)
        except (OSError, RuntimeError) as error:  # torch's writer wraps some of the system's errors
            cause = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
            newest = max(saved_iterations(self.opt['path']['training_states']), default=None)
            whole = 'no training state was written before' if newest is None else \
                f'{newest}.state is whole, --auto_resume goes on from it'
            raise DataError(f'{path}: cannot be written ({cause}); {whole}') from error
