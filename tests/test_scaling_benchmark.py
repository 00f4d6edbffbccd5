"""benchmarks/scaling.py: what is sent is what the model says, and the document has the model's tables."""

import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DOCUMENT = Path(__file__).parents[1] / 'docs' / 'scaling.md'


@pytest.fixture(scope='module')
def script(import_benchmark: Any) -> ModuleType:
    return import_benchmark('scaling')


@pytest.fixture(scope='module')
def model(import_benchmark: Any) -> ModuleType:
    return import_benchmark('time_model')


def test_two_processes_send_what_the_model_says(script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / 'page.md'
    assert script.main(['--processes', '2', '--network', 'tiny', '--steps', '1', '--out', str(page)]) == 0
    lines = capsys.readouterr().out.splitlines()
    sent = [line.split(' | ') for line in lines if line.startswith('| 2 | `')][:5]
    assert [row[1] for row in sent] == ['`erm`', '`sf`', '`pf`', '`ss`', '`ps`']
    assert [row[2] for row in sent] == ['4', '4', '2', '12', '3']
    assert all(row[2] == row[3] and row[4] == row[5].removesuffix(' |') for row in sent)
    assert '--processes 2 --network tiny --steps 1' in page.read_text()
    monkeypatch.setattr(script, 'expected_bytes', lambda *_: 1)
    monkeypatch.setattr(script, 'measured', lambda *_: [{'parameters': 9, 'all_reduce': {4: 1., 8: 2.}, 'average': 1.,
                                                         'variants': {name: {'calls': 1, 'bytes': 2, 'step': 1.,
                                                                             'compute': 1.}
                                                                      for name in script.VARIANTS}}])
    assert script.main(['--processes', '2', '--network', 'tiny']) == 1, 'other bytes than the model has'


def test_the_document_has_the_models_tables(model: Any) -> None:
    document = DOCUMENT.read_text()
    for table in model.document_tables(model.Assumptions()).split('\n\n'):
        assert table in document


def test_the_recorded_run_has_the_models_bytes() -> None:
    text = (DOCUMENT.parent / 'results' / 'scaling_cpu.md').read_text()
    parameters = int(re.findall(r'with ([\d,]+) parameters', text)[0].replace(',', ''))
    for world in (2, 4):
        for variant, count in {'erm': 4, 'sf': 4, 'pf': 2, 'ss': 12, 'ps': 3}.items():
            size = f'{4 * count * (parameters + 1):,}'
            assert f'| {world} | `{variant}` | {count} | {count} | {size} | {size} |' in text


def test_the_network_has_as_many_parameters(model: Any) -> None:
    import dil_plugin.basicsr  # noqa: F401  BasicSR needs its shims

    # isort: split
    from basicsr.archs.rrdbnet_arch import RRDBNet
    assert model.Assumptions().parameters == sum(p.numel() for p in RRDBNet(3, 3).parameters())


def test_a_ring_in_closed_form(model: Any) -> None:
    """Two processes exchange halves: all bytes once, in two hops; many: twice the bytes, whatever the number."""
    link = model.Link(latency=0.0, bandwidth=1e9)
    assert model.ring(1, 1e9, link) == 0
    assert model.ring(2, 1e9, link) == pytest.approx(1.0)
    assert model.ring(512, 1e9, link) == pytest.approx(2.0, rel=0.01)
    assert model.ring(4, 0, model.Link(1.0, 1e9)) == 6


def test_nodes_are_joined(model: Any) -> None:
    cluster = model.Cluster(8, model.Link(0.0, math.inf), model.Link(1.0, 1e9))
    assert model.hierarchical(8, 1e9, cluster) == 0
    assert model.hierarchical(16, 1e9, cluster) == pytest.approx(2 * 1 + 1.0)
    assert model.hierarchical(64, 0, cluster) == pytest.approx(2 * 3)


def test_efficiency_falls_with_the_number_of_gpus(model: Any) -> None:
    assumed = model.Assumptions()
    for variant in model.VARIANTS:
        seconds = [assumed.communication(variant, world, 10e9) for world in model.WORLDS]
        assert seconds[0] == 0
        assert seconds == sorted(seconds)


@pytest.mark.parametrize(('arguments', 'words'), [
    (['--processes', '0'], '--processes: 0'),
    (['--steps', '0'], '--steps: 0'),
    (['--out', '/no/such/folder/page.md'], '--out: there is no folder'),
])
def test_user_mistakes(script: Any, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(arguments) == 2
    assert words in capsys.readouterr().err
