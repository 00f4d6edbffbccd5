"""What docs/confounders.md says is so: its blocks are valid, its pictures are of them, its example runs."""

import re
from pathlib import Path

import cv2
import pytest
import torch
import yaml

from dil_plugin.basicsr.data.paired_options import parse_paired_options
from dil_plugin.distortions import DISTORTION_REGISTRY, parse_distortions
from dil_plugin.evaluation.preview import document_sheets

DOCS = Path(__file__).parents[1] / 'docs'
TEXT = (DOCS / 'confounders.md').read_text()
SHEETS = document_sheets(TEXT, 'confounders.md')


def test_every_distortion_has_a_picture():
    ours = {name for name in DISTORTION_REGISTRY.names()
            if DISTORTION_REGISTRY.get(name).__module__.startswith('dil_plugin.')}
    shown = {name for name in ours for _, groups in SHEETS for group in groups
             for d in group.distortions if name in d.label or type(d).__name__ == name}
    assert shown == ours


@pytest.mark.parametrize(('path', 'groups'), SHEETS, ids=[str(path) for path, _ in SHEETS])
def test_pictures_have_a_panel_for_each_confounder(path, groups):
    """192 pixels and a gap of 8 for the clean image and each confounder, at most six in a row."""
    picture = cv2.imread(str(DOCS / path))
    panels = 1 + sum(len(group.distortions) for group in groups)
    assert picture.shape[1] == min(panels, 6) * 200 + 8
    assert picture.shape[0] > -(-panels // 6) * 192


def test_paired_block_is_valid():
    block, = (b for b in re.findall(r'```yaml\n((?:(?!```).)*)```', TEXT, flags=re.DOTALL) if 'confounders:' in b)
    train = yaml.safe_load(block)['datasets']['train']
    _, sets = parse_paired_options({'name': 'x', 'io_backend': {'type': 'disk'}, **train}, 'datasets.train')
    assert [one.name for one in sets] == ['DID-MDN', 'Rain14000', 'HeavyRain', 'Own']


def test_python_example():
    namespace = {}
    exec(compile(re.findall(r'```python\n(.*?)```', TEXT, flags=re.DOTALL)[0], 'confounders.md', 'exec'), namespace)
    assert len(namespace['versions']) == 4
    assert 5 / 255 < (namespace['noisy'] - namespace['clean']).std() < 50 / 255


def test_class_of_ones_own(monkeypatch):
    monkeypatch.setattr(DISTORTION_REGISTRY, '_classes', dict(DISTORTION_REGISTRY._classes))
    code = re.findall(r'```python\n(.*?)```', TEXT, flags=re.DOTALL)[-1]
    namespace = {}
    exec(compile(code, 'confounders.md', 'exec'), namespace)
    weak, strong = parse_distortions([{'type': 'Vignette', 'strength': [0.2, 0.5]}])
    clean = torch.ones(2, 3, 5, 7)
    assert weak(clean)[0, 0, 2, 3] == 1
    assert weak(clean)[1, 2, 0, 0].item() == pytest.approx(0.8)
    assert strong(clean)[0, 1, 4, 6].item() == pytest.approx(0.5)
    drawn, = parse_distortions([{'type': 'Vignette', 'strength': {'uniform': [0.2, 0.5]}}])
    corners = drawn(torch.ones(50, 1, 5, 5))[:, 0, 0, 0]
    assert 0.5 <= corners.min() < 0.55 < 0.75 < corners.max() <= 0.8
