"""A file that is not there: the message says where it was looked for and where it is."""

from pathlib import Path

import pytest

from dil_plugin.checkpoints import load_checkpoint
from dil_plugin.errors import DataError
from dil_plugin.missing_files import no_such

ROOT = Path(__file__).resolve().parents[1]


def test_where_it_was_looked_for(tmp_path, monkeypatch):
    below = tmp_path / 'a/b'
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert no_such('net_g.pth') == f'there is no file net_g.pth (looked in {below})'
    assert no_such(tmp_path / 'net_g.pth') == f'there is no file {tmp_path}/net_g.pth'
    with pytest.raises(DataError, match=rf'--checkpoint: there is no file net_g.pth \(looked in {below}\)$'):
        load_checkpoint('net_g.pth', '--checkpoint')


def test_where_it_is(tmp_path, monkeypatch):
    """In a folder above the current one; or in the project's, where trainings write, from wherever a tool is called."""
    below = tmp_path / 'a/b'
    below.mkdir(parents=True)
    (tmp_path / 'experiments').mkdir()
    (tmp_path / 'experiments/net_g.pth').touch()
    monkeypatch.chdir(below)
    assert no_such('experiments/net_g.pth') == ('there is no file experiments/net_g.pth '
                                                f'(looked in {below}; it is at {tmp_path}/experiments/net_g.pth)')
    assert no_such('tools/train.py').endswith(f'(looked in {below}; it is at {ROOT}/tools/train.py)')
    assert no_such('options/train', 'folder').endswith(f'it is at {ROOT}/options/train)')
