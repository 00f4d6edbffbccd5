"""benchmarks/meta_step.py runs, and its contenders take the steps that they are said to take."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch

NETWORK = {'type': 'RRDBNetNoUpsample', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 1,
           'num_grow_ch': 4}


@pytest.fixture(scope='module')
def script(import_benchmark: Any) -> ModuleType:
    return import_benchmark('meta_step')


@pytest.fixture(scope='module')
def contenders(import_benchmark: Any) -> ModuleType:
    return import_benchmark('meta_contenders')


@pytest.fixture
def setting(contenders: Any) -> Any:
    return contenders.Setting(NETWORK, confounders=3, patches=2, side=12)


def test_prints_both_tables_and_writes_the_page(script: Any, contenders: Any, monkeypatch: pytest.MonkeyPatch,
                                                capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    monkeypatch.setattr(script, 'SETTINGS', {'rrdb-small': contenders.Setting(NETWORK, 2, 1, 12)})
    asked = []
    monkeypatch.setattr(script, '_peak', lambda network, contender, args: asked.append(contender) or len(asked) * 10**6)
    page = tmp_path / 'results' / 'page.md'
    assert script.main(['rrdb-small', '--repeats', '1', '--output', str(page)]) == 0
    out = capsys.readouterr().out
    names = [line.split(' | ')[0].removeprefix('| ') for line in out.splitlines() if line.startswith('| ')]
    assert [name for name in contenders.CONTENDERS if name in names] == list(contenders.CONTENDERS)
    assert asked == [*contenders.CONTENDERS, 'ours: ss, n = 1']
    assert 'ps, frugal / higher | memory' in out
    assert page.read_text().endswith(out)
    assert 'python benchmarks/meta_step.py rrdb-small --repeats 1' in page.read_text()


def moved(contenders: Any, name: str, setting: Any, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """The outer optimiser's gradient in a contender's step."""
    seen = []

    class Seen(torch.optim.SGD):

        def step(self, *args: Any, **kwargs: Any) -> Any:
            if not seen:
                seen.append(torch.cat([p.grad.flatten().clone() for p in self.param_groups[0]['params']]))
            return super().step(*args, **kwargs)

    monkeypatch.setattr(contenders, '_outer', lambda params: Seen(params, lr=0.0))
    contenders.CONTENDERS[name](setting)(0)
    return seen[0]


@pytest.mark.parametrize('name', ['ours: ps, fast', 'ours: ps, frugal, checkpointing', 'TorchOpt: ps'])
def test_second_order_contenders_do_the_same(contenders: Any, setting: Any, name: str,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, 'ALPHA', 0.05)
    monkeypatch.setitem(contenders.OURS['ours: ps, fast']['inner'], 'lr', 0.05)
    expected = moved(contenders, 'higher: ps', setting, monkeypatch)
    assert (moved(contenders, name, setting, monkeypatch) - expected).norm() < 1e-5 * expected.norm()
    alone = moved(contenders, 'ours: erm', setting, monkeypatch)
    assert (alone - expected).norm() > 1e-3 * expected.norm()


def test_first_order_contenders_do_the_same(contenders: Any, setting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = (moved(contenders, name, setting, monkeypatch) for name in ('ours: sf', 'two models: sf'))
    assert (ours - theirs).norm() < 1e-3 * theirs.norm()


def test_plain_steps_of_all_batches(contenders: Any, setting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    together = moved(contenders, 'plain step, n batches', setting, monkeypatch)
    singly = [moved(contenders, 'plain step', replaced, monkeypatch) for replaced in
              (_only(setting, i) for i in range(3))]
    assert (together - torch.stack(singly).mean(0)).norm() < 1e-5 * together.norm()


def _only(setting: Any, index: int) -> Any:
    one = replace(setting)
    object.__setattr__(one, 'batch', replace(setting.batch, confounders=[setting.batch.confounders[index]]))
    return one


def test_models_of_basicsr_learn_the_same(contenders: Any, setting: Any) -> None:
    weights = []
    for model_type in ('SRModel', 'DILModel'):
        step = contenders.in_basicsr(model_type, setting)
        for _ in range(3):
            step(0)
        model = next(cell.cell_contents for cell in step.__closure__ if hasattr(cell.cell_contents, 'net_g'))
        weights.append(torch.cat([p.detach().flatten() for p in model.net_g.parameters()]))
    assert torch.equal(*weights)


def test_memory_is_that_of_what_is_allocated(import_benchmark: Any) -> None:
    memory = import_benchmark('peak_memory')
    if not memory.measurable('cpu'):
        pytest.skip('this machine does not tell')
    size = 256 * 2**20

    def allocate() -> None:
        torch.ones(size, dtype=torch.uint8)
        torch.ones(size // 2, dtype=torch.uint8)

    assert 0.9 * size < memory.peak(allocate, 'cpu') < 1.3 * size


@pytest.mark.parametrize(('arguments', 'words'), [
    (['vgg'], 'vgg: no such network; allowed: rrdb-small'),
    (['--repeats', '0'], '--repeats: 0'),
    (['--side', '-4'], '--side: -4'),
])
def test_user_mistakes(script: Any, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(arguments) == 2
    assert words in capsys.readouterr().err
