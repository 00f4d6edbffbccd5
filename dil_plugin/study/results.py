"""What a study leaves behind: ``cells/NAME/curve.json`` for every cell, and all of them in one ``results.json``."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from dil_plugin.atomic import whole_file
from dil_plugin.errors import DataError, OptionError
from dil_plugin.study.cells import Cell

S = TypeVar('S', bound=msgspec.Struct)

Scores = dict[str, dict[str, list[float]]]
"""By condition and metric, one number for each point."""


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """One finished or failed cell.

    Attributes:
        arm: As in ``Cell``; so are ``group``, ``seed``, ``digest``, ``cost``, ``outer_steps``, ``iterations`` and
            ``image_gradients``.
        status: ``failed`` where the training ended with an error, such as losses that were not finite.
        error: That error.
        scores: By parameters: ``theta``, ``ema``, or ``phi ALPHA``.
        images: Fingerprints of the images that it was trained and tested on; empty where they are not known.
        invariance: Means of the invariance report's metrics at the end, where they were asked for.
        seconds: Of the training, all its starts together; None where one of them was killed.
        device: It ran on.
        torch: Its version.
    """

    arm: str
    group: str
    seed: int
    digest: str
    cost: dict[str, int]
    outer_steps: int
    iterations: int
    image_gradients: list[int]
    status: Literal['done', 'failed']
    error: str | None = None
    scores: dict[str, Scores] = {}
    images: dict[str, str] = {}
    invariance: dict[str, float] | None = None
    seconds: float | None = None
    device: str = ''
    torch: str = ''


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """All cells of a study that have ended.

    Attributes:
        question: Of the study.
        baseline: The arm that others are compared with.
        seen: Names of the seen conditions.
        unseen: Names of the others.
        planned: How many cells the study has.
        cells: By name.
    """

    question: str
    baseline: str
    seen: list[str]
    unseen: list[str]
    planned: int
    cells: dict[str, Curve]


def curve_of(cell: Cell, status: Literal['done', 'failed'], **what: object) -> Curve:
    """A curve with what its cell says."""
    return msgspec.convert(
        {'arm': cell.arm, 'group': cell.group, 'seed': cell.seed, 'digest': cell.digest, 'cost': cell.cost,
         'outer_steps': cell.outer_steps, 'iterations': cell.iterations, 'image_gradients': cell.image_gradients,
         'status': status, **what}, Curve)


def curve_path(output: Path, cell: Cell) -> Path:
    """Where the curve of a cell is."""
    return output / 'cells' / cell.name / 'curve.json'


def read_curve(output: Path, cell: Cell) -> Curve | None:
    """The curve of a cell, None where it has not ended yet.

    Raises:
        OptionError: It is of other settings.
    """
    path = curve_path(output, cell)
    if not path.is_file():
        return None
    curve = _decoded(path, Curve)
    if curve.digest != cell.digest:
        raise OptionError(f'--output: {path} is of other settings than the study has now{_what_differs(curve, cell)}; '
                          f'allowed: those settings, another folder, or removing {path.parent}')
    return curve


def _what_differs(curve: Curve, cell: Cell) -> str:
    for what, found, expected in (('image gradients', curve.image_gradients[-1], cell.image_gradients[-1]),
                                  ('points', len(curve.image_gradients), cell.points)):
        if found != expected:
            return f' ({found:,} {what}, not {expected:,})'
    return ''


def forget_failures(output: Path, cells: Iterable[Cell]) -> None:
    """Removes the record of cells that failed, so that they are run again."""
    for cell in cells:
        curve = read_curve(output, cell)
        if curve is not None and curve.status == 'failed':
            curve_path(output, cell).unlink()


def write_json(content: msgspec.Struct, path: Path) -> None:
    """Writes a file that is whole or not there.

    Raises:
        DataError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write(msgspec.json.format(msgspec.json.encode(content), indent=1))
    except OSError as error:
        raise DataError(f'--output: {path} cannot be written ({error.strerror})') from None


def read_results(path: Path) -> Results:
    """A ``results.json``; raises DataError where it is none."""
    return _decoded(path, Results)


def matching(found: Mapping[str, Curve], cells: Sequence[Cell]) -> dict[str, Curve]:
    """What another ``results.json`` has of this study's trainings: those of the same settings, under any name.

    Args:
        found: Its curves by name.
        cells: Of this study.

    Returns:
        By the names that they have here. Trainings of equal settings, whose data alone differ, are told apart by their
        names.
    """
    here, there = (Counter(one.digest for one in group) for group in (cells, found.values()))
    by_digest = {curve.digest: curve for curve in found.values()}
    curves: dict[str, Curve] = {}
    for cell in cells:
        curve = found.get(cell.name)
        if curve is None or curve.digest != cell.digest:
            curve = by_digest.get(cell.digest) if here[cell.digest] == there[cell.digest] == 1 else None
        if curve is not None:
            curves[cell.name] = msgspec.structs.replace(curve, arm=cell.arm, group=cell.group)
    return curves


def _decoded(path: Path, kind: type[S]) -> S:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise DataError(f'{path} cannot be read ({error.strerror})') from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f'{path} is no file of a study ({error})') from None
