"""The options of a PairedConfounderDataset block, and the published layouts that they name."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from dil_plugin.basicsr.data.options import (
    LoaderOptions,
    Size,
    check_backend,
    convert_dataset,
    loader_mistakes,
)
from dil_plugin.errors import OptionError
from dil_plugin.options import convert, did_you_mean

Order = Literal['lq_gt', 'gt_lq']


class Layout(NamedTuple):
    """How a published set is laid out: two folders and a name template, or both images side by side in one file."""

    lq_folder: str = ''
    gt_folder: str = ''
    filename_tmpl: str = '{}'
    order: Order | None = None


LAYOUTS: dict[str, Layout] = {
    'did_mdn': Layout(order='lq_gt'),
    'rain14000': Layout('rainy_image', 'ground_truth', '{}_*'),
    'heavy_rain': Layout('in', 'gt', '{}_s*_a*'),
}
"""The layouts by name.

* ``did_mdn``: DID-MDN, Zhang and Patel, CVPR 2018. Every image below ``dataroot`` (as published
  ``Rain_Heavy/train2018new/*.jpg``, ``Rain_Medium/…``, ``Rain_Light/…``) holds its pair side by side in halves of equal
  width, the rainy one at the left: ``order: lq_gt``, as loaders of the published training set read it.
* ``rain14000``: Fu et al., CVPR 2017 (DDN): ``rainy_image/{k}_{1..14}.jpg`` and ``ground_truth/{k}.jpg``.
* ``heavy_rain``: Li, Cheong and Tan, CVPR 2019 (outdoor rain): ``in/im_{nnnn}_s{ss}_a{aa}.png`` and
  ``gt/im_{nnnn}.png``.
"""


class PairedSetOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One entry of ``confounders``: a set of pairs."""

    name: Annotated[str, Meta(min_length=1, description='Names the confounder in logs; unique.')]
    layout: Annotated[str | None, Meta(description='A published layout: did_mdn, rain14000, heavy_rain.')] = None
    dataroot: Annotated[str | None, Meta(description="The layout's folder; did_mdn: also an LMDB.")] = None
    dataroot_lq: Annotated[str | None, Meta(description="LMDB or folder of inputs. Default: the layout's.")] = None
    dataroot_gt: Annotated[str | None, Meta(description="LMDB or folder of targets. Default: the layout's.")] = None
    filename_tmpl: Annotated[
        str | None,
        Meta(description="The input's name, without its ending, of the target's name {}; * stands for any characters, "
             "so that one target may have many inputs. Default: the layout's, or {}.")] = None
    order: Annotated[Order | None,
                     Meta(description='did_mdn: the left and the right half of a file. Default: lq_gt.')] = None
    meta_info_file: Annotated[str | None,
                              Meta(description='A text file of names of targets, one a line, to take of a folder.'
                                   )] = None
    io_backend: Annotated[dict[str, Any] | None,
                          Meta(description="{type: lmdb} or {type: disk}. Default: the data set's.")] = None


class PairedDatasetOptions(LoaderOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The block of one PairedConfounderDataset under ``datasets``."""

    confounders: Annotated[list[Any], Meta(min_length=1, description='The sets of pairs; each is one confounder.')]
    io_backend: Annotated[dict[str, Any], Meta(description='{type: disk} or {type: lmdb}. Default: disk.')] = \
        msgspec.field(default_factory=lambda: {'type': 'disk'})
    pairs: Annotated[Literal['all', 'one'],
                     Meta(description='What a training sample holds, and is read: the pair of every set, or one pair, '
                          'of a set drawn for every sample. Default: all for DILModel, one for other models.')] = 'all'
    length: Annotated[Size | None,
                      Meta(description='Samples per epoch, before dataset_enlarge_ratio. Default: the number of pairs '
                           'of the largest set.')] = None


class PairedSet(NamedTuple):
    """A set of pairs with everything filled in.

    ``order`` is None for two folders or LMDBs, otherwise the halves of the images in ``lq_root``, which then is
    ``gt_root`` too. ``key`` says where the entry stands in the YAML.
    """

    name: str
    key: str
    lq_root: str
    gt_root: str
    filename_tmpl: str
    order: Order | None
    meta_info_file: str | None
    io_backend: Mapping[str, Any]


def parse_paired_options(raw: Mapping[str, Any], key: str) -> tuple[PairedDatasetOptions, list[PairedSet]]:
    """The typed options of a data set block, and its sets of pairs.

    Raises:
        OptionError: An option is unknown, wrong or missing, a layout is unknown, or a name stands twice.
    """
    options = convert_dataset(raw, PairedDatasetOptions, 'PairedConfounderDataset', key)
    mistakes = loader_mistakes(options, key)
    sets = []
    for i, entry in enumerate(options.confounders):
        with mistakes:
            sets.append(_parse_set(entry, options, f'{key}.confounders[{i}]'))
    mistakes.end()
    names = [one.name for one in sets]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise OptionError(f'{key}.confounders[{i}].name: {name!r} is that of confounders[{names.index(name)}] too; '
                              'the names must be unique')
    if options.phase != 'train' and len(sets) != 1:
        raise OptionError(f'{key}.confounders: a validation or test set takes one set of pairs, got '
                          f'{", ".join(names)}; give one data set for each')
    return options, sets


def _parse_set(raw: Any, options: PairedDatasetOptions, key: str) -> PairedSet:
    one = convert(raw, PairedSetOptions, key)
    if one.layout is not None and one.layout not in LAYOUTS:
        raise OptionError(f'{key}.layout: unknown layout {one.layout!r}; {did_you_mean(one.layout, LAYOUTS)}')
    layout = LAYOUTS.get(one.layout or '')
    backend = options.io_backend if one.io_backend is None else one.io_backend
    check_backend(backend, f'{key}.io_backend')
    if layout is not None and layout.order is not None:
        root = _side_by_side(one, options, key)
        return PairedSet(one.name, key, root, root, '{}', one.order or layout.order, None, backend)
    if one.order is not None:
        raise OptionError(f'{key}.order: got {one.order!r}, but only images that hold a pair side by side have an '
                          'order; allowed with layout did_mdn')
    lq_root, gt_root = _two_roots(one, layout, backend['type'], key)
    template = one.filename_tmpl or (layout or Layout()).filename_tmpl
    if template.count('{}') != 1:
        raise OptionError(f"{key}.filename_tmpl: got {template!r}; expected the input's name with one {{}} for that "
                          "of the target, as in '{}_rain' or '{}_*'")
    if one.meta_info_file is not None and backend['type'] == 'lmdb':
        raise OptionError(f'{key}.meta_info_file: only for io_backend type disk; an LMDB has its own meta_info.txt')
    return PairedSet(one.name, key, lq_root, gt_root, template, None, one.meta_info_file, backend)


def _side_by_side(one: PairedSetOptions, options: PairedDatasetOptions, key: str) -> str:
    for name in ('dataroot_lq', 'dataroot_gt', 'filename_tmpl', 'meta_info_file'):
        if getattr(one, name) is not None:
            raise OptionError(f'{key}.{name}: layout {one.layout} has both images of a pair in one file; remove it')
    if one.dataroot is None:
        raise OptionError(f'{key}.dataroot: missing; layout {one.layout} needs it')
    if options.scale != 1:
        raise OptionError(f'{key}.layout: the halves of {one.layout} are of equal size, but scale is {options.scale}; '
                          'allowed: scale 1')
    return os.path.expanduser(one.dataroot)


def _two_roots(one: PairedSetOptions, layout: Layout | None, backend: str, key: str) -> tuple[str, str]:
    """The roots of inputs and targets; what is not given is the layout's folder, with .lmdb after it for an LMDB."""
    given = {'dataroot_lq': one.dataroot_lq, 'dataroot_gt': one.dataroot_gt}
    if one.dataroot is not None and layout is None:
        raise OptionError(f'{key}.dataroot: needs a layout; allowed: layout {", ".join(LAYOUTS)}, or dataroot_lq and '
                          'dataroot_gt without one')
    roots = []
    for name, folder in zip(given, (layout.lq_folder, layout.gt_folder) if layout else ('', ''), strict=True):
        root = given[name]
        if root is None and one.dataroot is None:
            raise OptionError(f'{key}.{name}: missing; give dataroot_lq and dataroot_gt, or layout and dataroot')
        if root is None:
            root = os.path.join(str(one.dataroot), folder + ('.lmdb' if backend == 'lmdb' else ''))
        roots.append(os.path.expanduser(root))
    return roots[0], roots[1]
