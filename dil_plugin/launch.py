"""How the tools end: a user's mistake is one clear line on standard error, not a traceback."""

import contextlib
import sys
from collections.abc import Iterator

from dil_plugin.errors import DILError
from dil_plugin.mistakes import each


@contextlib.contextmanager
def errors_in_one_line(interrupted: str = 'interrupted') -> Iterator[None]:
    """Exits with status 2 and a line for each mistake where the user's options or data are at fault, 130 after Ctrl-C.

    Args:
        interrupted: What to say after Ctrl-C.
    """
    try:
        yield
    except DILError as error:
        for one in each(error):
            sys.stderr.write(f'error: {message(one)}\n')
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write(f'{interrupted}\n')
        sys.exit(130)


def message(error: DILError) -> str:
    """The error's message in one line; raised in a data worker it carries that worker's traceback, whose end it is."""
    text = str(error).strip()
    if 'Traceback (most recent call last)' in text:
        text = text.splitlines()[-1].split('Error: ', 1)[-1]
    return ' '.join(text.split())
