"""Runs BasicSR's pipelines for the tools: a user's mistake ends in one clear line, not in a traceback."""

import sys
import traceback
from collections.abc import Callable
from typing import NoReturn
from urllib.error import URLError

import torch
from torch import distributed

from dil_plugin.basicsr.checks.unexpected import in_words, into_the_log, of_network_or_data
from dil_plugin.errors import DataError, DILError, OptionError
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
        except DILError as error:
            if error.__cause__ is not None:
                into_the_log(error.__cause__)
            raise
        except Exception as error:
            end_unexpectedly(error)
        _leave_the_group()


def end_unexpectedly(error: Exception) -> NoReturn:
    """Ends the process on an error that nobody foresaw; the last line says what was being done, and where it happened.

    What comes of a network, loss, metric or data set is a user's mistake: that line alone, the traceback stands in the
    log, status 2. Anything else keeps its traceback on standard error, status 1.
    """
    into_the_log(error)
    if of_network_or_data(error):
        raise OptionError(in_words(error)) from None
    traceback.print_exception(error)
    sys.stderr.write(f'error: {in_words(error)}\n')
    sys.exit(1)


def _leave_the_group() -> None:
    """Ends the threads that processes talk by; at the end of Python one of them may still be at work, and abort."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
