"""benchmarks/data.py runs, and what it says of decodes, bytes and pairs is so."""

from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import lmdb
import numpy as np
import pytest
import torch

import dil_plugin.basicsr  # noqa: F401
from dil_plugin.distortions import parse_distortions

TINY = ['--count', '4', '--size', '40', '--gt-size', '16', '--patches', '2', '--confounders', '3', '--steps', '2',
        '--repeats', '1']
DECODES = {'same': 2, 'fresh': 6, 'with distorting': 2, 'worker': 2, 'PairedConfounderDataset': 12,
           'one distortion': 4, 'a loader per distortion': 12}
PATCH = 3 * 16 * 16


@pytest.fixture(scope='module')
def script(import_benchmark: Any) -> ModuleType:
    return import_benchmark('data')


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split('|')[1:-1]]


def test_prints_every_way_and_writes_the_page(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / 'new' / 'page.md'
    assert script.main([*TINY, '--workers', '0', '1', '--out', str(page)]) == 0
    printed = capsys.readouterr().out.strip()
    rows = [cells(line) for line in printed.splitlines()[2:]]
    assert len(rows) == 2 * 2 * 7
    assert [tuple(row[:2]) for row in rows[::7]] == [('disk', '0'), ('lmdb', '0'), ('disk', '1'), ('lmdb', '1')]
    for k, block in ((k, rows[k:k + 7]) for k in range(0, 28, 7)):
        first = rows[k - k % 14]
        assert first[5:7] == ['1.00', '1.00']
        for row, (ending, decodes) in zip(block, DECODES.items(), strict=True):
            assert ending in row[2]
            assert int(row[7]) == decodes
            least, median = (float(value) for value in row[4].split(' / '))
            assert 0 < least <= median
            pairs = 2 if 'one distortion' in row[2] else 6
            assert float(row[3].replace(',', '')) == pytest.approx(1000 * pairs / least, rel=0.01)
            unit = float(first[4].split(' / ')[0]) / 6
            assert float(row[5]) == pytest.approx(least / pairs / unit, rel=0.02, abs=0.01)
    written = page.read_text(encoding='utf-8')
    assert printed in written
    assert 'python benchmarks/data.py --count 4' in written
    assert torch.__version__ in written


@pytest.fixture(scope='module')
def stored(script: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp('stored')
    load = script.Load(patches=2, gt_size=16, confounders=3, steps=2, workers=0, device='cpu')
    images = [(64 + array * 128).astype(np.uint8) for array in script.photographs(4, 40, 'cpu').arrays]  # no clipping
    script.write_images(images, folder, parse_distortions(load.entries))
    return folder, load


def test_both_storages_hold_the_same_files(stored: tuple[Path, Any]) -> None:
    folder, _ = stored
    for side in ('gt', 'lq0', 'lq1', 'lq2'):
        with lmdb.open(str(folder / f'{side}.lmdb'), readonly=True, lock=False) as store, store.begin() as transaction:
            for k in range(4):
                assert transaction.get(f'{k:04}'.encode()) == (folder / side / f'{k:04}.png').read_bytes()
    for k in range(4):
        gt, *lqs = (cv2.imread(str(folder / side / f'{k:04}.png')).astype(float) for side in
                    ('gt', 'lq0', 'lq1', 'lq2'))
        deviations = [(lq - gt).std() for lq in lqs]
        assert all(0.95 * sigma < found < 1.05 * sigma for sigma, found in zip((5, 10, 15), deviations, strict=True))


@pytest.mark.parametrize('storage', ['disk', 'lmdb'])
def test_what_travels(script: Any, import_benchmark: Any, stored: tuple[Path, Any], storage: str) -> None:
    loading = import_benchmark('data_loading')
    folder, load = stored
    sizes = {loading.SAME: 2, loading.FRESH: 6, loading.HERE: 2, loading.WORKER: 4 * 2 * (1 + 1 + 3),
             loading.PAIRS: 2 * 6, loading.THEIRS: 4 * 2 * 2, loading.RELEASED: 4 * 2 * 6}  # patches; float32 is four
    made = script.ways(folder, storage, load)
    assert list(made) == list(sizes)
    for name, way in made.items():
        assert way.size == sizes[name] * PATCH
        sources = loading.loaders(folder, storage, load, name)
        assert [len(source) for source in sources] == [2] * (3 if name == loading.RELEASED else 1)
        way.run(0)


def test_a_loader_per_distortion_gives_the_pairs_of_each(import_benchmark: Any, stored: tuple[Path, Any]) -> None:
    loading = import_benchmark('data_loading')
    for k, one in enumerate(loading.loaders(stored[0], 'disk', stored[1], loading.RELEASED)):
        for batch in one:
            assert batch['lq'].shape == batch['gt'].shape == (2, 3, 16, 16)
            assert 255 * (batch['lq'] - batch['gt']).std() == pytest.approx(5 * (k + 1), rel=0.1)


def test_images_of_ones_own(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k in range(4):
        cv2.imwrite(str(tmp_path / f'{k}.png'), np.full((44, 50, 3), 60 * k, np.uint8))
    options = [*TINY, '--images', str(tmp_path)]
    images = script.read_images(script.parse_arguments(options))
    assert [(image.shape, int(image[0, 0, 0])) for image in images] == [((40, 40, 3), 60 * k) for k in range(4)]
    assert script.main([*options, '--count', '5']) == 2
    assert f'--images: {tmp_path} holds 4 images, fewer than --count 5' in capsys.readouterr().err
    assert script.main([*options, '--size', '45']) == 2
    assert '0.png has 44x50 pixels, less than --size 45' in capsys.readouterr().err
    (tmp_path / '2.png').write_text('no image')
    assert script.main(options) == 2
    assert '2.png cannot be decoded' in capsys.readouterr().err


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--steps', '0'], '--steps: 0; allowed: at least 1'),
    (['--gt-size', '0'], '--gt-size: 0; allowed: at least 1'),
    (['--size', '8'], '--size: 8; allowed: at least 16'),
    (['--confounders', '-1'], '--confounders: -1; allowed: at least 1'),
    (['--workers', '2', '-1'], '--workers: -1; allowed: at least 0'),
    (['--gt-size', '64', '--size', '40'], '--gt-size: 64 is more than --size 40'),
    (['--size', '401'], '--size: 401; allowed'),
    (['--images', '/nowhere'], '--images: there is no folder /nowhere'),
])
def test_user_mistakes(script: Any, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_a_gpu_that_is_not_there(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(['--device', 'cuda']) == 2
    assert '--device: cuda' in capsys.readouterr().err


def test_figures_of_a_row(import_benchmark: Any) -> None:
    """Two ways with times that are known: pairs/s of the minimum, times of a pair of both."""
    loading, report = import_benchmark('data_loading'), import_benchmark('data_report')
    load = loading.Load(patches=2, gt_size=16, confounders=3, steps=4, workers=1, device='cpu')
    keys = [('disk', 'one'), ('lmdb', 'other')]
    ways = dict(zip(keys, [loading.Way(print, 6, 2, 1500), loading.Way(print, 2, 4, 3000)], strict=True))
    timings = dict(zip(keys, [report.Timing(24, 48), report.Timing(40, 48)], strict=True))
    one, other = (cells(row) for row in report.rows(report.Block(load, ways, timings)))
    assert one == ['disk', '1', 'one', '1,000', '6 / 12', '1.00', '1.00', '2', '2']
    assert other == ['lmdb', '1', 'other', '200', '10 / 12', '5.00', '3.00', '4', '3']
