"""test.py measures the parameters that restore.py and reproduce.py take, and the log says which they are."""

import copy

import pytest
import torch

import dil_plugin.basicsr  # noqa: F401
from dil_plugin.basicsr.models.dil_model import DILModel
from dil_plugin.errors import DataError
from dil_plugin.evaluation.networks import build_module, load_network


@pytest.fixture
def checkpoint(base, tmp_path):
    """With params and params_ema that differ."""
    states = {}
    for seed, key in enumerate(('params', 'params_ema')):
        torch.manual_seed(seed)
        states[key] = build_module(base['network_g'], '').state_dict()
    torch.save(states, tmp_path / 'net_g.pth')
    return tmp_path / 'net_g.pth'


def to_test(base, checkpoint, **path):
    opt = copy.deepcopy(base)
    block = opt['datasets'].pop('train')
    opt['datasets']['test_1'] = {
        'name': 'noise', 'type': 'DistortionAugmentedDataset', 'dataroot_gt': block['dataroot_gt'],
        'io_backend': {'type': 'disk'}, 'distortions': [{'type': 'GaussianNoise', 'sigma': 10}]}
    opt['path'] = {'pretrain_network_g': str(checkpoint), **path}
    opt['val'] = {'save_img': False, 'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}}
    return opt


@pytest.mark.parametrize('model', ['DILModel', 'SRModel'])
@pytest.mark.parametrize(('given', 'taken'), [({}, 'params_ema'), ({'param_key_g': 'params'}, 'params')])
def test_a_test_takes_what_the_other_tools_take(base, checkpoint, pipeline, model, given, taken):
    opt = {**to_test(base, checkpoint, **given), 'model_type': model}
    if model == 'SRModel':
        opt['distortions'] = None
    log, = (pipeline(opt, 'test') / 'results/run').glob('test_*.log')
    assert f'param key: [{taken}]' in log.read_text()
    network = load_network(checkpoint, tmp_options(checkpoint, base), given.get('param_key_g'))
    assert network.param_key == taken


def tmp_options(checkpoint, base):
    import yaml
    path = checkpoint.with_suffix('.yml')
    path.write_text(yaml.safe_dump({'network_g': base['network_g'], 'scale': 1}))
    return path


def test_the_rule_is_one_of_tests(base, checkpoint, parsed):
    """Training begins with params, as BasicSR's; a file without params_ema, or a bare one, is tested as it is."""
    assert parsed(to_test(base, checkpoint), False)['path']['param_key_g'] == 'params_ema'
    training = copy.deepcopy(base)
    training['path']['pretrain_network_g'] = str(checkpoint)
    assert 'param_key_g' not in parsed(training)['path']
    content = torch.load(checkpoint, weights_only=True)
    for one in ({'params': content['params']}, dict(content['params'])):
        torch.save(one, checkpoint)
        assert parsed(to_test(base, checkpoint), False)['path']['param_key_g'] == 'params'
    with pytest.raises(DataError, match='there is no file'):
        parsed({**to_test(base, checkpoint.with_name('none.pth')), 'model_type': 'SRModel'}, False)


@pytest.mark.parametrize(('keys', 'wanted', 'lines'), [
    (['params'], 'params', [('INFO', "The moving average (train.ema_decay) begins at 'params': {} has no "
                                     "'params_ema'.")]),
    (['params'], 'params_ema', [
        ('WARNING', "path.pretrain_network_g: 'params' is taken: {} has no 'params_ema', which path.param_key_g asks "
                    'for.'),
        ('INFO', "The moving average (train.ema_decay) begins at 'params': {} has no 'params_ema'.")]),
    (['params', 'params_ema'], 'params', []),
])
def test_the_log_says_why_other_parameters_are_taken(base, checkpoint, parsed, caplog, monkeypatch, keys, wanted,
                                                      lines):
    content = torch.load(checkpoint, weights_only=True)
    torch.save({key: content[key] for key in keys}, checkpoint)
    base['path'] = {'pretrain_network_g': str(checkpoint), 'param_key_g': wanted, 'resume_state': None}
    records = []
    logger = __import__('logging').getLogger('basicsr')
    monkeypatch.setattr(logger, 'handle', records.append)
    model = DILModel(parsed(base))
    said = [(record.levelname, record.getMessage()) for record in records if str(checkpoint) in record.getMessage()]
    loaded = [text for _, text in said if text.startswith('Loading ')]
    assert [text.startswith('Loading the moving average of ') for text in loaded] == [False, True]
    assert [(level, text) for level, text in said if text not in loaded] == \
        [(level, text.format(checkpoint)) for level, text in lines]
    assert torch.equal(model.net_g_ema.conv_first.weight, content[keys[-1]]['conv_first.weight'])


@pytest.fixture
def two_outputs(base, tmp_path):
    """A network of several outputs, trained with ``outputs: first``, and its checkpoint."""
    from basicsr.utils.registry import ARCH_REGISTRY

    class TwoOutputs(torch.nn.Module):

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(0.9))

        def forward(self, x):
            return [self.weight * x, x]

    ARCH_REGISTRY._obj_map.setdefault('ScaledAndItselfForTest', TwoOutputs)
    base['network_g'] = {'type': 'ScaledAndItselfForTest'}
    notes = {'network_g': base['network_g'], 'outputs': 'first', 'window_size': 12}
    torch.save({'params': TwoOutputs().state_dict(), 'dil_plugin': notes}, tmp_path / 'two.pth')
    return tmp_path / 'two.pth'


@pytest.mark.parametrize(('train', 'factor'), [
    ({}, 0.9), ({'train': None}, 0.9), ({'train': {'dil': {'variant': 'sf'}}}, 0.9),
    ({'train': {'dil': {'outputs': 'last'}}}, 1), ({'train': {'dil': {'outputs': 'all'}}}, 1)])
def test_a_test_restores_with_the_output_of_the_training(base, two_outputs, parsed, train, factor):
    opt = {**{k: v for k, v in to_test(base, two_outputs).items() if k != 'train'}, **train}
    model = DILModel(parsed(opt, False))
    image = torch.rand(1, 3, 24, 24)
    model.feed_data({'lq': image})
    model.test()
    assert torch.equal(model.output, torch.tensor(factor) * image)
    if factor == 0.9:
        assert torch.equal(load_network(two_outputs)(image), model.output)


@pytest.mark.parametrize(('given', 'taken'), [(None, 12), (6, 6)])
def test_a_test_pads_as_the_training_did(base, two_outputs, parsed, given, taken):
    opt = to_test(base, two_outputs)
    opt['val'] |= {} if given is None else {'window_size': given}
    assert parsed(opt, False)['val']['window_size'] == taken


@pytest.mark.parametrize('model', ['DILModel', 'SRModel'])
def test_restored_images_are_written_without_a_suffix(base, checkpoint, pipeline, model):
    opt = {**to_test(base, checkpoint), 'model_type': model}
    opt['val'] = {'save_img': True}
    if model == 'SRModel':
        opt['distortions'] = None
    written = [path.name for path in (pipeline(opt, 'test') / 'results/run/visualization/noise').iterdir()]
    assert len(written) == 6
    assert 'astronaut_0_run.png' in written
