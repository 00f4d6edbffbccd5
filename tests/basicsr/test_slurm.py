"""``--launcher slurm`` with what srun sets, and without a slurm."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from dil_plugin.basicsr.slurm import address_of_first_node
from dil_plugin.errors import OptionError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def nodes(monkeypatch, tmp_path):
    """Two nodes of a cluster, without scontrol."""
    monkeypatch.delenv('MASTER_ADDR', raising=False)
    monkeypatch.setenv('SLURM_NNODES', '2')
    monkeypatch.setenv('SLURM_NODELIST', 'gpu[07-08]')
    monkeypatch.setenv('PATH', str(tmp_path))
    return tmp_path


def scontrol(folder, script):
    path = folder / 'scontrol'
    path.write_text(f'#!/bin/sh\n{script}\n')
    path.chmod(0o755)


def test_one_node_needs_no_name(monkeypatch):
    monkeypatch.delenv('MASTER_ADDR', raising=False)
    monkeypatch.setenv('SLURM_NNODES', '1')
    assert address_of_first_node() == '127.0.0.1'


def test_first_of_several_nodes(nodes):
    scontrol(nodes, '[ "$*" = "show hostnames gpu[07-08]" ] && echo gpu07 && echo gpu08')
    assert address_of_first_node() == 'gpu07'


def test_a_given_address_wins(nodes, monkeypatch):
    monkeypatch.setenv('MASTER_ADDR', '10.0.0.7')
    assert address_of_first_node() == '10.0.0.7'


@pytest.mark.parametrize('script', [None, 'echo error; exit 1', 'exit 0'])
def test_unknown_nodes_are_no_address(nodes, script):
    if script is not None:
        scontrol(nodes, script)
    with pytest.raises(OptionError, match='set MASTER_ADDR'):
        address_of_first_node()


def test_two_tasks_train(base, tmp_path):
    """Two processes with the variables of srun train a model together on gloo."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    base['name'] = f'slurm_{os.getpid()}'
    base['train']['total_iter'] = 2
    base['dist_params'] = {'backend': 'nccl', 'port': port}
    path = tmp_path / 'slurm.yml'
    path.write_text(yaml.safe_dump(base))
    folder = ROOT / 'experiments' / base['name']
    environment = {name: value for name, value in os.environ.items() if name not in ('MASTER_ADDR', 'MASTER_PORT')}
    environment.update(OMP_NUM_THREADS='1', SLURM_NNODES='1', SLURM_NTASKS='2', SLURM_NODELIST='this',
                       PYTHONPATH=os.pathsep.join([str(ROOT), *filter(None, sys.path)]))
    processes = [
        subprocess.Popen([sys.executable, 'tools/train.py', '-opt', str(path), '--launcher', 'slurm'], cwd=ROOT,
                         env={**environment, 'SLURM_PROCID': str(rank), 'SLURM_LOCALID': str(rank)},
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for rank in (0, 1)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=200)
            assert process.returncode == 0, errors[-3000:]
        log = next(folder.glob('train_*.log')).read_text()
        assert 'World size (gpu number): 2' in log
        weights = torch.load(folder / 'models/net_g_2.pth', weights_only=True)['params']
        assert all(torch.isfinite(weight).all() for weight in weights.values())
    finally:
        for process in processes:
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)
