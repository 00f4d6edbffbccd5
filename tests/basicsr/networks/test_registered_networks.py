"""Each architecture that BasicSR registers is in one of the two tables; those that restore no image get one line."""

from pathlib import Path
from urllib.error import URLError

import outside_networks  # noqa: F401  (registers them)
import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from tried_networks import REFUSED, TABLE, document

from dil_plugin.errors import OptionError


def test_every_architecture_of_basicsr_is_tried():
    registered = {name.removesuffix('_basicsr') for name, cls in ARCH_REGISTRY if cls.__module__.startswith('basicsr.')}
    tried = {tried.network['type'] for tried in TABLE.values() if not tried.own} - {'RRDBNetNoUpsample'}
    assert not tried & set(REFUSED)
    assert registered == tried | set(REFUSED)


@pytest.mark.parametrize('name', REFUSED)
def test_others_are_refused_in_one_line(name, base, parsed, tmp_path, monkeypatch):
    def offline(*_, **__):
        raise URLError('offline')

    monkeypatch.setattr('torchvision.models.vgg.vgg19', offline)
    monkeypatch.chdir(tmp_path)
    torch.save({}, 'parts.pth')
    base['network_g'] = {'type': name, **REFUSED[name][0]}
    with pytest.raises(OptionError) as caught:
        parsed(base)
    assert str(caught.value).startswith('network_g')
    assert '\n' not in str(caught.value)


def test_the_document_has_the_tables():
    text = (Path(__file__).parents[3] / 'docs/reliability.md').read_text()
    assert text.split('<!-- networks -->\n')[1].split('\n<!-- end of networks -->')[0] == document()
