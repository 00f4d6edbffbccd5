"""Reads a YAML file of options, and what it names: what goes wrong then is one line."""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from dil_plugin.basicsr.yaml_options.layout import misplaced, seed_given
from dil_plugin.errors import DILError, OptionError
from dil_plugin.missing_files import no_such
from dil_plugin.mistakes import Mistakes, raise_all
from dil_plugin.options import did_you_mean


@contextlib.contextmanager
def reading_options() -> Iterator[None]:
    """Turns what goes wrong while BasicSR reads a YAML file into errors that a user can act on."""
    try:
        yield
    except DILError:
        raise
    except FileNotFoundError as error:
        raise OptionError(f'-opt: {no_such(error.filename)}') from None
    except OSError as error:
        raise OptionError(f'-opt: {error.filename} cannot be read ({error.strerror})') from None
    except UnicodeDecodeError as error:
        file = sys.argv[sys.argv.index('-opt') + 1] if '-opt' in sys.argv[:-1] else 'the file'
        raise OptionError(f'-opt: {file} is not a text file in UTF-8 ({error}); allowed: YAML saved as UTF-8') from None
    except (ValueError, SyntaxError, NameError, IndexError) as error:
        if str(error).startswith('Seed must be'):  # NumPy's
            raise OptionError(f'manual_seed: {error}, got {seed_given(sys.argv)}') from None
        raise OptionError(f'--force_yml: expected KEY:KEY=VALUE with keys of the YAML ({error})') from None
    except yaml.YAMLError as error:
        raise OptionError(f'-opt: not a YAML file: {error}') from None
    except KeyError as error:
        raise OptionError(f'the options have no key {error} (needed by BasicSR, or named in --force_yml)') from None
    except (AttributeError, TypeError) as error:
        raise_all(OptionError(f'-opt or --force_yml: not laid out as BasicSR expects ({where})')
                  for where in misplaced(sys.argv) or [str(error)])


def read_yaml(path: str) -> dict[str, Any]:
    """The options as they stand in the file."""
    with open(path) as file:
        return yaml.safe_load(file)


def check_forced_keys(raw: Mapping[str, Any], entries: list[str]) -> None:
    """Raises OptionError where ``--force_yml`` names a key that the YAML does not have: BasicSR would ignore it."""
    mistakes = Mistakes()
    for entry in entries:
        block: Any = raw
        for name in entry.split('=')[0].strip().split(':'):
            if not isinstance(block, Mapping) or name not in block:
                keys = [str(key) for key in block] if isinstance(block, Mapping) else []
                known = did_you_mean(name, keys)
                mistakes.add(OptionError(f"--force_yml {entry}: the YAML has no key '{name}' there; {known}"))
                break
            block = block[name]
    mistakes.end()


def import_modules(opt: Mapping[str, Any]) -> None:
    """Imports the modules of the option ``custom_imports``: confounders, networks and data sets of the user's own.

    Raises:
        OptionError: It is no list of names, or a module cannot be imported.
    """
    names = opt.get('custom_imports') or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise OptionError(f'custom_imports: expected a list of module names, got {names!r}')
    if names and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a tool is started by its path, so its own folder stands there, not the user's
    mistakes = Mistakes()
    for name in names:
        with mistakes:
            _import(name)
    mistakes.end()


def _import(name: str) -> None:
    if not all(part.isidentifier() for part in name.split('.')):
        raise OptionError(f"custom_imports: {name!r} is no module's name; allowed: names with dots, without .py, as "
                          'my_networks for my_networks.py of the current folder')
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise OptionError(f'custom_imports: {name} cannot be imported: {error}; allowed: modules of the current '
                          'folder or of the Python path') from None
