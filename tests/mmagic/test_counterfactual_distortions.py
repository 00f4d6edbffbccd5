"""The confounders in a mmagic pipeline, against BasicSR's half and through mmagic's own data set and transforms."""

import copy

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from mmagic.registry import DATASETS, MODELS, TRANSFORMS
from mmengine.runner import Runner

from dil_plugin.distortions import parse_distortions
from dil_plugin.errors import DataError, OptionError

from .conftest import MODEL, NOISE, PACK, recorded

LOAD = {'type': 'LoadImageFromFile', 'key': 'gt'}
SIGMA30 = [{'type': 'GaussianNoise', 'sigma': 30}]


def seed_mmcv(seed):
    """NumPy's global generator, which mmcv's transforms draw from."""
    np.random.seed(seed)  # noqa: NPY002


def transform(**options):
    return TRANSFORMS.build({'type': 'CounterfactualDistortions', **options})


def dataset(folder, *pipeline):
    built = DATASETS.build({'type': 'BasicImageDataset', 'data_root': str(folder), 'data_prefix': {'gt': ''},
                            'pipeline': copy.deepcopy(list(pipeline))})
    built.full_init()
    return built


@pytest.mark.parametrize('distortion', [{'type': 'GaussianNoise', 'sigma': 30}, {'type': 'GaussianBlur', 'sigma': 1.5},
                                        {'type': 'RealESRGAN', 'order': 1, 'scale': 2}],
                         ids=lambda d: d['type'])
def test_fixed_distortion_is_that_of_the_basicsr_half(distortion, crops):
    """The same validation images in both halves, and by that in tools/reproduce.py."""
    scale = distortion.get('scale', 1)
    theirs = build_dataset({'name': 'x', 'type': 'DistortionAugmentedDataset', 'phase': 'val', 'scale': scale,
                            'dataroot_gt': str(crops), 'io_backend': {'type': 'disk'}, 'distortions': [distortion]})
    ours = dataset(crops, LOAD, {'type': 'CounterfactualDistortions', 'mode': 'fixed', 'distortions': [distortion]})
    assert len(ours) == len(theirs) == 6
    by_path = {sample['gt_path']: sample for sample in theirs}
    for sample in ours:
        other = by_path[sample['gt_path']]
        image = torch.from_numpy(sample['img'][..., ::-1].copy()).permute(2, 0, 1) / 255
        assert image.dtype == torch.float32
        assert torch.allclose(image, other['lq'], atol=1e-6)
        assert image.shape[-1] * scale == sample['gt'].shape[1]


def test_fixed_distortion_depends_on_seed_name_and_data_set(crops, tmp_path):
    path = str(sorted(crops.iterdir())[0])

    def image(gt_path=path, **options):
        results = {'gt': cv2.imread(path), 'gt_path': gt_path}
        return transform(mode='fixed', distortions=SIGMA30, **options)(results)['img']

    first = image()
    seed_mmcv(5)
    assert np.array_equal(image(), first)
    assert np.array_equal(image(f'/elsewhere/{crops.name}.lmdb/{path.rsplit("/", 1)[1]}'), first)
    assert np.array_equal(image('/elsewhere/x/' + path.rsplit('/', 1)[1], dataset=crops.name), first)
    others = [image(seed=1), image(path.replace('_0', '_1')), image('/elsewhere/x/' + path.rsplit('/', 1)[1])]
    assert not any(np.array_equal(other, first) for other in others)


def test_sides_are_cut_to_a_multiple_of_the_scale():
    image = np.random.default_rng(0).integers(0, 256, (17, 22, 3), dtype=np.uint8)
    quarter = transform(mode='fixed', distortions=[{'type': 'Downsample', 'scale': 4}])
    made = quarter({'gt': image, 'gt_path': 'a/b.png'})
    assert made['gt'].shape == (16, 20, 3)
    assert made['img'].shape == made['ori_img_shape'] == (4, 5, 3)
    assert np.array_equal(made['gt'], image[:16, :20])


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
@pytest.mark.parametrize('order', ['bgr', 'rgb'])
def test_order_of_the_channels(order, dtype):
    """Confounders that treat the channels differently (JPEG's chroma): the same image, loaded either way."""
    bgr = cv2.resize(np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8), (32, 32))
    image = (bgr if order == 'bgr' else bgr[..., ::-1]).astype(dtype)
    results = transform(mode='fixed', distortions=[{'type': 'JPEG', 'quality': 20}])(
        {'gt': image, 'gt_path': 'a/b.png', 'gt_channel_order': order})
    expected = parse_distortions([{'type': 'JPEG', 'quality': 20}])[0](
        torch.from_numpy(bgr[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255)[0].permute(1, 2, 0).numpy() * 255
    made = results['img'] if order == 'rgb' else results['img'][..., ::-1]
    assert results['img_channel_order'] == order
    assert np.abs(made - expected).max() < 1e-3
    assert np.abs(results['img'] - image).mean() > 1  # the control: JPEG does something


def test_grey_images():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 1), dtype=np.uint8)
    results = transform(distortions=NOISE)({'gt': image, 'gt_color_type': 'grayscale'})
    assert results['img'].shape == (16, 16, 1)
    assert results['counterfactuals'].shape == (4, 1, 16, 16)
    assert results['img_color_type'] == 'grayscale'


def test_versions_carry_the_noise_of_their_confounder():
    """Grey of 128, so that nothing is clipped: the standard deviations are the sigmas; img has any of them."""
    grey = np.full((64, 64, 3), 128, dtype=np.uint8)
    made = transform(distortions=NOISE)
    seed_mmcv(0)
    results = [made({'gt': grey}) for _ in range(24)]
    for k, sigma in enumerate((5, 10, 15, 20)):
        stack = torch.stack([r['counterfactuals'][k] for r in results])
        assert float(stack.std()) == pytest.approx(sigma, rel=0.02)
    drawn = [round(float(r['img'].std()) / 5) * 5 for r in results]
    assert set(drawn) == {5, 10, 15, 20}
    assert len({r['img'].tobytes() for r in results}) == 24
    seed_mmcv(0)
    assert torch.equal(made({'gt': grey})['counterfactuals'], results[0]['counterfactuals'])
    seed_mmcv(0)
    assert not np.array_equal(transform(distortions=NOISE, seed=1)({'gt': grey})['img'], results[0]['img'])


def loader(crops, workers):
    """mmengine's data loader with its own seeding of workers."""
    crop = [LOAD, {'type': 'SetValues', 'dictionary': {'scale': 1}},
            {'type': 'Crop', 'keys': ['gt'], 'crop_size': (16, 16), 'random_crop': True}]
    return Runner.build_dataloader(
        {'batch_size': 2, 'num_workers': workers, 'sampler': {'type': 'DefaultSampler', 'shuffle': False},
         'dataset': dataset(crops, *crop, {'type': 'CounterfactualDistortions', 'distortions': NOISE}, PACK)}, seed=7)


def test_workers_are_reproducible_and_differ(crops):
    runs = [torch.stack([sample.counterfactuals for batch in loader(crops, 2) for sample in batch['data_samples']])
            for _ in range(2)]
    assert torch.equal(*runs)
    noise = [version[3] - version[0] for version in runs[0]]
    assert len({n.numpy().tobytes() for n in noise}) == 6


def test_batches_train_both_models(crops):
    """mmagic's plain model, which is ERM on one drawn confounder, and ours, which takes all versions."""
    [batch, *_] = loader(crops, 0)
    assert batch['data_samples'][0].counterfactuals.shape == (4, 3, 16, 16)
    for kind in ('BaseEditModel', 'DILEditModel'):
        ours = {name: value for name, value in MODEL.items() if name not in ('distortions', 'dil')}
        model = MODELS.build(copy.deepcopy({**(MODEL if kind == 'DILEditModel' else ours), 'type': kind}))
        wrapper, recorder = recorded(model)
        log = model.train_step(copy.deepcopy(batch), wrapper)
        assert 0 < float(log['loss']) < 1
        assert any(bool(g.any()) for g in recorder.grads[0])


@pytest.mark.parametrize(('options', 'words'), [
    ({'distortions': NOISE, 'sede': 1}, ["CounterfactualDistortions: unknown option 'sede'", "'seed'"]),
    ({'distortions': [{'type': 'GausianNoise', 'sigma': 5}]}, ['distortions[0]', "did you mean 'GaussianNoise'"]),
    ({'distortions': [{'type': 'GaussianNoise', 'sigma': -5}]}, ['distortions[0].sigma', '-5']),
    ({'distortions': NOISE, 'mode': 'fixed'}, ['mode fixed takes one distortion', 'sigma=20']),
    ({'distortions': NOISE, 'mode': 'train'}, ['CounterfactualDistortions.mode', "'train'", 'random, fixed']),
    ({'distortions': NOISE, 'seed': -1}, ['CounterfactualDistortions.seed', '-1']),
    ({'distortions': []}, ['CounterfactualDistortions.distortions', '[]']),
])
def test_wrong_options(options, words):
    with pytest.raises(OptionError) as error:
        transform(**options)
    assert all(word in str(error.value) for word in words), error.value


def test_what_is_missing_or_too_small():
    with pytest.raises(DataError, match="no 'gt' before it, only img"):
        transform(distortions=NOISE)({'img': np.zeros((8, 8, 3))})
    blur = [{'type': 'GaussianBlur', 'sigma': 4}]
    with pytest.raises(DataError, match=r"image 'a/b\.png': .*needs images of at least"):
        transform(mode='fixed', distortions=blur)({'gt': np.zeros((4, 4, 3), np.uint8), 'gt_path': 'a/b.png'})


def test_images_from_0_to_1_are_refused():
    image = np.random.default_rng(0).random((16, 16, 3), np.float32)
    transform = TRANSFORMS.build({'type': 'CounterfactualDistortions', 'distortions': SIGMA30})
    with pytest.raises(DataError, match=r'gt lies in \[0, 1\]; expected 0 to 255'):
        transform({'gt': image})
    transform({'gt': np.zeros((16, 16, 3), np.float32)})  # a black crop is none of them
