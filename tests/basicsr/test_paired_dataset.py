"""Confounders from paired data. Every pixel of the generated sets says which set, image and place it is of."""

import copy
import random
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from basicsr.data import build_dataloader, build_dataset
from basicsr.models import build_model
from torch.func import functional_call

from dil_plugin.basicsr.data.byte_images import on_device
from dil_plugin.basicsr.data.draw_sampler import Draw, DrawSampler
from dil_plugin.data_preparation import CutSettings, prepare_data
from dil_plugin.errors import DataError, OptionError
from dil_plugin.learning import build_variant
from dil_plugin.sampling import MetaBatchSampler, PairedSets, sampler_seed

ROOT = Path(__file__).parents[2]
SIZES = (5, 12, 8)  # pairs of the three sets; every 120 draws all of them have made whole passes
NAMES = ['DID-MDN', 'Rain14000', 'HeavyRain']
VARIANTS = {
    'sf': {'variant': 'sf', 'patches': 'fresh'},
    'pf': {'variant': 'pf', 'inner': {'type': 'SGD', 'lr': 0.01}},
    'ss': {'variant': 'ss', 'inner': {'type': 'SGD', 'lr': 0.01}, 'patches': 'fresh'},
    'ps': {'variant': 'ps', 'inner': {'type': 'SGD', 'lr': 0.01}},
    'erm': {'variant': 'erm'},
}


def coded(number, image, version, height, width):
    """A clean and a rainy BGR image: G and B add up to 255, R says the set in the one, the version in the other."""
    clean = np.zeros((height, width, 3), np.uint8)
    clean[..., 0] = 4 * np.arange(width) + np.arange(height)[:, None]
    clean[..., 1] = 20 * image + 10
    rainy = 255 - clean
    clean[..., 2] = 40 * number + 20
    rainy[..., 2] = 20 * version + 10
    return clean, rainy


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    full_colour = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
                   cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    assert cv2.imwrite(str(path), image, full_colour if path.suffix == '.jpg' else [])


@pytest.fixture(scope='session')
def rain(tmp_path_factory):
    """The three published layouts, tiny: 5 pairs side by side, 3 clean images with 4 rainy ones, 2 with 4."""
    root = tmp_path_factory.mktemp('rain')
    for k in range(5):
        clean, rainy = coded(0, k, k, 40, 48)
        density = ('Rain_Heavy', 'Rain_Medium', 'Rain_Light')[k % 3]
        write(root / f'did/{density}/train2018new/{k}.jpg', np.concatenate([rainy, clean], axis=1))
    for k in range(3):
        for version in range(4):
            clean, rainy = coded(1, k, version, 40, 40)
            write(root / f'r14/rainy_image/{k + 9}_{version + 8}.jpg', rainy)
            write(root / f'r14/ground_truth/{k + 9}.jpg', clean)
    for k in range(2):
        for version in range(4):
            clean, rainy = coded(2, k, version, 32, 40)
            write(root / f'heavy/in/im_{k:04}_s{80 + version}_a05.png', rainy)
            write(root / f'heavy/gt/im_{k:04}.png', clean)
    return root


@pytest.fixture
def paired(base, rain):
    """The options of a short training run on the three sets."""
    opt = copy.deepcopy(base)
    del opt['distortions'], opt['datasets']['train']['dataroot_gt']
    opt['datasets']['train'].update(type='PairedConfounderDataset', batch_size_per_gpu=12, dataset_enlarge_ratio=10,
                                    confounders=layouts(rain))
    return opt


def layouts(rain):
    return [{'name': 'DID-MDN', 'layout': 'did_mdn', 'dataroot': str(rain / 'did')},
            {'name': 'Rain14000', 'layout': 'rain14000', 'dataroot': str(rain / 'r14')},
            {'name': 'HeavyRain', 'layout': 'heavy_rain', 'dataroot': str(rain / 'heavy')}]


def train_options(paired, **changes):
    opt = {**copy.deepcopy(paired['datasets']['train']), 'phase': 'train', 'scale': 1, 'seed': 5, **changes}
    return {key: value for key, value in opt.items() if value is not None}


def codes(lq, gt):
    """Set, image and version that the pixels of a patch say."""
    lq, gt = on_device(lq, 'cpu'), on_device(gt, 'cpu')
    red, green = (255 * lq[0]).mean(), (255 * gt[1]).mean()
    return tuple(int(v) for v in ((255 * gt[0]).mean() // 40, green // 20, red // 20))


# What the data set gives


def test_pairs_belong_together_and_are_cut_at_the_same_place(paired):
    dataset = build_dataset(train_options(paired))
    for draw in range(40):
        sample = dataset[Draw(0, draw)]
        assert sample['confounder_lq'].shape == sample['confounder_gt'].shape == (3, 3, 16, 16)
        for i, (lq, gt) in enumerate(zip(sample['confounder_lq'], sample['confounder_gt'], strict=True)):
            assert codes(lq, gt)[0] == i
            assert (lq[1:].int() + gt[1:].int() - 255).abs().max() < 5


def test_paths_are_those_of_the_pixels(paired):
    dataset = build_dataset(train_options(paired, pairs='one'))
    for draw in range(40):
        sample = dataset[Draw(0, draw)]
        number, image, version = codes(sample['lq'], sample['gt'])
        lq, gt = Path(sample['lq_path']).stem, Path(sample['gt_path']).stem
        assert (lq, gt) == [(f'{image}', f'{image}'), (f'{image + 9}_{version + 8}', f'{image + 9}'),
                            (f'im_{image:04}_s{80 + version}_a05', f'im_{image:04}')][number]


def test_every_pair_equally_often(paired):
    dataset = build_dataset(train_options(paired))
    assert len(dataset) == max(SIZES)
    samples = [dataset[Draw(0, draw)] for draw in range(120)]
    for i, size in enumerate(SIZES):
        seen = [codes(s['confounder_lq'][i], s['confounder_gt'][i]) for s in samples]
        assert Counter(Counter(seen).values()) == {120 // size: size}
        passes = [seen[k:k + size] for k in range(0, 120, size)]
        assert all(len(set(one)) == size for one in passes)
        assert len({tuple(one) for one in passes}) > 1, 'every pass has the same order'


def test_patches_are_cut_anew_in_every_pass(paired):
    dataset = build_dataset(train_options(paired))
    patches = [dataset[Draw(0, draw)]['confounder_gt'][0] for draw in range(40)]
    assert len({patch.numpy().tobytes() for patch in patches}) > 35


def test_lq_and_gt_are_one_pair_of_a_set_drawn_uniformly(paired):
    every, one = (build_dataset(train_options(paired, pairs=pairs)) for pairs in ('all', 'one'))
    drawn = Counter()
    for draw in range(600):
        pairs, sample = every[Draw(0, draw)], one[Draw(0, draw)]
        match = [i for i in range(3) if torch.equal(sample['lq'], pairs['confounder_lq'][i].float() / 255)]
        assert len(match) == 1
        assert torch.equal(sample['gt'], pairs['confounder_gt'][match[0]].float() / 255)
        drawn.update(match)
    assert all(abs(drawn[i] - 200) < 5 * (600 * 2 / 9)**0.5 for i in range(3))


def epoch(opt, workers, number=0):
    dataset = build_dataset(opt)
    sampler = DrawSampler(dataset, 1, 0, ratio=4)
    sampler.set_epoch(number)
    loader = build_dataloader(dataset, {**opt, 'num_worker_per_gpu': workers}, num_gpu=0, sampler=sampler, seed=0)
    return list(loader)


@pytest.mark.parametrize(('pairs', 'keys'), [('all', {'confounder_lq', 'confounder_gt'}),
                                             ('one', {'lq', 'gt', 'lq_path', 'gt_path'})])
def test_same_batches_whatever_the_number_of_workers(paired, pairs, keys):
    runs = [epoch(train_options(paired, pairs=pairs), workers) for workers in (0, 1, 2)]
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            assert set(a) == set(b) == keys
            assert all(torch.equal(a[key], b[key]) if torch.is_tensor(a[key]) else a[key] == b[key] for key in keys)


def test_seeds_differ(paired):
    one, other = (build_dataset(train_options(paired, seed=seed)) for seed in (5, 6))
    orders = [[codes(d[Draw(0, k)]['confounder_lq'][1], d[Draw(0, k)]['confounder_gt'][1]) for k in range(12)]
              for d in (one, other)]
    assert orders[0] != orders[1]


def test_plain_indices_of_another_sampler(paired):
    dataset = build_dataset(train_options(paired, length=24))
    assert len(dataset) == 24
    seen = Counter(codes(s['confounder_lq'][2], s['confounder_gt'][2]) for s in map(dataset.__getitem__, range(24)))
    assert set(seen.values()) == {3}


@pytest.fixture
def own(tmp_path):
    """Two plain sets of 24x20 noise images in two folders each; the inputs of one have names of their own."""
    values = np.random.default_rng(0)
    for name, template, count in (('a', '{}', 4), ('b', '{}_rain', 6)):
        for k in range(count):
            for side, stem in (('gt', f'{k}'), ('lq', template.format(k))):
                write(tmp_path / name / side / f'{stem}.png', values.integers(0, 256, (24, 20, 3), dtype=np.uint8))
    return [{'name': name, 'dataroot_lq': str(tmp_path / name / 'lq'), 'dataroot_gt': str(tmp_path / name / 'gt'),
             'filename_tmpl': template} for name, template in (('a', '{}'), ('b', '{}_rain'))]


def basicsrs(one, **changes):
    return build_dataset({'name': 'theirs', 'type': 'PairedImageDataset', 'io_backend': {'type': 'disk'}, 'scale': 1,
                          'phase': 'train', 'gt_size': 16, 'use_hflip': True, 'use_rot': True,
                          **{key: value for key, value in one.items() if key != 'name'}, **changes})


def test_patches_are_those_of_basicsr(paired, own):
    """BasicSR's PairedImageDataset, with Python's generator in the same state, gives the same patches bit by bit."""
    ours = build_dataset(train_options(paired, confounders=own))
    theirs = [basicsrs(one) for one in own]
    for draw in range(12):
        index = Draw(0, draw)
        sample, seeds = ours[index], ours._seeds(index)
        for i, dataset in enumerate(theirs):
            random.seed(seeds[i])
            paths = [pair['lq_path'] for pair in dataset.paths]
            expected = dataset[paths.index(ours.pairs[i][ours._position(i, index)].lq)]
            assert torch.equal(on_device(sample['confounder_lq'][i], 'cpu'), expected['lq'])
            assert torch.equal(on_device(sample['confounder_gt'][i], 'cpu'), expected['gt'])


def test_super_resolution_pairs(paired, tmp_path):
    values = np.random.default_rng(0)
    for k in range(3):
        small = values.integers(0, 256, (20, 14, 3), dtype=np.uint8)
        write(tmp_path / f'lq/{k}.png', small)
        write(tmp_path / f'gt/{k}.png', small.repeat(2, 0).repeat(2, 1))
    dataset = build_dataset(train_options(paired, scale=2, confounders=[
        {'name': 'x2', 'dataroot_lq': str(tmp_path / 'lq'), 'dataroot_gt': str(tmp_path / 'gt')}]))
    for draw in range(10):
        sample = dataset[Draw(0, draw)]
        assert sample['confounder_lq'].shape == (1, 3, 8, 8)
        lq, gt = sample['confounder_lq'][0], sample['confounder_gt'][0]
        assert torch.equal(gt, lq.repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_order_of_the_halves(paired, rain):
    halves = [build_dataset(train_options(paired, gt_size=40, use_hflip=False, use_rot=False, confounders=[
        {**layouts(rain)[0], 'order': order}]))[Draw(0, 0)] for order in ('lq_gt', 'gt_lq')]
    assert torch.equal(halves[0]['confounder_lq'], halves[1]['confounder_gt'])
    assert torch.equal(halves[0]['confounder_gt'], halves[1]['confounder_lq'])


@pytest.mark.parametrize(('change', 'expected'), [
    ({}, 12), ({'filename_tmpl': '{}_x*'}, DataError), ({'meta_info_file': True}, 4),
])
def test_template_and_meta_info_file_override_the_layout(paired, rain, tmp_path, change, expected):
    if 'meta_info_file' in change:
        (tmp_path / 'meta.txt').write_text('10.jpg (40,40,3)\n')
        change = {'meta_info_file': str(tmp_path / 'meta.txt')}
    opt = train_options(paired, confounders=[{**layouts(rain)[1], **change}])
    if expected is DataError:
        with pytest.raises(DataError, match=r"10_10.jpg is not of the form '\{\}_x\*'"):
            build_dataset(opt)
    else:
        assert len(build_dataset(opt)) == expected


def test_validation_gives_whole_images_as_basicsr(paired, rain):
    dataset = build_dataset(train_options(paired, phase='val', confounders=layouts(rain)[2:]))
    assert len(dataset) == 8
    sample = dataset[5]
    assert codes(sample['lq'], sample['gt']) == (2, 1, 1)
    gt = cv2.cvtColor(cv2.imread(sample['gt_path']), cv2.COLOR_BGR2RGB)
    assert torch.equal(sample['gt'], torch.from_numpy(gt).permute(2, 0, 1) / 255)


# LMDB


def test_lmdbs_give_what_the_folders_give(paired, rain, own, tmp_path):
    """Two LMDBs with equal keys, two with many inputs for a target, and one of pairs side by side."""
    folders = layouts(rain) + [own[0], {**own[0], 'name': 'identity', 'dataroot_lq': own[0]['dataroot_gt']}]
    packed = copy.deepcopy(folders)
    prepare_data(rain / 'did', tmp_path / 'did.lmdb', CutSettings(), recursive=True, workers=1)
    packed[0]['dataroot'] = str(tmp_path / 'did.lmdb')
    packed[1]['dataroot'] = str(tmp_path / 'r14')
    for side in ('rainy_image', 'ground_truth'):
        (tmp_path / 'r14').mkdir(exist_ok=True)
        prepare_data(rain / 'r14' / side, tmp_path / 'r14' / f'{side}.lmdb', CutSettings(), workers=1)
    for side in ('lq', 'gt'):
        prepare_data(Path(own[0][f'dataroot_{side}']), tmp_path / f'{side}.lmdb', CutSettings(), workers=1)
        packed[3][f'dataroot_{side}'] = str(tmp_path / f'{side}.lmdb')
        packed[4][f'dataroot_{side}'] = str(tmp_path / 'gt.lmdb')  # shared with the set before
    packed[2]['io_backend'] = {'type': 'disk'}
    a = build_dataset(train_options(paired, confounders=folders))
    b = build_dataset(train_options(paired, confounders=packed, io_backend={'type': 'lmdb'}))
    for draw in range(24):
        one, other = a[Draw(0, draw)], b[Draw(0, draw)]
        assert torch.equal(one['confounder_lq'], other['confounder_lq'])
        assert torch.equal(one['confounder_gt'], other['confounder_gt'])
        assert torch.equal(one['confounder_lq'][4], one['confounder_gt'][4])


def test_what_is_wrong_with_an_lmdb_is_found_at_the_start(paired, own, tmp_path):
    small = tmp_path / 'small'
    for path in Path(own[0]['dataroot_lq']).iterdir():
        write(small / path.name, cv2.imread(str(path))[:22])
    for source, name in ((small, 'small'), (own[0]['dataroot_gt'], 'gt'), (own[1]['dataroot_lq'], 'other')):
        prepare_data(Path(source), tmp_path / f'{name}.lmdb', CutSettings(), workers=1)

    def error(lq, **changes):
        confounder = {'name': 'x', 'dataroot_lq': str(tmp_path / f'{lq}.lmdb'),
                      'dataroot_gt': str(tmp_path / 'gt.lmdb'), **changes}
        with pytest.raises((DataError, OptionError)) as raised:
            build_dataset(train_options(paired, confounders=[confounder], io_backend={'type': 'lmdb'}, gt_size=22))
        return str(raised.value)

    assert '24x20 pixels, which is not scale 1 times the 22x20' in error('small')
    assert '24x20 pixels are less than gt_size 22' in error('gt')
    halves = {'layout': 'did_mdn', 'dataroot': str(tmp_path / 'gt.lmdb')}
    with pytest.raises(DataError, match='24x10 pixels are less than gt_size 12'):
        build_dataset(train_options(paired, confounders=[{'name': 'x', **halves}], io_backend={'type': 'lmdb'},
                                    gt_size=12))
    assert "0_rain has no partner: there is no image '0_rain'" in error('other')
    assert 'has no data.mdb' in error('gt', dataroot_gt=str(small.rename(tmp_path / 'none.lmdb')))
    assert 'must end with .lmdb' in error('gt', dataroot_lq=own[0]['dataroot_lq'])
    assert 'an LMDB has its own meta_info.txt' in error('gt', meta_info_file='x.txt')
    assert "got 'disk', but" in error('gt', io_backend={'type': 'disk'})
    shutil.rmtree(tmp_path / 'gt.lmdb')
    assert 'datasets.train.confounders[0].dataroot_gt: there is no folder' in error('other')


# Training


@pytest.mark.parametrize('variant', [*VARIANTS, 'SRModel'])
def test_every_variant_trains_on_the_three_layouts(paired, pipeline, variant):
    paired['train']['dil'] = VARIANTS.get(variant)
    paired['datasets']['train']['num_worker_per_gpu'] = 2 if variant == 'ps' else 0
    if variant == 'SRModel':
        paired['model_type'] = 'SRModel'
        del paired['train']['dil']
    root = pipeline(paired)
    before, after = (torch.load(root / f'experiments/run/models/net_g_{k}.pth', weights_only=True)['params']
                     for k in (2, 4))
    assert all(torch.isfinite(w).all() for w in after.values())
    assert any(not torch.equal(before[name], after[name]) for name in before)
    log = next((root / 'experiments/run').glob('*.log')).read_text()
    uses_sets = variant not in ('erm', 'SRModel')
    assert all((f'l_inner_{name}:' in log) == uses_sets for name in NAMES)


@pytest.mark.parametrize('variant', ['sf', 'erm'])
def test_interrupted_equals_uninterrupted(paired, pipeline, variant):
    """Killed after 4 of 6 iterations and resumed: the same weights, bit for bit."""
    paired['train'].update(dil=VARIANTS[variant], total_iter=6)
    paired['datasets']['train'].update(num_worker_per_gpu=1, dataset_enlarge_ratio=2)
    whole = pipeline(paired) / 'experiments/run'
    expected = torch.load(whole / 'models/net_g_6.pth', weights_only=True)
    (whole / 'training_states/6.state').unlink()
    (whole / 'models/net_g_6.pth').unlink()
    pipeline(paired, 'train', '--auto_resume')
    resumed = torch.load(whole / 'models/net_g_6.pth', weights_only=True)
    assert all(torch.equal(value, resumed['params'][name]) for name, value in expected['params'].items())


def unrolled(variant, net, params, pairs, query, lr):
    """The meta-gradient by autograd through the inner steps (ps), or the way of plain SGD over the sets (sf)."""

    def loss(values, lq, gt):
        return (functional_call(net, values, (lq, )) - gt).abs().mean()

    if variant == 'sf':
        phi = params
        for lq, gt in pairs:
            grads = torch.autograd.grad(loss(phi, lq, gt), list(phi.values()))
            steps = (p - lr * g for p, g in zip(phi.values(), grads, strict=True))
            phi = {name: step.detach().requires_grad_() for name, step in zip(phi, steps, strict=True)}
        return [p - phi[name] for name, p in params.items()]
    inner = sum(loss(params, lq, gt) for lq, gt in pairs) / len(pairs)
    grads = torch.autograd.grad(inner, list(params.values()), create_graph=True)
    phi = {name: p - lr * g for (name, p), g in zip(params.items(), grads, strict=True)}
    return torch.autograd.grad(loss(phi, *query), list(params.values()))


@pytest.mark.parametrize('variant', ['sf', 'ps'])
def test_meta_gradient_on_images_that_basicsr_read(paired, own, parsed, variant):
    """The loader's batch through DILModel, against autograd on the whole images of BasicSR's PairedImageDataset."""
    lr, batch_size = 0.05, 3
    for one in own:  # square ones, so that a patch is the whole image
        for side in ('lq', 'gt'):
            for path in Path(one[f'dataroot_{side}']).iterdir():
                write(path, cv2.imread(str(path))[:16, :16])
    paired['datasets']['train'].update(confounders=own, use_hflip=False, use_rot=False, batch_size_per_gpu=batch_size)
    paired['train']['dil'] = {'variant': variant, 'inner': {'type': 'SGD', 'lr': lr}}
    if variant == 'sf':
        paired['train']['dil']['order'] = 'fixed'
    opt = parsed(paired)
    model = build_model(opt)
    model.net_g.double()
    model.variant = build_variant(model.dil, model.params)  # its weights are allocated like the network's
    params = {name: p.detach().clone().requires_grad_() for name, p in model.net_g.named_parameters()}
    dataset = build_dataset(opt['datasets']['train'])
    batch = next(iter(build_dataloader(dataset, opt['datasets']['train'], num_gpu=0,
                                       sampler=DrawSampler(dataset, 1, 0, ratio=2), seed=0)))
    seen = []
    model.optimizer_g.step = lambda: seen.extend(p.grad.clone() for p in model.net_g.parameters())
    batch = {key: on_device(value, 'cpu') for key, value in batch.items()}
    model.feed_data({key: value.double() for key, value in batch.items()})
    model.optimize_parameters(1)

    theirs = [basicsrs(one, phase='val') for one in own]
    pairs = []
    for i, images in enumerate(theirs):
        taken = [images[k] for b in range(batch_size) for k in range(len(images))
                 if torch.equal(images[k]['lq'], batch['confounder_lq'][b, i])]
        assert len({pair['lq_path'] for pair in taken}) == len(taken) == batch_size
        pairs.append(tuple(torch.stack([pair[side] for pair in taken]).double() for side in ('lq', 'gt')))
    choices = torch.Generator().manual_seed(sampler_seed(opt['manual_seed'], opt['rank']))
    sets = torch.randint(len(own), (batch_size, ), generator=choices).tolist()
    query = [torch.stack([pairs[i][side][b] for b, i in enumerate(sets)]) for side in (0, 1)]
    expected = unrolled(variant, model.net_g, params, pairs, query, lr)
    for a, b in zip(seen, expected, strict=True):
        assert (a - b).norm() <= 1e-7 * b.norm()


def numbered(batch, n):
    """Pairs whose values say of which row and set they are."""
    values = torch.arange(batch * n, dtype=torch.float64).reshape(batch, n, 1, 1, 1).expand(batch, n, 3, 4, 4)
    return values, -values


def rows_and_sets(pair, n):
    assert torch.equal(pair.lq, -pair.gt)
    values = [int(v) for v in pair.lq[:, 0, 0, 0]]
    return [v // n for v in values], [v % n for v in values]


@pytest.mark.parametrize('patches', ['same', 'fresh'])
def test_sampler_gives_each_inner_step_its_set(patches):
    [batch] = MetaBatchSampler(PairedSets(('a', 'b', 'c')), True, True, patches).sample_pairs(*numbered(8, 3))
    expected = [list(range(8))] * 4 if patches == 'same' else [[0, 1], [2, 3], [4, 5], [6, 7]]
    for i, pair in enumerate(batch.confounders):
        assert rows_and_sets(pair, 3) == (expected[i], [i] * len(expected[i]))
    assert rows_and_sets(batch.query, 3)[0] == expected[3]
    [batch] = MetaBatchSampler(PairedSets(('a', 'b')), True, False, patches).sample_pairs(*numbered(8, 2))
    assert batch.query is None
    assert [len(pair.lq) for pair in batch.confounders] == ([8, 8] if patches == 'same' else [4, 4])


@pytest.mark.parametrize('patches', ['same', 'fresh'])
def test_sampler_of_erm_draws_a_set_per_sample_and_step(patches):
    batches = MetaBatchSampler(PairedSets(('a', 'b', 'c')), False, True, patches).sample_pairs(*numbered(600, 3))
    drawn = [rows_and_sets(batch.query, 3) for batch in batches]
    whole = list(range(600))
    assert [rows for rows, _ in drawn] == ([whole] * 3 if patches == 'same' else
                                           [whole[:200], whole[200:400], whole[400:]])
    assert drawn[0][1] != drawn[1][1]
    counts = Counter(s for _, sets in drawn for s in sets)
    total = counts.total()
    assert all(abs(counts[s] - total / 3) < 5 * (total * 2 / 9)**0.5 for s in range(3))


def test_sampler_of_another_number_of_sets():
    with pytest.raises(ValueError, match='pairs of 2 sets'):
        MetaBatchSampler(PairedSets(('a', 'b')), True, True).sample_pairs(*numbered(4, 3))


# What a user gets wrong


def entry(number, **changes):
    def change(train):
        one = {**train['confounders'][number], **changes}
        train['confounders'][number] = {key: value for key, value in one.items() if value is not None}
    return change


def own_entry(**changes):
    return entry(2, layout=None, dataroot=None, **changes)


BAD_OPTIONS = {
    'unknown layout': (entry(1, layout='rain1400'), ['confounders[1].layout', 'rain1400', "did you mean 'rain14000'"]),
    'unknown option': (entry(0, root='x'), ['datasets.train.confounders[0]', "unknown option 'root'", 'dataroot']),
    'duplicate names': (entry(2, name='DID-MDN'), ['confounders[2].name', "'DID-MDN'", 'confounders[0]', 'unique']),
    'no name': (entry(0, name=None), ['confounders[0]', "'name' is missing"]),
    'no sets': (lambda train: train.update(confounders=[]), ['datasets.train.confounders', 'length >= 1']),
    'no confounders': (lambda train: train.pop('confounders'), ['datasets.train', "'confounders' is missing"]),
    'not a list': (lambda train: train.update(confounders=3), ['datasets.train.confounders', 'got 3']),
    'missing folder': (entry(1, dataroot='/nowhere'), ['confounders[1].dataroot_lq', '/nowhere/rainy_image']),
    'missing did folder': (entry(0, dataroot='/nowhere'), ['confounders[0].dataroot:', '/nowhere']),
    'no dataroot': (entry(0, dataroot=None), ['confounders[0].dataroot: missing', 'did_mdn']),
    'no roots': (own_entry(), ['confounders[2].dataroot_lq: missing', 'dataroot_gt', 'layout']),
    'dataroot without layout': (entry(1, layout=None), ['confounders[1].dataroot: needs a layout', 'rain14000']),
    'two roots side by side': (entry(0, dataroot_lq='x'), ['confounders[0].dataroot_lq', 'one file', 'remove']),
    'order of two folders': (entry(1, order='lq_gt'), ['confounders[1].order', 'lq_gt', 'did_mdn']),
    'unknown order': (entry(0, order='rain_clean'), ['confounders[0].order', 'rain_clean', 'lq_gt, gt_lq']),
    'bad template': (entry(1, filename_tmpl='rain_*'), ['confounders[1].filename_tmpl', 'rain_*', '{}_rain']),
    'bad backend': (entry(1, io_backend={'type': 'zip'}), ['confounders[1].io_backend.type', 'zip', 'lmdb, disk']),
    'folder as LMDB': (entry(0, io_backend={'type': 'lmdb'}), ['confounders[0].dataroot', 'must end with .lmdb']),
    'no meta info': (entry(1, meta_info_file='/no.txt'), ['confounders[1].meta_info_file', '/no.txt']),
    'unknown option of the set': (lambda train: train.update(gt_sise=1), ['datasets.train', "did you mean 'gt_size'"]),
    'no gt_size': (lambda train: train.pop('gt_size'), ['datasets.train.gt_size', 'None']),
    'distort_on': (lambda train: train.update(distort_on='device'), ['datasets.train', "unknown option 'distort_on'"]),
    'batch size': (lambda train: train.update(batch_size_per_gpu=10), ['batch_size_per_gpu: 10', 'multiples of 3']),
    'one pair for DILModel': (lambda train: train.update(pairs='one'), ['datasets.train.pairs: one', 'allowed: all']),
    'unknown pairs': (lambda train: train.update(pairs='every'), ['datasets.train.pairs', 'every', 'all, one']),
    'length': (lambda train: train.update(length=0), ['datasets.train.length', '>= 1', '0']),
}


@pytest.mark.parametrize('case', BAD_OPTIONS)
def test_bad_option_before_the_experiment_folder_is_made(paired, pipeline, tmp_path, case):
    change, words = BAD_OPTIONS[case]
    change(paired['datasets']['train'])
    with pytest.raises((OptionError, DataError)) as error:
        pipeline(paired)
    for word in words:
        assert word in str(error.value)
    assert not (tmp_path / 'experiments').exists()


def test_distortions_and_paired_sets_at_once(paired, parsed):
    paired['distortions'] = [{'type': 'GaussianNoise', 'sigma': 5}]
    with pytest.raises(OptionError, match=r'distortions: datasets.train is of type PairedConfounderDataset.* not both'):
        parsed(paired)


def test_scales_that_do_not_fit(paired, parsed):
    paired['scale'] = 2
    with pytest.raises(OptionError, match=r'confounders\[0\].layout: the halves of did_mdn .* scale is 2'):
        parsed(paired)
    paired['scale'] = 3
    with pytest.raises(OptionError, match='gt_size: 16 is not a multiple of scale 3'):
        parsed(paired)


def test_validation_takes_one_set(paired, rain, parsed):
    paired['datasets']['val_1'] = {'name': 'v', 'type': 'PairedConfounderDataset', 'confounders': layouts(rain)}
    with pytest.raises(OptionError, match=r'datasets.val_1.confounders: a validation or test set takes one set'):
        parsed(paired)


@pytest.fixture
def copied(rain, tmp_path, paired):
    """The three sets in a place where they may be damaged."""
    shutil.copytree(rain, tmp_path / 'copy')
    paired['datasets']['train']['confounders'] = layouts(tmp_path / 'copy')
    return tmp_path / 'copy'


@pytest.mark.parametrize(('removed', 'words'), [
    ('r14/ground_truth/10.jpg', ['confounders[1]', '10_10.jpg has no partner', "'10'", 'ground_truth']),
    ('heavy/gt/im_0001.png', ['confounders[2]', 'im_0001_s80_a05.png has no partner', "'im_0001'"]),
])
def test_missing_partner_of_a_rainy_image(paired, copied, parsed, removed, words):
    (copied / removed).unlink()
    with pytest.raises(DataError) as error:
        parsed(paired)
    for word in words:
        assert word in str(error.value)


def test_missing_partner_of_a_clean_image(paired, own):
    (Path(own[1]['dataroot_lq']) / '3_rain.png').unlink()
    with pytest.raises(DataError, match=r"confounders\[1\].*3.png has no partner: there is no image '3_rain'"):
        build_dataset(train_options(paired, confounders=own))


def test_clean_images_without_rainy_ones_are_left_out_where_there_are_many_for_one(paired, copied):
    for path in (copied / 'r14/rainy_image').glob('10_*.jpg'):
        path.unlink()
    assert [len(pairs) for pairs in build_dataset(train_options(paired)).pairs] == [5, 8, 8]


def test_folder_without_images_and_ambiguous_names(paired, copied):
    write(copied / 'r14/ground_truth/9.png', np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(DataError, match=r'9\.jpg and .*9\.png differ in their endings alone'):
        build_dataset(train_options(paired))
    shutil.rmtree(copied / 'did')
    (copied / 'did').mkdir()
    with pytest.raises(DataError, match=r'confounders\[0\].dataroot: .*did holds no images'):
        build_dataset(train_options(paired))


@pytest.mark.parametrize(('path', 'shape', 'words'), [
    ('heavy/gt/im_0000.png', (32, 44, 3), ['confounders[2]', 'im_0000_s', '32x44', 'scale 1', '32x40']),
    ('heavy/gt/im_0000.png', None, ['confounders[2]', 'im_0000.png', 'cannot be decoded']),
    ('did/Rain_Heavy/train2018new/0.jpg', (40, 95, 3), ['confounders[0]', '0.jpg', '95 pixels wide', 'halves']),
    ('did/Rain_Heavy/train2018new/0.jpg', (15, 96, 3), ['confounders[0]', '0.jpg', '15x48', 'gt_size 16']),
])
def test_unusable_images_are_named_when_they_are_read(paired, copied, path, shape, words):
    if shape is None:
        content = (copied / path).read_bytes()
        (copied / path).write_bytes(content[:len(content) // 2])
    else:
        write(copied / path, np.zeros(shape, np.uint8))
    dataset = build_dataset(train_options(paired))
    with pytest.raises(DataError) as error:
        [dataset[Draw(0, draw)] for draw in range(12)]
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize('variant', ['sf', 'erm'])
def test_shipped_options_read_the_published_layouts(parsed, rain, tmp_path, monkeypatch, variant):
    """With data where the file expects them, the options pass every check and give all pairs."""
    for source, target in (('did', 'DID-MDN/train'), ('r14', 'Rain14000/training'), ('heavy', 'HeavyRain/train')):
        shutil.copytree(rain / source, tmp_path / 'datasets' / target)
    monkeypatch.chdir(tmp_path)
    opt = yaml.safe_load((ROOT / f'options/train/deraining_{variant}.yml').read_text())
    opt['num_gpu'] = 0
    for name in ('val_1', 'val_2'):
        del opt['datasets'][name]
    with pytest.raises(DataError, match='40x48 pixels are less than gt_size 64'):
        parsed(opt)
    opt['datasets']['train']['gt_size'] = 16  # the images of this test are small
    checked = parsed(opt)
    assert checked['train']['dil']['variant'] == variant
    dataset = build_dataset(checked['datasets']['train'])
    assert [one.name for one in dataset.sets] == NAMES
    assert tuple(map(len, dataset.pairs)) == SIZES


@pytest.mark.parametrize('lmdb', [False, True])
def test_what_does_not_divide_by_the_scale_is_cut_off(paired, tmp_path, lmdb):
    """Targets of 79x95 beside inputs of 19x23: patches of the part that the input shows, at the same place."""
    for k in range(2):
        lq = np.random.default_rng(k).integers(0, 256, (19, 23, 3), np.uint8)
        write(tmp_path / f'LR/{k}x4.png', lq)
        write(tmp_path / f'HR/{k}.png', np.pad(np.kron(lq, np.ones((4, 4, 1), np.uint8)), ((0, 3), (0, 3), (0, 0))))
    roots = {'dataroot_lq': str(tmp_path / 'LR'), 'dataroot_gt': str(tmp_path / 'HR')}
    if lmdb:
        for path in sorted((tmp_path / 'LR').iterdir()):  # whose keys are those of the targets
            path.rename(path.with_name(path.name.replace('x4', '')))
        roots = {name: f'{root}.lmdb' for name, root in roots.items()}
        for root in roots.values():
            prepare_data(Path(root).with_suffix(''), Path(root), CutSettings(), workers=1)
    confounder = {'name': 'x', **roots, **({} if lmdb else {'filename_tmpl': '{}x4'})}
    data = build_dataset(train_options(paired, confounders=[confounder], scale=4, gt_size=64,
                                       io_backend={'type': 'lmdb' if lmdb else 'disk'}))
    for draw in range(8):
        sample = data[Draw(0, draw)]
        lq, gt = sample['confounder_lq'][0], sample['confounder_gt'][0]
        assert torch.equal(gt, lq.repeat_interleave(4, 1).repeat_interleave(4, 2))
    with pytest.raises(DataError, match='76x92 pixels are less than gt_size 80'):
        build_dataset(train_options(paired, confounders=[confounder], scale=4, gt_size=80,
                                    io_backend={'type': 'lmdb' if lmdb else 'disk'}))[Draw(0, 0)]


def test_names_that_another_template_pairs_are_said(paired, tmp_path):
    for k in range(2):
        for folder, name in (('HR', f'{k}'), ('LR', f'{k}_LR')):
            write(tmp_path / folder / f'{name}.png', coded(0, k, 0, 40, 40)[0])
    confounder = {'name': 'x', 'dataroot_lq': str(tmp_path / 'LR'), 'dataroot_gt': str(tmp_path / 'HR')}
    for given in ({}, {'filename_tmpl': '{}x1'}):
        with pytest.raises(DataError, match=r"; filename_tmpl: '\{\}_LR' pairs them$"):
            build_dataset(train_options(paired, confounders=[{**confounder, **given}]))
