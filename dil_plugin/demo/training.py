"""Training both methods side by side, each in a process of its own."""

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

import torch
import yaml
from basicsr.train import train_pipeline
from tqdm import tqdm

from dil_plugin.basicsr.launch import run
from dil_plugin.demo.settings import ROOT, load

_TRAIN = 'import sys; from dil_plugin.demo import train_in; train_in(sys.argv.pop(1))'
_BAR = re.compile(r'\s*\d+%\|.*?\| (\d+)/\d+ \[[^\]]*\]')  # tqdm's


class TrainingFailed(RuntimeError):
    """A training process ended with an error; the message holds the end of its log."""


def write_options(name: str, out: Path, iterations: int | None) -> Path:
    """Copies ``options/train/{name}.yml`` to ``out``, with this demo's folder and number of iterations."""
    options = yaml.safe_load((ROOT / 'options' / 'train' / f'{name}.yml').read_text(encoding='utf-8'))
    options['num_gpu'] = min(torch.cuda.device_count(), 1)
    options['datasets']['train']['dataroot_gt'] = str(out / 'train.lmdb')
    if iterations is not None:
        train = options['train']
        train['total_iter'] = iterations
        train['scheduler']['milestones'] = [iterations * 2 // 3]
        train['ema_decay'] = max(0.5, 1 - 10 / iterations)
    path = out / 'options' / f'{name}.yml'
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(options, sort_keys=False), encoding='utf-8')
    return path


def train(options: Mapping[str, Path], out: Path) -> None:
    """Trains every method in a process of its own, all at the same time; their networks land in ``out/experiments``.

    Args:
        options: The YAML file of each method.
        out: The folder of the demo; each process writes to ``train_{method}.log`` in it.

    Raises:
        TrainingFailed: A process failed; the others are stopped.
    """
    with contextlib.ExitStack() as stack:
        processes = {
            method: start_training(method, path, out, position, stack)
            for position, (method, path) in enumerate(options.items())
        }
        while None in (codes := [process.poll() for process in processes.values()]) and not any(codes):
            time.sleep(0.2)
        failed = [method for method, code in zip(processes, codes, strict=True) if code]
    if failed:
        log = out / f'train_{failed[0]}.log'
        end = log.read_text(encoding='utf-8').splitlines()[-20:]
        raise TrainingFailed('\n'.join([f'training {failed[0]} failed; the end of {log}:', *end]))


def start_training(method: str, options: Path, out: Path, position: int,
                   stack: contextlib.ExitStack) -> subprocess.Popen[str]:
    """Starts one training; its progress bar is shown in line ``position``, all else goes to its log."""
    total = load(options)['train']['total_iter']
    # More threads than cores make such small convolutions many times slower, so each process has one.
    search_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONIOENCODING': 'utf-8', 'PYTHONPATH': search_path}
    log = stack.enter_context((out / f'train_{method}.log').open('w', encoding='utf-8'))
    bar = stack.enter_context(
        tqdm(total=total, desc=f'     {method}', unit='iter', position=position, dynamic_ncols=True))
    process = stack.enter_context(
        subprocess.Popen([sys.executable, '-c', _TRAIN, str(out), '-opt', str(options)], env=environment,
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                         encoding='utf-8', errors='replace'))
    assert process.stdout is not None
    follower = threading.Thread(target=follow, args=(process.stdout, bar, log))
    follower.start()
    stack.callback(follower.join)
    stack.callback(process.terminate)  # the first to be called on leaving; of no effect on one that has ended
    return process


def follow(lines: Iterable[str], bar: Any, log: TextIO) -> None:
    """Divides what a training process prints: progress moves ``bar``, the rest is written to ``log``."""
    for line in lines:
        progress = _BAR.match(line)
        if progress:
            bar.update(int(progress[1]) - bar.n)
            line = line[progress.end():]
        if line.strip():
            log.write(line.rstrip() + '\n')
            log.flush()


def train_in(folder: str) -> None:
    """What ``tools/train.py`` does, with ``experiments`` in another folder; the training processes call it."""
    run(train_pipeline, folder)
