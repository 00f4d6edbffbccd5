"""DF2K, RealSR V3 and DRealSR as they are downloaded, and the multi-scale versions of Real-ESRGAN."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dil_plugin.basicsr  # noqa: F401  BasicSR needs its shims

# isort: split
import cv2
import lmdb
import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from basicsr.data import build_dataset

from dil_plugin.data_preparation import CutSettings, multiscale, prepare_data, published_sets
from dil_plugin.data_preparation.multiscale import smaller_versions
from dil_plugin.errors import DataError

ROOT = Path(__file__).resolve().parents[1]
TOOL = ROOT / 'tools/prepare_data.py'


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path: Path, *shape: int, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), noise(*shape, seed=seed))
    return path


def records(path: Path) -> dict[str, np.ndarray]:
    with lmdb.open(str(path), readonly=True, lock=False) as env, env.begin() as transaction:
        return {key.decode(): cv2.imdecode(np.frombuffer(value, np.uint8), cv2.IMREAD_UNCHANGED)
                for key, value in transaction.cursor()}


def tool(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(TOOL), *arguments, '--workers', '1'], capture_output=True, text=True,
                          cwd=folder)


def refused(done: subprocess.CompletedProcess[str], *words: str) -> bool:
    """Whether the tool ended with one line that has all the words."""
    lines = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1
    assert all(word in lines[0] for word in words), lines[0]
    return True


# ---- Multi-scale versions --------------------------------------------------------------------------------------------

@pytest.mark.parametrize('shape', [(600, 900, 3), (900, 600, 3), (601, 777), (401, 401, 3)])
def test_versions_are_pillows_of_real_esrgans_sizes(shape: tuple[int, ...]) -> None:
    image = noise(*shape)
    height, width = shape[:2]
    found = dict(smaller_versions(image))
    assert list(found) == ['T0', 'T1', 'T2', 'T3']
    for name, factor in (('T0', 0.75), ('T1', 0.5), ('T2', 1 / 3)):
        assert found[name].shape == (int(height * factor), int(width * factor), *shape[2:])
    ratio = max(height, width) / min(height, width)
    assert min(found['T3'].shape[:2]) == 400
    assert max(found['T3'].shape[:2]) == int(400 * ratio)
    for version in found.values():
        size = (version.shape[1], version.shape[0])
        expected = PIL.Image.fromarray(image).resize(size, PIL.Image.LANCZOS)
        assert np.array_equal(version, np.asarray(expected))


def test_colours_stay_in_their_order() -> None:
    image = np.zeros((600, 600, 3), np.uint8)
    image[..., 0] = 200
    assert all((version[..., 0] == 200).all() and not version[..., 1:].any() for _, version in smaller_versions(image))


def test_nothing_is_enlarged() -> None:
    assert [name for name, _ in smaller_versions(noise(400, 500, 3))] == ['T0', 'T1', 'T2']
    assert [name for name, _ in smaller_versions(noise(2, 2, 3))] == ['T0', 'T1']


def test_packed_versions_are_cut_like_the_image(tmp_path: Path) -> None:
    """Keys name the version; versions below the size are left out, kept or, with error, left out too."""
    path = save(tmp_path / 'in/a.png', 96, 128, 3)
    image = cv2.imread(str(path))
    for small, expected in (('skip', {'a': 6, 'aT0': 2, 'aT1': 1}), ('error', {'a': 6, 'aT0': 2, 'aT1': 1}),
                            ('keep', {'a': 6, 'aT0': 2, 'aT1': 1, 'aT2': 1})):
        out = tmp_path / f'{small}.lmdb'
        prepare_data(tmp_path / 'in', out, CutSettings(48, 40, 30, small, multiscale=True), workers=1)
        found = records(out)
        assert {stem: sum(key.startswith(f'{stem}_') for key in found) for stem in expected} == expected
        assert len(found) == sum(expected.values())
        smaller = np.asarray(PIL.Image.fromarray(image).resize((64, 48), PIL.Image.LANCZOS))
        assert np.array_equal(found['aT1_s001'], smaller[:, :48])


def test_sixteen_bits_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / 'in').mkdir()
    cv2.imwrite(str(tmp_path / 'in/deep.png'), noise(64, 64, 3).astype(np.uint16) * 257)
    with pytest.raises(DataError, match='deep.png: has pixels of uint16; allowed with multiscale: 8 bits'):
        prepare_data(tmp_path / 'in', tmp_path / 'out.lmdb', CutSettings(multiscale=True), workers=1)


def test_an_output_is_continued_with_the_same_versions_only(tmp_path: Path) -> None:
    save(tmp_path / 'in/a.png', 64, 64, 3)
    for first, second in ((True, False), (False, True)):
        out = tmp_path / f'{first}.lmdb'
        prepare_data(tmp_path / 'in', out, CutSettings(32, multiscale=first), workers=1)
        with pytest.raises(DataError, match='other settings .*multiscale'):
            prepare_data(tmp_path / 'in', out, CutSettings(32, multiscale=second), workers=1)


def test_outputs_from_before_there_were_versions_are_still_known(tmp_path: Path) -> None:
    save(tmp_path / 'in/a.png', 64, 64, 3)
    prepare_data(tmp_path / 'in', tmp_path / 'out.lmdb', CutSettings(32), workers=1)
    assert 'multiscale' not in (tmp_path / 'out.lmdb/preparation.jsonl').read_text()


def test_a_killed_call_goes_on(tmp_path: Path) -> None:
    for k in range(12):
        save(tmp_path / f'in/{k}.png', 420, 420, 3, seed=k)
    command = [sys.executable, str(TOOL), '-i', 'in', '-o', 'out.lmdb', '--size', '200', '--multiscale', '--workers',
               '1']
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tmp_path / 'out.lmdb/preparation.jsonl'
    deadline = time.monotonic() + 60
    while not (journal.is_file() and journal.read_text().count('\n') > 2) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    prepare_data(tmp_path / 'in', tmp_path / 'whole.lmdb', CutSettings(200, multiscale=True), workers=1)
    one, two = records(tmp_path / 'out.lmdb'), records(tmp_path / 'whole.lmdb')
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[key], two[key]) for key in one)


# ---- DF2K ------------------------------------------------------------------------------------------------------------

@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if three and four images had been published."""
    monkeypatch.setattr(published_sets, 'DIV2K', published_sets.DIV2K._replace(images=3))
    monkeypatch.setattr(published_sets, 'FLICKR2K', published_sets.FLICKR2K._replace(images=4))


def of_df2k(data: Path, allow_incomplete: bool = False) -> published_sets.Found:
    return published_sets.training_images(data, (published_sets.DIV2K, published_sets.FLICKR2K), allow_incomplete)


def test_published_numbers_of_images() -> None:
    assert [len(one.stems) for one in (published_sets.DIV2K, published_sets.FLICKR2K)] == [800, 2650]
    assert (published_sets.DIV2K.stems[0], published_sets.DIV2K.stems[-1]) == ('0001', '0800')
    assert (published_sets.FLICKR2K.stems[0], published_sets.FLICKR2K.stems[-1]) == ('000001', '002650')


@pytest.mark.usefixtures('few')
@pytest.mark.parametrize(('first', 'second'), [
    ('DIV2K/DIV2K_train_HR', 'Flickr2K/Flickr2K_HR'), ('DIV2K_train_HR', 'Flickr2K_HR'), ('DF2K/HR', 'DF2K/HR'),
    ('DF2K/DF2K_HR', 'DF2K/DF2K_HR'), ('DF2K/DIV2K_train_HR', 'DF2K/Flickr2K_HR'), ('DF2K', 'Flickr2K')])
def test_layouts_that_are_about(tmp_path: Path, first: str, second: str) -> None:
    """The images of both sets, each once; DIV2K's validation images and other files are left where they are."""
    for k in range(1, 4):
        save(tmp_path / first / f'{k:04}.png', 8, 8, 3)
    for k in range(1, 5):
        save(tmp_path / second / f'{k:06}.png', 8, 8, 3)
    save(tmp_path / first / '0801.png', 8, 8, 3)
    save(tmp_path / first / 'preview.jpg', 8, 8, 3)
    found = of_df2k(tmp_path)
    assert found.remark is None
    assert [source.stem for source in found.sources] == ['0001', '0002', '0003', '000001', '000002', '000003', '000004']
    assert len({source.path for source in found.sources}) == len({source.name for source in found.sources}) == 7


@pytest.mark.usefixtures('few')
def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        of_df2k(tmp_path)
    for words in ('DIV2K: is not there', 'DIV2K/DIV2K_train_HR', 'https://data.vision.ee.ethz.ch/cvl/DIV2K/',
                  'Flickr2K: is not there', 'https://cv.snu.ac.kr/research/EDSR/Flickr2K.tar'):
        assert words in str(error.value)
    assert '--allow-incomplete' not in str(error.value)  # there is nothing to pack
    for k in (1, 3):
        save(tmp_path / f'DIV2K/DIV2K_train_HR/{k:04}.png', 8, 8, 3)
    (tmp_path / 'Flickr2K.tar').touch()
    with pytest.raises(DataError) as error:
        of_df2k(tmp_path)
    for words in ('2 of its 3 training images', 'missing are 0002;', 'Flickr2K.tar is there: unpack it first',
                  '--allow-incomplete'):
        assert words in str(error.value)
    found = of_df2k(tmp_path, allow_incomplete=True)
    assert [source.stem for source in found.sources] == ['0001', '0003']
    assert 'missing are 0002' in str(found.remark)


@pytest.mark.usefixtures('few')
def test_nothing_at_all_is_an_error_even_if_allowed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='is not there'):
        of_df2k(tmp_path, allow_incomplete=True)
    with pytest.raises(DataError, match='--data: there is no folder'):
        of_df2k(tmp_path / 'nowhere')


def test_tool_packs_df2k_for_training(tmp_path: Path) -> None:
    """What it writes is what options/DIL_RealSR.yml reads, and by its own YAML lines."""
    for k in (1, 2):
        save(tmp_path / f'datasets/DIV2K/DIV2K_train_HR/{k:04}.png', 410, 600, 3, seed=k)
    assert refused(tool(tmp_path, '--dataset', 'DF2K'), '2 of its 800', '0003, 0004, 0005, 0006, 0007 and 793 more')
    done = tool(tmp_path, '--dataset', 'DF2K', '--allow-incomplete')
    assert done.returncode == 0, done.stderr
    lmdbs = [path.name for path in (tmp_path / 'datasets').glob('*.lmdb')]
    assert lmdbs == ['DF2K_sub400.lmdb']
    block = yaml.safe_load((ROOT / 'options/DIL_RealSR.yml').read_text())['datasets']['train']
    assert block['dataroot_gt'] == 'datasets/DF2K_sub400.lmdb'
    printed = yaml.safe_load(done.stdout.split('in the YAML:')[1])
    assert printed == {'dataroot_gt': 'datasets/DF2K_sub400.lmdb', 'io_backend': {'type': 'lmdb'}}
    assert {image.shape for image in records(tmp_path / 'datasets/DF2K_sub400.lmdb').values()} == {(400, 400, 3)}
    assert len(records(tmp_path / 'datasets/DF2K_sub400.lmdb')) == 2 * 2 * 2
    many = tool(tmp_path, '--dataset', 'DF2K', '--allow-incomplete', '--multiscale')
    assert many.returncode == 0, many.stderr
    # of the versions T3 alone is large enough
    assert len(records(tmp_path / 'datasets/DF2K_multiscale_sub400.lmdb')) == 2 * (2 * 2 + 2)


def test_a_folder_is_read_by_real_esrgans_data_set(tmp_path: Path) -> None:
    """``meta_info`` as the tool prints it serves RealESRGANDataset and ours."""
    save(tmp_path / 'in/a.png', 64, 96, 3)
    done = tool(tmp_path, '-i', 'in', '-o', 'out', '--size', '64', '--step', '32')
    block = yaml.safe_load(done.stdout.split('in the YAML:')[1])
    kernels = {name + suffix: value for suffix in ('', '2') for name, value in {
        'blur_kernel_size': 7, 'kernel_list': ['iso'], 'kernel_prob': [1.0], 'sinc_prob': 0.1, 'blur_sigma': [0.2, 3],
        'betag_range': [0.5, 4], 'betap_range': [1, 2]}.items()}
    block = {key: str(tmp_path / value) if key != 'io_backend' else value for key, value in block.items()}
    theirs = build_dataset({**block, **kernels, 'name': 'x', 'type': 'RealESRGANDataset', 'final_sinc_prob': 0.8,
                            'use_hflip': False, 'use_rot': False})
    assert len(theirs) == 2
    assert theirs[0]['gt'].shape == (3, 400, 400)
    ours = build_dataset({**block, 'name': 'x', 'type': 'DistortionAugmentedDataset', 'phase': 'train', 'gt_size': 32,
                          'distortions': [{'type': 'GaussianNoise', 'sigma': 5}]})
    assert [Path(path).name for path in ours.paths] == ['a_s001.png', 'a_s002.png']


# ---- Pairs -----------------------------------------------------------------------------------------------------------

def save_pairs(data: Path, count: int = 50) -> None:
    """RealSR V3 and DRealSR in the layouts of their authors, tiny."""
    for camera in ('Canon', 'Nikon'):
        for k in range(1, count + 1):
            save(data / f'RealSR(V3)/{camera}/Test/4/{camera}_{k:03}_HR.png', 16, 24, 3, seed=k)
            save(data / f'RealSR(V3)/{camera}/Test/4/{camera}_{k:03}_LR4.png', 4, 6, 3, seed=k)
    for k in range(1, 94 if count == 50 else 3):
        save(data / f'DRealSR/Test_x4/test_HR/panasonic_{k}_x4.png', 24, 16, 3, seed=k)
        save(data / f'DRealSR/Test_x4/test_LR/panasonic_{k}_x1.png', 6, 4, 3, seed=k)


def test_pairs_are_packed_for_basicsrs_paired_data_set(tmp_path: Path) -> None:
    """Under the names that options/DIL_RealSR.yml has, with equal keys, and equal pixels to the files'."""
    save_pairs(tmp_path / 'datasets')
    blocks = yaml.safe_load((ROOT / 'options/DIL_RealSR.yml').read_text())['datasets']
    for name, block, count in (('RealSR', 'val_1', 100), ('DRealSR', 'val_2', 93)):
        done = tool(tmp_path, '--dataset', name)
        assert done.returncode == 0, done.stderr
        assert 'published' not in done.stdout
        printed = yaml.safe_load(done.stdout.split('in the YAML:')[1])
        assert printed == {key: blocks[block][key] for key in ('dataroot_gt', 'dataroot_lq', 'io_backend')}
        roots = {key: str(tmp_path / blocks[block][key]) for key in ('dataroot_gt', 'dataroot_lq')}
        data = build_dataset({**blocks[block], **roots, 'phase': 'val', 'scale': 4})
        assert len(data) == count
        sample = data[1]
        path = {'RealSR': 'RealSR(V3)/Canon/Test/4/Canon_002_HR.png',
                'DRealSR': 'DRealSR/Test_x4/test_HR/panasonic_10_x4.png'}[name]
        expected = torch.from_numpy(cv2.imread(str(tmp_path / 'datasets' / path))[..., ::-1].copy())
        assert torch.equal((sample['gt'] * 255).round().byte().permute(1, 2, 0), expected)
        assert sample['lq'].shape[-2:] == tuple(side // 4 for side in sample['gt'].shape[-2:])


def test_pairs_that_are_not_the_published_set(tmp_path: Path) -> None:
    save_pairs(tmp_path / 'datasets', 2)
    assert refused(tool(tmp_path, '--dataset', 'RealSR'), '4 images', '100', 'https://github.com/csjcai/RealSR',
                   '--allow-incomplete')
    done = tool(tmp_path, '--dataset', 'RealSR', '--allow-incomplete', '-o', 'datasets/mine')
    assert done.returncode == 0, done.stderr
    assert '4 images' in done.stdout
    assert set(records(tmp_path / 'datasets/mine_HR.lmdb')) == set(records(tmp_path / 'datasets/mine_LR.lmdb')) == {
        'Canon_001', 'Canon_002', 'Nikon_001', 'Nikon_002'}
    save(tmp_path / 'datasets/RealSR(V3)/Nikon/Test/4/Nikon_002_LR4.png', 8, 12, 3)
    assert refused(tool(tmp_path, '--dataset', 'RealSR', '--allow-incomplete'), 'Nikon_002_HR.png', '4 times')
    assert refused(tool(tmp_path, '--dataset', 'DRealSR', '--scale', '3'), 'DRealSR', 'Component-Divide-and-Conquer')


def test_crops_of_the_pairs(shared_data: Path, tmp_path: Path) -> None:
    os.symlink(shared_data / 'RealSR', tmp_path / 'RealSR')
    assert refused(tool(tmp_path, '--dataset', 'RealSR', '--data', '.'), 'crops of 512x512')
    done = tool(tmp_path, '--dataset', 'RealSR', '--data', '.', '--allow-incomplete')
    assert 'crops of 512x512' in done.stdout
    assert len(records(tmp_path / 'RealSR_V3_test_x4_LR.lmdb')) == 40


@pytest.mark.parametrize(('arguments', 'words'), [
    (['--dataset', 'RealSR', '--size', '32'], ['--size', 'stay whole']),
    (['--dataset', 'RealSR', '--multiscale'], ['--multiscale', 'stay whole']),
    (['--dataset', 'RealSR', '--scale', '5'], ['scale 5', 'allowed: 2, 3, 4']),
    (['--dataset', 'RealSR', '-o', 'a.lmdb'], ['-o a.lmdb', 'begin with']),
    (['--dataset', 'DF2K', '--scale', '4'], ['--scale', 'remove it']),
    (['--dataset', 'DF2K', '--recursive'], ['--recursive', 'only with -i']),
    (['-i', 'datasets', '-o', 'x', '--allow-incomplete'], ['--allow-incomplete', 'only with --dataset']),
    (['-i', 'datasets', '-o', 'x', '--data', 'y'], ['--data', 'only with --dataset']),
    (['-i', 'datasets'], ['-o', 'missing']),
])
def test_options_that_do_not_go_together(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    (tmp_path / 'datasets').mkdir()
    assert refused(tool(tmp_path, *arguments), *words)


def test_factors_are_real_esrgans() -> None:
    assert multiscale.FACTORS == (0.75, 0.5, 1 / 3)
    assert multiscale.SHORTEST_EDGE == 400
