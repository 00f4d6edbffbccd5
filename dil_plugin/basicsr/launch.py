"""Runs BasicSR's pipelines for the tools: a user's mistake ends in one clear line, not in a traceback."""

from collections.abc import Callable

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
        pipeline(root_path)
