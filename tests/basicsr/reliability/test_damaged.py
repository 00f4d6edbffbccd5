"""Damaged checkpoints: noticed, named, and the one before them taken."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from training_runs import ROOT, differences

from dil_plugin.checkpoints import load_checkpoint, save_atomically
from dil_plugin.digest import damage
from dil_plugin.errors import DataError


def flip(path, position):
    with path.open('r+b') as file:
        file.seek(position, os.SEEK_END if position < 0 else os.SEEK_SET)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def halve(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.fixture
def small(tmp_path):
    path = tmp_path / 'small.pth'
    save_atomically({'params': {'w': torch.arange(40.)}, 'more': [1, 'two']}, path)
    return path


def test_every_flipped_bit_is_noticed(small):
    whole = small.read_bytes()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << position % 8
        small.write_bytes(changed)
        assert damage(small), position


def test_torch_alone_does_not_notice(small):
    """Why there is a digest: torch.load checks no CRC."""
    position = small.read_bytes().index(torch.arange(40.).numpy().tobytes())
    flip(small, position + 20)
    assert not torch.equal(torch.load(small, weights_only=True)['params']['w'], torch.arange(40.))
    with pytest.raises(DataError, match=r'x: .*small.pth .* it is damaged \(its bytes are not those'):
        load_checkpoint(small, 'x')


@pytest.mark.parametrize('written', ['ours', 'by torch.save'])
def test_every_truncation_is_noticed(small, written):
    if written == 'by torch.save':
        torch.save({'params': {'w': torch.arange(40.)}}, small)
    whole = small.read_bytes()
    for size in range(4, len(whole)):
        small.write_bytes(whole[:size])
        assert damage(small) is not None, size
    for size in range(4):
        small.write_bytes(whole[:size])
        with pytest.raises(DataError):
            load_checkpoint(small, 'x')


def test_other_readers_read_the_file(small, tmp_path):
    import zipfile
    assert zipfile.ZipFile(small).testzip() is None
    for mmap in (False, True):
        assert torch.equal(torch.load(small, weights_only=True, mmap=mmap)['params']['w'], torch.arange(40.))
    plain = tmp_path / 'plain.pth'
    torch.save({'params': {'w': torch.arange(40.)}}, plain)
    assert damage(plain) is None
    torch.save({'params': {}}, plain, _use_new_zipfile_serialization=False)
    assert load_checkpoint(plain, 'x') == {'params': {}}


DAMAGES = {
    'state truncated': ('training_states/4.state', halve),
    'state changed': ('training_states/4.state', lambda path: flip(path, path.stat().st_size // 2)),
    'state empty': ('training_states/4.state', lambda path: os.truncate(path, 0)),
    'network truncated': ('models/net_g_4.pth', halve),
    'network changed': ('models/net_g_4.pth', lambda path: flip(path, path.stat().st_size // 2)),
    'network missing': ('models/net_g_4.pth', lambda path: path.unlink()),
}


@pytest.mark.parametrize('how', DAMAGES)
def test_the_previous_state_is_taken(base, pipeline, capfd, how):
    root = pipeline(base)
    run = root / 'experiments/run'
    expected = [torch.load(run / name, weights_only=True) for name in ('models/net_g_4.pth', 'training_states/4.state')]
    name, do = DAMAGES[how]
    do(run / name)
    for log in run.glob('*.log'):
        log.unlink()
    capfd.readouterr()
    pipeline(base, 'train', '--auto_resume')
    printed = capfd.readouterr().err
    log = ''.join(path.read_text() for path in run.glob('*.log'))
    for text in (printed, log):
        assert str(run / name) in text
        assert 'the training state before it is taken' in text
    assert 'Resuming training from epoch: 0, iter: 2.' in log
    again = [torch.load(run / name, weights_only=True) for name in ('models/net_g_4.pth', 'training_states/4.state')]
    assert not differences(expected, again)


def test_none_is_whole(base, pipeline):
    root = pipeline(base)
    run = root / 'experiments/run'
    for k in (2, 4):
        halve(run / f'training_states/{k}.state')
    with pytest.raises(DataError, match=r'none of the 2 training states of this run is whole; the oldest: .*2\.state'):
        pipeline(base, 'train', '--auto_resume')
    assert (run / 'models/net_g_2.pth').is_file()  # the run is not begun anew, nor its folder put away


def test_a_state_that_is_named_is_not_replaced(base, pipeline):
    root = pipeline(base)
    state = root / 'experiments/run/training_states/4.state'
    flip(state, 2000)
    base['path']['resume_state'] = str(state)
    with pytest.raises(DataError, match=r'path\.resume_state: .*4\.state .* it is damaged'):
        pipeline(base)


def test_a_network_that_is_not_resumed_is_not_looked_at(base, pipeline, parsed):
    from dil_plugin.basicsr.resuming.training_states import load_resume_state
    root = pipeline(base)
    (root / 'experiments/run/models/net_g_4.pth').unlink()
    base['path']['ignore_resume_networks'] = ['network_g']
    assert load_resume_state(parsed(base, True, '--auto_resume'))['iter'] == 4


class Hostile:
    """What a pickle can do: its unpickling makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder), )


@pytest.fixture
def hostile(tmp_path):
    path = tmp_path / 'hostile.pth'
    torch.save({'params': {'w': torch.ones(1)}, 'epoch': 0, 'iter': 2, 'optimizers': [], 'schedulers': [],
                'more': Hostile(tmp_path / 'made')}, path)
    return path


def test_the_hostile_file_is_hostile(hostile, tmp_path):
    torch.load(hostile, weights_only=False)
    assert (tmp_path / 'made').is_dir()


@pytest.mark.parametrize('how', ['pretrained', 'resume_state', 'auto_resume', 'test.py', 'restore.py',
                                 'convert_checkpoint.py'])
def test_a_hostile_file_runs_no_code(base, crops, hostile, tmp_path, how):
    """Each tool that reads a checkpoint ends with one line that names it."""
    root = tmp_path / 'root'
    shutil.copytree(ROOT / 'tools', root / 'tools')
    arguments = ['-opt', tmp_path / 'options.yml']
    tool = 'train.py'
    if how == 'pretrained':
        base['path']['pretrain_network_g'] = str(hostile)
    elif how == 'resume_state':
        base['path']['resume_state'] = str(hostile)
    elif how == 'auto_resume':
        states = root / 'experiments/run/training_states'
        states.mkdir(parents=True)
        shutil.copy(hostile, states / '2.state')
        arguments += ['--auto_resume']
    elif how == 'test.py':
        tool = how
        base['path']['pretrain_network_g'] = str(hostile)
        base['datasets'] = {'test_1': {
            'name': 'x', 'type': 'PairedImageDataset', 'dataroot_gt': str(crops), 'dataroot_lq': str(crops),
            'io_backend': {'type': 'disk'}}}
        base['val'] = {'save_img': False}
    elif how == 'restore.py':
        tool, arguments = how, ['--input', crops, '--output', tmp_path / 'out', '--checkpoint', hostile]
    else:
        tool, arguments = how, [hostile, '-o', tmp_path / 'converted.pth']
    (tmp_path / 'options.yml').write_text(yaml.safe_dump(base))
    done = subprocess.run([sys.executable, root / 'tools' / tool, *map(str, arguments)], capture_output=True, text=True,
                          env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}, timeout=120)
    assert done.returncode != 0
    assert not (tmp_path / 'made').exists()
    line = done.stderr.strip().splitlines()[-1]
    assert 'error: ' in line
    assert ('2.state' if how == 'auto_resume' else str(hostile)) in line
