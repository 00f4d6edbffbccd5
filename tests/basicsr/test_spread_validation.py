"""Validation by two and three processes against BasicSR's own in one."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

WORKER = Path(__file__).with_name('validation_worker.py')
METRICS = {'psnr': {'type': 'calculate_psnr', 'crop_border': 0},
           'ssim': {'type': 'calculate_ssim', 'crop_border': 0, 'better': 'higher'},
           'negated': {'type': 'calculate_psnr', 'crop_border': 2, 'better': 'lower'}}


def options(base, crops, folder, count=5, ema=0.9, network=None, **val):
    """Five images of one set and one of another."""
    many, one = folder / 'many', folder / 'one'
    for path, n in ((many, count), (one, 1)):
        path.mkdir(parents=True)
        for source in sorted(crops.iterdir())[:n]:
            shutil.copy(source, path / f'{path.name}_{source.name}')
    base['train'].update(dil={'variant': 'sf', 'inner': {'type': 'SGD', 'lr': 0.1}}, ema_decay=ema)
    base['network_g'] = network or base['network_g']
    for number, path in enumerate((many, one)):
        base['datasets'][f'val_{number}'] = {
            'name': path.name, 'type': 'DistortionAugmentedDataset', 'dataroot_gt': str(path),
            'io_backend': {'type': 'disk'}, 'distortions': [{'type': 'GaussianNoise', 'sigma': 30}]}
    base['val'] = {'val_freq': 1, 'save_img': True, 'pbar': True, 'metrics': METRICS, **val}
    path = folder / 'options.yml'
    path.write_text(yaml.safe_dump(base))
    return path


def written(folder):
    """The images a run has written, by name."""
    return {str(path.relative_to(folder)): cv2.imread(str(path)) for path in folder.rglob('*.png')}


def equal(left, right):
    assert left.keys() == right.keys()
    for name, value in right.items():
        assert left[name] == pytest.approx(value, rel=1e-12), name


@pytest.mark.parametrize(('world', 'ema'), [(2, 0.9), (3, 0)])
def test_several_processes_measure_what_one_does(base, crops, tmp_path, run_ranks, world, ema):
    """Five images over two and three ranks, and one image, of which the others have none."""
    path = options(base, crops, tmp_path, ema=ema, network={'type': 'NormForTest'} if ema == 0 else None)
    alone, = run_ranks(WORKER, 1, path)
    ranks = run_ranks(WORKER, world, path)
    assert 'error' not in alone
    for rank in ranks:
        assert 'error' not in rank
        equal({(key, name): value for key, values in rank['metrics'].items() for name, value in values.items()},
              {(key, name): value for key, values in alone['metrics'].items() for name, value in values.items()})
        for dataset, best in alone['best'].items():
            for metric, record in best.items():
                assert rank['best'][dataset][metric]['iter'] == record['iter']
                assert rank['best'][dataset][metric]['val'] == pytest.approx(record['val'], rel=1e-12)
    assert len(set(alone['metrics']['many', 1].values())) == 3
    assert alone['metrics']['many', 1] != alone['metrics']['many', 2]
    equal(ranks[0]['scalars'], alone['scalars'])
    assert ranks[0]['lines'] == alone['lines']
    assert len(alone['lines']) == 2 * 2 * len(METRICS)
    assert all(rank['lines'] == [] for rank in ranks[1:])
    one, several = (written(tmp_path / f'world_{number}') for number in (1, world))
    assert one.keys() == several.keys()
    assert len(one) == 2 * 6
    for name, image in one.items():
        assert np.array_equal(several[name], image)


def test_each_image_is_restored_once(base, crops, tmp_path, run_ranks, monkeypatch):
    """Not by all ranks, which would give the same means."""
    path = options(base, crops, tmp_path, metrics={'psnr': {'type': 'CountingForTest'}}, save_img=False)
    monkeypatch.setenv('DIL_TEST_COUNTS', str(tmp_path / 'counts'))
    (tmp_path / 'counts').mkdir()
    ranks = run_ranks(WORKER, 2, path)
    assert all('error' not in rank for rank in ranks)
    calls = [len(list((tmp_path / 'counts').glob(f'{rank}_*'))) for rank in (0, 1)]
    assert calls == [2 * (3 + 1), 2 * 2]


def test_failure_of_one_rank_ends_all(base, crops, tmp_path, run_ranks):
    """Image 1 is the second rank's."""
    path = options(base, crops, tmp_path)
    sorted((tmp_path / 'many').iterdir())[1].write_bytes(b'no image')
    first, second = run_ranks(WORKER, 2, path, timeout=60)
    assert 'many_' in second['error']
    assert first['error'] == 'DataError: validation failed on rank 1; its own message says why'


def test_buffers_of_all_ranks_are_those_of_the_first(base, crops, tmp_path, run_ranks):
    path = options(base, crops, tmp_path, network={'type': 'NormForTest'}, ema=0)
    first, second = (rank['buffers'] for rank in run_ranks(WORKER, 2, path, 'own'))
    assert (first['body.1.running_mean'] != 0).all()
    for name, buffer in first.items():
        assert (second[name] == buffer).all(), name
