"""benchmarks/distortions.py: every row is there, and what is compared does the same."""

import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import dil_plugin.basicsr  # noqa: F401
from dil_plugin.distortions import DISTORTION_REGISTRY

# on average like ours, not in every pixel: codecs of real numbers, borders that are reflected
RESEMBLING = {('JPEG', 'BasicSR tensors'), ('JPEG', 'kornia'), ('Downsample, antialias', 'BasicSR arrays')}


@pytest.fixture(scope='module')
def script(import_benchmark: Any) -> ModuleType:
    return import_benchmark('distortions')


@pytest.fixture(scope='module')
def batch(script: ModuleType) -> Any:
    return script.photographs(2, 96, 'cpu')


def tensor(result: Any) -> Tensor:
    """Arrays ``(H, W, C)`` of BGR as a batch of RGB."""
    return result if isinstance(result, Tensor) else torch.from_numpy(np.stack(result)).permute(0, 3, 1, 2).flip(1)


def results(script: ModuleType, name: str, batch: Any, seed: int) -> dict[str, Tensor]:
    case = next(case for case in script.all_cases(96) if case.name == name)
    random.seed(seed)
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    return {column: tensor(run(seed)) for column, run in script.contenders(case, batch).items()}


def test_prints_every_row(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / 'new' / 'page.md'
    assert script.main(['--tiny', '--repeats', '1', '--out', str(page)]) == 0
    printed = capsys.readouterr().out
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in printed.splitlines() if line.startswith('|')]
    names = [row[0] for row in cells]
    for case in script.all_cases(64):
        row = cells[names.index(case.name)]
        assert len(row) == 10
        assert [cell != '–' for cell in row[4:7]] == [name in case.alternatives for name in
                                                    ('BasicSR arrays', 'BasicSR tensors', 'kornia')]
        assert float(row[2].replace(',', '')) > 0
    assert sum(name.startswith('training') for name in names) == 2
    written = page.read_text(encoding='utf-8')
    assert printed.strip() in written
    assert 'python benchmarks/distortions.py --tiny --repeats 1' in written
    assert torch.__version__ in written


def test_covers_every_distortion(script: ModuleType) -> None:
    ours = {name for name in DISTORTION_REGISTRY.names()
            if DISTORTION_REGISTRY.get(name).__module__.startswith('dil_plugin.')}
    assert {type(case.distortion).__name__ for case in script.all_cases(64)} == ours


@pytest.mark.parametrize('name', ['GaussianBlur', 'JPEG', 'Resize', 'Downsample', 'Downsample, antialias'])
def test_fixed_alternatives_equal_ours(script: ModuleType, batch: Any, name: str) -> None:
    outcome = results(script, name, batch, 0)
    for column, theirs in outcome.items():
        difference = (theirs.clamp(0, 1) - outcome['ours']).abs()
        assert theirs.shape == outcome['ours'].shape
        if (name, column) in RESEMBLING:
            assert difference.mean() < 0.02, column
        else:
            assert difference.max() < 0.01, column


def test_random_alternatives_resemble_ours(script: ModuleType, batch: Any) -> None:
    """The mean change per value, over some draws; it tells wrong degrees and left out steps."""
    clean = batch.images
    for case in script.all_cases(96):
        if not case.alike or not case.alternatives or case.large:
            continue
        drawn = [results(script, case.name, batch, seed) for seed in range(12)]
        reference = torch.nn.functional.interpolate(clean, size=drawn[0]['ours'].shape[-2:], mode='area')
        change = {column: np.mean([float((one[column] - reference).abs().mean()) for one in drawn])
                  for column in drawn[0]}
        for column in change:
            assert change[column] == pytest.approx(change['ours'], rel=0.25), (case.name, column, change)


@pytest.mark.parametrize('name', ['RealESRGAN, order 1', 'RealESRGAN, order 2'])
def test_real_esrgan_alternatives_take_our_branches(script: ModuleType, batch: Any, name: str) -> None:
    """Equal sizes and interpolations leave kernels and noise to differ: results correlate, and differ as two draws."""
    for seed in range(6):
        outcome = results(script, name, batch, seed)
        for column, theirs in outcome.items():
            assert theirs.shape == outcome['ours'].shape == (2, 3, 24, 24)
            assert torch.equal(theirs.mul(255).round(), theirs.mul(255).clamp(0, 255).round())
            correlation = np.corrcoef(theirs.flatten().numpy(), outcome['ours'].flatten().numpy())[0, 1]
            assert correlation > 0.7, (seed, column)


def test_unknown_row_is_named(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(['--only', 'Jpeg']) == 2
    message = capsys.readouterr().err
    assert 'no row begins with Jpeg' in message
    assert 'JPEG' in message


def test_measure_takes_turns_and_repeats_seeds(script: ModuleType) -> None:
    calls: list[tuple[str, int, float, float]] = []

    def contender(name: str) -> Any:
        def run(seed: int) -> None:
            calls.append((name, seed, float(torch.rand(())), float(np.random.rand())))  # noqa: NPY002
        return run

    timings = script.measure({'a': contender('a'), 'b': contender('b')}, 2, 3, 'cpu')
    assert [call[:2] for call in calls] == [(name, seed) for seed in range(3) for name in 'ab'] * 3
    assert len({call[2:] for call in calls}) == 3
    assert all(0 <= timing.least <= timing.median for timing in timings.values())


def test_ratio_and_verdict(script: ModuleType) -> None:
    timings = {name: sys.modules['measuring'].Timing(least, 2 * least)
               for name, least in (('ours', 3.0), ('kornia', 2.0), ('BasicSR arrays', 6.0))}
    row = script.Row('X', 4, 64, timings, alike=True)
    assert row.ratios == (1.5, 1.5)
    assert not row.missed('cpu')
    assert row.missed('cuda')
    assert not row._replace(alike=False).missed('cuda')
    assert script.table([row], 'cpu')[2].split(' | ')[1:4] == ['4x3x64x64', '1,333', '3.00 / 6.00']
