"""tools/reproduce.py as a user calls it."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
import torch
import yaml

from dil_plugin.checkpoints import NOTES, notes_of_training
from dil_plugin.evaluation.networks import build_module

ROOT = Path(__file__).parents[1]
SMALL = {'type': 'RRDBNetNoUpsample', 'num_feat': 4, 'num_block': 1, 'num_grow_ch': 2}


def run(*arguments, cwd, tool='reproduce.py'):
    command = [sys.executable, str(ROOT / 'tools' / tool), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=240)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Two checkpoints and a Set5 of three crops."""
    folder = tmp_path_factory.mktemp('reproduce')
    for seed, name in enumerate(('erm', 'sf')):
        torch.manual_seed(seed)
        notes = notes_of_training({'name': name, 'network_g': SMALL, 'train': {'dil': {'variant': name}}}, 9, ['d'])
        torch.save({'params': build_module(SMALL, 'test').state_dict(), NOTES: notes}, folder / f'{name}.pth')
    (folder / 'data' / 'Set5').mkdir(parents=True)
    photograph = cv2.imread(str(Path(skimage.__file__).parent / 'data' / 'coffee.png'))
    for k in range(3):
        crop = np.ascontiguousarray(photograph[100 + 40 * k:164 + 40 * k, 200:272])
        cv2.imwrite(str(folder / 'data' / 'Set5' / f'img_{k}.png'), crop)
    return folder


def test_a_table_with_all_its_files(folder):
    done = run('--table', 'deblurring', '--run', 'ERM=erm.pth', '--run', 'DIL_sf=sf.pth', '--data', 'data',
               '--device', 'cpu', '--condition', '4.0', '4.2', '5.0', '-o', 'out', cwd=folder)
    assert done.returncode == 0, done.stderr
    out = folder / 'out'
    printed = [Path(line) for line in done.stdout.split()]
    assert all((folder / path).is_file() for path in printed)
    assert {'table.md', 'table.tex', 'summary.csv', 'images.csv', 'results.json', 'report.html',
            'curve_Set5.png'} <= {path.name for path in printed}
    table = (out / 'table.md').read_text()
    assert '29.31' in table, 'the published PSNR of ERM on Set5 at 4.2'
    assert '29.58' in table
    assert 'skipped: Set14: is not there' in done.stderr
    assert 'Urban100' in table, 'a set that is not there is named'
    with open(out / 'images.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 3 * 3
    results = json.loads((out / 'results.json').read_text())
    means = {(row['run'], row['condition']): [] for row in rows}
    for row in rows:
        means[row['run'], row['condition']].append(float(row['psnr']))
    scores = {(s['run'], s['condition'], s['image']): s['metrics']['psnr'] for s in results['scores']}
    assert len(scores) == 27
    for (name, condition), column in means.items():
        assert f'{np.mean(column):.2f}' in table, (name, condition)
    assert results['settings']['command'].startswith('python tools/reproduce.py --table deblurring')
    html = (out / 'report.html').read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', html)


def test_a_file_of_options(folder):
    (folder / 'bench.yml').write_text(yaml.safe_dump({
        'data': 'data', 'runs': {'A': 'erm.pth', 'B': 'sf.pth'}, 'output': 'own', 'device': 'cpu',
        'protocol': {'name': 'mine', 'title': 'My noise', 'datasets': ['Set5'],
                     'conditions': [{'name': 'weak', 'distortion': {'type': 'GaussianNoise', 'sigma': 3}}]}}))
    done = run('-opt', 'bench.yml', '--limit', '2', cwd=folder)
    assert done.returncode == 0, done.stderr
    assert 'My noise' in (folder / 'own' / 'table.md').read_text()


def test_a_broken_image_is_named_and_the_rest_measured(folder, tmp_path):
    (tmp_path / 'data' / 'Set5').mkdir(parents=True)
    for path in (folder / 'data' / 'Set5').iterdir():
        (tmp_path / 'data' / 'Set5' / path.name).write_bytes(path.read_bytes())
    (tmp_path / 'data' / 'Set5' / 'img_1.png').write_bytes(b'broken')
    done = run('--table', 'deblurring', '--run', f'ERM={folder / "erm.pth"}', '--data', 'data', '--device', 'cpu',
               '--condition', '5.0', cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count('failed: ') == 1
    assert 'img_1.png' in done.stderr
    assert 'img_1' in (tmp_path / 'results' / 'deblurring' / 'table.md').read_text()


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--table', 'debluring', '--run', 'A=erm.pth', '--data', 'data'], "did you mean 'deblurring'"),
    (['--table', 'deblurring', '--run', 'A:erm.pth', '--data', 'data'], '--run A:erm.pth: expected NAME=PATH'),
    (['--table', 'deblurring', '--run', 'A=none.pth', '--data', 'data'], 'there is no file none.pth'),
    (['--table', 'deblurring', '--run', 'A=data/Set5/img_0.png', '--data', 'data'], 'cannot be read as a checkpoint'),
    (['--table', 'realsr', '--run', 'A=erm.pth', '--data', 'data'], 'none of the test sets can be read in data'),
    (['--table', 'denoising', '--run', 'A=erm.pth', '--data', 'data', '--metric', 'lpipss'], '--metric'),
    ([], '--data DIR: missing'),
])
def test_mistakes_end_in_one_line(folder, arguments, message):
    done = run(*arguments, '-o', 'mistake', cwd=folder)
    assert done.returncode == 2
    assert done.stderr.startswith('error: ')
    assert message in done.stderr
    assert done.stderr.count('\n') == 1
    assert not (folder / 'mistake').exists()
