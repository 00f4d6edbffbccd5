"""What BasicSR's own data sets lack is one line with any model; documented defaults are applied."""

import copy
import random
import shutil

import pytest
import torch
from basicsr.data import build_dataset
from basicsr.data.paired_image_dataset import PairedImageDataset

from dil_plugin.basicsr.data.basicsr_sets import check_basicsr_set, required_options
from dil_plugin.errors import DataError, DILError, OptionError

DEGREES = {
    'blur_kernel_size': 21, 'kernel_list': ['iso'], 'kernel_prob': [1], 'sinc_prob': 0.1, 'blur_sigma': [0.2, 3],
    'betag_range': [0.5, 4], 'betap_range': [1, 2], 'blur_kernel_size2': 21, 'kernel_list2': ['iso'],
    'kernel_prob2': [1], 'sinc_prob2': 0.1, 'blur_sigma2': [0.2, 1.5], 'betag_range2': [0.5, 4],
    'betap_range2': [1, 2], 'final_sinc_prob': 0.8,
}
PAIRED, SINGLE, ESRGAN, ESRGAN_PAIRED = ('PairedImageDataset', 'SingleImageDataset', 'RealESRGANDataset',
                                         'RealESRGANPairedDataset')


@pytest.fixture
def pair_of(crops, crops_lmdb):
    """A block of two equal roots, in folders or LMDBs."""

    def block(kind, lmdb=True, **options):
        root = str(crops_lmdb if lmdb else crops)
        return {'name': 'x', 'type': kind, 'dataroot_gt': root, 'dataroot_lq': root,
                'io_backend': {'type': 'lmdb' if lmdb else 'disk'}, **options}

    return block


@pytest.fixture
def plain(base):
    """The options of a training with BasicSR's SRModel."""
    base['model_type'] = 'SRModel'
    del base['train']['dil']
    base['val'] = {'val_freq': 2, 'save_img': False}
    return base


def place(opt, block, where):
    """Puts a block where it trains or validates."""
    if where == 'train':
        opt['datasets']['train'] = {**block, 'batch_size_per_gpu': 4, 'num_worker_per_gpu': 0, 'gt_size': 16,
                                    'dataset_enlarge_ratio': 20}
    else:
        opt['datasets'][where] = block


def broken(lmdb, tmp_path, how):
    target = tmp_path / ('copy' if how == 'no ending' else 'copy.lmdb')
    if how == 'missing':
        return str(target)
    shutil.copytree(lmdb, target)
    if how in ('data.mdb', 'meta_info.txt'):
        (target / how).unlink()
    elif how == 'empty':
        (target / 'meta_info.txt').write_text('')
    elif how == 'fewer':
        with (target / 'meta_info.txt').open('a') as file:
            file.write('another.png (48,40,3) 1\n')
    return str(target)


BROKEN = [('missing', 'no folder'), ('data.mdb', 'has no data.mdb'), ('meta_info.txt', 'has no meta_info.txt'),
          ('empty', r'meta_info\.txt is empty'), ('no ending', 'must end with .lmdb'), ('fewer', 'lists 7')]


@pytest.mark.parametrize(('kind', 'where', 'root'), [
    (PAIRED, 'train', 'dataroot_lq'), (PAIRED, 'val_1', 'dataroot_gt'), (ESRGAN_PAIRED, 'train', 'dataroot_gt'),
    (ESRGAN, 'train', 'dataroot_gt'), (SINGLE, 'val_1', 'dataroot_lq'),
])
def test_lmdbs_with_basicsrs_own_model(plain, parsed, pair_of, crops_lmdb, tmp_path, kind, where, root):
    degrees = DEGREES if kind == ESRGAN else {}
    place(plain, pair_of(kind, use_hflip=True, use_rot=True, **degrees), where)
    parsed(plain)
    for number, (how, words) in enumerate(BROKEN):
        (tmp_path / str(number)).mkdir()
        plain['datasets'][where][root] = broken(crops_lmdb, tmp_path / str(number), how)
        with pytest.raises(DataError, match=rf'^datasets\.{where}\.{root}: .*{words}'):
            parsed(plain)


@pytest.mark.parametrize(('change', 'words'), [
    ({'dataroot_lq': '/no/folder'}, 'datasets.val_1.dataroot_lq: there is no folder /no/folder'),
    ({'dataroot_lq': None}, 'datasets.val_1.dataroot_lq: missing; PairedImageDataset needs it'),
    ({'io_backend': None}, 'datasets.val_1.io_backend: missing'),
    ({'io_backend': {'kind': 'disk'}}, 'datasets.val_1.io_backend.type: got None; allowed: disk, lmdb'),
    ({'filename_tmpl': None}, 'datasets.val_1.filename_tmpl: got None'),
    ({'meta_info_file': 'none.txt'}, 'datasets.val_1.meta_info_file: there is no file none.txt'),
])
def test_pairs_in_folders_with_basicsrs_own_model(plain, parsed, pair_of, change, words):
    place(plain, pair_of(PAIRED, lmdb=False), 'val_1')
    parsed(plain)
    plain['datasets']['val_1'].update(change)
    with pytest.raises(DILError) as error:
        parsed(plain)
    assert str(error.value).startswith(words)


def test_lists_of_basicsrs_data_sets(plain, parsed, pair_of, crops, tmp_path):
    file = tmp_path / 'list.txt'
    place(plain, pair_of(ESRGAN, lmdb=False, use_hflip=True, use_rot=True, **DEGREES), 'train')
    train = plain['datasets']['train']
    with pytest.raises(OptionError, match=r'^datasets\.train\.meta_info: missing; RealESRGANDataset needs it'):
        parsed(plain)
    train['meta_info'] = str(file)
    names = sorted(path.name for path in crops.iterdir())
    for text, words in (('', 'lists no images'), ('astronaut_9.png\n', '1 files that are not in')):
        file.write_text(text)
        with pytest.raises(DataError, match=rf'^datasets\.train\.meta_info: .*{words}'):
            parsed(plain)
    file.write_text('\n'.join(names))
    parsed(plain)
    place(plain, pair_of(SINGLE, lmdb=False, meta_info_file=str(file)), 'val_1')
    parsed(plain)
    file.write_text(file.read_text() + '\nmore.png')
    del train['meta_info']
    train['type'] = PAIRED
    with pytest.raises(DataError, match=r'^datasets\.val_1\.meta_info_file: .*first is more\.png'):
        parsed(plain)


def test_pairs_that_a_list_names(plain, parsed, pair_of, tmp_path, crops):
    file = tmp_path / 'list.txt'
    place(plain, pair_of(ESRGAN_PAIRED, lmdb=False, use_hflip=True, use_rot=True, meta_info=str(file)), 'train')
    name = min(path.name for path in crops.iterdir())
    for text, words in (('', 'lists no images'), (f'{name}\n', f"line 1: expected TARGET, INPUT, got '{name}'"),
                        (f'{name}, none.png\n', 'there is no image .*none.png')):
        file.write_text(text)
        with pytest.raises(DataError, match=words):
            parsed(plain)
    file.write_text(f'{name}, {name}\n')
    assert len(build_dataset(parsed(plain)['datasets']['train'])) == 1


def test_video_sets_with_basicsrs_own_model(plain, parsed, pair_of):
    """An LMDB of frames has no list; what is missing is named all the same."""
    block = pair_of('REDSDataset', dataroot_flow=None, num_frame=5, val_partition='REDS4', interval_list=[1],
                    random_reverse=False, use_hflip=True, use_rot=True)
    place(plain, block, 'train')
    with pytest.raises(OptionError, match=r'^datasets\.train\.meta_info_file: missing; REDSDataset needs it'):
        parsed(plain)
    place(plain, pair_of('VideoTestDataset', cache_data=True, num_frame=5, padding='replicate'), 'train')
    with pytest.raises(OptionError, match=r"^datasets\.train\.io_backend\.type: got 'lmdb', but VideoTestDataset"):
        parsed(plain)


def test_required_options_are_what_the_class_cannot_do_without(pair_of):
    """Of a block with all of them each is left out in turn; another one is no matter."""
    block = pair_of(PAIRED, lmdb=False, phase='train', scale=1, gt_size=16, use_hflip=True, use_rot=True)
    required = required_options(PAIRED, block)
    assert set(required) == {'dataroot_gt', 'dataroot_lq', 'io_backend', 'gt_size', 'use_hflip', 'use_rot'}
    for name in required:
        with pytest.raises(Exception, match=name):
            PairedImageDataset({key: value for key, value in copy.deepcopy(block).items() if key != name})[0]
    assert PairedImageDataset(block)[0]['gt'].shape == (3, 16, 16)


def test_what_an_overridden_method_reads_is_not_required(tmp_path, crops):
    """VideoTestDataset pads in its __getitem__, which VideoRecurrentTestDataset does without."""
    from basicsr.data.video_test_dataset import VideoRecurrentTestDataset
    shutil.copytree(crops, tmp_path / '000')
    block = {'name': 'REDS4', 'type': 'VideoRecurrentTestDataset', 'phase': 'val', 'cache_data': True, 'num_frame': 5,
             'dataroot_gt': str(tmp_path), 'dataroot_lq': str(tmp_path), 'io_backend': {'type': 'disk'}}
    check_basicsr_set('datasets.val', block)
    required = required_options('VideoRecurrentTestDataset', block)
    assert set(required) == {'cache_data', 'dataroot_gt', 'dataroot_lq', 'io_backend', 'num_frame'}
    assert {*required, 'padding'} == set(required_options('VideoTestDataset', block))
    assert len(VideoRecurrentTestDataset(copy.deepcopy(block))[0]['lq']) == 6


# ---- Defaults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('model', ['DILModel', 'SRModel'])
def test_documented_defaults_of_pairs(base, parsed, pair_of, model):
    """Without the options the samples are those with the defaults of docs/options.md, and not those without flips."""

    def samples(where):
        dataset = build_dataset(parsed(base)['datasets'][where])
        found = []
        for seed in range(8):
            random.seed(seed)
            found.append(dataset[seed % len(dataset)]['gt'])
        return torch.cat([image.flatten() for image in found])

    base['model_type'] = model
    base['train']['dil'] = {'variant': 'erm'}
    for where in ('train', 'val_1'):
        place(base, pair_of(PAIRED, lmdb=False), where)
    del base['scale']
    left_out = {where: samples(where) for where in ('train', 'val_1')}
    base['scale'] = 1
    base['datasets']['train'] |= {'use_hflip': True, 'use_rot': True}
    for where, images in left_out.items():
        assert torch.equal(samples(where), images)
    base['datasets']['train'] |= {'use_hflip': False, 'use_rot': False}
    assert not torch.equal(samples('train'), left_out['train'])


# ---- mean and std ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', [PAIRED, ESRGAN_PAIRED, SINGLE])
@pytest.mark.parametrize(('model', 'where'), [('DILModel', 'train'), ('DILModel', 'val_1'), ('SRModel', 'val_1')])
def test_normalised_images_are_refused(base, parsed, pair_of, kind, model, where):
    """An identity network on a pair of 22.65 dB was said to have 19.18 or 24.85."""
    if kind == SINGLE and where == 'train':
        pytest.skip('it has no targets')
    base['model_type'] = model
    if model == 'SRModel':
        del base['train']['dil']
    base['val'] = {'val_freq': 2, 'save_img': False}
    block = pair_of(kind, lmdb=False, use_hflip=True, use_rot=True)
    place(base, block, where)
    base['datasets'][where].update(mean=[0, 0, 0], std=[1, 1, 1])  # changes nothing
    parsed(base)
    for option, value in (('mean', [0.5, 0.5, 0.5]), ('std', [0.5, 0.5, 0.5])):
        base['datasets'][where].update({'mean': None, 'std': None, option: value})
        with pytest.raises(OptionError, match=rf'^datasets\.{where}\.{option}: \[0\.5, 0\.5, 0\.5\], but {model} .*'
                                              r'allowed: no mean and std; .* network'):
            parsed(base)


def test_training_of_basicsrs_own_model_on_normalised_images_is_told(plain, parsed, pair_of, capsys):
    place(plain, pair_of(PAIRED, lmdb=False, mean=[0.5] * 3, std=[0.5] * 3), 'train')
    parsed(plain)
    assert 'Warning: datasets.train.mean: [0.5, 0.5, 0.5], but SRModel' in capsys.readouterr().err
