import copy

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import build_dataloader, build_dataset

from dil_plugin.basicsr.data.draw_sampler import Draw, DrawSampler
from dil_plugin.distortions import parse_distortions


def dataset_options(base, **changes):
    opt = copy.deepcopy(base['datasets']['train'])
    return {**opt, 'phase': 'train', 'scale': 1, 'distortions': base['distortions'], 'seed': 5, **changes}


def epoch(opt, workers, number=0):
    dataset = build_dataset(opt)
    sampler = DrawSampler(dataset, 1, 0, ratio=2)
    sampler.set_epoch(number)
    loader = build_dataloader(dataset, {**opt, 'num_worker_per_gpu': workers}, num_gpu=0, sampler=sampler, seed=0)
    return [batch for batch in loader]


def test_same_batches_whatever_the_number_of_workers(base):
    opt = dataset_options(base, distort_on='worker')
    runs = [epoch(opt, workers) for workers in (0, 1, 2)]
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            for key in ('gt', 'lq', 'counterfactuals'):
                assert torch.equal(a[key], b[key])


def test_no_draw_repeats_within_or_across_epochs(base):
    opt = dataset_options(base, distort_on='worker')
    patches = torch.cat([batch['lq'] for number in (0, 1) for batch in epoch(opt, 0, number)])
    assert len({patch.numpy().tobytes() for patch in patches}) == len(patches)


def test_patches_are_flipped_crops_of_the_images(base, crops):
    images = {str(path): cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in crops.iterdir()}
    dataset = build_dataset(dataset_options(base, distort_on='device'))
    seen = set()
    for draw in range(40):
        sample = dataset[Draw(draw % len(dataset), draw)]
        assert set(sample) == {'gt', 'gt_path'}
        assert sample['gt'].dtype == torch.uint8
        patch = sample['gt'].permute(1, 2, 0).numpy()
        image = images[sample['gt_path']]
        windows = np.lib.stride_tricks.sliding_window_view(image, (16, 16), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
        turned = [np.rot90(p, k) for p in (patch, patch[:, ::-1]) for k in range(4)]
        match = [k for k, t in enumerate(turned) if (windows == t).all(axis=(2, 3, 4)).any()]
        assert match, 'the patch is no crop of its image under any of the eight symmetries'
        seen.add(match[0])
    assert len(seen) > 3


def test_worker_counterfactuals_share_the_clean_patch(base):
    strong = [{'type': 'GaussianBlur', 'sigma': [0, 1, 2]}]
    dataset = build_dataset(dataset_options(base, distort_on='worker', distortions=strong))
    sample = dataset[Draw(1, 7)]
    expected = [d(sample['gt'][None])[0] for d in parse_distortions(strong)]
    assert torch.equal(sample['counterfactuals'], torch.stack(expected))
    assert any(torch.equal(sample['lq'], e) for e in expected)


def test_every_confounder_is_drawn_for_lq(base):
    strong = [{'type': 'GaussianBlur', 'sigma': [0, 1, 2]}]
    dataset = build_dataset(dataset_options(base, distort_on='worker', distortions=strong))
    drawn = set()
    for draw in range(30):
        sample = dataset[Draw(0, draw)]
        drawn |= {k for k in range(3) if torch.equal(sample['counterfactuals'][k], sample['lq'])}
    assert drawn == {0, 1, 2}


def test_lmdb_gives_what_the_folder_gives(base, crops_lmdb):
    folder = build_dataset(dataset_options(base, distort_on='worker'))
    packed = build_dataset(dataset_options(base, distort_on='worker', dataroot_gt=str(crops_lmdb),
                                           io_backend={'type': 'lmdb'}))
    assert len(folder) == len(packed) == 6
    for k in range(6):
        a, b = folder[Draw(k, k)], packed[Draw(k, k)]
        assert torch.equal(a['gt'], b['gt'])
        assert torch.equal(a['lq'], b['lq'])


def test_meta_info_file_selects_images(base, crops, tmp_path):
    names = sorted(path.name for path in crops.iterdir())[2:4]
    (tmp_path / 'meta.txt').write_text(''.join(f'{name} (48,40,3)\n' for name in names))
    dataset = build_dataset(dataset_options(base, meta_info_file=str(tmp_path / 'meta.txt')))
    assert [path.rsplit('/', 1)[1] for path in dataset.paths] == names


def test_test_images_are_whole_and_their_noise_is_fixed(base):
    opt = dataset_options(base, phase='test', distortions=[{'type': 'GaussianNoise', 'sigma': 30}])
    first, again = build_dataset(opt), build_dataset({**opt, 'name': 'another name'})
    assert first[0]['gt'].shape == (3, 48, 40)
    assert torch.equal(first[0]['lq'], again[0]['lq'])
    assert not torch.equal(first[0]['lq'] - first[0]['gt'], first[1]['lq'] - first[1]['gt'])
    other_seed = build_dataset({**opt, 'seed': 6})
    assert not torch.equal(first[0]['lq'], other_seed[0]['lq'])


def test_grey_and_16_bit_images_are_read_as_rgb(base, tmp_path):
    ramp = np.arange(48 * 40, dtype=np.uint16).reshape(48, 40) * 34
    cv2.imwrite(str(tmp_path / 'deep.png'), ramp)
    cv2.imwrite(str(tmp_path / 'grey.png'), (ramp >> 8).astype(np.uint8))
    dataset = build_dataset(dataset_options(base, phase='test', dataroot_gt=str(tmp_path),
                                            distortions=[{'type': 'GaussianNoise', 'sigma': 0}]))
    for k in range(2):
        assert dataset[k]['gt'].shape == (3, 48, 40)
        assert torch.equal(dataset[k]['gt'][0], dataset[k]['gt'][2])


@pytest.mark.parametrize('index', [Draw(3, 11)])
def test_draws_survive_the_way_to_a_worker(index):
    import pickle
    back = pickle.loads(pickle.dumps(index))
    assert (back, back.draw) == (3, 11)


def test_ranks_share_no_draw(base):
    dataset = list(range(10))
    draws = [[d.draw for d in DrawSampler(dataset, 2, rank, ratio=3)] for rank in (0, 1)]
    assert not set(draws[0]) & set(draws[1])
    sampler = DrawSampler(dataset, 2, 0, ratio=3)
    sampler.set_epoch(1)
    assert not set(draws[0]) & {d.draw for d in sampler}
