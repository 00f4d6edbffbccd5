"""Finds the modules that register themselves, as BasicSR does, by the suffix of their file name."""

import importlib
import pkgutil


def import_modules(package: str, paths: list[str], suffix: str) -> None:
    """Imports every module of ``package`` whose name ends with ``suffix``, in alphabetical order."""
    for module in sorted(m.name for m in pkgutil.iter_modules(paths) if m.name.endswith(suffix)):
        importlib.import_module(f'{package}.{module}')
