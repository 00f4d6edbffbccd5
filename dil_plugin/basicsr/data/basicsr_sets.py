"""What BasicSR's own data sets need, of any model: found out before anything is made, and not by a traceback."""

import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from dil_plugin.basicsr.data.folders import require_lmdb, require_records, require_store
from dil_plugin.basicsr.data.image_list import no_folder, text_lines
from dil_plugin.errors import DataError, DILError, OptionError
from dil_plugin.missing_files import no_such
from dil_plugin.mistakes import raise_all

BASICSR = 'basicsr.'
_GIVEN = {'name', 'type', 'phase', 'scale'}
"""Options that stand in every block, or that BasicSR writes there."""
_TRAINING = {'gt_size', 'use_hflip', 'use_rot'}
_LISTED = ('PairedImageDataset', 'RealESRGANPairedDataset', 'RealESRGANDataset', 'SingleImageDataset')
"""Data sets that read the ``meta_info.txt`` of their LMDBs."""
_LISTS = {'RealESRGANDataset': ('meta_info', 'dataroot_gt'), 'SingleImageDataset': ('meta_info_file', 'dataroot_lq')}
"""Where data sets of single images have the list of their files, and which folder they lie in."""
_ROOTS = ('dataroot_lq', 'dataroot_gt', 'dataroot_flow')
_DEFAULTS = {'PairedImageDataset': {'use_hflip': True, 'use_rot': True}}
"""Defaults that docs/options.md gives, of options that BasicSR reads without one."""
_UNCHANGED = {'mean': [0, 0, 0], 'std': [1, 1, 1]}
_READ = re.compile(r"""(?<!_)opt\[['"](\w+)['"]\]""")
_ASKED = re.compile(r"""['"](\w+)['"] in (?:self\.)?opt\b""")


def of_basicsr(kind: Any) -> bool:
    """Whether a data set of this type is BasicSR's own."""
    from basicsr.utils.registry import DATASET_REGISTRY
    return _of_basicsr(_found(DATASET_REGISTRY, kind))


def restores_images(opt: Mapping[str, Any]) -> bool:
    """Whether the model is BasicSR's SRModel, or one of BasicSR's that derive from it."""
    from basicsr.models.sr_model import SRModel
    from basicsr.utils.registry import MODEL_REGISTRY
    model = _found(MODEL_REGISTRY, opt.get('model_type'))
    return _of_basicsr(model) and issubclass(model, SRModel)


def _found(registry: Any, name: Any) -> Any:
    """The class of a name, which BasicSR may have registered with an ending; None where there is none."""
    classes = dict(iter(registry))
    return classes.get(name) or classes.get(f'{name}_basicsr')


def _of_basicsr(cls: Any) -> bool:
    return cls is not None and cls.__module__.startswith(BASICSR)


def complete_defaults(dataset: dict[str, Any], scale: Any) -> None:
    """Fills in the documented defaults of options that a data set of BasicSR reads without one, in place."""
    if of_basicsr(dataset.get('type')):
        for name, value in {'scale': scale, **_DEFAULTS.get(dataset['type'], {})}.items():
            dataset.setdefault(name, value)


def check_basicsr_set(key: str, dataset: Mapping[str, Any]) -> None:
    """Raises unless a block of one of BasicSR's data sets has the options that are read, and what they name is there.

    Args:
        key: Where the block stands, as in ``datasets.val_1``.
        dataset: The block, with defaults.

    Raises:
        OptionError: An option is missing, or of a kind that cannot be used.
        DataError: A folder, LMDB or list is missing or empty.
    """
    kind = dataset['type'].removesuffix('_basicsr')
    for name in required_options(kind, dataset):
        if name not in dataset or dataset[name] is None and name in ('dataroot_gt', 'dataroot_lq', 'io_backend'):
            raise OptionError(f'{key}.{name}: missing; {kind} needs it')
    check_roots(key, dataset)
    backend = dataset['io_backend'].get('type') if isinstance(dataset['io_backend'], Mapping) else None
    if not isinstance(backend, str):
        raise OptionError(f'{key}.io_backend.type: got {backend!r}; allowed: disk, lmdb')
    if backend == 'lmdb' and kind.startswith('Video'):
        raise OptionError(f"{key}.io_backend.type: got 'lmdb', but {kind} reads folders; allowed: disk")
    if backend == 'lmdb':
        for name in _ROOTS:
            if dataset.get(name) is not None:
                _check_lmdb(dataset[name], f'{key}.{name}', kind in _LISTED)
    elif backend == 'disk' and kind in _LISTS:
        _check_files(key, dataset, *_LISTS[kind])


def check_normalisation(key: str, dataset: Mapping[str, Any], model: str, refuse: bool = True) -> None:
    """Raises OptionError for a ``mean`` and ``std`` that change the images of one of BasicSR's data sets.

    Nothing in BasicSR's image restoration models undoes them: metrics and pictures would be of the normalised images,
    cut off at 0 and 1, and a network trained on them is no network of images to any other tool.

    Args:
        key: Where the block stands.
        dataset: The block.
        model: The ``model_type``, for the message.
        refuse: False: say it on standard error.
    """
    given = {name: dataset[name] for name in _UNCHANGED if dataset.get(name) is not None}
    names = list(given)
    if not names or given == _UNCHANGED:
        return
    text = (f'{key}.{names[0]}: {given[names[0]]!r}, but {model} measures, saves and trains on images in [0, 1], and '
            'nothing undoes the normalisation')
    way = 'normalise in the network instead, as EDSR (img_range, rgb_mean) and SwinIR (img_range) do'
    if refuse:
        raise OptionError(f'{text}; allowed: no mean and std; {way}')
    sys.stderr.write(f'Warning: {text}; {way}.\n')


def required_options(kind: str, dataset: Mapping[str, Any]) -> list[str]:
    """The options that BasicSR's class reads from its block without asking whether they are there.

    Nothing but the source says which these are; where there is none, none are named.
    """
    from basicsr.utils.registry import DATASET_REGISTRY
    try:
        source = '\n'.join(_methods_that_run(_found(DATASET_REGISTRY, kind)))
    except OSError:
        return []
    optional = set(_ASKED.findall(source)) | _GIVEN | (_TRAINING if dataset.get('phase') != 'train' else set())
    backend = dataset.get('io_backend')
    if isinstance(backend, Mapping) and backend.get('type') == 'lmdb' and kind in _LISTED:
        optional |= {'meta_info', 'meta_info_file'}
    return [name for name in dict.fromkeys(_READ.findall(source)) if name not in optional]


def _methods_that_run(cls: type) -> list[str]:
    """The sources of the methods of a class of BasicSR's and its bases: of overridden ones where ``super()`` calls."""
    sources: dict[str, list[str]] = {}
    for one in filter(_of_basicsr, cls.__mro__):
        for name, method in vars(one).items():
            function = getattr(method, '__func__', method)
            if inspect.isfunction(function) and (name not in sources or
                                                 re.search(rf'super\(.*\)\.{name}\(', sources[name][-1])):
                sources.setdefault(name, []).append(inspect.getsource(function))
    return [source for methods in sources.values() for source in methods]


def check_roots(key: str, dataset: Mapping[str, Any]) -> None:
    """Raises unless all that a block of any data set names is there.

    Args:
        key: Where the block stands, as in ``datasets.val_1``.
        dataset: The block.

    Raises:
        DataError: A ``dataroot_…`` or list of images that is given does not exist.
        OptionError: One that should be a path is none.
    """
    raise_all(_absent(key, dataset))


def _absent(key: str, dataset: Mapping[str, Any]) -> Iterator[DILError]:
    for name, value in dataset.items():
        is_root = name.startswith('dataroot')
        if value is None or not (is_root or name in ('meta_info_file', 'meta_info')):
            continue
        if not isinstance(value, str):
            yield OptionError(f'{key}.{name}: expected a path, got {value!r}')
        elif is_root and not os.path.isdir(value):
            yield DataError(f'{key}.{name}: {no_folder(value)}')
        elif not is_root and not os.path.isfile(value):
            yield DataError(f'{key}.{name}: {no_such(value)}')


def _check_lmdb(root: str, key: str, listed: bool) -> None:
    if not listed:
        require_store(root, key)
        return
    require_lmdb(root, key)
    require_records(root, key, len(text_lines(os.path.join(root, 'meta_info.txt'), key)))


def _check_files(key: str, dataset: Mapping[str, Any], name: str, root: str) -> None:
    """Raises DataError where a list is empty or names files that are not there, or there is none and no image."""
    from basicsr.utils import scandir
    if name not in dataset:
        if not any(True for _ in scandir(dataset[root])):
            raise DataError(f'{key}.{root}: {dataset[root]} holds no images')
        return
    if dataset[name] is None:
        raise OptionError(f'{key}.{name}: got ~, expected a text file of image names, one a line')
    names = [line.split(' ')[0] for line in text_lines(dataset[name], f'{key}.{name}')]
    missing = [one for one in names if not os.path.isfile(os.path.join(dataset[root], one))]
    if missing or not names:
        what = f'{len(missing)} files that are not in {dataset[root]}, the first is {missing[0]}' if missing else \
            'no images; expected the name of one in each line'
        raise DataError(f'{key}.{name}: {dataset[name]} lists {what}')
