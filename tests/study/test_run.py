"""Studies from end to end, through the command line: resuming, failures, partial reports, merging."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def start(folder: Path, *arguments: str) -> 'subprocess.Popen[str]':
    """``tools/study.py`` with the study in a folder."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / 'tools/study.py'), '-opt', str(folder / 'study.yml'), '--output',
         str(folder / 'out'), '--device', 'cpu', *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})


def run(folder: Path, *arguments: str, status: int = 0) -> str:
    """What it printed."""
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=280)
    assert process.returncode == status, out + err
    return out + err


def prepared(folder: Path, study: dict[str, Any], **change: Any) -> Path:
    (folder / 'study.yml').write_text(yaml.safe_dump({**study, **change}, sort_keys=False))
    return folder


def results(folder: Path) -> Any:
    """``results.json`` without what differs from run to run."""
    content = json.loads((folder / 'out/results.json').read_text())
    for curve in content['cells'].values():
        curve.pop('seconds')
    return content


def same(one: Any, other: Any) -> None:
    assert list(one['cells']) == list(other['cells'])
    assert one == other


@pytest.fixture(scope='module')
def reference(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, Path]:
    """Folders by what was run in them, made once."""
    return {}


@pytest.fixture
def finished(reference: dict[str, Path], study: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that has run without an interruption."""
    if 'finished' not in reference:
        folder = prepared(tmp_path_factory.mktemp('finished'), study)
        run(folder, '--jobs', '2')
        reference['finished'] = folder
    return reference['finished']


def test_leaves_small_files_and_runs_nothing_twice(finished: Path) -> None:
    files = {path.relative_to(finished / 'out').as_posix() for path in (finished / 'out').rglob('*') if path.is_file()}
    names = ['erm_seed0', 'erm_seed1', 'ps_seed0', 'ps_seed1']
    assert files == {'results.json', 'study.md', 'study.png',
                     *(f'cells/{name}/{file}' for name in names for file in ('curve.json', 'train.yml'))}
    assert sum((finished / 'out' / file).stat().st_size for file in files if 'cells' in file) < 50_000
    before = {file: (finished / 'out' / file).stat().st_mtime_ns for file in files if file.endswith('curve.json')}
    out = run(finished, '--keep-checkpoints')
    assert '4 cells, 4 of them have ended' in out
    assert '4 cells ended without it and have none (erm_seed0, ps_seed0, erm_seed1, ps_seed1)' in out
    assert {file: (finished / 'out' / file).stat().st_mtime_ns for file in before} == before


def test_a_reader_that_has_had_enough(study: dict[str, Any], tmp_path: Path) -> None:
    """As of ``--list | head``: no traceback."""
    (tmp_path / 'study.yml').write_text(yaml.safe_dump(study))
    process = start(tmp_path, '--list')
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ''
    assert process.wait() == 1


def test_curves_hold_every_point(finished: Path) -> None:
    content = results(finished)
    assert content['planned'] == 4
    assert (content['seen'], content['unseen'], content['baseline']) == (['5'], ['30', '50'], 'erm')
    for name, curve in content['cells'].items():
        assert curve['status'] == 'done'
        assert curve['image_gradients'] == [160, 320, 480]
        assert {len(scores['psnr']) for scores in curve['scores']['theta'].values()} == {3}
        assert name == f'{curve["arm"]}_seed{curve["seed"]}'
    one, other = (content['cells'][f'erm_seed{seed}']['scores'] for seed in (0, 1))
    assert one != other  # seeds matter


def test_the_report_has_the_numbers(finished: Path) -> None:
    text, content = (finished / 'out/study.md').read_text(), results(finished)
    values = [content['cells'][f'ps_seed{seed}']['scores']['theta']['30']['psnr'][-1] for seed in (0, 1)]
    last = text.split('at the last point')[1]
    row = next(line for line in last.splitlines() if line.startswith('| ps'))
    assert row.split('|')[2].strip() == '2'
    assert row.split('|')[4].strip() == f'{sum(values) / 2:.2f}'
    assert '4 of 4 trainings have ended; 480 image gradients each' in text


def descendants(pid: int) -> list[int]:
    children = [int(one) for task in Path(f'/proc/{pid}/task').glob('*')
                for one in (task / 'children').read_text().split()]
    return children + [one for child in children for one in descendants(child)]


def wait_for(process: 'subprocess.Popen[str]', pattern: str, folder: Path) -> None:
    end = time.monotonic() + 200
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize('number', [
    pytest.param(signal.SIGKILL, id='kill'), pytest.param(signal.SIGTERM, id='terminate', marks=pytest.mark.slow)])
def test_an_interrupted_study_ends_as_one_that_was_not(number: signal.Signals, finished: Path, study: dict[str, Any],
                                                       tmp_path: Path) -> None:
    prepared(tmp_path, study)
    process = start(tmp_path)
    wait_for(process, 'out/cells/ps_seed0/experiments/train/training_states/16.state', tmp_path)  # of 48
    for pid in ([process.pid, *descendants(process.pid)] if number is signal.SIGKILL else [process.pid]):
        os.kill(pid, number)
    out, err = process.communicate(timeout=60)
    if number is signal.SIGTERM:
        assert process.returncode == 130, out + err
        assert 'interrupted; the same command continues' in err
    assert (tmp_path / 'out/cells/erm_seed0/curve.json').is_file()
    assert not (tmp_path / 'out/cells/erm_seed1/curve.json').is_file()
    assert '1 of them have ended' in run(tmp_path, '--jobs', '2')
    same(results(tmp_path), results(finished))
    seconds = json.loads((tmp_path / 'out/cells/ps_seed0/curve.json').read_text())['seconds']
    assert seconds is None if number is signal.SIGKILL else seconds > 0


def test_partial_reports_and_merging(finished: Path, study: dict[str, Any], tmp_path: Path) -> None:
    prepared(tmp_path, study)
    assert '2 cells, 0 of them have ended' in run(tmp_path, '--only', '*_seed1', '--jobs', '2')
    text = (tmp_path / 'out/study.md').read_text()
    assert '2 of 4 trainings have ended' in text
    assert re.search(r'\| erm +\| +1 \|', text)
    shutil.rmtree(tmp_path / 'out/cells/ps_seed1')
    run(tmp_path, '--report')
    assert '1 of 4 trainings have ended' in (tmp_path / 'out/study.md').read_text()
    file = finished / 'out/results.json'
    assert f'3 cells of {file} taken over' in run(tmp_path, '--report', '--merge', str(file))
    assert run(tmp_path, '--list', '--only', 'ps*').count('done') == 2
    same(results(tmp_path), results(finished))


def test_a_training_of_another_study_is_taken_over(finished: Path, study: dict[str, Any], tmp_path: Path) -> None:
    """Whatever its name there, and others of its file do not matter."""
    rate = study['arms']['ps']['train.dil']['inner']['lr']
    arms = {'as before': study['arms']['erm'], 'ps': {**study['arms']['ps'], 'train.optim_g.lr': 3e-4}}
    prepared(tmp_path, study, arms=arms, seeds=[1])
    file = str(finished / 'out/results.json')
    said = run(tmp_path, '--report', '--merge', file)
    assert f'1 cells of {file} taken over; 3 more there are of other settings' in said
    assert list(results(tmp_path)['cells']) == ['as_before_seed1']
    prepared(tmp_path, study, arms={'ps': arms['ps']}, seeds=[1])
    assert f'--merge: none of the 4 cells of {file} has the settings' in run(tmp_path, '--merge', file, status=2)
    assert '--merge: ' in run(tmp_path, '--merge', str(tmp_path / 'none.json'), status=2)
    assert 'allowed: without --merge' in run(tmp_path, '--list', '--merge', file, status=2)
    shutil.rmtree(tmp_path / 'out')
    arms = {'other': arms['ps'], 'as before': arms['as before']}
    grid = {'train.dil.inner.lr': [rate, 2 * rate]}
    prepared(tmp_path, study, arms={**arms, 'of a grid': {**study['arms']['ps'], 'grid': grid}}, seeds=[1])
    assert f'2 cells of {file} taken over' in run(tmp_path, '--report', '--merge', file)
    before, cells = results(finished)['cells'], results(tmp_path)['cells']
    assert list(cells) == ['as_before_seed1', f'of_a_grid_inner.lr_{rate}_seed1']
    for cell, name, arm in zip(cells.values(), ('erm_seed1', 'ps_seed1'), ('as before', f'of a grid, inner.lr={rate}'),
                               strict=True):
        assert cell == {**before[name], 'arm': arm}


def test_results_of_different_images_stand_in_no_table(finished: Path, study: dict[str, Any], pictures: Path,
                                                       tmp_path: Path) -> None:
    for name in ('fewer', 'same'):
        shutil.copytree(pictures, tmp_path / name)
    (tmp_path / 'fewer/0.png').unlink()
    prepared(tmp_path, study)
    shutil.copytree(finished / 'out', tmp_path / 'out')
    shutil.rmtree(tmp_path / 'out/cells/ps_seed1')
    for option, kind in (('--test-data', 'test'), ('--train-data', 'train')):
        said = run(tmp_path, option, str(tmp_path / 'fewer'), status=2)
        assert f'{option}: cell erm_seed0, which has ended, and this run have different {kind} images' in said
    assert '1 of them have ended' in run(tmp_path, '--only', '*seed1', '--test-data', str(tmp_path / 'same'))
    same(results(tmp_path), results(finished))

    content = json.loads((finished / 'out/results.json').read_text())
    content['cells']['ps_seed1']['images']['test'] = 'other'
    (tmp_path / 'other.json').write_text(json.dumps(content))
    shutil.rmtree(tmp_path / 'out/cells/ps_seed1')
    said = run(tmp_path, '--report', '--merge', str(tmp_path / 'other.json'), status=2)
    assert 'cells erm_seed0 and ps_seed1 have different test images' in said
    assert not (tmp_path / 'out/cells/ps_seed1').exists()

    path = tmp_path / 'out/cells/erm_seed1/curve.json'
    for kind, who in (('test', 'ps_seed0'), ('train', 'erm_seed0')):
        curve = json.loads((finished / 'out/cells/erm_seed1/curve.json').read_text())
        path.write_text(json.dumps({**curve, 'images': {**curve['images'], kind: 'other'}}))
        said = run(tmp_path, '--report', status=2)
        assert 'erm_seed1' in said
        assert f'have different {kind} images' in said
        assert kind == 'test' or who in said


def test_results_are_not_lost(finished: Path, study: dict[str, Any], tmp_path: Path) -> None:
    prepared(tmp_path, study)
    assert 'no cell of this study has ended' in run(tmp_path, '--report', status=2)
    assert not (tmp_path / 'out/results.json').exists()
    (tmp_path / 'out').mkdir(exist_ok=True)
    shutil.copy(finished / 'out/results.json', tmp_path / 'out')
    said = run(tmp_path, '--report', '--budget', '960', status=2)
    assert 'and 4 in it are of settings that this study has not' in said
    same(results(tmp_path), results(finished))
    run(tmp_path, '--report')
    same(results(tmp_path), results(finished))
    assert '480 image gradients, not 960' in run(tmp_path, '--report', '--budget', '960', status=2)


def test_what_is_wrong_with_test_images_is_said_before_the_first_training(study: dict[str, Any], pictures: Path,
                                                                          tmp_path: Path) -> None:
    for change, message in (({'images': 'nowhere'}, 'test.images (or --test-data): nowhere: there is no such folder'),
                            ({'crop': 999}, 'is smaller than test.crop, 999 pixels'),
                            ({'unseen': {'real': {'gt': 'none', 'lq': str(pictures)}}}, 'test.real.gt: none: there')):
        prepared(tmp_path, study, test={**study['test'], **change})
        said = run(tmp_path, status=2)
        assert f'error: {tmp_path}/study.yml: test.' in said
        assert message in said
        assert not list(tmp_path.glob('out/cells/*/experiments'))


def test_a_cell_that_fails_is_recorded_and_stops_no_other(study: dict[str, Any], tmp_path: Path) -> None:
    arms = {'erm': {}, 'diverges': {'train.optim_g.lr': 1e30}}
    prepared(tmp_path, study, arms=arms, seeds=[0])
    said = run(tmp_path, status=1)
    assert 'failed: diverges_seed0' in said
    cells = results(tmp_path)['cells']
    assert cells['erm_seed0']['status'] == 'done'
    assert cells['diverges_seed0']['status'] == 'failed'
    assert 'not finite' in cells['diverges_seed0']['error']
    text = (tmp_path / 'out/study.md').read_text()
    assert '2 of 2 trainings have ended, 1 of them failed' in text
    assert '* diverges_seed0 failed: ' in text
    assert '2 of them have ended' in run(tmp_path, status=1)


def test_nothing_starts_where_an_option_is_wrong(study: dict[str, Any], tmp_path: Path) -> None:
    prepared(tmp_path, study, arms={'erm': {}, 'typo': {'train.optim_g.betes': [0, 0.9]}})
    said = run(tmp_path, status=2)
    assert f'error: {tmp_path}/study.yml: arms.typo (with base, options and grid): train.optim_g: ' in said
    assert "unknown option 'betes'; did you mean 'betas'?" in said
    assert not list(tmp_path.glob('out/cells/*/log.txt'))


def test_cells_of_other_settings_are_refused(finished: Path) -> None:
    said = run(finished, '--budget', '960', status=2)
    assert 'of other settings than the study has now' in said
    assert "--only: no cell matches 'sf*'; there are erm_seed0" in run(finished, '--only', 'sf*', status=2)


def test_all_that_can_be_measured(study: dict[str, Any], pictures: Path, tmp_path: Path) -> None:
    test = {**study['test'], 'metrics': ['psnr', 'ssim'], 'channel': 'Y',
            'unseen': {'pairs': {'gt': str(pictures), 'lq': str(pictures)}}}
    prepared(tmp_path, study, seeds=[0], arms={'ps': study['arms']['ps']}, options={'train.ema_decay': 0.9},
             evaluate=['theta', 'ema', 'phi'], invariance=True, test=test, points=2)
    run(tmp_path, '--keep-checkpoints')
    assert (tmp_path / 'out/cells/ps_seed0/experiments/train/models/net_g_48.pth').is_file()
    curve = results(tmp_path)['cells']['ps_seed0']
    assert list(curve['scores']) == ['theta', 'ema', 'phi 0.01']
    assert set(curve['scores']['ema']['pairs']) == {'psnr', 'ssim'}
    assert len({scores['5']['psnr'][-1] for scores in curve['scores'].values()}) == 3
    assert curve['invariance']['output dependence'] > 0
    text = (tmp_path / 'out/study.md').read_text()
    assert '| ps, phi 0.01 ' in text
    assert 'SSIM at the last point' in text
