"""The evaluation: its scores, its batches, what it keeps, and that it continues."""

import hashlib
import json
import sys
import time
import types

import cv2
import numpy as np
import pytest
import scipy.io
import torch
import yaml

from dil_plugin.distortions import GaussianNoise
from dil_plugin.errors import DataError, OptionError
from dil_plugin.evaluation.benchmark_sets import open_benchmark
from dil_plugin.evaluation.inputs import DistortedSet, to_image
from dil_plugin.evaluation.metrics import psnr_ssim
from dil_plugin.evaluation.networks import RestorationNetwork, load_network
from dil_plugin.evaluation.reproduce import reproduce, write_report
from dil_plugin.evaluation.reproduce_options import make_plan, read_options
from dil_plugin.evaluation.run_networks import RunNetworks
from dil_plugin.evaluation.score_store import ScoreStore

NOISE = {
    'name': 'own', 'title': 'Noise', 'datasets': ['Set5', 'Set14'],
    'conditions': [{'name': '10', 'seen': True, 'distortion': {'type': 'GaussianNoise', 'sigma': 10}},
                   {'name': '30', 'distortion': {'type': 'GaussianNoise', 'sigma': 30}}],
}
PAIRS_X4 = {'name': 'own', 'title': 'Pairs', 'datasets': ['RealSR V3'], 'scale': 4, 'channel': 'Y',
            'conditions': [{'name': 'x4'}]}
SMALL = {'type': 'RRDBNetNoUpsample', 'num_feat': 4, 'num_block': 1, 'num_grow_ch': 2}
X4 = {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'scale': 4, 'num_feat': 4, 'num_block': 1, 'num_grow_ch': 2}


@pytest.fixture
def plan(data, tmp_path, save_network):
    """Makes a plan for two runs on two small sets; keyword arguments replace options."""
    runs = {'ERM': str(save_network('erm.pth', seed=0)), 'DIL_sf': str(save_network('sf.pth', seed=1))}

    def make(**options):
        return make_plan(read_options(None, {'protocol': NOISE, 'data': str(data), 'runs': runs, 'device': 'cpu',
                                             'output': str(tmp_path / 'out'), **options}))

    return make


@pytest.fixture
def calls(monkeypatch):
    """Shapes of all batches that networks are given."""
    shapes = []
    original = RestorationNetwork.__call__

    def call(self, batch):
        shapes.append(tuple(batch.shape))
        return original(self, batch)

    monkeypatch.setattr(RestorationNetwork, '__call__', call)
    return shapes


def values(results):
    return {(s.run, s.dataset, s.condition, s.image): s.metrics for s in results.scores}


def test_scores_are_those_of_single_images(plan, data):
    """Written out with the network, the noise and BasicSR's metrics alone."""
    one = plan(batch=3, channel='Y', crop_border=2)
    results = reproduce(one)
    network = load_network(one.runs['DIL_sf'])
    for dataset in ('Set5', 'Set14'):
        inputs = DistortedSet(open_benchmark(dataset, data), GaussianNoise(sigma=30))
        for name in inputs.benchmark.names:
            item = inputs.load(name)
            for run, image in (('input', item.lq), ('DIL_sf', network(item.lq[None])[0])):
                expected = psnr_ssim(to_image(image), item.gt, 'Y', 2)
                assert values(results)[run, dataset, '30', name] == pytest.approx(expected, abs=2e-3)
    assert len(results.scores) == 3 * 5 * 2
    assert results.settings['device'] == 'CPU'


def test_each_run_says_which_parameters_it_has(plan, save_network, capsys):
    ema = torch.load(save_network(seed=3), weights_only=True)['params']
    path = save_network('ema.pth', params_ema=ema)
    assert RunNetworks(plan(runs={'ERM': str(path)})).runs[0].param_key == 'params_ema'
    assert RunNetworks(plan(runs={'ERM': str(path)}, param_key='params')).runs[0].param_key == 'params'
    assert capsys.readouterr().err.splitlines() == [
        f'ERM: {path}: params_ema, the moving average of the weights (params, the weights without averaging, are in '
        'the file too)', f'ERM: {path}: params (params_ema, their moving average, is in the file too)']


def test_batches_are_of_equal_size(plan, calls):
    reproduce(plan(batch=2, conditions=['30'], datasets=['Set5'], pictures=0))
    assert sorted(calls) == sorted(2 * [(2, 3, 40, 48), (1, 3, 48, 40)])


def test_batches_and_tiles_change_nothing_but_rounding(plan, tmp_path):
    whole = values(reproduce(plan(tile=0, output=str(tmp_path / 'a'))))
    tiled = values(reproduce(plan(tile=16, overlap=24, batch=4, output=str(tmp_path / 'b'))))
    assert whole.keys() == tiled.keys()
    for key in whole:
        assert whole[key] == pytest.approx(tiled[key], abs=2e-3)


def test_large_images_are_restored_in_tiles(plan, calls):
    reproduce(plan(tile=20, overlap=0, datasets=['Set14'], conditions=['30'], pictures=0))
    assert max(max(shape[2:]) for shape in calls if shape[0] == 1) <= 20  # three at once: whether tiles matter


def test_a_finished_evaluation_computes_nothing(plan, calls):
    first = reproduce(plan())
    calls.clear()
    assert values(reproduce(plan())) == values(first)
    assert calls == []


def test_an_interrupted_evaluation_continues(plan, calls, monkeypatch):
    """Ctrl-C inside of a set, while the eighth image is restored: seven have scores and are not restored again."""
    uninterrupted = reproduce(plan(output=str(plan().output) + '_whole'))
    total = len(calls)
    calls.clear()
    counted = RestorationNetwork.__call__

    def interrupted(self, batch):
        if len(calls) == 7:
            raise KeyboardInterrupt
        return counted(self, batch)

    def slow(*arguments):  # so that the last scores are still awaited
        time.sleep(0.1)
        return psnr_ssim(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(RestorationNetwork, '__call__', interrupted)
        patch.setattr('dil_plugin.evaluation.runner.psnr_ssim', slow)
        with pytest.raises(KeyboardInterrupt):
            reproduce(plan())
    lines = (plan().output / 'scores.jsonl').read_bytes().splitlines()
    assert sum(b'"run":"ERM"' in line for line in lines) == 7
    calls.clear()
    results = reproduce(plan())
    assert values(results) == values(uninterrupted)
    assert len(calls) == total - 7
    assert [picture.files for picture in results.pictures] == [picture.files for picture in uninterrupted.pictures]


def test_a_run_added_later_computes_itself_alone(plan, calls, save_network):
    first = plan()
    reproduce(first)
    calls.clear()
    runs = {**{name: str(path) for name, path in first.runs.items()}, 'DIL_ps': str(save_network('ps.pth', seed=2))}
    results = reproduce(plan(runs=runs))
    assert len(calls) == 10
    assert len(results.scores) == 40


def test_another_checkpoint_of_the_same_name_is_refused(plan, save_network):
    reproduce(plan())
    save_network('erm.pth', seed=9)
    with pytest.raises(OptionError, match='scores of another checkpoint, network or param_key for run ERM'):
        reproduce(plan())
    assert len(reproduce(plan(overwrite=True)).scores) == 30


def test_other_noise_is_refused(plan):
    reproduce(plan())
    with pytest.raises(OptionError, match='measured with seed 0, now it is 1'):
        reproduce(plan(seed=1))


@pytest.mark.parametrize('change', [{'channel': 'Y'}, {'crop_border': 3}, {'tile': 100}, {'overlap': 3}])
def test_other_settings_are_refused(plan, change):
    reproduce(plan())
    name, value = next(iter(change.items()))
    with pytest.raises(OptionError, match=f'measured with {name} .*, now it is {value}'):
        reproduce(plan(**change))


def test_other_parameters_of_the_checkpoint_are_refused(plan, save_network):
    ema = torch.load(save_network('other.pth', seed=5), weights_only=True)['params']
    save_network('erm.pth', seed=0, params_ema=ema)
    reproduce(plan())
    with pytest.raises(OptionError, match='another checkpoint, network or param_key for run ERM'):
        reproduce(plan(param_key='params'))


def test_another_architecture_of_the_same_parameters_is_refused(plan, save_network, tmp_path):
    swinir = {'type': 'SwinIR', 'upscale': 1, 'in_chans': 3, 'img_size': 16, 'window_size': 8, 'depths': [1],
              'embed_dim': 6, 'num_heads': [1], 'mlp_ratio': 1, 'upsampler': '', 'resi_connection': '1conv'}
    runs = {'ERM': str(save_network('swin.pth', {**swinir, 'img_range': 1.}, notes=False))}
    for img_range in (1., 255.):
        (tmp_path / f'{img_range:g}.yml').write_text(yaml.safe_dump({'network_g': {**swinir, 'img_range': img_range}}))
    reproduce(plan(runs=runs, limit=1, opt=str(tmp_path / '1.yml')))
    with pytest.raises(OptionError, match='another checkpoint, network or param_key for run ERM'):
        reproduce(plan(runs=runs, limit=1, opt=str(tmp_path / '255.yml')))


def test_another_window_size_of_the_yaml_is_refused(plan, save_network, tmp_path):
    runs = {'ERM': str(save_network('own.pth', notes=False))}
    for size in (None, 16, 64):
        val = {'val': {'window_size': size}} if size else {}
        (tmp_path / f'{size}.yml').write_text(yaml.safe_dump({'network_g': SMALL, **val}))
    identities = [RunNetworks(plan(runs=runs, opt=str(tmp_path / f'{size}.yml'))).identities['ERM']
                  for size in (None, 16, 64)]
    assert len(set(identities)) == 3
    reproduce(plan(runs=runs, limit=1, opt=str(tmp_path / '16.yml')))
    with pytest.raises(OptionError, match='another checkpoint, network or param_key for run ERM'):
        reproduce(plan(runs=runs, limit=1, opt=str(tmp_path / '64.yml')))


def test_scores_of_earlier_versions_stay(plan, save_network):
    """Their identities: of network, scale and outputs. A window size in the checkpoint is part of its digest."""
    path = save_network('own.pth')
    content = torch.load(path, weights_only=True)
    for size in (None, 16):
        content['dil_plugin']['window_size'] = size
        torch.save(content, path)
        networks = RunNetworks(plan(runs={'ERM': str(path)}))
        facts = json.dumps([SMALL, 1, 'all'], sort_keys=True)
        digests = [hashlib.sha256(one).hexdigest() for one in (path.read_bytes(), facts.encode())]
        assert networks.identities['ERM'] == f'{digests[0]} params {digests[1][:12]}'


def test_other_images_of_the_same_names_are_measured(plan, data, calls, tmp_path):
    first = reproduce(plan())
    calls.clear()
    cv2.imwrite(str(data / 'Set5' / 'img_2.png'), np.full((40, 48, 3), 90, np.uint8))
    second = reproduce(plan())
    assert len(calls) == 2 * 2
    changed = {key for key, metrics in values(second).items() if metrics != values(first)[key]}
    assert changed == {key for key in values(first) if key[1] == 'Set5' and key[3] == 'img_2'}


def test_an_output_that_is_not_finite_is_a_failure(plan, save_network):
    path = save_network('nan.pth')
    content = torch.load(path, weights_only=True)
    content['params']['conv_last.bias'][0] = float('nan')
    torch.save(content, path)
    results = reproduce(plan(runs={'ERM': str(path)}, conditions=['30']))
    assert {(s.run, s.error[-20:]) for s in results.failures} == {('ERM', 'output is not finite')}
    assert len(results.failures) == 5
    assert len(results.scores) == 10


@pytest.mark.parametrize(('error', 'words'), [
    (RuntimeError('Kernel size\ncannot be greater'), 'Kernel size cannot be greater'),
    (AssertionError('sides must be multiples of 4'), 'sides must be multiples of 4'),
    (AssertionError(), 'AssertionError'),
    (KeyError('mask'), "KeyError: 'mask'"), (OptionError('Net: returns (8, 8)'), 'Net: returns (8, 8)'),
])
def test_a_network_that_fails_on_an_image(plan, monkeypatch, error, words):
    original = RestorationNetwork.__call__

    def fails(self, batch):
        if batch.shape[-1] == 41:
            raise error
        return original(self, batch)

    monkeypatch.setattr(RestorationNetwork, '__call__', fails)
    results = reproduce(plan(conditions=['30']))
    assert {(s.run, s.image, s.error) for s in results.failures} == {
        (run, 'img_0', f'{run}: {words}') for run in ('ERM', 'DIL_sf')}


def test_a_network_that_returns_no_tensor_does_not_stop_the_other_runs(plan, monkeypatch):
    class ReturnsDict(torch.nn.Conv2d):
        def forward(self, batch):
            return {'image': batch}

    original = RunNetworks.load

    def load(self, name, device):
        loaded = original(self, name, device)
        if name == 'ERM':
            loaded.module = ReturnsDict(3, 3, 1)
        return loaded

    monkeypatch.setattr(RunNetworks, 'load', load)
    results = reproduce(plan(conditions=['30']))
    assert {(s.run, s.error) for s in results.failures} == {
        ('ERM', 'ERM: RRDBNetNoUpsample: the network must return a tensor or a list of tensors, got dict')}
    assert sum(s.run == 'DIL_sf' and s.error is None for s in results.scores) == 5
    reports = {path.name for path in write_report(results, plan().output)}
    assert {'table.md', 'report.html'} <= reports


def test_tiles_that_change_the_result_are_told_once_for_a_run(plan, monkeypatch, capsys):
    def attentive(self, batch):
        return 0.5 * batch + 0.5 * batch.mean((1, 2, 3), keepdim=True)

    monkeypatch.setattr(RestorationNetwork, '__call__', attentive)
    reproduce(plan(tile=20, overlap=8))
    told = capsys.readouterr().err
    for run in ('ERM', 'DIL_sf'):
        assert told.count(f'warning: {run}: the network looks at the whole image (pixels 64 away') == 1


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(plan, monkeypatch):
    append, left = ScoreStore._append, [9]

    def full(self, content):
        left[0] -= 1
        if not left[0]:
            raise self._unwritable(OSError(28, 'No space left on device'))
        append(self, content)

    monkeypatch.setattr(ScoreStore, '_append', full)
    with pytest.raises(DataError, match=r'scores.jsonl cannot be written \(No space left on device\); what was '
                       'measured before is kept'):
        reproduce(plan(conditions=['30']))
    left[0] = 10**6
    assert not reproduce(plan(conditions=['30'])).failures


def test_a_border_that_leaves_nothing(plan):
    results = reproduce(plan(crop_border=20, conditions=['30']))
    assert all('nothing left inside a border of 20' in s.error for s in results.failures if s.dataset == 'Set5')
    assert {s.image for s in results.failures if s.dataset == 'Set5'} == {'img_0', 'img_1', 'img_2'}


class Metric(torch.nn.Module):
    lower_better = True

    def forward(self, restored, clean):
        if restored.shape[-1] == 41:
            raise AssertionError('too small')
        return (restored - clean).abs().mean()


def test_further_metrics(plan, monkeypatch):
    module = types.ModuleType('pyiqa')
    module.__spec__ = types.SimpleNamespace()
    module.list_models, module.create_metric = lambda: ['mae', 'psnr'], lambda name, device: Metric()
    monkeypatch.setitem(sys.modules, 'pyiqa', module)
    results = reproduce(plan(metrics=['mae'], conditions=['30']))
    assert (results.metrics, results.lower_is_better) == (['psnr', 'ssim', 'mae'], ['mae'])
    assert {(s.image, s.error) for s in results.failures} == {('img_0', '--metric: img_0: too small')}
    for picture in (one for one in results.pictures if one.dataset == 'Set5'):
        images = {name: cv2.imread(str(plan().output / file)).astype(int) for name, file in picture.files.items()}
        expected = np.abs(images['ERM'] - images['clean']).mean() / 255
        assert values(results)['ERM', picture.dataset, '30', picture.image]['mae'] == pytest.approx(expected, rel=1e-4)
    with pytest.raises(OptionError, match='--metric psnr: is always there'):
        reproduce(plan(metrics=['psnr']))
    with pytest.raises(OptionError, match='--metric mae: given twice'):
        reproduce(plan(metrics=['mae', 'mae']))


def test_overwriting_removes_what_an_evaluation_wrote_and_nothing_else(plan):
    out = plan().output
    (out / 'images').mkdir(parents=True)
    (out / 'images' / 'mine.png').write_bytes(b'mine')
    reproduce(plan(overwrite=True))
    assert (out / 'images' / 'mine.png').exists()
    stale = out / 'images' / 'Set5' / '30' / 'img_0' / 'old_run.png'
    stale.parent.mkdir(parents=True, exist_ok=True)
    stale.write_bytes(b'')
    reproduce(plan(overwrite=True))
    assert not stale.exists()


def test_a_gpu_without_enough_memory(plan, monkeypatch):
    def full(self, batch):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory')

    monkeypatch.setattr(RestorationNetwork, '__call__', full)
    with pytest.raises(DataError, match='--batch 1, --tile 768: 1 images of 48 pixels do not fit .*smaller --batch'):
        reproduce(plan())


def test_a_damaged_set_does_not_stop_the_others(plan, data):
    (data / 'SIDD').mkdir()
    for name in ('ValidationGtBlocksSrgb', 'ValidationNoisyBlocksSrgb'):
        (data / 'SIDD' / f'{name}.mat').write_bytes(b'damaged')
    results = reproduce(plan(datasets=['SIDD', 'Set5']))
    assert [one.dataset for one in results.skipped] == ['SIDD']
    assert 'Blocks' in results.skipped[0].reason
    assert results.datasets == ['Set5']


def test_limit_and_conditions(plan):
    results = reproduce(plan(limit=1, conditions=['30']))
    assert {(s.dataset, s.condition, s.image) for s in results.scores} == {('Set5', '30', 'img_0'),
                                                                          ('Set14', '30', 'img_0')}
    assert results.limit == 1
    assert len(reproduce(plan()).scores) == 30  # and the rest later, into the same folder
    assert reproduce(plan(limit=1, conditions=['30'])).scores == results.scores  # what else is there is left out
    erm = reproduce(plan(runs={'ERM': str(plan().runs['ERM'])}))
    assert {s.run for s in erm.scores} == {'input', 'ERM'}


def test_pictures_are_kept_of_the_tabulated_conditions(plan):
    results = reproduce(plan(pictures=1))
    assert [(p.dataset, p.condition) for p in results.pictures] == [
        (dataset, condition) for dataset in ('Set5', 'Set14') for condition in ('10', '30')]
    for picture in results.pictures:
        assert list(picture.files) == ['input', 'ERM', 'DIL_sf', 'clean']
        images = {name: cv2.imread(str(plan().output / file)) for name, file in picture.files.items()}
        for name in ('input', 'ERM', 'DIL_sf'):
            expected = values(results)[name, picture.dataset, picture.condition, picture.image]
            assert psnr_ssim(images[name], images['clean']) == pytest.approx(expected)


@pytest.mark.parametrize('size', [(40, 48), (44, 40)])
def test_the_clean_picture_is_that_of_an_image_that_was_replaced(plan, data, size):
    options = {'pictures': 1, 'datasets': ['Set5'], 'conditions': ['30']}
    name = reproduce(plan(**options)).pictures[0].image
    cv2.imwrite(str(data / 'Set5' / f'{name}.png'), np.full((*size, 3), 90, np.uint8))
    results = reproduce(plan(**options))
    picture, = results.pictures
    images = {run: cv2.imread(str(plan().output / file)) for run, file in picture.files.items()}
    np.testing.assert_array_equal(images['clean'], np.full((*size, 3), 90, np.uint8))
    assert {image.shape for image in images.values()} == {(*size, 3)}
    write_report(results, plan().output)


def test_inputs_can_be_written(plan, data):
    one = plan(save_inputs=True, limit=2)
    reproduce(one)
    files = sorted(path.relative_to(one.output / 'inputs').as_posix() for path in one.output.glob('inputs/*/*/*'))
    assert files == [f'{dataset}/{condition}/img_{k}.png' for dataset in ('Set14', 'Set5')
                     for condition in ('10', '30') for k in (0, 1)]
    stored = cv2.imread(str(one.output / 'inputs' / 'Set5' / '30' / 'img_1.png'), cv2.IMREAD_UNCHANGED)
    expected = DistortedSet(open_benchmark('Set5', data), GaussianNoise(sigma=30)).load('img_1').lq
    assert np.abs(stored[:, :, ::-1].transpose(2, 0, 1) / 65535 - expected.numpy()).max() < 1e-5


def test_inputs_are_written_later_too(plan):
    reproduce(plan())
    reproduce(plan(save_inputs=True))
    assert len(list(plan().output.glob('inputs/*/*/*.png'))) == 10


def test_broken_images_do_not_stop_the_rest(plan, data):
    (data / 'Set5' / 'img_1.png').write_bytes((data / 'Set5' / 'img_1.png').read_bytes()[:200])
    results = reproduce(plan(conditions=['30']))
    assert {(s.run, s.image) for s in results.failures} == {(run, 'img_1') for run in ('input', 'ERM', 'DIL_sf')}
    assert all('img_1.png' in s.error and 'truncated' in s.error for s in results.failures)
    assert len(results.scores) - len(results.failures) == 12
    cv2.imwrite(str(data / 'Set5' / 'img_1.png'), np.full((40, 40, 3), 90, np.uint8))
    assert not reproduce(plan(conditions=['30'])).failures


def test_missing_sets_are_skipped_by_name(plan, data):
    results = reproduce(plan(datasets=['CBSD68', 'Set5']))
    assert [one.dataset for one in results.skipped] == ['CBSD68']
    assert 'looked in' in results.skipped[0].reason
    assert results.datasets == ['Set5']
    with pytest.raises(DataError, match='--data: none of the test sets can be read in .*CBSD68: is not there'):
        reproduce(plan(datasets=['CBSD68', 'Kodak24']))


def test_folders_of_ones_own(plan, data, save_network):
    (data / 'Set5').rename(data / 'Mine')
    results = reproduce(plan(protocol={**NOISE, 'datasets': ['Mine']}, limit=1))
    assert results.datasets == ['Mine']
    pairs_folder(data).rename(data / 'MyPairs')
    results = reproduce(plan(protocol={**PAIRS_X4, 'datasets': ['MyPairs']}, overwrite=True,
                             runs={'ERM': str(save_network('x4.pth', X4, 4))}))
    assert {s.image for s in results.scores} == {'Canon_001', 'Canon_002', 'Nikon_001'}
    assert not results.failures


def pairs_folder(data):
    folder = data / 'RealSR'
    rng = np.random.default_rng(0)
    for name, size in {'Canon_001': (8, 9), 'Canon_002': (8, 9), 'Nikon_001': (7, 5)}.items():
        for part, scale in (('HR', 4), ('LR', 1)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (size[0] * scale, size[1] * scale, 3), np.uint8)
            cv2.imwrite(str(folder / part / f'{name}.png'), pixels)
    return folder


def test_pairs(plan, data, save_network):
    """Pairs of other sizes and without partner are named, the others are measured."""
    from basicsr.utils.matlab_functions import imresize
    folder = pairs_folder(data)
    cv2.imwrite(str(folder / 'LR' / 'Canon_002.png'), np.zeros((9, 9, 3), np.uint8))
    (folder / 'LR' / 'Nikon_001.png').unlink()
    results = reproduce(plan(protocol=PAIRS_X4, runs={'ERM': str(save_network('x4.pth', X4, 4))}))
    errors = {s.image: s.error for s in results.failures if s.run == 'ERM'}
    assert set(errors) == {'Canon_002', 'Nikon_001'}
    assert 'Canon_002.png' in errors['Canon_002']
    assert 'partner' in errors['Nikon_001']
    lq, gt = (cv2.imread(str(folder / part / 'Canon_001.png')) for part in ('LR', 'HR'))
    rgb = torch.from_numpy(lq[:, :, ::-1].transpose(2, 0, 1).copy()).float() / 255
    expected = psnr_ssim(to_image(imresize(rgb, 4)), gt, 'Y')
    assert values(results)['input', 'RealSR V3', 'x4', 'Canon_001'] == pytest.approx(expected)


def test_networks_of_another_scale_or_other_channels(plan, save_network):
    with pytest.raises(OptionError, match='--run ERM=.*x4.pth: the network enlarges by 4, but the table own is of '
                       'scale 1'):
        reproduce(plan(runs={'ERM': str(save_network('x4.pth', X4, 4))}))
    grey = {'type': 'RRDBNetNoUpsample', 'num_feat': 4, 'num_block': 1, 'num_in_ch': 1, 'num_out_ch': 1}
    with pytest.raises(OptionError, match='takes 1 channels'):
        reproduce(plan(runs={'ERM': str(save_network('grey.pth', grey))}))


def test_a_broken_checkpoint_leaves_earlier_scores(plan):
    reproduce(plan())
    before = (plan().output / 'scores.jsonl').read_bytes()
    plan().runs['ERM'].write_bytes(b'nothing')
    with pytest.raises(DataError, match=r'erm\.pth cannot be read as a checkpoint'):
        reproduce(plan())
    assert (plan().output / 'scores.jsonl').read_bytes() == before


def test_dnd_is_written_for_its_server(plan, tmp_path, save_network, monkeypatch):
    """Two crops of an image of noise; no scores, as the clean images are not public."""
    h5py = pytest.importorskip('h5py')
    monkeypatch.setattr('dil_plugin.evaluation.benchmark_sets.dnd_submission.NAMES', ('0001_01', '0001_02'))
    monkeypatch.setattr('dil_plugin.evaluation.benchmark_sets.dnd_submission.BOXES', 2)
    folder = tmp_path / 'sets' / 'DND'
    (folder / 'images_srgb').mkdir(parents=True)
    noisy = np.random.default_rng(0).random((40, 50, 3), np.float32)
    with h5py.File(folder / 'images_srgb' / '0001.mat', 'w') as file:
        file['InoisySRGB'] = noisy.transpose(2, 1, 0)  # MATLAB's order
    with h5py.File(folder / 'info.mat', 'w') as file:
        boxes = file.create_dataset('boxes', data=np.array([[1, 1, 16, 16], [5, 9, 20, 24]], np.float64).T)
        file.create_dataset('info/boundingboxes', (1, 1), h5py.ref_dtype)[0, 0] = boxes.ref
    protocol = {'name': 'own', 'title': 'Real', 'datasets': ['DND'], 'conditions': [{'name': 'real'}]}
    one = plan(protocol=protocol, data=str(tmp_path / 'sets'), limit=2)
    results = reproduce(one)
    assert results.scores == []
    assert 'submissions' in results.remarks['DND']
    bundled, = one.output.glob('dnd/ERM_*/bundled')
    stored = scipy.io.loadmat(bundled / '0001.mat')['Idenoised'][0]
    rgb = np.round(noisy[4:20, 8:24] * 255).astype(np.float32) / 255
    expected = load_network(one.runs['ERM'])(torch.from_numpy(rgb.transpose(2, 0, 1))[None])[0].clamp(0, 1)
    np.testing.assert_allclose(stored[1], expected.permute(1, 2, 0).numpy(), atol=1e-6)
    calls = []
    monkeypatch.setattr(RestorationNetwork, '__call__', lambda self, batch: calls.append(1) or batch)
    reproduce(one)
    assert calls == []
    save_network('erm.pth', seed=8)  # another checkpoint under the same name
    reproduce(plan(protocol=protocol, data=str(tmp_path / 'sets'), limit=2))
    assert len(calls) == 2


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')
def test_a_gpu_gives_the_scores_of_the_cpu(plan, tmp_path):
    """The same inputs; convolutions in TF32 move an 8-bit value here and there."""
    results = [reproduce(plan(device=device, output=str(tmp_path / device), batch=2)) for device in ('cpu', 'cuda')]
    cpu, cuda = map(values, results)
    assert cpu.keys() == cuda.keys()
    for key in cpu:
        assert cuda[key] == pytest.approx(cpu[key], abs=0.05)
        assert key[0] != 'input' or cuda[key] == cpu[key]
    assert results[1].settings['device'] == torch.cuda.get_device_name()
