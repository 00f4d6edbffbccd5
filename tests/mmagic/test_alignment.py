"""Transforms after CounterfactualDistortions: what moves the pixels of one image moves those of all, or is refused."""

import copy

import numpy as np
import pytest
from mmagic.registry import DATASETS, TRANSFORMS
from mmcv.transforms import BaseTransform

from dil_plugin.errors import OptionError
from dil_plugin.mmagic.alignment import check_alignment, check_confounders

from .conftest import NOISE, PACK, runner

OURS = {'type': 'CounterfactualDistortions', 'distortions': NOISE}
PAIR = {**OURS, 'counterfactuals': False}
FIXED = {'type': 'CounterfactualDistortions', 'mode': 'fixed', 'distortions': [{'type': 'GaussianNoise', 'sigma': 0.}]}


@TRANSFORMS.register_module()
class OwnTransform(BaseTransform):
    """A user's."""

    def __init__(self, keys):
        self.keys = keys

    def transform(self, results):
        """Changes something."""
        return results


def flip(*keys, kind='Flip', **options):
    more = {'Flip': {'flip_ratio': 1.}, 'RandomTransposeHW': {'transpose_ratio': 1.}}.get(kind, {})
    return {'type': kind, 'keys': list(keys), **more, **options}


def dataset(crops, *steps):
    return {'type': 'BasicImageDataset', 'data_root': str(crops), 'data_prefix': {'gt': ''}, 'pipeline': [
        {'type': 'LoadImageFromFile', 'key': 'gt'}, *copy.deepcopy(steps)]}


@pytest.mark.parametrize('steps', [
    (FIXED, flip('img', 'gt')), (FIXED, flip('img', 'gt', direction='vertical')),
    (FIXED, flip('img', 'gt', kind='RandomTransposeHW')),
    ({**PAIR, 'distortions': [{'type': 'GaussianNoise', 'sigma': 0.}]}, flip('img', 'gt')),
    ({**FIXED, 'distortions': [{'type': 'Downsample', 'scale': 2}]}, flip('img', 'gt', kind='Flip')),
    ({'type': 'Crop', 'keys': ['gt'], 'crop_size': (15, 13), 'random_crop': False}, FIXED, flip('img', 'gt')),
])
def test_what_moves_all_images_keeps_them_together(steps, crops):
    """Without noise both show the same pixels; nearest neighbours of twice the size, nearly."""
    made = DATASETS.build(dataset(crops, *steps))
    check_alignment(made)
    results = made[0]
    img, gt = (np.asarray(results[key], dtype=np.float64) for key in ('img', 'gt'))
    scale = gt.shape[0] // img.shape[0]
    gt = gt.reshape(img.shape[0], scale, img.shape[1], scale, 3).mean((1, 3))
    apart = np.abs(img - gt[::-1, ::-1]).mean()
    assert apart > 3
    assert np.abs(img - gt).mean() < (0.01 if scale == 1 else apart / 3)


@pytest.mark.parametrize('mode', [OURS, FIXED])
def test_images_are_contiguous(mode, crops):
    """As OpenCV wants them, whatever comes next."""
    odd = {'type': 'Crop', 'keys': ['gt'], 'crop_size': (15, 13), 'random_crop': False}
    results = DATASETS.build(dataset(crops, odd, mode))[0]
    assert results['img'].flags.c_contiguous
    assert results['img'].flags.writeable
    if mode is FIXED:
        results = DATASETS.build(dataset(crops, odd, {**mode, 'distortions': [{'type': 'Downsample', 'scale': 2}]}))[0]
        assert results['gt'].shape[:2] == (14, 12)
        assert results['gt'].flags.c_contiguous


@pytest.mark.parametrize(('steps', 'words'), [
    ((OURS, flip('gt'), PACK), 'Flip after CounterfactualDistortions changes gt and not counterfactuals, img'),
    ((OURS, flip('img', 'gt'), PACK), r'changes gt, img and not counterfactuals.*put it before'),
    ((OURS, flip('img', 'gt', 'counterfactuals'), PACK), 'changes gt, img and not counterfactuals'),
    ((PAIR, flip('gt')), 'changes gt and not img'),
    ((FIXED, flip('img')), r"changes img and not gt.*or give it all of \['gt', 'img'\]"),
    ((FIXED, {'type': 'ModCrop', 'key': 'gt'}), 'ModCrop after'),
    ((OURS, {'type': 'SetValues', 'dictionary': {'scale': 1}}, {'type': 'PairedRandomCrop', 'gt_patch_size': 8}, PACK),
     'PairedRandomCrop after CounterfactualDistortions changes gt, img'),
    ((PAIR, {'type': 'RandomApply', 'transforms': [flip('gt')], 'prob': 0.5}), 'Flip after'),
    ((PAIR, {'type': 'RandomChoice', 'transforms': [[flip('gt')], [flip('img')]]}), 'Flip after'),
])
def test_what_moves_some_of_them_is_refused(steps, words, crops):
    inner = dataset(crops, *steps)
    with pytest.raises(OptionError, match=words):
        check_alignment(DATASETS.build(inner))
    with pytest.raises(OptionError, match=words):
        check_alignment(DATASETS.build({'type': 'mmengine.RepeatDataset', 'times': 2, 'dataset': inner}))
    with pytest.raises(OptionError, match=words):
        check_alignment(DATASETS.build({'type': 'mmengine.ConcatDataset', 'datasets': [dataset(crops), inner]}))


@pytest.mark.parametrize('steps', [
    (flip('gt'), OURS, PACK), (OURS, {'type': 'PackInputs'}), (OURS, flip('img', 'gt'), {'type': 'PackInputs'}),
    (FIXED, {'type': 'RescaleToZeroOne', 'keys': ['img']}), (OURS, flip('mask'), PACK), (flip('gt'), ),
])
def test_everything_else_is_left_alone(steps, crops, monkeypatch):
    said = []
    monkeypatch.setattr('dil_plugin.mmagic.alignment.say', lambda text, _: said.append(text))
    check_alignment(DATASETS.build(dataset(crops, *steps)))
    assert said == []


def test_what_a_transform_of_the_users_does_is_asked(crops, monkeypatch):
    said = []
    monkeypatch.setattr('dil_plugin.mmagic.alignment.say', lambda text, _: said.append(text))
    check_alignment(DATASETS.build(dataset(crops, FIXED, {'type': 'OwnTransform', 'keys': ['gt']})))
    assert said == ['pipeline: OwnTransform after CounterfactualDistortions changes gt and not img; where it moves '
                    'pixels, put it before CounterfactualDistortions.']


@pytest.mark.parametrize('where', ['train_dataloader', 'val_dataloader'])
def test_a_run_ends_before_its_first_iteration(where, run_config):
    pipeline = run_config[where]['dataset']['pipeline']
    pipeline[-1:] = [OURS if where == 'train_dataloader' else flip('gt'), flip('gt'), PACK]
    trained = runner(run_config)
    trained.model.train_step = None
    with pytest.raises(OptionError, match='Flip after CounterfactualDistortions'):
        trained.train()
    if where == 'val_dataloader':
        with pytest.raises(OptionError, match='Flip after CounterfactualDistortions'):
            runner(run_config).val()


@pytest.mark.parametrize('sigma', [[5, 10, 15, 30], [20, 15, 10, 5], [5, 10]])
def test_versions_are_those_of_the_models_confounders(sigma, crops, run_config):
    """A loss would else be named after a confounder that it is not of."""
    other = {**OURS, 'distortions': [{'type': 'GaussianNoise', 'sigma': sigma}]}
    run_config['train_dataloader']['dataset']['pipeline'][-1:] = [other, PACK]
    trained = runner(run_config)
    trained.model.train_step = None
    with pytest.raises(OptionError, match=r'CounterfactualDistortions\.distortions: GaussianNoise\(sigma=.*model\.'
                                          r'distortions: the same, in the same order: GaussianNoise\(sigma=5\), '):
        trained.train()
    labels = [f'GaussianNoise(sigma={one})' for one in (5, 10, 15, 20)]
    for steps in ((OURS, PACK), (other, {'type': 'PackInputs'}), ({**other, 'counterfactuals': False}, PACK)):
        check_confounders(DATASETS.build(dataset(crops, *steps)), labels)
