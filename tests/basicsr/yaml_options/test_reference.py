"""docs/options.md: what the types say, the whole of it, and of what BasicSR's classes take."""

import fnmatch
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
import torch
import yaml
from msgspec import Meta

import dil_plugin.basicsr  # noqa: F401

# isort: split
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.models import lr_scheduler
from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY

from dil_plugin.basicsr.yaml_options import blocks, reference, registered

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / 'docs/options.md').read_text()
FILES = sorted(path for folder in ('', 'train', 'test') for path in (ROOT / 'options' / folder).glob('*.yml'))


def keys_of(block: Any, place: str = '') -> Iterator[str]:
    """The places of all options of a YAML, as ``train.dil.inner.lr``."""
    for name, value in block.items() if isinstance(block, dict) else ():
        where = f'{place}.{name}' if place else name
        if where == 'distortions' or name == 'distortions':
            continue  # docs/confounders.md has these
        if isinstance(value, dict) and name != 'io_backend':  # whose row says what stands in it
            yield from keys_of(value, where)
        yield where
        for item in value if isinstance(value, list) else ():
            yield from keys_of(item, where)


def test_document_is_what_the_types_say():
    assert reference.render() == DOCUMENT, 'run python tools/document_options.py'


def test_the_tool_finds_a_document_that_drifted(tmp_path: Path):
    """Beside a copy of itself, in a tree whose document is another, or whose types are."""
    for name in ('tools', 'docs'):
        (tmp_path / name).mkdir()
    (tmp_path / 'dil_plugin').symlink_to(ROOT / 'dil_plugin')
    (tmp_path / 'tools/document_options.py').write_text((ROOT / 'tools/document_options.py').read_text())

    def tool(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, str(tmp_path / 'tools/document_options.py'), *arguments],
                              capture_output=True, text=True)

    document = tmp_path / 'docs/options.md'
    assert tool('--check').returncode == 1
    document.write_text(DOCUMENT.replace('Learning rate.', 'Rate.'))
    assert tool('--check').returncode == 1
    assert tool().returncode == 0
    assert document.read_text() == DOCUMENT
    assert tool('--check').returncode == 0


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_every_option_of_every_file_is_explained(path: Path):
    patterns = reference.documented_paths()
    keys = list(keys_of(yaml.safe_load(path.read_text())))
    assert 'network_g.type' in keys
    places = {'datasets.*', 'val.metrics.*'}  # names of one's own
    assert [key for key in keys if not any(fnmatch.fnmatchcase(key, pattern) and key.count('.') == pattern.count('.')
                                           for pattern in patterns | places)] == []


def test_no_option_is_explained_twice_and_none_is_left_without_a_word():
    rows = [(section.title, row) for section in reference.sections() for row in reference.rows(section)]
    places = [(title, row.path) for title, row in rows]
    assert len(places) == len(set(places))
    shared = {row.path for title, row in rows if '`, ' not in title}  # tables that no type chooses
    assert len(shared) == len([row for title, row in rows if '`, ' not in title])
    assert [row.path for _, row in rows if not row.meaning or not row.value] == []


def test_links_of_the_document_lead_somewhere():
    for target, anchor in re.findall(r'\]\(([\w./]+)(?:#([\w-]+))?\)', DOCUMENT):
        text = (ROOT / 'docs' / target).read_text()
        titles = [re.sub(r'[^\w -]', '', title).strip().lower().replace(' ', '-')
                  for title in re.findall(r'^#+ (.+)$', text, flags=re.MULTILINE)]
        assert not anchor or anchor in titles, (target, anchor)


@pytest.mark.parametrize(('hint', 'words'), [
    (Annotated[float, Meta(gt=0)], 'number > 0'),
    (Annotated[int, Meta(ge=1)] | None, 'integer >= 1 or `~`'),
    (tuple[Annotated[int, Meta(ge=1)], ...], 'list of integers >= 1'),
    (tuple[float, float], '2 numbers'),
    (tuple[int, float], '[integer, number]'),
    (list[str] | None, 'list of texts or `~`'),
    (Literal['a', 'b'], '`a`, `b`'),
    (dict[str, Any], 'block'),
    (bool, 'true, false'),
])
def test_types_in_words(hint: Any, words: str):
    assert reference.value_words(hint) == words


# The types against the classes that take the options.

def constructor(name: str) -> Any:
    for registry in (ARCH_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY):
        if name in registry:
            return registry.get(name)
    return {'Adam': torch.optim.Adam, 'SGD': torch.optim.SGD, 'MultiStepLR': lr_scheduler.MultiStepRestartLR,
            'MultiStepRestartLR': lr_scheduler.MultiStepRestartLR,
            'CosineAnnealingRestartLR': lr_scheduler.CosineAnnealingRestartLR}[name]


# What BasicSR gives itself, and what is of no use in a YAML.
ELSEWHERE = {'self', 'params', 'optimizer', 'last_epoch', 'img', 'img2', 'kwargs', 'norm_layer'}
FOR_PROGRAMS = {'Adam': {'foreach', 'maximize', 'capturable', 'differentiable', 'fused', 'decoupled_weight_decay'},
                'SGD': {'foreach', 'maximize', 'differentiable', 'fused'}}
KNOWN = {**registered.NETWORKS, **registered.OPTIMIZERS, **registered.SCHEDULERS, **registered.PIXEL_LOSSES,
         **registered.PERCEPTUAL_LOSSES, **registered.METRICS}


@pytest.mark.parametrize('name', KNOWN)
def test_known_blocks_are_their_constructors(name: str):
    """The same names, the same ones required, the same defaults."""
    parameters = {key: parameter.default for key, parameter in inspect.signature(constructor(name)).parameters.items()
                  if key not in ELSEWHERE | FOR_PROGRAMS.get(name, set())}
    fields = {field.encode_name: inspect.Parameter.empty if field.default is msgspec.NODEFAULT else field.default
              for field in msgspec.structs.fields(KNOWN[name])}
    if name in registered.METRICS:  # BasicSR's validation reads it, not the metric
        assert fields.pop('better') == 'higher'
    if name in registered.OPTIMIZERS:  # BasicSR's block says it, though torch has a default
        assert fields.pop('lr') is inspect.Parameter.empty
        del parameters['lr']
    if name == 'RRDBNetNoUpsample':
        assert fields.keys() <= parameters.keys()

    def plain(value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    assert {key: plain(value) for key, value in fields.items()} == {key: plain(value)
                                                                    for key, value in parameters.items()}


def test_paired_images_are_what_basicsr_reads():
    """The options that BasicSR's data set asks for in its source, and its loaders."""
    source = inspect.getsource(PairedImageDataset)
    read = set(re.findall(r"""(?<!_)opt(?:\.get\(|\[)'(\w+)'""", source))
    fields = set(blocks.PairedImages.__struct_fields__)
    assert read <= fields, read - fields
    assert set(blocks.PairedImages.__struct_fields__) - set(blocks.Loader.__struct_fields__) <= read


def test_top_level_and_blocks_are_what_basicsr_reads():
    """Every option that BasicSR's pipelines, base model and SRModel ask for is known."""
    import basicsr.data
    import basicsr.models.base_model
    import basicsr.models.sr_model
    import basicsr.test
    import basicsr.train
    import basicsr.utils.logger
    import basicsr.utils.options
    modules = (basicsr.train, basicsr.test, basicsr.models.base_model, basicsr.models.sr_model, basicsr.utils.options,
               basicsr.utils.logger, basicsr.data)
    text = '\n'.join(inspect.getsource(module) for module in modules)
    for place, struct in (('train', blocks.Train), ('val', blocks.Val), ('path', blocks.Path),
                          ('logger', blocks.Logger)):
        pattern = rf"""opt\['{place}'\](?:\.get\(|\[)'(\w+)'"""
        read = set(re.findall(pattern, text)) | ({'scheduler', 'optim_g'} if place == 'train' else set())
        known = set(struct.__struct_fields__) | set(blocks.ADDED.get(place, ())) \
            | set(blocks.WITHOUT_EFFECT.get(place, {}))
        assert read, place
        assert read <= known, (place, read - known)
