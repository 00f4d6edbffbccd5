"""The runs of an evaluation, as the command line names them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dil_plugin.errors import DataError, OptionError
from dil_plugin.evaluation.output_files import file_stem
from dil_plugin.evaluation.results import CLEAN, INPUT
from dil_plugin.missing_files import no_such

RESERVED = (INPUT, CLEAN, 'distorted input', 'clean original')  # and what the reports call these two
_FORBIDDEN = set('\\:*?"<>|')


def parse_runs(entries: Sequence[str], option: str = '--run') -> dict[str, Path]:
    """``NAME=PATH`` entries, by name; ``check_runs`` checks names and files.

    Raises:
        OptionError: An entry is of another form, or a name is given twice.
    """
    runs: dict[str, Path] = {}
    for entry in entries:
        name, equals, path = entry.partition('=')
        if not equals or not path:
            raise OptionError(f'{option} {entry}: expected NAME=PATH, as in {option} ERM=net_g_latest.pth')
        if name in runs:
            raise OptionError(f'{option} {entry}: the name {name!r} was given before')
        runs[name] = Path(path)
    return runs


def check_runs(runs: Mapping[str, Path], option: str = '--run', groups: Sequence[str] = (),
               slashes: bool = False) -> None:
    """Raises OptionError or DataError where a name or a file cannot be.

    Args:
        runs: Checkpoints by name.
        option: What gave them, for messages.
        groups: Those of the protocol; with any, names are ``GROUP/METHOD``, without, they have no slash.
        slashes: Whether they may have slashes all the same.
    """
    stems: dict[str, str] = {}
    for name, path in runs.items():
        if (other := stems.setdefault(file_stem(name), name)) != name:
            raise OptionError(f'{option} {name}={path}: {name!r} and {other!r} would share their files; rename one')
        parts = name.split('/')
        if not all(part.strip() for part in parts) or _FORBIDDEN & set(name) or '..' in parts or name.startswith('.'):
            raise OptionError(f'{option} {name}={path}: {name!r} cannot name a run; take letters, digits, - and _')
        if parts[-1] in RESERVED:
            raise OptionError(f'{option} {name}={path}: {parts[-1]!r} is reserved; so are '
                              f'{", ".join(RESERVED)}')
        if groups and (len(parts) != 2 or parts[0] not in groups):
            raise OptionError(f'{option} {name}={path}: this table is divided by {", ".join(groups)}: name the run '
                              f'GROUP/METHOD, as in {groups[0]}/ERM')
        if not groups and not slashes and len(parts) > 1:
            raise OptionError(f'{option} {name}={path}: {name!r} has a slash, which divides GROUP/METHOD where a table '
                              'has groups; this one has none')
        if not path.is_file():
            raise DataError(f'{option} {name}={path}: {no_such(path)}')
