"""Scores survive a kill, and are never mixed with those of another measurement."""

import pytest

from dil_plugin.errors import DataError, OptionError
from dil_plugin.evaluation.results import Score
from dil_plugin.evaluation.score_store import ScoreStore

SETTINGS = {'seed': '0', 'tile': '512'}
IDENTITIES = {'ERM': 'aaa', 'input': 'input'}


def score(image, run='ERM', psnr=30.5, error=None):
    return Score(run=run, dataset='Set5', condition='30', image=image, metrics={} if error else {'psnr': psnr},
                 error=error)


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'deep' / 'scores.jsonl'


def store(path, settings=SETTINGS, identities=IDENTITIES, overwrite=False):
    return ScoreStore(path, settings, identities, overwrite)


def test_scores_come_back(path):
    with store(path) as first:
        first.add([score('a', psnr=1 / 3), score('b', run='input', psnr=None)])
    again = store(path)
    assert again.scores == first.scores
    assert again.scores['ERM', 'Set5', '30', 'a'].metrics['psnr'] == 1 / 3
    assert again.scores['input', 'Set5', '30', 'b'].metrics['psnr'] is None


def test_scores_are_in_the_file_at_once(path):
    with store(path) as first:
        first.add([score('a')])
        assert list(store(path).scores) == [('ERM', 'Set5', '30', 'a')]


def test_failures_are_tried_again(path):
    with store(path) as first:
        first.add([score('a'), score('b', error='broken')])
        assert first.scores['ERM', 'Set5', '30', 'b'].error == 'broken'
    assert list(store(path).scores) == [('ERM', 'Set5', '30', 'a')]


@pytest.mark.parametrize('cut', [1, 5, 60])
def test_a_line_that_a_kill_cut_off_is_measured_again(path, cut):
    with store(path) as first:
        first.add([score('a'), score('b')])
    path.write_bytes(path.read_bytes()[:-cut])
    with store(path) as second:
        assert list(second.scores) == [('ERM', 'Set5', '30', 'a')]
        second.add([score('b'), score('c')])
    assert [key[3] for key in store(path).scores] == ['a', 'b', 'c']


def test_a_kill_before_the_first_line_was_whole(path):
    store(path)
    path.write_bytes(b'')
    with store(path) as second:
        second.add([score('a')])
    assert len(store(path).scores) == 1


@pytest.mark.parametrize(('settings', 'message'), [
    ({'seed': '1', 'tile': '512'}, 'measured with seed 0, now it is 1'),
    ({'seed': '0'}, 'measured with tile 512, now it is None'),
])
def test_other_settings_are_refused(path, settings, message):
    with store(path) as first:
        first.add([score('a')])
    with pytest.raises(OptionError, match=f'--output: .*scores.jsonl was {message}.*--overwrite'):
        store(path, settings)
    assert store(path, settings, overwrite=True).scores == {}


def test_another_checkpoint_is_refused(path):
    with store(path) as first:
        first.add([score('a')])
    with pytest.raises(OptionError, match='scores of another checkpoint for run ERM'):
        store(path, identities={'ERM': 'bbb'})
    assert len(store(path).scores) == 1


def test_runs_may_be_added_and_left_out(path):
    with store(path) as first:
        first.add([score('a')])
    with store(path, identities={'DIL': 'ccc'}) as second:
        second.add([score('a', run='DIL')])
    assert {key[0] for key in store(path, identities={**IDENTITIES, 'DIL': 'ccc'}).scores} == {'ERM', 'DIL'}


@pytest.mark.parametrize('content', [b'not json\n', b'{"format": 1}\n', b'{"format":1,"settings":{}}\n{"x":1}\n'])
def test_other_files_are_refused(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(DataError, match='scores.jsonl is not what an evaluation wrote'):
        store(path)
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(DataError, match='--output: .*scores.jsonl cannot be written'):
        store(tmp_path / 'file' / 'scores.jsonl')
