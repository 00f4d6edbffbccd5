"""What ``tools/check.py`` restores and measures of the validation sets; what is said of errors that nobody foresaw."""

import logging
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from basicsr.metrics import calculate_psnr
from basicsr.models import build_model
from basicsr.utils.registry import ARCH_REGISTRY, METRIC_REGISTRY

import dil_plugin
from dil_plugin.basicsr import launch
from dil_plugin.basicsr.checks import trial_validation as tried
from dil_plugin.basicsr.checks.checking_tool import check
from dil_plugin.basicsr.checks.trial_validation import chosen, lq_sizes
from dil_plugin.basicsr.checks.unexpected import in_words, of_network_or_data
from dil_plugin.data_preparation import CutSettings, prepare_data
from dil_plugin.errors import OptionError
from dil_plugin.launch import errors_in_one_line

ROOT = Path(__file__).parents[2]
RANDOM = np.random.default_rng(7)
SIZES = {'a': (40, 48), 'b': (33, 21), 'c': (96, 64), 'd': (19, 50), 'e': (90, 61)}


@ARCH_REGISTRY.register()
class FailsAtASizeForTest(torch.nn.Module):
    """Takes all sizes but one: what nobody can foresee."""

    def __init__(self, side=0):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)
        self.side = side
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape[-2:]))
        if self.side in x.shape[-2:]:
            raise IndexError(f'no such side {self.side}')
        return x + self.conv(x)


@METRIC_REGISTRY.register()
def fails_on_wide_images_for_test(img, img2):
    """A metric of the user's own."""
    if img.shape[1] > 63:
        raise KeyError('too wide')
    return float(img.mean() + img2.mean())


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    for name, sides in SIZES.items():
        cv2.imwrite(str(folder / f'{name}.png'), RANDOM.integers(0, 256, (*sides, 3), dtype=np.uint8))
    return folder


@pytest.fixture
def validated(base, images):
    base['datasets']['val_1'] = {
        'name': 'noisy', 'type': 'DistortionAugmentedDataset', 'dataroot_gt': str(images),
        'io_backend': {'type': 'disk'}, 'distortions': [{'type': 'GaussianNoise', 'sigma': 30}]}
    base['val'] = {'val_freq': 2, 'save_img': True, 'metrics': {
        'psnr': {'type': 'calculate_psnr', 'crop_border': 2}, 'ssim': {'type': 'calculate_ssim', 'crop_border': 0}}}
    base['network_g'] = {'type': 'FailsAtASizeForTest'}
    return base


@pytest.fixture
def checked(tmp_path):
    def run(opt):
        path = tmp_path / 'check.yml'
        path.write_text(yaml.safe_dump(opt))
        (tmp_path / 'root').mkdir(exist_ok=True)
        return list(check(str(tmp_path / 'root'), ['-opt', str(path)]))

    return run


@pytest.mark.parametrize(('sizes', 'expected'), [
    ({0: (40, 48), 1: (33, 21), 2: (96, 64), 3: (19, 50), 4: (90, 61)},
     [(3, 'the smallest'), (1, 'of odd sides'), (2, 'the largest')]),
    ({0: (8, 8), 1: (64, 64)}, [(0, 'the smallest'), (1, 'the largest')]),
    ({0: (8, 8), 1: (63, 65)}, [(0, 'the smallest'), (1, 'of odd sides, the largest')]),
    ({0: (8, 8), 1: (62, 65), 2: (9, 9)}, [(0, 'the smallest'), (2, 'of odd sides'), (1, 'the largest')]),
    ({3: (9, 9), 5: (9, 9)}, [(3, 'as all')]), ({}, [(0, 'the first')]),
])
def test_which_images_are_tried(sizes, expected):
    assert [(one.index, one.why) for one in chosen(sizes, 6)] == expected
    assert chosen({}, 0) == []


@pytest.mark.parametrize('lmdb', [False, True])
@pytest.mark.parametrize('scale', [1, 4])
def test_sizes_are_those_of_the_inputs(validated, parsed, images, tmp_path, lmdb, scale):
    from basicsr.data import build_dataset
    block = validated['datasets']['val_1']
    if lmdb:
        prepare_data(images, tmp_path / 'images.lmdb', CutSettings(), workers=1)
        block.update(dataroot_gt=str(tmp_path / 'images.lmdb'), io_backend={'type': 'lmdb'})
    if scale > 1:
        validated.update(scale=scale, distortions=[{'type': 'Downsample', 'scale': scale}],
                         network_g={'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1})
        block['distortions'] = [{'type': 'Downsample', 'scale': scale}]
        validated['val']['metrics'] = {'psnr': {'type': 'calculate_psnr', 'crop_border': 2}}
    dataset = build_dataset(parsed(validated)['datasets']['val_1'])
    assert lq_sizes(dataset) == {k: tuple(dataset[k]['lq'].shape[-2:]) for k in range(len(SIZES))}
    pairs = build_dataset({'name': 'p', 'type': 'PairedImageDataset', 'phase': 'val', 'scale': 1,
                           'dataroot_gt': block['dataroot_gt'], 'dataroot_lq': block['dataroot_gt'],
                           'io_backend': dict(block['io_backend'])})
    assert lq_sizes(pairs) == {k: tuple(pairs[k]['lq'].shape[-2:]) for k in range(len(SIZES))}


def test_the_smallest_the_oddest_and_the_largest_are_restored_and_measured(validated, checked, monkeypatch):
    """With the values of BasicSR's metrics; nothing stays behind but what was there."""
    from dil_plugin.basicsr.models.dil_model import DILModel
    seen, visuals = [], DILModel.get_current_visuals

    def noting(self):
        found = visuals(self)
        arrays = [np.rint(255 * found[key][0].clamp(0, 1).double().permute(1, 2, 0).numpy())
                  for key in ('result', 'gt')]
        seen.append((found['lq'].shape[-2:], calculate_psnr(*arrays, crop_border=2)))
        return found

    monkeypatch.setattr(DILModel, 'get_current_visuals', noting)
    lines = [line for line in checked(validated) if line.startswith('val')]
    assert [tuple(size) for size, _ in seen] == [SIZES[name] for name in 'dbc']
    for line, (size, value), why in zip(lines, seen, ['the smallest', 'of odd sides', 'the largest'], strict=True):
        assert line.startswith(f'val      noisy: {size[0]}x{size[1]} pixels ({why}) restored in ')
        assert f'psnr {value:.4g}, ssim ' in line


@pytest.mark.parametrize('side', [19, 21, 96])
def test_a_network_that_fails_at_a_size_is_named_with_image_and_place(validated, checked, side):
    validated['network_g']['side'] = side
    name = next(name for name, sides in SIZES.items() if side in sides)
    with pytest.raises(OptionError) as error:
        checked(validated)
    for word in (f'no such side {side}', f'{__file__} line '):
        assert word in str(error.value)
    if side != 19:  # at the first restored image the model says so itself
        assert f"validation of noisy, image '{name}', {SIZES[name][0]}x{SIZES[name][1]} pixels: Ind" in str(error.value)


def test_a_metric_that_fails_is_named(validated, checked):
    validated['val']['metrics']['own'] = {'type': 'fails_on_wide_images_for_test'}
    with pytest.raises(OptionError, match=rf"val\.metrics\.own, image 'c', 96x64 pixels: KeyError: 'too wide' "
                                          rf"\({__file__} line "):
        checked(validated)


def test_pictures_that_cannot_be_written_are_named(validated, checked, monkeypatch):
    monkeypatch.setattr('basicsr.utils.img_util.cv2.imwrite', lambda *_: False)
    with pytest.raises(OptionError, match=r"validation of noisy, image 'd', 19x50 pixels, writing .*d_0\.png: OSError"):
        checked(validated)


def test_large_images_are_not_waited_for_on_a_cpu(validated, checked, images, monkeypatch):
    cv2.imwrite(str(images / 'f.png'), RANDOM.integers(0, 256, (300, 200, 3), dtype=np.uint8))
    monkeypatch.setattr(tried, '_PATIENCE', 0.0)
    lines = [line for line in checked(validated) if line.startswith('val')]
    assert '300x200 pixels (the largest) not restored here: that takes about' in lines[-1]
    assert all(' restored in ' in line for line in lines[:-1])


def test_the_same_images_under_another_distortion_are_restored_once(validated, checked):
    more = {**validated['datasets']['val_1'], 'name': 'more', 'distortions': [{'type': 'GaussianNoise', 'sigma': 50}]}
    validated['datasets']['val_2'] = more
    lines = [line for line in checked(validated) if line.startswith('val')]
    assert [line.split(':')[0].split()[-1] for line in lines] == ['noisy'] * 3 + ['more']
    assert lines[-1] == 'val      more: the images of noisy, of which some are restored'


def test_a_training_state_that_cannot_be_loaded_is_found(validated, checked, monkeypatch):
    from dil_plugin.basicsr.models.dil_model import DILModel
    monkeypatch.setattr(DILModel, 'resume_training', lambda *_: (_ for _ in ()).throw(KeyError('exp_avg')))
    with pytest.raises(KeyError):
        checked(validated)


# ---- The last line ---------------------------------------------------------------------------------------------------


@pytest.fixture
def ended(validated, parsed, capsys, tmp_path, monkeypatch):
    """How a run ends whose third training image makes the network fail: status, standard error, log."""

    def run(fails):
        model = build_model(parsed(validated))
        log = logging.FileHandler(tmp_path / 'train.log')
        monkeypatch.setattr(logging.getLogger('basicsr'), 'handlers', [log])  # without those of earlier runs

        def pipeline(_):
            fails(model)

        try:
            with pytest.raises(SystemExit) as end:
                launch.run(pipeline, '')
        finally:
            log.close()
        return end.value.code, capsys.readouterr().err, (tmp_path / 'train.log').read_text()

    return run


def test_a_network_that_fails_later_in_training_ends_in_one_line(ended):
    def fails(model):
        model.feed_data({'gt': torch.rand(4, 3, 16, 16)})
        model.optimize_parameters(1)
        model.net_g.side = 16
        model.feed_data({'gt': torch.rand(4, 3, 16, 16)})
        model.optimize_parameters(2)

    code, said, log = ended(fails)
    assert code == 2
    last = said.strip().splitlines()[-1]
    assert last.startswith('error: training step of iteration 2: IndexError: no such side 16 (')
    assert f'{__file__} line ' in last
    assert 'Traceback' not in said
    assert 'Traceback' in log
    assert 'IndexError: no such side 16' in log


@pytest.mark.parametrize(('file', 'status'), [
    (f'{Path(dil_plugin.__file__).parent}/sampling.py', 1), ('/opt/lib/python3.11/site-packages/torch/nn.py', 1),
    ('/opt/lib/python3.11/site-packages/basicsr/train.py', 1), (logging.__file__, 1), ('<string>', 1),
    ('/opt/lib/python3.11/site-packages/basicsr/archs/swinir_arch.py', 2), ('/home/me/my_net.py', 2),
    ('/opt/lib/python3.11/site-packages/basicsr/metrics/niqe.py', 2),
])
def test_whose_error_it_is(file, status, capsys):
    """Of ours, PyTorch's and BasicSR's pipeline the traceback is kept; the last line says it all in any case."""
    try:
        exec(compile('\n\nraise ValueError("of some\\nkind")', file, 'exec'))
    except ValueError as error:
        error.__traceback__ = error.__traceback__.tb_next  # without this test's own line
        with pytest.raises(SystemExit) as end, errors_in_one_line():
            launch.end_unexpectedly(error)
    said = capsys.readouterr().err
    assert end.value.code == status
    assert ('Traceback' in said) == (status == 1)
    own = f' ({file} line 3)' if file.startswith('/home') else ''
    assert said.strip().splitlines()[-1] == f'error: ValueError: of some kind{own}'


def test_an_error_of_a_data_worker(capsys):
    text = ('Caught KeyError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n'
            '  File "/opt/site-packages/torch/utils/data/_utils/worker.py", line 309, in _worker_loop\n'
            '  File "/home/me/my_set.py", line 12, in __getitem__\nKeyError: \'lq\'\n')
    assert in_words(RuntimeError(text)) == "KeyError: 'lq' (/home/me/my_set.py line 12)"
    assert of_network_or_data(RuntimeError(text))


@pytest.mark.slow
def test_the_tool(validated, tmp_path):
    (tmp_path / 'own_nets.py').write_text(
        'import torch\nfrom basicsr.utils.registry import ARCH_REGISTRY\n\n\n@ARCH_REGISTRY.register()\n'
        'class OwnNet(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n'
        '        self.c = torch.nn.Conv2d(3, 3, 1)\n\n    def forward(self, x):\n        if x.shape[-1] == 21:\n'
        '            return self.no_such\n        return self.c(x)\n')
    validated.update(network_g={'type': 'OwnNet'}, custom_imports=['own_nets'], name='tried_validation')
    path = tmp_path / 'options.yml'
    path.write_text(yaml.safe_dump(validated))
    done = subprocess.run([sys.executable, 'tools/check.py', '-opt', str(path)], capture_output=True, text=True,
                          env={'PYTHONPATH': f'{ROOT}:{tmp_path}', 'OMP_NUM_THREADS': '1', 'PATH': ''}, timeout=250,
                          cwd=ROOT)
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    assert "image 'b', 33x21 pixels" in done.stderr.strip().splitlines()[-1]
    assert 'own_nets.py line 13' in done.stderr.strip().splitlines()[-1]
