"""benchmarks/realsr_step.py runs, and its two ways of synthesis do the same."""

import re
from types import ModuleType
from typing import Any

import pytest
import torch

import dil_plugin.basicsr  # noqa: F401
from dil_plugin.distortions import parse_distortions


@pytest.fixture(scope='module')
def script(import_benchmark: Any) -> ModuleType:
    return import_benchmark('realsr_step')


def test_prints_both_tables(script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(script, 'SEEDS', 1)
    assert script.main(['--steps', '1', '--patches', '1']) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('| ')]
    assert [line.split(' | ')[0] for line in lines[1:4]] == ['| ps', '| sf', '| erm']
    for line in lines[1:4]:
        synthesis, inner, outer = (float(cell) for cell in line.split(' | ')[2:5])
        assert (inner == 0) == ('erm' in line)
        share = float(re.findall(r'([\d.]+)%', line)[0]) / 100
        assert share == pytest.approx(synthesis / (synthesis + inner + outer), rel=0.02)
    assert [line.split(', ')[1] for line in lines[5:]] == ['order 1', 'order 2']


@pytest.mark.parametrize('order', [1, 2])
def test_both_ways_give_as_many_images_of_the_same_kind(script: Any, order: int) -> None:
    confounders = parse_distortions([{'type': 'RealESRGAN', 'order': order, 'draws': 3}])
    clean = script.photographs(2, 96, 'cpu').images
    for way in (script.together, script.apart):
        made = way(confounders, clean, 0)
        assert [one.shape for one in made] == [(2, 3, 24, 24)] * 3
        assert not torch.equal(made[0], made[1])


@pytest.mark.parametrize(('option', 'value'), [('--steps', '0'), ('--patches', '-1'), ('--threads', '0')])
def test_user_mistakes(script: Any, option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main([option, value]) == 2
    assert f'{option}: {value}' in capsys.readouterr().err
