"""A disk that is full: one line that names the file, and the last good checkpoint is whole."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from training_runs import TrainingRun

from dil_plugin.checkpoints import load_checkpoint, save_atomically
from dil_plugin.digest import damage
from dil_plugin.errors import DataError


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 1 MB."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    if not shutil.which('mount') or subprocess.run(
            ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', str(folder)], capture_output=True).returncode:
        pytest.skip('mounting a tmpfs takes root')
    yield folder
    subprocess.run(['umount', str(folder)], check=True)


def fill(folder: Path, leave: int) -> None:
    """Takes all of the room but so many bytes."""
    room = os.statvfs(folder)
    (folder / 'ballast').write_bytes(bytes(max(0, room.f_bavail * room.f_frsize - leave)))


def test_a_full_disk_keeps_the_old_file(small_disk):
    path = small_disk / 'net.pth'
    save_atomically({'w': torch.zeros(1000)}, path)
    fill(small_disk, 50_000)
    with pytest.raises(OSError, match='No space left'):
        save_atomically({'w': torch.ones(100_000)}, path)
    assert torch.equal(load_checkpoint(path, 'x')['w'], torch.zeros(1000))
    assert sorted(os.listdir(small_disk)) == ['ballast', 'net.pth']


@pytest.mark.parametrize('full', ['models', 'training_states'])
def test_a_run_on_a_full_disk(base, small_disk, tmp_path, full):
    """The disk fills up after the first save; the run ends with one line and goes on once there is room."""
    base['train']['total_iter'] = 400
    base['logger'] |= {'save_checkpoint_freq': 200, 'print_freq': 10}
    run = TrainingRun(tmp_path / 'run', base)
    run.finish('--force_yml', 'train:total_iter=200')
    shutil.copytree(run.experiment / full, small_disk, dirs_exist_ok=True)
    shutil.rmtree(run.experiment / full)
    (run.experiment / full).symlink_to(small_disk)
    fill(small_disk, 10_000)
    run.start('--auto_resume')
    assert run.wait() == 2
    line = run.output.read_text().strip().splitlines()[-1]
    name = {'models': 'net_g_400.pth', 'training_states': '400.state'}[full]
    assert line.startswith(f'error: {run.experiment / full / name}: cannot be written (')
    assert '200.state is whole, --auto_resume goes on from it' in line
    for path in ('models/net_g_200.pth', 'training_states/200.state'):
        assert damage(run.experiment / path) is None
    assert not list(small_disk.glob('.*'))
    (small_disk / 'ballast').unlink()
    run.finish('--auto_resume')
    assert (run.experiment / 'training_states/400.state').is_file()


def test_no_room_without_a_mount(base, parsed, pipeline, monkeypatch, tmp_path):
    """The same where no disk can be mounted: writing fails as it does on a full one."""
    def no_room(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    from dil_plugin.basicsr.models import checkpoint_files
    base['logger']['save_checkpoint_freq'] = 2
    real, seen = checkpoint_files.save_atomically, []

    def save(content, path):
        seen.append(path)
        return real(content, path) if len(seen) <= 2 else no_room()

    monkeypatch.setattr(checkpoint_files, 'save_atomically', save)
    with pytest.raises(DataError, match=r'net_g_4\.pth: cannot be written \(No space left on device\); 2\.state is w'):
        pipeline(base)
    assert damage(tmp_path / 'experiments/run/training_states/2.state') is None
