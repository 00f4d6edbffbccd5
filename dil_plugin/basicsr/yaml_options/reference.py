"""Writes docs/options.md: every option of a DILModel YAML, from the types that check it."""

import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
import yaml
from msgspec import UNSET, Meta, UnsetType

from dil_plugin.basicsr.data.options import DatasetOptions, LoaderOptions
from dil_plugin.basicsr.data.paired_options import PairedDatasetOptions, PairedSetOptions
from dil_plugin.basicsr.yaml_options import blocks, registered
from dil_plugin.distortions import RealESRGAN
from dil_plugin.learning import options as learning


class Row(NamedTuple):
    """One option: where it stands, what it may be, its default and what it means, as text."""

    path: str
    name: str
    value: str
    default: str
    meaning: str


class Section(NamedTuple):
    """One table of the reference.

    Attributes:
        title: Its heading.
        place: Where its options stand, as in ``train.dil``; ``*`` is any name, ``datasets.*`` any data set.
        struct: Their types.
        intro: A sentence or two above the table.
        without: Options that another table explains.
        selected: Names of the ``type`` that chooses this block, or ''.
        also: Rows of options that are no fields of the struct.
    """

    title: str
    place: str
    struct: type[msgspec.Struct]
    intro: str = ''
    without: tuple[str, ...] = ()
    selected: str = ''
    also: tuple[Row, ...] = ()


_LOADER = tuple(LoaderOptions.__struct_fields__)
_OTHER_NETWORKS = (
    "Any other network that is registered with BasicSR works by its name and its constructor's arguments. Some take "
    'certain sizes alone, as multiples of 8: that is found by trying, images are padded and results cropped. Where '
    'trying fails, `val.window_size` says it (other projects write it there too, or as `network_g.window_size`).')
_LOOKED_AT = ('BasicSR registers `calculate_psnr_pt` and `calculate_ssim_pt` too: they take tensors, which validation '
              'does not give.')
_DRAWS = Row('distortions.draws', 'draws', 'integer >= 1', '`1`', 'So many confounders of this entry, with independent '
             'draws; any entry of `distortions` may have it.')


def sections() -> list[Section]:
    """All tables, in the order of the document."""
    fixed = [
        Section('Top level', '', blocks.TopLevel),
        Section('`train`', 'train', blocks.Train),
        Section('`train.dil`', 'train.dil', learning.DILOptions, 'The method; [which variant does what]'
                '(../README.md#the-variants).'),
        Section('`train.dil.inner`, SGD', 'train.dil.inner', learning.SGD, 'The only one of ss, ps and mldg.',
                selected='SGD'),
        Section('`train.dil.inner`, Adam', 'train.dil.inner', learning.Adam, 'For sf and pf.', selected='Adam'),
    ]
    chosen = [
        *_registered('train.optim_g', registered.OPTIMIZERS),
        *_registered('train.scheduler', registered.SCHEDULERS),
        *_registered('train.pixel_opt', registered.PIXEL_LOSSES),
        *_registered('train.perceptual_opt', registered.PERCEPTUAL_LOSSES),
    ]
    data = [
        Section('`datasets.*`, of all data sets', 'datasets.*', LoaderOptions,
                'What training, validation and test sets have in common; `train` is the one to train on.',
                without=('phase', 'scale')),
        Section('`datasets.*`, DistortionAugmentedDataset', 'datasets.*', DatasetOptions,
                'Clean images, distorted by the confounders.', without=_LOADER, selected='DistortionAugmentedDataset'),
        Section('`datasets.*`, PairedImageDataset', 'datasets.*', blocks.PairedImages,
                "BasicSR's pairs of inputs and targets, for validation, tests, or training on real pairs.",
                without=_LOADER, selected='PairedImageDataset'),
        Section('`datasets.train`, PairedConfounderDataset', 'datasets.*', PairedDatasetOptions,
                'Sets of pairs, each of which is a confounder (deraining).', without=_LOADER,
                selected='PairedConfounderDataset'),
        Section('`datasets.train.confounders`, its sets', 'datasets.*.confounders', PairedSetOptions),
    ]
    last = [
        *_registered('network_g', registered.NETWORKS, _OTHER_NETWORKS),
        Section('`path`', 'path', blocks.Path),
        Section('`val`', 'val', blocks.Val),
        *_registered('val.metrics.*', registered.METRICS, _LOOKED_AT),
        Section('`logger`', 'logger', blocks.Logger),
        Section('`logger.wandb`', 'logger.wandb', blocks.Wandb),
        Section('`dist_params`', 'dist_params', blocks.DistParams),
        Section('`distortions`, RealESRGAN', 'distortions', RealESRGAN,
                'The confounders of real-world super-resolution; all others stand in [confounders.md](confounders.md). '
                'In a Real-ESRNet YAML these options (but `order`) stand at the top level and in `datasets.train`, '
                'where they may stay, for every entry takes those that it does not give itself.',
                selected='RealESRGAN', also=(_DRAWS, )),
    ]
    return [*fixed, *chosen, *data, *last]


def _registered(place: str, known: Mapping[str, type[blocks.Block]], intro: str = '') -> Iterator[Section]:
    by_struct: dict[type[blocks.Block], list[str]] = {}
    for name, struct in known.items():
        by_struct.setdefault(struct, []).append(name)
    for number, (struct, names) in enumerate(by_struct.items()):
        about = inspect.getdoc(struct) or ''
        text = f'{about} {intro}' if intro and number == 0 else about
        yield Section(f'`{place}`, {", ".join(names)}', place, struct, text, selected=' '.join(names))


def rows(section: Section) -> list[Row]:
    """The options of a table; the first says what ``type`` chooses it."""
    found = []
    if section.selected and 'type' not in section.struct.__struct_fields__:
        names = section.selected.split()
        found.append(Row(_join(section.place, 'type'), 'type', ' or '.join(f'`{name}`' for name in names), 'required',
                         'Chooses this block.'))
    found += section.also
    attributes = _docstring_attributes(section.struct)
    for field in msgspec.structs.fields(section.struct):
        if field.encode_name in section.without:
            continue
        meaning = attributes.get(field.name) or _description(field.type)
        first = field.name.removesuffix('2')
        if field.name not in attributes and first != field.name and first in attributes:
            meaning = f'As `{first}`, for the second pass.'
        default = _default(field)
        if match := re.search(r'\s*Default: (.+?)\.?$', meaning):
            meaning, default = meaning[:match.start()], match[1] if default != 'required' else default
        found.append(Row(_join(section.place, field.encode_name), field.encode_name, value_words(field.type), default,
                         meaning))
    return found


def documented_paths() -> set[str]:
    """The places of all options, as ``train.dil.inner.lr``; ``*`` stands for any name."""
    return {row.path for section in sections() for row in rows(section)}


def render() -> str:
    """The text of docs/options.md."""
    lines = [_INTRO]
    for section in sections():
        lines += [f'## {section.title}', '']
        if section.intro:
            lines += [section.intro, '']
        lines += ['| option | value | default | what |', '|---|---|---|---|']
        lines += [f'| `{row.name}` | {_cell(row.value)} | {_cell(row.default)} | {_cell(row.meaning)} |'
                  for row in rows(section)]
        lines.append('')
    lines += ['## Options without effect', '', _WITHOUT, '']
    lines += [f'* `{_join(where, name) if where != "datasets" else f"datasets.*.{name}"}`: {reason}'
              for where, found in blocks.WITHOUT_EFFECT.items() for name, reason in found.items()
              if name not in DatasetOptions.__struct_fields__]
    return '\n'.join(lines) + '\n'


_INTRO = '''# Options of a training or test YAML

Every option of a file with `model_type: DILModel`, explained once. This page is written by
`python tools/document_options.py` from the types that check the options, and a test holds it to them. The YAML is
BasicSR's; what is ours are `distortions`, `train.dil`, two data sets and a few lines more. An option that is not
here is an error that names it; one of `train.dil` that the variant has no use for is a warning in the log.

`required` is what BasicSR or DILModel cannot do without; `~` is YAML's nothing. Write small numbers as `!!float 1e-4`,
since YAML takes `1e-4` for text. Options of `tools/reproduce.py` stand in [reproduce.md](reproduce.md).
'''
_WITHOUT = "YAML files of other models have these; DILModel says on standard error that it has no use for them."


# ---- Types in words --------------------------------------------------------------------------------------------------


def value_words(hint: Any) -> str:
    """What an option may be, in words: ``number > 0``, ``list of integers >= 1``, ``~ or text``."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        words = value_words(args[0])
        limits = [limit for meta in args[1:] if isinstance(meta, Meta) for limit in _limits(meta)]
        return ' '.join([words, ', '.join(limits)]).strip() if limits and words != 'list' else words
    if origin in (typing.Union, types.UnionType):
        members = [value_words(arg) for arg in args if arg not in (type(None), UnsetType)]
        if members and all(isinstance(arg, type) and issubclass(arg, msgspec.Struct) for arg in args
                           if arg is not UnsetType):
            return 'block'
        return ' or '.join(dict.fromkeys(members + (['`~`'] if type(None) in args else [])))
    if origin is typing.Literal:
        return ', '.join(f'`{_plain(arg)}`' for arg in args)
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return f'list of {_plural(value_words(args[0]))}'
        members = [value_words(arg) for arg in args]
        alike = len(set(members)) == 1
        return f'{len(args)} {_plural(members[0])}' if alike else f'[{", ".join(members)}]'
    if origin is list:
        return f'list of {_plural(value_words(args[0]))}' if args and args[0] is not Any else 'list'
    if origin is dict:
        return 'block'
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return 'block'
    return {bool: 'true, false', int: 'integer', float: 'number', str: 'text', list: 'list'}.get(hint, 'any')


def _limits(meta: Meta) -> list[str]:
    named = (('>', meta.gt), ('>=', meta.ge), ('<', meta.lt), ('<=', meta.le))
    return [f'{sign} {limit if isinstance(limit, int) else f"{limit:g}"}' for sign, limit in named if limit is not None]


def _plural(words: str) -> str:
    return re.sub(r'^(integer|number|text)', lambda match: {'text': 'texts'}.get(match[1], f'{match[1]}s'), words)


def _description(hint: Any) -> str:
    args = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Annotated:
        texts = [meta.description for meta in args[1:] if isinstance(meta, Meta) and meta.description]
        return texts[-1] if texts else _description(args[0])
    return ''


def _default(field: Any) -> str:
    if field.default is not msgspec.NODEFAULT:
        value = field.default
    elif field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    else:
        return 'required'
    return '' if value is UNSET else f'`{_plain(value)}`'


def _plain(value: Any) -> str:
    """A value as YAML has it, in one line."""
    if value is None:
        return '~'
    if isinstance(value, float):
        return f'{value:g}'
    text: str = yaml.safe_dump(msgspec.to_builtins(value), default_flow_style=True, width=1000)
    return text.removesuffix('\n').removesuffix('\n...')


def _docstring_attributes(struct: type) -> dict[str, str]:
    """The ``Attributes:`` section of a class, by name."""
    text = inspect.getdoc(struct) or ''
    if 'Attributes:' not in text:
        return {}
    found: dict[str, str] = {}
    name = ''
    for line in text.split('Attributes:')[1].splitlines()[1:]:
        if match := re.match(r' {4}(\w+): (.+)', line):
            name = match[1]
            found[name] = match[2]
        elif name and line.strip():
            found[name] += ' ' + line.strip()
    return {name: meaning.replace('``', '`') for name, meaning in found.items()}


def _join(place: str, name: str) -> str:
    return f'{place}.{name}' if place else name


def _cell(text: str) -> str:
    return text.replace('|', '\\|')
