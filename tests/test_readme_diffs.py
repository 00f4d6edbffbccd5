"""README's diffs: what stands before is a YAML of BasicSR's SRModel, and what stands after one of DIL that trains."""

import copy
import re
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
import yaml

import dil_plugin.basicsr  # noqa: F401

# isort: split
from basicsr.models import build_model
from basicsr.utils.options import parse_options

ROOT = Path(__file__).parents[1]
DIFFS = re.findall(r'```diff\n(.*?)```', (ROOT / 'README.md').read_text(encoding='utf-8'), flags=re.DOTALL)
NETWORKS = {1: {'type': 'RRDBNetNoUpsample', 'num_feat': 4, 'num_block': 1, 'num_grow_ch': 2},
            4: {'type': 'MSRResNet', 'num_feat': 4, 'num_block': 1}}


def side(diff: str, sign: str) -> Any:
    return yaml.safe_load('\n'.join(line[1:] for line in diff.splitlines() if line[:1] in (' ', sign)))


def merged(options: Any, block: Any) -> Any:
    if not isinstance(options, dict) or not isinstance(block, dict):
        return options if block is None else block
    return {**options, **{name: merged(options.get(name), value) for name, value in block.items()}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, size in (('gt', 64), ('lq', 16), ('same', 64)):
        (tmp_path / name).mkdir()
        for k in range(4):
            cv2.imwrite(str(tmp_path / name / f'{k}.png'), torch.randint(256, (size, size, 3)).numpy().astype('uint8'))
    return tmp_path


def parsed(options: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    path = folder / 'options.yml'
    path.write_text(yaml.safe_dump(options))
    monkeypatch.setattr('sys.argv', ['tool', '-opt', str(path)])
    return parse_options(str(folder), True)[0]


@pytest.mark.parametrize('diff', DIFFS, ids=['restoration', 'super-resolution'])
def test_diff_turns_a_yaml_of_basicsr_into_one_that_trains(diff: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    before, after = side(diff, '-'), side(diff, '+')
    scale = before.get('scale', 1)
    given = {
        'name': 'diff', 'num_gpu': 0, 'manual_seed': 0, 'network_g': NETWORKS[scale], 'path': {},
        'datasets': {'train': {'name': 'x', 'gt_size': 48, 'use_hflip': True, 'use_rot': True, 'num_worker_per_gpu': 0,
                               'batch_size_per_gpu': 4, 'dataset_enlarge_ratio': 4}},
        'train': {'optim_g': {'type': 'Adam', 'lr': 1e-3}, 'total_iter': 2, 'pixel_opt': {'type': 'L1Loss'},
                  'scheduler': {'type': 'MultiStepLR', 'milestones': [1]}},
        'logger': {'print_freq': 1, 'save_checkpoint_freq': 1},
    }
    roots = {'dataroot_gt': str(folder / 'gt'), 'dataroot_lq': str(folder / ('same' if scale == 1 else 'lq')),
             'io_backend': {'type': 'disk'}}
    results = []
    for change in (before, after):
        options = merged(copy.deepcopy(given), change)
        block = options['datasets']['train']
        block.update({name: value for name, value in roots.items() if name in block})
        results.append(parsed(options, folder, monkeypatch))
    assert [one['model_type'] for one in results] == ['SRModel', 'DILModel']
    assert 'dataroot_lq' in results[0]['datasets']['train']
    assert 'dataroot_lq' not in results[1]['datasets']['train']
    model = build_model(results[1])
    before_step = [parameter.clone() for parameter in model.net_g.parameters()]
    model.update_learning_rate(1)
    model.feed_data({'gt': torch.rand(4, 3, 48, 48)})
    model.optimize_parameters(1)
    assert any(not torch.equal(a, b) for a, b in zip(before_step, model.net_g.parameters(), strict=True))
    assert model.net_g(torch.rand(1, 3, 12, 12)).shape[-1] == 12 * scale
