"""Trains and tests one cell: ``python -m dil_plugin.study.one_cell FOLDER``; ``scheduling`` calls it.

The training is that of ``tools/train.py``, with ``experiments/`` in the folder of the cell.
"""

import fcntl
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec
import torch

import dil_plugin.basicsr  # noqa: F401  (at module level: spawned data workers need it too)

# isort: split
from dil_plugin.launch import errors_in_one_line
from dil_plugin.study.cells import Cell
from dil_plugin.study.images import fingerprints
from dil_plugin.study.measuring import fixed_patches, invariance_of, measure_checkpoints
from dil_plugin.study.options import Study
from dil_plugin.study.results import curve_of, write_json
from dil_plugin.study.spent_seconds import spent_seconds
from dil_plugin.study.test_conditions import load_conditions

SECONDS = 'seconds'
"""The file in the folder of a cell that has what its starts took so far."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is told: ``job.json`` in the folder of its cell."""

    cell: Cell
    study: Study
    device: str


def run_cell(folder: Path) -> None:
    """Trains, tests, and writes ``curve.json``.

    A training that was interrupted goes on. Two processes in one folder, as after the end of a scheduler alone, wait
    for each other.
    """
    with (folder / 'lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / 'curve.json').is_file():
            _train_and_test(folder, msgspec.json.decode((folder / 'job.json').read_bytes(), type=Job))


def _train_and_test(folder: Path, job: Job) -> None:
    seconds = _train(folder)
    cell, study = job.cell, job.study
    opt: dict[str, Any] = cell.options
    models = folder / 'experiments' / 'train' / 'models'
    step = cell.iterations // cell.points
    checkpoints = [models / f'net_g_{step * (k + 1)}.pth' for k in range(cell.points)]
    pairs = fixed_patches(opt, study.phi.patches) if cell.alphas else []
    scores = measure_checkpoints(checkpoints, load_conditions(study.test, opt.get('scale', 1)), study.test,
                                 study.evaluate, pairs, cell.alphas, opt['train'].get('pixel_opt') or {}, job.device)
    invariance = invariance_of(checkpoints[-1], opt, study.test, job.device) if study.invariance else None
    device = torch.cuda.get_device_name() if job.device.startswith('cuda') else 'cpu'
    write_json(curve_of(cell, 'done', scores=scores, images=fingerprints(study, opt), invariance=invariance,
                        seconds=seconds, device=device, torch=str(torch.__version__)), folder / 'curve.json')


def _train(folder: Path) -> float | None:
    """Trains to the end; returns the seconds of all starts, None where one of them was killed."""
    experiment = folder / 'experiments' / 'train'
    trained = (experiment / 'models' / 'net_g_latest.pth').is_file()
    resumed = trained or any((experiment / 'training_states').glob('*.state'))
    if not resumed:
        shutil.rmtree(folder / 'experiments', ignore_errors=True)  # BasicSR would rename and keep it
    with spent_seconds(folder / SECONDS, resumed) as seconds:
        if not trained:
            from basicsr.train import train_pipeline
            sys.argv = ['train.py', '-opt', str(folder / 'train.yml'), '--auto_resume']
            train_pipeline(str(folder))
    return seconds()


if __name__ == '__main__':
    with errors_in_one_line():
        run_cell(Path(sys.argv[1]))
