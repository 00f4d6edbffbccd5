"""Runs BasicSR's pipelines for the tools: a user's mistake ends in one clear line, not in a traceback."""

import sys
from collections.abc import Callable

from dil_plugin.errors import DILError


def run(pipeline: Callable[[str], None], root_path: str) -> None:
    """Calls ``train_pipeline`` or ``test_pipeline``.

    Args:
        pipeline: The function of BasicSR.
        root_path: The folder in which ``experiments/`` and ``results/`` are made.

    Exits with status 2 and a message on standard error where the user's options or data are at fault, 130 after
    Ctrl-C.
    """
    try:
        pipeline(root_path)
    except DILError as error:
        print(f'error: {message(error)}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('interrupted; a training goes on with --auto_resume', file=sys.stderr)
        sys.exit(130)


def message(error: DILError) -> str:
    """The error's message in one line; raised in a data worker it carries that worker's traceback, whose end it is."""
    text = str(error).strip()
    if 'Traceback (most recent call last)' in text:
        text = text.splitlines()[-1].split('Error: ', 1)[-1]
    return ' '.join(text.split())
