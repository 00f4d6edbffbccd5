"""Scores survive a kill, and are never mixed with those of another measurement."""

import os
import resource

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


def store(path, settings=SETTINGS, identities=IDENTITIES, overwrite=False, images=None):
    """Every image has the fingerprint 'same' but for those in ``images``."""
    return ScoreStore(path, settings, identities, lambda dataset, image: (images or {}).get(image, 'same'), overwrite)


def stored(path, **options):
    """What a later evaluation finds."""
    with store(path, **options) as found:
        return found.scores


def test_scores_come_back(path):
    with store(path) as first:
        first.add([score('a', psnr=1 / 3), score('b', run='input', psnr=None)])
    again = stored(path)
    assert again == first.scores
    assert again['ERM', 'Set5', '30', 'a'].metrics['psnr'] == 1 / 3
    assert again['input', 'Set5', '30', 'b'].metrics['psnr'] is None


def test_scores_are_in_the_file_at_once(path):
    with store(path) as first:
        first.add([score('a')])
        path.with_name('copy.jsonl').write_bytes(path.read_bytes())
        assert list(stored(path.with_name('copy.jsonl'))) == [('ERM', 'Set5', '30', 'a')]


def test_failures_are_tried_again(path):
    with store(path) as first:
        first.add([score('a'), score('b', error='broken')])
        assert first.scores['ERM', 'Set5', '30', 'b'].error == 'broken'
    assert list(stored(path)) == [('ERM', 'Set5', '30', 'a')]


@pytest.mark.parametrize('cut', [1, 5, 60])
def test_a_line_that_a_kill_cut_off_is_measured_again(path, cut):
    with store(path) as first:
        first.add([score('a'), score('b')])
    path.write_bytes(path.read_bytes()[:-cut])
    with store(path) as second:
        assert list(second.scores) == [('ERM', 'Set5', '30', 'a')]
        second.add([score('b'), score('c')])
    assert [key[3] for key in stored(path)] == ['a', 'b', 'c']


@pytest.mark.parametrize('length', [0, 1, 6, 40])
def test_a_kill_before_the_header_was_whole(path, length):
    with store(path):
        pass
    path.write_bytes(path.read_bytes()[:length])
    with store(path) as second:
        second.add([score('a')])
    assert len(stored(path)) == 1


def test_images_that_have_changed_are_measured_again(path):
    with store(path) as first:
        first.add([score('a'), score('b')])
    assert [key[3] for key in stored(path, images={'b': 'another'})] == ['a']
    assert [key[3] for key in stored(path, images={'b': None})] == ['a', 'b']  # a set that is not evaluated now


def test_one_process_at_a_time(path):
    with store(path) as first:
        with pytest.raises(OptionError, match=r'--output: another evaluation is writing to .*deep; wait'):
            store(path)
        first.add([score('a')])
    assert len(stored(path)) == 1


@pytest.mark.parametrize(('settings', 'message'), [
    ({'seed': '1', 'tile': '512'}, 'measured with seed 0, now it is 1'),
    ({'seed': '0'}, 'measured with tile 512, now it is None'),
])
def test_other_settings_are_refused(path, settings, message):
    with store(path) as first:
        first.add([score('a')])
    with pytest.raises(OptionError, match=f'--output: .*scores.jsonl was {message}.*--overwrite'):
        store(path, settings)
    assert stored(path, settings=settings, overwrite=True) == {}


def test_another_checkpoint_is_refused(path):
    with store(path) as first:
        first.add([score('a')])
    with pytest.raises(OptionError, match='scores of another checkpoint, network or param_key for run ERM'):
        store(path, identities={'ERM': 'bbb'})
    assert len(stored(path)) == 1


def test_runs_may_be_added_and_left_out(path):
    with store(path) as first:
        first.add([score('a')])
    with store(path, identities={'DIL': 'ccc'}) as second:
        second.add([score('a', run='DIL')])
    assert {key[0] for key in stored(path, identities={**IDENTITIES, 'DIL': 'ccc'})} == {'ERM', 'DIL'}


@pytest.mark.parametrize('content', [b'not json', b'not json\n', b'{"format": 1}\n',
                                     b'{"format":1,"settings":{}}\n{"x":1}\n'])
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
    (tmp_path / 'scores.jsonl').mkdir()
    with pytest.raises(DataError, match='--output: .*scores.jsonl cannot be written'):
        store(tmp_path / 'scores.jsonl')


def test_a_full_disk_leaves_the_whole_lines_that_were_there(path):
    """A limit on the size of files stands for the end of a disk: the second call may take part of its lines."""
    with store(path) as first:
        first.add([score('a')])
    before, whole = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    full = store(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, whole[1]))
    try:
        with pytest.raises(DataError, match=r'scores.jsonl cannot be written \(File too large\); what was'), full:
            full.add([score('b'), score('c')])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, whole)
    assert path.read_bytes() == before
    with store(path) as again:
        again.add([score('b')])
    assert [key[-1] for key in stored(path)] == ['a', 'b']


def test_what_cannot_be_put_on_disk_at_the_end_is_told(path, monkeypatch):
    def full(handle):
        raise OSError(28, 'No space left on device')

    one = store(path)
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(DataError, match='No space left on device'), one:
        one.add([score('a')])
    assert one._file.closed
