"""What to say of a file or folder that is not there: where it was looked for, and where one of that name is."""

import os
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]  # where tools/train.py makes experiments/


def no_such(path: str | os.PathLike[str], what: str = 'file') -> str:
    """``there is no file experiments/a/net_g.pth``, and ``looked_in``.

    Args:
        path: As the user gave it.
        what: ``file``, ``folder``, or both.
    """
    return f'there is no {what} {path}{looked_in(path)}'


def looked_in(path: str | os.PathLike[str]) -> str:
    """`` (looked in /home/b; it is at /home/c/experiments/a/net_g.pth)``; nothing for an absolute path.

    It is looked for from the folders above the current one too, and from the project's.
    """
    here = Path.cwd()
    if Path(path).is_absolute():
        return ''
    found = next((folder / path for folder in (*here.parents, _ROOT) if (folder / path).exists()), None)
    return f' (looked in {here}{"" if found is None else f"; it is at {found}"})'
