"""The demo, with a handful of iterations: what it writes, and that nothing it compares is unfair or leaks."""

import io
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import lmdb
import numpy as np
import pytest
import yaml
from skimage.metrics import peak_signal_noise_ratio

from dil_plugin import demo
from dil_plugin.demo import reporting, settings, training
from dil_plugin.errors import DataError, OptionError

ROOT = Path(__file__).parents[1]
ITERATIONS = 3


@pytest.fixture(scope='module')
def ran(tmp_path_factory):
    """One short run: its folder, its scores and what it printed."""
    out = tmp_path_factory.mktemp('demo') / 'a folder=1'
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, 'SEEN', (20, ))
        patch.setattr(settings, 'UNSEEN', (40, ))
        patch.setattr(sys, 'stdout', printed)
        scores = demo.run_demo(out, ITERATIONS)
    return SimpleNamespace(out=out, scores=scores, printed=printed.getvalue())


def read(path):
    image = cv2.imread(str(path))
    assert image is not None, path
    return image


def decoded(content):
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def photographs(out, phase):
    return {path.stem: read(path) for path in (out / 'photographs' / phase).iterdir()}


def test_table_holds_the_scores(ran):
    text = (ran.out / 'table.md').read_text(encoding='utf-8')
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.split('\n') if line.startswith('|')]
    assert [row[:2] for row in rows[2:]] == [['20', 'seen'], ['40', 'unseen']]
    for i, row in enumerate(rows[2:]):
        noisy, erm, dil = (ran.scores[name][i] for name in ('noisy', 'ERM', 'DIL'))
        numbers = [[float(number) for number in cell.split('/')] for cell in row[2:]]
        expected = [noisy, erm, dil, np.subtract(dil, erm)]
        assert (np.abs(np.subtract(numbers, expected)) <= [0.005001, 0.0005001]).all()
    assert 'one seed: it shows that the tools work, and is no evidence' in ' '.join(text.split())
    assert text in ran.printed


@pytest.mark.parametrize('name', ['noisy', 'ERM', 'DIL'])
@pytest.mark.parametrize(('position', 'level'), [(0, 20), (1, 40)])
def test_scores_are_those_of_the_images(ran, name, position, level):
    clean = photographs(ran.out, 'test')
    stored = [peak_signal_noise_ratio(image, read(ran.out / f'results/sigma{level}/{photograph}_{name}.png'))
              for photograph, image in clean.items()]
    assert ran.scores[name][position].psnr == pytest.approx(np.mean(stored), abs=1e-6)


@pytest.mark.parametrize('level', [20, 40])
def test_noise_has_the_level_it_says(ran, level):
    for name, clean in photographs(ran.out, 'test').items():
        noise = read(ran.out / f'results/sigma{level}/{name}_noisy.png').astype(float) - clean
        unclipped = noise[(clean > 2.5 * level) & (clean < 255 - 2.5 * level)]
        assert unclipped.std() == pytest.approx(level, rel=0.03)


def test_training_and_test_share_nothing(ran):
    train, test = photographs(ran.out, 'train'), photographs(ran.out, 'test')
    assert sorted(train) == sorted(photograph.name for photograph in settings.TRAINING)
    assert sorted(test) == sorted(photograph.name for photograph in settings.TEST)
    assert not train.keys() & test.keys()
    sources = [photograph.path() for photograph in settings.TRAINING + settings.TEST]
    assert len(set(sources)) == len(sources)
    with lmdb.open(str(ran.out / 'train.lmdb'), readonly=True, lock=False) as env, env.begin() as transaction:
        keys = [key.decode() for key, _ in transaction.cursor()]
        first = {name: decoded(transaction.get(f'{name}_s001'.encode())) for name in train}
    assert {key.rsplit('_', 1)[0] for key in keys} == set(train)
    for name, image in train.items():
        np.testing.assert_array_equal(first[name], image[:128, :128])


def test_photographs_are_those_of_the_packages(ran):
    images = {**photographs(ran.out, 'train'), **photographs(ran.out, 'test')}
    for photograph in settings.TRAINING + settings.TEST:
        np.testing.assert_array_equal(images[photograph.name], read(photograph.path()))


def test_pictures(ran):
    curve, crops = read(ran.out / 'curve.png'), read(ran.out / 'crops.png')
    assert curve.shape == (400, 640, 3)
    assert len(np.unique(curve.reshape(-1, 3), axis=0)) > 20
    for photograph in settings.TEST:
        y, x = photograph.crop
        part = photographs(ran.out, 'test')[photograph.name][y:y + 128, x:x + 128]
        assert part.shape == (128, 128, 3)  # the crop lies inside the photograph
        enlarged = part.repeat(2, 0).repeat(2, 1)
        found = cv2.matchTemplate(crops, enlarged, cv2.TM_SQDIFF)
        y, x = np.unravel_index(found.argmin(), found.shape)
        np.testing.assert_array_equal(crops[y:y + 256, x:x + 256], enlarged)


def test_folder_holds_what_was_run(ran):
    for name in settings.OPTIONS.values():
        options = yaml.safe_load((ran.out / 'options' / f'{name}.yml').read_text())
        assert options['train']['total_iter'] == ITERATIONS
        assert options['datasets']['train']['dataroot_gt'] == str(ran.out / 'train.lmdb')
        assert (ran.out / 'experiments' / name / 'models' / 'net_g_latest.pth').is_file()


def test_both_methods_get_the_same():
    files = [ROOT / 'options' / 'train' / f'{name}.yml' for name in settings.OPTIONS.values()]
    erm, sf = (yaml.safe_load(file.read_text()) for file in files)
    assert erm['train'].pop('dil') == {'variant': 'erm', 'patches': 'fresh'}
    dil = sf['train'].pop('dil')
    assert (dil['variant'], dil['patches']) == ('sf', 'fresh')
    assert (erm.pop('name'), sf.pop('name')) == ('demo_erm', 'demo_sf')
    assert erm == sf
    trained_on = erm['distortions'][0]['sigma']
    assert set(settings.SEEN) <= set(trained_on)
    assert min(settings.UNSEEN) > max(trained_on)


def test_written_options_are_those_of_the_file_but_for_this_machine(tmp_path):
    path = training.write_options('demo_sf', tmp_path, None)
    written, given = (yaml.safe_load(file.read_text()) for file in (path, ROOT / 'options/train/demo_sf.yml'))
    for options in (written, given):
        del options['num_gpu'], options['datasets']['train']['dataroot_gt']
    assert written == given


@pytest.mark.parametrize(('dil', 'said'), [
    (21.5, 'DIL is ahead by 1.50 dB on average (sigma 30: DIL, sigma 40: DIL, sigma 50: DIL)'),
    (19.0, 'ERM is ahead by 1.00 dB on average (sigma 30: ERM, sigma 40: ERM, sigma 50: ERM)'),
    (20.001, 'neither is ahead on average (sigma 30: neither,'),
])
def test_verdict_says_who_was_ahead(dil, said):
    levels = len(settings.SEEN + settings.UNSEEN)
    scores = {'ERM': [settings.Score(20.0, 0.5)] * levels, 'DIL': [settings.Score(dil, 0.5)] * levels}
    assert said in reporting.verdict(scores, settings.UNSEEN, 'Unseen')


def test_verdict_takes_its_own_levels():
    gains = [1.0] * len(settings.SEEN) + [-2.0] * len(settings.UNSEEN)
    dil = [settings.Score(20.0 + gain, 0.5) for gain in gains]
    scores = {'ERM': [settings.Score(20.0, 0.5)] * len(gains), 'DIL': dil}
    assert 'DIL is ahead by 1.00 dB' in reporting.verdict(scores, settings.SEEN, 'Seen')
    assert 'ERM is ahead by 2.00 dB' in reporting.verdict(scores, settings.UNSEEN, 'Unseen')


def test_progress_is_told_from_the_log():
    printed = ['2026 INFO: start\n', '\n', '  0%|          | 0/40 [00:00<?, ?iter/s]\n',
               ' 25%|██▌       | 10/40 [00:05<00:15,  2.0iter/s]2026 INFO: l_outer: 0.1\n',
               '100%|##########| 40/40 [00:20<00:00,  2.0iter/s]   \n', 'Traceback\n', '  File\n']
    bar = training.tqdm(total=40, file=io.StringIO())
    log = io.StringIO()
    training.follow(printed, bar, log)
    assert bar.n == 40
    assert log.getvalue().split('\n') == ['2026 INFO: start', '2026 INFO: l_outer: 0.1', 'Traceback', '  File', '']


def test_failed_training_shows_the_end_of_its_log(tmp_path):
    options = training.write_options('demo_erm', tmp_path, ITERATIONS)  # there are no data
    with pytest.raises(training.TrainingFailed, match=r'training ERM failed(.|\n)*error: .*there is no folder'):
        training.train({'ERM': options}, tmp_path)


def test_only_a_demo_is_overwritten(tmp_path):
    out = tmp_path / 'below' / 'demo'
    demo.fresh_folder(out)
    (out / 'results').mkdir()
    (out / 'results' / 'old.png').touch()
    demo.fresh_folder(out)
    assert not (out / 'results').exists()

    (tmp_path / 'mine.txt').touch()
    with pytest.raises(OptionError, match='holds files that no demo has made'):
        demo.fresh_folder(tmp_path)
    with pytest.raises(OptionError, match='cannot be made a folder'):
        demo.fresh_folder(tmp_path / 'mine.txt')
    assert (tmp_path / 'mine.txt').is_file()


def test_missing_package():
    with pytest.raises(DataError, match='requirements/demo.txt'):
        settings.Photograph('x', 'no_such_package', 'x.png', 'nobody').path()


def test_user_mistake_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['demo.py', '--out', str(tmp_path / 'new'), '--iters', '0'])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / 'tools' / 'demo.py'), run_name='__main__')
    assert stop.value.code == 2
    assert capsys.readouterr().err == 'error: --iters: must be at least 1, not 0\n'
    assert not (tmp_path / 'new').exists()
