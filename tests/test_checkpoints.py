"""Checkpoints: the notes, which parameters are taken, and what is refused."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from dil_plugin.checkpoints import (
    NOTES,
    NetworkNotes,
    load_checkpoint,
    notes_of_training,
    read_notes,
    save_atomically,
    select_parameters,
    selection_in_words,
)
from dil_plugin.errors import DataError

OPT = {
    'name': 'run', 'scale': 4, 'network_g': OrderedDict(type='RRDBNet', num_feat=8),
    'distortions': [OrderedDict(type='GaussianNoise', sigma=[5, 10])],
    'train': OrderedDict(total_iter=9, dil=OrderedDict(variant='ps', outputs='last')),
}


def test_notes_survive_a_restricted_unpickler(tmp_path):
    path = tmp_path / 'net.pth'
    save_atomically({'params': {}, NOTES: notes_of_training(OPT, 4, ['a', 'b'])}, path)
    notes = read_notes(load_checkpoint(path, 'checkpoint'), path)
    assert notes.network_g == {'type': 'RRDBNet', 'num_feat': 8}
    assert (notes.scale, notes.iteration, notes.variant, notes.outputs) == (4, 4, 'ps', 'last')
    assert notes.distortions == [{'type': 'GaussianNoise', 'sigma': [5, 10]}]
    assert notes.confounders == ['a', 'b']


def test_notes_hold_nothing_but_builtins():
    def kinds(value):
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return {type(value)}.union(*map(kinds, children))

    assert kinds(notes_of_training(OPT, None, [])) <= {dict, list, str, int, float, bool, type(None)}


def test_the_end_of_training_is_its_last_iteration():
    assert notes_of_training(OPT, None, [])['iteration'] == 9


def test_a_checkpoint_without_notes():
    assert read_notes({'params': {}}, 'net.pth') is None
    assert read_notes([1], 'net.pth') is None


def test_a_run_without_dil_has_no_variant():
    opt = {'network_g': {'type': 'RRDBNet'}, 'train': {}}
    notes = read_notes({NOTES: notes_of_training(opt, None, [])}, 'net.pth')
    assert notes.variant is None
    assert (notes.scale, notes.outputs) == (1, 'all')


@pytest.mark.parametrize(('notes', 'message'), [
    ({'format': 99, 'version': '7.1', 'network_g': {}}, 'are of format 99, made by version 7.1; this version reads up'),
    ({'network_g': 3}, 'Expected a block of options, got a whole number'),
    ({}, 'missing required field `network_g`'),
])
def test_notes_that_cannot_be_read(notes, message):
    with pytest.raises(DataError, match=f'net.pth.*{message}'):
        read_notes({NOTES: notes}, 'net.pth')


def test_later_entries_of_the_same_format_are_left_alone():
    notes = notes_of_training(OPT, None, [])
    assert read_notes({NOTES: {**notes, 'colour': 'blue'}}, 'x') == read_notes({NOTES: notes}, 'x')
    assert isinstance(read_notes({NOTES: notes}, 'x'), NetworkNotes)


@pytest.mark.parametrize(('keys', 'param_key', 'taken'), [
    (['params', 'params_ema'], None, 'params_ema'),
    (['params'], None, 'params'),
    (['params', 'params_ema'], 'params', 'params'),
    (['state'], 'state', 'state'),
])
def test_which_parameters_are_taken(keys, param_key, taken):
    content = {key: {'w': torch.tensor([float(k)])} for k, key in enumerate(keys)}
    key, state = select_parameters(content, 'net.pth', param_key)
    assert key == taken
    assert state['w'].item() == keys.index(taken)


@pytest.mark.parametrize(('key', 'keys', 'words'), [
    ('params_ema', ['params', 'params_ema'],
     'params_ema, the moving average of the weights (params, the weights without averaging, are in the file too)'),
    ('params_ema', ['params_ema'], 'params_ema, the moving average of the weights'),
    ('params', ['params', 'params_ema'], 'params (params_ema, their moving average, is in the file too)'),
    ('params', ['params'], 'params'),
    ('', ['w'], 'the state dict'),
])
def test_the_user_is_told_which_parameters_were_taken(key, keys, words):
    assert selection_in_words(key, dict.fromkeys(keys)) == words


def test_bare_and_wrapped_state_dicts():
    key, state = select_parameters({'module.conv.weight': torch.ones(1)}, 'net.pth', None)
    assert key == ''
    assert list(state) == ['conv.weight']


@pytest.mark.parametrize(('content', 'param_key', 'message'), [
    ({'params': {'w': torch.ones(1)}}, 'params_ema', "has no 'params_ema', only params"),
    ({'params': {}}, None, "'params' is no state dict"),
    ({'epoch': 3, 'state_dict': {'w': torch.ones(1)}}, None, 'the file is no state dict; expected a checkpoint with '
     "params or params_ema, got only epoch, state_dict; a tool's --param-key takes another"),
    ({'optimizers': [], 'schedulers': [], 'iter': 3}, None, 'is a training state; the network is in the folder models'),
    ([1], None, 'expected a checkpoint with params or params_ema, got list'),
])
def test_no_parameters(content, param_key, message):
    with pytest.raises(DataError, match=f'net.pth: {message}'):
        select_parameters(content, 'net.pth', param_key)


class Hostile:
    def __reduce__(self):
        return print, ('executed', )


def test_code_in_a_checkpoint_is_not_run(tmp_path, capsys):
    torch.save({'params': {}, 'more': Hostile()}, tmp_path / 'hostile.pth')
    with pytest.raises(DataError, match='hostile.pth cannot be read as a checkpoint'):
        load_checkpoint(tmp_path / 'hostile.pth', 'checkpoint')
    assert 'executed' not in capsys.readouterr().out


def test_files_that_are_no_checkpoints(tmp_path):
    (tmp_path / 'text.pth').write_text('not a checkpoint')
    with pytest.raises(DataError, match='--checkpoint: .*text.pth cannot be read as a checkpoint'):
        load_checkpoint(tmp_path / 'text.pth', '--checkpoint')
    with pytest.raises(DataError, match='--checkpoint: there is no file .*none.pth'):
        load_checkpoint(tmp_path / 'none.pth', '--checkpoint')


def test_a_file_with_other_objects_says_how_one_of_mmagic_is_converted(tmp_path: Path) -> None:
    torch.save({'state_dict': {}, 'log': Path('x')}, tmp_path / 'iter_2.pth')
    with pytest.raises(DataError, match=r'other objects than tensors; one of mmagic .* tools/convert_checkpoint\.py'):
        load_checkpoint(tmp_path / 'iter_2.pth', 'checkpoint')


def normalized(seen):
    norm = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3))
    for _ in range(seen):
        norm(torch.rand(2, 3, 4, 4))
    return norm.state_dict()


@pytest.mark.parametrize(('content', 'key', 'warned'), [
    ({'params': normalized(2), 'params_ema': normalized(0)}, None, True),
    ({'params': normalized(2), 'params_ema': normalized(0)}, 'params_ema', True),
    ({'params': normalized(2), 'params_ema': normalized(0)}, 'params', False),
    ({'params': normalized(2), 'params_ema': normalized(2)}, None, False),
    ({'params': normalized(0), 'params_ema': normalized(0)}, None, False),  # of a frozen BatchNorm
    ({'params_ema': normalized(0)}, None, False),
    ({'params': {'a': torch.ones(1)}, 'params_ema': {'a': torch.ones(1)}}, None, False),
], ids=['default', 'ema', 'params', 'followed', 'untrained', 'alone', 'none'])
def test_an_average_without_running_statistics_is_warned_of(content, key, warned, capsys):
    select_parameters(content, 'net.pth', key)
    err = capsys.readouterr().err
    assert ("Warning: net.pth: 'params_ema' has no running statistics (1: mean 0, variance 1)" in err) == warned
