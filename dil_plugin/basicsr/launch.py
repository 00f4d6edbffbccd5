"""Runs BasicSR's pipelines for the tools: a user's mistake ends in one clear line, not in a traceback."""

from collections.abc import Callable
from urllib.error import URLError

import torch
from torch import distributed

from dil_plugin.errors import DataError
from dil_plugin.launch import errors_in_one_line


def run(pipeline: Callable[[str], None], root_path: str) -> None:
    """Calls ``train_pipeline`` or ``test_pipeline``.

    Args:
        pipeline: The function of BasicSR.
        root_path: The folder in which ``experiments/`` and ``results/`` are made.

    Exits with status 2 and a message on standard error where the user's options or data are at fault, 130 after
    Ctrl-C.
    """
    with errors_in_one_line('interrupted; a training goes on with --auto_resume'):
        try:
            pipeline(root_path)
        except URLError as error:  # of torchvision, which fetches the weights of a loss's VGG
            raise DataError('train.perceptual_opt: the weights of its VGG are not there and cannot be fetched '
                            f'({error.reason}); put torchvision\'s file into the folder checkpoints of torch.hub '
                            f'({torch.hub.get_dir()})') from None
        except SystemExit:  # of a run that a signal has ended, on all ranks
            _leave_the_group()
            raise
        _leave_the_group()


def _leave_the_group() -> None:
    """Ends the threads that processes talk by; at the end of Python one of them may still be at work, and abort."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
