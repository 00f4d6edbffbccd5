"""Of one meta-step: how often images are decoded, and in what form they travel to the network."""

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import build_dataloader, build_dataset
from basicsr.models import build_model

from dil_plugin.basicsr.data.byte_images import byte_tensor, on_device
from dil_plugin.basicsr.data.draw_sampler import Draw, DrawSampler

PATCHES = 8  # of a batch


@pytest.fixture
def decodes(monkeypatch):
    """How often OpenCV decodes an image: a list that grows by one each time."""
    counted = []
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, 'imdecode', lambda *arguments: (counted.append(1), decode(*arguments))[1])
    return counted


def first_batch(opt, batch_size=PATCHES):
    block = {**opt['datasets']['train'], 'batch_size_per_gpu': batch_size}
    dataset = build_dataset(block)
    return next(iter(build_dataloader(dataset, block, num_gpu=0, sampler=DrawSampler(dataset, 1, 0, ratio=8), seed=0)))


def with_confounders(base, n, **train):
    base['distortions'] = [{'type': 'GaussianNoise', 'sigma': list(range(1, n + 1))}]
    base['datasets']['train'].update(batch_size_per_gpu=PATCHES, **train)
    base['train']['dil'] = {'variant': 'sf'}
    return base


@pytest.mark.parametrize('n', [1, 4, 8])
@pytest.mark.parametrize('distort_on', ['device', 'worker'])
@pytest.mark.parametrize('patches', ['same', 'fresh'])
def test_one_decode_per_clean_patch_and_meta_step(base, parsed, decodes, n, distort_on, patches):
    with_confounders(base, n, distort_on=distort_on)['train']['dil']['patches'] = patches
    opt = parsed(base)
    model = build_model(opt)
    seen = []
    network = model.net_g.forward
    model.net_g.forward = lambda x: (seen.append(len(x)), network(x))[1]
    model.feed_data(first_batch(opt))
    model.optimize_parameters(1)
    assert seen == [PATCHES if patches == 'same' else PATCHES // n] * n  # the meta-step saw every confounder
    assert len(decodes) == PATCHES


def test_one_decode_per_sample_of_plain_sr_model(base, parsed, decodes):
    with_confounders(base, 4)['model_type'] = 'SRModel'
    assert set(first_batch(parsed(base))) == {'gt', 'lq', 'gt_path', 'lq_path'}
    assert len(decodes) == PATCHES


@pytest.fixture
def pair_sets(base, crops, tmp_path):
    """A training set of three sets of pairs."""
    entries = []
    for k in range(3):
        folder = tmp_path / f'lq{k}'
        folder.mkdir()
        for path in crops.iterdir():
            cv2.imwrite(str(folder / path.name), 255 - cv2.imread(str(path)) // (k + 2))
        entries.append({'name': f'set{k}', 'dataroot_lq': str(folder), 'dataroot_gt': str(crops)})
    del base['distortions'], base['datasets']['train']['dataroot_gt']
    base['datasets']['train'].update(type='PairedConfounderDataset', confounders=entries, batch_size_per_gpu=6)
    base['train']['dil'] = {'variant': 'ps', 'inner': {'type': 'SGD', 'lr': 0.01}}
    return base


def test_plain_sr_model_decodes_the_one_pair_that_it_uses(pair_sets, parsed, decodes):
    pair_sets['model_type'] = 'SRModel'
    batch = first_batch(parsed(pair_sets), 6)
    assert len(decodes) == 6 * 2
    assert batch['lq'].dtype == torch.float32


def test_pairs_of_every_set_reach_the_model_as_numbers(pair_sets, parsed, decodes):
    opt = parsed(pair_sets)
    batch = first_batch(opt, 6)
    assert len(decodes) == 6 * 2 * 3
    assert {value.dtype for value in batch.values()} == {torch.uint8}
    model = build_model(opt)
    model.feed_data(batch)
    model.optimize_parameters(1)
    assert torch.equal(model.pairs.lq, torch.from_numpy(batch['confounder_lq'].numpy().astype(np.float32) / 255))
    assert torch.equal(model.pairs.gt, torch.from_numpy(batch['confounder_gt'].numpy().astype(np.float32) / 255))


def test_bytes_become_the_floats_of_numpy():
    every = np.arange(256, dtype=np.uint8)
    assert torch.equal(on_device(torch.from_numpy(every), 'cpu'), torch.from_numpy(every.astype(np.float32) / 255))


def test_other_numbers_stay_as_they_are():
    for dtype in (torch.float32, torch.float16, torch.float64):
        images = torch.rand(2, 3, 4, 4).to(dtype)
        assert on_device(images, 'cpu') is images


def test_bytes_are_rgb_planes_that_keep_no_larger_image_alive():
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    patch = image[5:21, 3:11].transpose(1, 0, 2)  # as flips and rotations leave it
    tensor = byte_tensor(patch)
    assert np.array_equal(tensor.permute(1, 2, 0).numpy(), cv2.cvtColor(patch.copy(), cv2.COLOR_BGR2RGB))
    assert tensor.is_contiguous()
    assert tensor.untyped_storage().nbytes() == patch.size


def test_device_mode_gives_the_model_the_floats_of_worker_mode(base, parsed):
    """Bit by bit, with flips, rotations and a crop that is larger than the patch."""
    with_confounders(base, 2, crop_pad_size=24)
    opt = parsed(base)
    dataset = build_dataset(opt['datasets']['train'])
    floats = build_dataset({**opt['datasets']['train'], 'distort_on': 'worker', 'gt_size': 24})
    model = build_model(opt)
    for draw in range(12):
        sample = dataset[Draw(draw % len(dataset), draw)]
        assert sample['gt'].dtype == torch.uint8
        model.feed_data({'gt': sample['gt'][None]})
        assert torch.equal(model.gt[0], floats[Draw(draw % len(dataset), draw)]['gt'])
