"""Reads the benchmarks of the paper, and usual ones beside them, in the layouts in which they are published and kept.

``open_benchmark`` looks for a set below one folder of data sets; ``catalogue.py`` has the places.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from dil_plugin.data_preparation.pairing import ENDINGS, endings_in_words
from dil_plugin.errors import DataError, OptionError
from dil_plugin.evaluation.benchmark_sets.base import BenchmarkSet, MissingSet, Sample
from dil_plugin.evaluation.benchmark_sets.catalogue import CATALOGUE, Layout, SetEntry, own_set
from dil_plugin.evaluation.benchmark_sets.dnd import open_dnd
from dil_plugin.evaluation.benchmark_sets.dnd_submission import DndSubmission
from dil_plugin.evaluation.benchmark_sets.folders import open_clean, open_pairs
from dil_plugin.evaluation.benchmark_sets.patterns import find_folder, find_matches, readable
from dil_plugin.evaluation.benchmark_sets.sidd import open_sidd
from dil_plugin.options import did_you_mean

__all__ = ['BENCHMARKS', 'BenchmarkSet', 'DndSubmission', 'MissingSet', 'Sample', 'open_benchmark']

BENCHMARKS: tuple[str, ...] = tuple(CATALOGUE)
"""The names of all benchmarks that can be opened."""

_MATLAB: dict[str, Callable[[Path, bool, str], BenchmarkSet | None]] = {'SIDD': open_sidd, 'DND': open_dnd}


def open_benchmark(name: str, data: Path, scale: int = 1, pairs: bool = False) -> BenchmarkSet:
    """Finds a benchmark below a folder of data sets.

    Args:
        name: One of ``BENCHMARKS``, or a folder of one's own in ``data``.
        data: The folder that holds the sets as folders.
        scale: Clean size divided by distorted size, of sets of pairs; ignored where only clean images are asked for.
        pairs: Take the set's own distorted images too; else the clean images alone.

    Returns:
        The set; its ``remark`` says where it is not the one that was published.

    Raises:
        OptionError: There is no such benchmark, or it has no pairs, no pairs of that scale, or no clean images.
        MissingSet: It is not below ``data``.
        DataError: There is no folder ``data``, or a file that lists the images is damaged.
    """
    data = Path(data)
    entry = CATALOGUE.get(name)
    if entry is None and not (data / name).is_dir():
        raise OptionError(f"data sets: unknown set '{name}', and no folder of that name in {data}; "
                          f'{did_you_mean(name, BENCHMARKS)}')
    if entry is None:
        entry = own_set(name)
    else:
        _check(name, entry, scale, pairs)
    if not data.is_dir():
        raise DataError(f'{data}: there is no such folder of data sets')
    scales = [scale] if pairs else sorted(entry.published, reverse=True) or [1]
    for one in scales:
        for where, root in _roots(data, entry, one):
            if found := _open_at(name, entry, root, where, one, pairs):
                return found
    raise MissingSet(_missing(name, entry, data, scales[0], pairs))


def _check(name: str, entry: SetEntry, scale: int, pairs: bool) -> None:
    if pairs and not entry.pairs and not entry.matlab:
        raise OptionError(f'{name}: has clean images only; a condition without a distortion needs a set of pairs')
    allowed = sorted(entry.published) or [1]
    if pairs and scale not in allowed:
        raise OptionError(f'{name}: has no pairs of scale {scale}; allowed: {", ".join(map(str, allowed))}')
    if not pairs and name == 'DND':
        raise OptionError('DND: its clean images are not public; it has noisy images only')


def _open_at(name: str, entry: SetEntry, root: Path, where: str, scale: int, pairs: bool) -> BenchmarkSet | None:
    published = entry.published.get(scale)
    if entry.matlab and (found := _MATLAB[name](root, pairs, where)):
        return found
    for layout in _layouts(entry, scale) if where else []:  # any folder's input/ and target/ would do for SIDD else
        if not pairs:
            found = open_clean(name, root, layout, published, where, entry.crops)
        elif isinstance(layout, Layout):  # not a pattern of clean images alone
            found = open_pairs(name, root, layout, scale, published, where, entry.crops)
        else:
            found = None
        if found:
            return found
    return None


def _roots(data: Path, entry: SetEntry, scale: int) -> Iterator[tuple[str, Path]]:
    """The folders of the set that there are, each with its path below ``data``."""
    for relative in _folders(entry, scale):
        if root := find_folder(data, relative):
            yield '' if relative == '.' else root.relative_to(data).as_posix(), root


def _folders(entry: SetEntry, scale: int) -> list[str]:
    return [folder.replace('{scale}', str(scale)) for folder in entry.folders]


def _layouts(entry: SetEntry, scale: int) -> list[str | Layout]:
    factor = str(scale)
    pairs = [Layout(layout.gt.replace('{scale}', factor), layout.lq and layout.lq.replace('{scale}', factor))
             for layout in entry.pairs]
    return [*entry.clean, *pairs]


def _missing(name: str, entry: SetEntry, data: Path, scale: int, pairs: bool) -> str:
    """One line on why a set was not found."""
    own = name not in CATALOGUE
    if pairs and own and (unpaired := _unpaired(data / name, scale)):
        return f'{name}: {unpaired}'
    there = [where or '.' for where, _ in _roots(data, entry, scale) if where]
    places = [' + '.join(entry.matlab)] if entry.matlab else []
    for layout in entry.pairs[::len(ENDINGS)] if own and pairs else _layouts(entry, scale):
        if pairs and isinstance(layout, str):
            continue
        if isinstance(layout, str):
            places.append(readable(layout))
        else:
            places.append(readable(layout.gt) + (f' + {readable(layout.lq)}' if pairs and layout.lq else ''))
    start = f'{name}: {", ".join(there)} is there, but without any image of it' if there else f'{name}: is not there'
    places = list(dict.fromkeys(places))
    folders = [folder for folder in _folders(entry, scale) if folder != '.']
    return f'{start}; looked in {data} for {", ".join(folders)}, in each for {", ".join(places)}'


def _unpaired(root: Path, scale: int) -> str | None:
    """What to say of a folder of one's own that has both sides of pairs, but no two of equal names."""
    for layout in own_set(root.name).pairs[::len(ENDINGS)]:
        assert layout.lq is not None
        gt, lq = find_matches(root, layout.gt), find_matches(root, layout.lq)
        if gt and lq:
            clean, distorted = next(iter(gt.values()))[0], next(iter(lq.values()))[0]
            return (f'no name in {clean.parent} pairs with one in {distorted.parent} (there are {clean.name}, … and '
                    f'{distorted.name}, …); allowed: {endings_in_words(scale)}')
    return None
