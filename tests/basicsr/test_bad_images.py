"""on_bad_image: skip: which image takes whose place, what the log says, and where it is refused."""

import copy
import multiprocessing
import re
import shutil
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
import torch
from basicsr.data import build_dataloader, build_dataset

from dil_plugin.basicsr.data.bad_images import MARKER, SkippedImages
from dil_plugin.basicsr.data.draw_sampler import Draw, DrawSampler
from dil_plugin.basicsr.data.paired_images import check_skipping
from dil_plugin.errors import DataError, OptionError, UnusableImage

BAD = {'chelsea_0': 'truncated', 'chelsea_1': 'too small', 'coffee_1': 'no image'}  # the first two follow each other
NAMES = ['astronaut_0', 'astronaut_1', 'chelsea_0', 'chelsea_1', 'coffee_0', 'coffee_1']
INSTEAD = [0, 1, 4, 4, 4, 0]  # after the last comes the first


def damage(path):
    """As ``BAD`` says it; returns the file's name."""
    content = path.read_bytes()
    how = BAD[path.stem]
    if how == 'too small':
        content = cv2.imencode('.png', cv2.imread(str(path))[:12])[1].tobytes()
    path.write_bytes({'truncated': content[:-30], 'no image': b'x' * 100}.get(how, content))
    return path.name


@pytest.fixture
def damaged(crops, tmp_path):
    """The folder of crops, three of which are bad."""
    folder = tmp_path / 'damaged'
    shutil.copytree(crops, folder)
    for name in BAD:
        damage(folder / f'{name}.png')
    return folder


@pytest.fixture
def damaged_lmdb(damaged, tmp_path):
    """The same as an LMDB whose meta_info.txt knows of what is too small alone."""
    root = tmp_path / 'damaged.lmdb'
    with lmdb.open(str(root), map_size=2**24) as env, env.begin(write=True) as transaction:
        for name in NAMES:
            transaction.put(name.encode(), (damaged / f'{name}.png').read_bytes())
    sizes = {name: 12 if BAD.get(name) == 'too small' else 48 for name in NAMES}
    (root / 'meta_info.txt').write_text(''.join(f'{name}.png ({sizes[name]},40,3) 1\n' for name in NAMES))
    return root


def options(base, root, **changes):
    opt = copy.deepcopy(base['datasets']['train'])
    backend = {'type': 'lmdb' if str(root).endswith('.lmdb') else 'disk'}
    return {**opt, 'phase': 'train', 'scale': 1, 'seed': 5, 'distortions': base['distortions'],
            'dataroot_gt': str(root), 'io_backend': backend, 'on_bad_image': 'skip', **changes}


@pytest.mark.parametrize('kind', ['damaged', 'damaged_lmdb'])
def test_the_next_good_image_takes_the_place(base, crops, kind, request):
    dataset = build_dataset(options(base, request.getfixturevalue(kind), distort_on='worker'))
    whole = build_dataset(options(base, crops, distort_on='worker', on_bad_image='error'))
    for index, instead in enumerate(INSTEAD):
        sample, expected = dataset[Draw(index, 11)], whole[Draw(instead, 11)]
        assert Path(sample['gt_path']).stem == NAMES[instead]
        assert torch.equal(sample['gt'], expected['gt'])  # the draw's seed alone decides on patch and distortion
        assert torch.equal(sample['lq'], expected['lq'])
        skipped = [line.split('\t')[0] for line in sample[MARKER].splitlines()]
        assert len(skipped) == (instead - index) % len(NAMES)
        assert all(NAMES[(index + k) % 6] in name for k, name in enumerate(skipped))


def test_error_is_the_default_and_names_the_image(base, damaged):
    opt = options(base, damaged)
    del opt['on_bad_image']
    dataset = build_dataset(opt)
    for index, words in ((2, r'chelsea_0\.png.*truncated'), (3, r'chelsea_1\.png.*12x40'), (5, r'coffee_1\.png')):
        with pytest.raises(UnusableImage, match=words):
            dataset[Draw(index, 0)]
    assert MARKER not in dataset[Draw(0, 0)]


def batches(opt, workers, context=None):
    dataset = build_dataset(opt)
    loader = build_dataloader(dataset, {**opt, 'num_worker_per_gpu': workers}, num_gpu=0,
                              sampler=DrawSampler(dataset, 1, 0, ratio=4), seed=0)
    if context is not None:
        loader.multiprocessing_context = context
    return list(loader)


def test_same_batches_and_same_count_whatever_the_workers(base, damaged):
    opt = options(base, damaged, distort_on='worker')
    runs = [batches(opt, workers, context) for workers, context in ((0, None), (2, 'fork'), (1, 'spawn'))]
    reports = []
    for run in runs:
        tally = SkippedImages()
        for batch, first in zip(run, runs[0], strict=True):
            tally.take(batch)
            assert batch[MARKER] == first[MARKER]
            assert all(torch.equal(batch[key], first[key]) for key in ('gt', 'lq', 'counterfactuals'))
        tally.take({})
        reports.append(tally.report())
    assert reports[0] == reports[1] == reports[2]
    assert '3 images could not be used' in reports[0]


def drawn_bad(total):
    """How often the first ``total`` draws meet each bad image: by hand, from the order of the draws."""
    counts, samples = dict.fromkeys(BAD, 0), 0
    order = list(DrawSampler(list(range(6)), 1, 0, ratio=20))[:total]
    for index in map(int, order):
        samples += NAMES[index] in BAD
        while NAMES[index] in BAD:
            counts[NAMES[index]] += 1
            index = (index + 1) % 6
    return counts, samples


def logged(root):
    log, = (root / 'experiments/run').glob('train_*.log')
    return log.read_text()


@pytest.mark.parametrize(('model', 'workers'), [('DILModel', 0), ('DILModel', 2), ('SRModel', 2)])
def test_training_names_each_once_and_counts_all(base, damaged, pipeline, model, workers):
    base['model_type'] = model
    base['datasets']['train'].update(dataroot_gt=str(damaged), on_bad_image='skip', num_worker_per_gpu=workers)
    text = logged(pipeline(base))
    expected, samples = drawn_bad(4 * 4)
    assert set(expected.values()) - {0}
    for name, times in expected.items():
        assert len(re.findall(rf'WARNING: .*{name}\.png.*takes its place', text)) == 1
        assert len(re.findall(rf"  image '.*{name}\.png' .*\({times} times\)", text)) == 1
    assert f'3 images could not be used, in {samples} samples another took their place' in text


def test_training_on_good_images_says_so(base, pipeline):
    base['datasets']['train']['on_bad_image'] = 'skip'
    base['train']['total_iter'] = 2
    assert 'no image was skipped' in logged(pipeline(base))


def test_a_resumed_training_ends_with_the_same_weights(base, damaged, pipeline):
    base['datasets']['train'].update(dataroot_gt=str(damaged), on_bad_image='skip')
    root = pipeline(base)
    weights = root / 'experiments/run/models/net_g_latest.pth'
    expected = torch.load(weights)['params']
    weights.unlink()
    (root / 'experiments/run/training_states/4.state').unlink()
    pipeline(base, 'train', '--auto_resume')
    found = torch.load(weights)['params']
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def joined(rank, folder):
    """A process of two: what it skipped, and what it says when both have added up."""
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meeting', rank=rank, world_size=2)
    tally = SkippedImages()
    for batch in (['x\tcut', ''], [f'x\tcut\nonly{rank}\tsmall', 'x\tcut'], []):
        tally.take({MARKER: batch})
    tally.join_ranks()
    (folder / f'{rank}.txt').write_text(tally.report())
    torch.distributed.destroy_process_group()


def test_processes_add_up_what_they_skipped(tmp_path):
    context = multiprocessing.get_context('fork')
    ranks = [context.Process(target=joined, args=(rank, tmp_path)) for rank in (0, 1)]
    for rank in ranks:
        rank.start()
    for number, rank in enumerate(ranks):
        rank.join(60)
        assert rank.exitcode == 0
        first, *others = (tmp_path / f'{number}.txt').read_text().splitlines()
        assert first == 'on_bad_image: skip: 3 images could not be used, in 6 samples another took their place:'
        assert others == ['  only0: small (1 times)', '  only1: small (1 times)', '  x: cut (6 times)']


@pytest.mark.parametrize('how', ['no image', 'too small'])
def test_nothing_but_bad_images_is_an_error(base, tmp_path, how):
    for k in range(5):
        (tmp_path / f'{k}.png').write_bytes(
            b'x' * 100 if how == 'no image' else cv2.imencode('.png', np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    dataset = build_dataset(options(base, tmp_path))
    with pytest.raises(DataError, match=r'datasets.train: none of its 5 images can be used .*2\.png') as error:
        dataset[Draw(2, 0)]
    assert not isinstance(error.value, UnusableImage)


@pytest.mark.parametrize('phase', ['val', 'test'])
def test_validation_refuses_it(base, crops, phase):
    with pytest.raises(OptionError, match=rf"datasets.{phase}.on_bad_image: got 'skip'.* allowed: error"):
        build_dataset(options(base, crops, phase=phase, distortions=[{'type': 'GaussianNoise', 'sigma': 3}]))


@pytest.mark.parametrize(('block', 'words'), [
    ({'on_bad_image': 'ignore'}, ["'ignore'", 'error, skip']),
    ({'on_bad_image': 'skip', 'type': 'FFHQDataset'}, ['FFHQDataset', 'PairedImageDataset']),
    ({'on_bad_image': 'skip', 'type': 'PairedImageDataset', 'phase': 'val'}, ["'skip'", 'allowed: error']),
])
def test_wrong_values_and_data_sets_that_do_not_know_it(base, parsed, block, words):
    base['model_type'] = 'SRModel'
    base['datasets']['train'].update(block)
    with pytest.raises(OptionError, match=r'datasets\.train\.on_bad_image') as error:
        parsed(base) if 'phase' not in block else check_skipping('datasets.train', base['datasets']['train'])
    assert all(word in str(error.value) for word in words)


@pytest.fixture
def pairs(base, crops, damaged, tmp_path):
    """Two sets of pairs of the crops; of the first three inputs are bad."""
    small = tmp_path / 'lq'
    shutil.copytree(crops, small)
    for name in ('chelsea_0', 'coffee_1'):
        damage(small / f'{name}.png')
    del base['distortions'], base['datasets']['train']['dataroot_gt']
    entries = [{'name': 'bad', 'dataroot_lq': str(small), 'dataroot_gt': str(crops)},
               {'name': 'good', 'dataroot_lq': str(crops), 'dataroot_gt': str(crops)}]
    base['datasets']['train'].update(type='PairedConfounderDataset', confounders=entries, on_bad_image='skip')
    base['train']['dil'] = {'variant': 'ps', 'inner': {'type': 'SGD', 'lr': 0.01}}
    return base


def test_pairs_give_way_to_the_next_pair_of_their_set(pairs, parsed):
    opt = parsed(pairs)['datasets']['train']
    dataset = build_dataset(opt)
    good = build_dataset({**opt, 'on_bad_image': 'error', 'confounders': [opt['confounders'][1]] * 1})
    skipped = 0
    for draw in range(12):
        sample = dataset[Draw(0, draw)]
        lines = sample[MARKER].splitlines()
        skipped += len(lines)
        assert all('/lq/' in line for line in lines)
        assert torch.equal(sample['confounder_lq'][1], sample['confounder_gt'][1])
        if lines:
            position = dataset._position(0, Draw(0, draw))
            assert NAMES[position] in ('chelsea_0', 'coffee_1')
            assert torch.equal(sample['confounder_gt'][0], sample['confounder_lq'][0])
    assert skipped == 4  # of two passes over six pairs
    assert len(good) == len(dataset)


def test_pairs_that_do_not_fit_are_an_error_all_the_same(pairs, crops, parsed, tmp_path):
    opt = parsed(pairs)['datasets']['train']
    wide = cv2.imread(str(crops / 'coffee_0.png'))[:, :30]
    cv2.imwrite(str(tmp_path / 'lq/coffee_0.png'), wide)
    dataset = build_dataset(opt)
    draw = next(draw for draw in range(6) if NAMES[dataset._position(0, Draw(0, draw))] == 'coffee_0')
    with pytest.raises(DataError, match='not scale 1 times') as error:
        dataset[Draw(0, draw)]
    assert not isinstance(error.value, UnusableImage)


@pytest.mark.parametrize('skip', [True, False])
def test_basicsr_pairs(base, crops, damaged, parsed, skip):
    (damaged / 'chelsea_1.png').write_bytes((crops / 'chelsea_1.png').read_bytes())  # 12x40 and 48x40 do not fit
    base['train']['dil'] = {'variant': 'ps', 'inner': {'type': 'SGD', 'lr': 0.01}}
    base['datasets']['train'].update(type='PairedImageDataset', dataroot_gt=str(crops), dataroot_lq=str(damaged),
                                     on_bad_image='skip' if skip else 'error')
    dataset = build_dataset(parsed(base)['datasets']['train'])
    index = [Path(pair['gt_path']).stem for pair in dataset.paths].index('chelsea_0')
    if not skip:
        with pytest.raises(UnusableImage, match=r"image '.*damaged/chelsea_0\.png' .*PNG file is truncated"):
            dataset[index]
        return
    sample = dataset[Draw(index, 0)]
    assert sample['gt_path'] == dataset.paths[(index + 1) % 6]['gt_path']
    assert 'chelsea_0.png' in sample[MARKER]
    assert dataset[index + 1][MARKER] == ''


def test_one_lmdb_for_two_data_sets_of_a_process(base, crops_lmdb):
    """Ours for training, and BasicSR's pairs of the same LMDB for validation."""
    ours = build_dataset(options(base, crops_lmdb, on_bad_image='error'))
    ours[Draw(0, 0)]
    theirs = build_dataset({'name': 'pairs', 'type': 'PairedImageDataset', 'phase': 'val', 'scale': 1,
                            'dataroot_gt': str(crops_lmdb), 'dataroot_lq': str(crops_lmdb),
                            'io_backend': {'type': 'lmdb'}})
    again = build_dataset(options(base, crops_lmdb, on_bad_image='error'))
    assert torch.equal(theirs[0]['gt'], theirs[0]['lq'])
    assert torch.equal(again[Draw(1, 1)]['gt'], ours[Draw(1, 1)]['gt'])
