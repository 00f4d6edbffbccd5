"""Which images a cell was trained and tested on, so that no table compares results of different ones."""

import functools
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dil_plugin.data_preparation import find_images
from dil_plugin.errors import OptionError
from dil_plugin.study.cells import Cell
from dil_plugin.study.options import PairFolders, Study, parse_condition
from dil_plugin.study.results import Curve
from dil_plugin.study.test_conditions import IMAGES, spread_images

_OPTIONS = {'test': '--test-data', 'train': '--train-data'}


def fingerprints(study: Study, options: Mapping[str, Any]) -> dict[str, str]:
    """Of the images of a training: ``test`` and ``train``, 16 hexadecimal digits each, the same on every machine.

    Args:
        study: Its block ``test`` says which images are tested on. Their names and bytes count.
        options: Of the training. Of an LMDB its ``meta_info.txt`` counts (names and sizes of the images); of a folder
            the names and sizes of the files.

    Raises:
        DataError: A folder is missing or has no images.
    """
    return {'test': test_images(study), 'train': training_images(options)}


def test_images(study: Study) -> str:
    """The fingerprint of the images that all cells are tested on."""
    test = study.test
    folders = [(IMAGES, test.images)] if test.images is not None else []
    for name, raw in test.conditions.items():
        condition = parse_condition(raw, f'test.{name}')
        if isinstance(condition, PairFolders):
            folders += [(f'test.{name}.gt', condition.gt), (f'test.{name}.lq', condition.lq)]
    return _digest(part for key, folder in folders for path in spread_images(folder, test.count, key)
                   for part in (path.name.encode(), path.read_bytes()))


def training_images(options: Mapping[str, Any]) -> str:
    """The fingerprint of the images of a training."""
    block = options['datasets']['train']
    roots: list[str] = []
    for key in sorted(key for key in block if key.startswith('dataroot')):
        roots += block[key] if isinstance(block[key], list) else [block[key]]
    return _of_roots(tuple(roots))


def check_one_set(curves: Mapping[str, Curve]) -> None:
    """Refuses results that cannot stand in one table; those of which nothing is known pass.

    Args:
        curves: By the names of their cells.

    Raises:
        OptionError: Two were tested on different images, or two seeds of one arm trained on different ones.
    """
    first: dict[tuple[str, ...], tuple[str, str]] = {}
    for name, curve in curves.items():
        for kind, value in curve.images.items():
            scope = (kind, ) if kind == 'test' else (kind, curve.arm, curve.group)
            before, expected = first.setdefault(scope, (name, value))
            if value != expected:
                raise _other_images(kind, f'cells {before} and {name}')


def check_images_now(study: Study, cells: Iterable[tuple[Cell, Curve]]) -> None:
    """Refuses to add to results of other images than those that the study would take now.

    Raises:
        OptionError: A cell that has ended is of others.
        DataError: As ``fingerprints``.
    """
    known = [(cell, curve) for cell, curve in cells if curve.images]
    tested = test_images(study) if known else ''
    for cell, curve in known:
        for kind, now in (('test', tested), ('train', training_images(cell.options))):
            if curve.images.get(kind, now) != now:
                raise _other_images(kind, f'cell {cell.name}, which has ended, and this run')


def _other_images(kind: str, who: str) -> OptionError:
    return OptionError(f'{_OPTIONS[kind]}: {who} have different {kind} images, which one table cannot compare; '
                       'allowed: the same images, or another --output')


@functools.cache
def _of_roots(roots: tuple[str, ...]) -> str:
    parts: list[bytes] = []
    for root in map(Path, roots):
        meta = root / 'meta_info.txt'
        parts += [meta.read_bytes()] if meta.is_file() else [
            f'{path.relative_to(root).as_posix()} {path.stat().st_size}'.encode()
            for path in find_images(root, recursive=True)]
    return _digest(parts)


def _digest(parts: Iterable[bytes]) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, 'big'))
        whole.update(part)
    return whole.hexdigest()[:16]
