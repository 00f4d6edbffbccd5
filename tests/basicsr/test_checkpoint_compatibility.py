"""What DILModel saves is read by BasicSR, by Real-ESRGAN's inference and by spandrel, notes and all."""

import copy
import logging

import numpy as np
import pytest
import torch
from basicsr.archs.rrdbnet_arch import RRDBNet
from basicsr.models.base_model import BaseModel

from dil_plugin.basicsr.models.dil_model import DILModel
from dil_plugin.checkpoints import NOTES
from dil_plugin.evaluation.networks import load_network

X4 = {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'scale': 4, 'num_feat': 8, 'num_block': 1, 'num_grow_ch': 32}


@pytest.fixture
def checkpoint(base, pipeline):
    """An RRDBNet x4 of three iterations, with ``params`` and ``params_ema``."""
    opt = copy.deepcopy(base)
    opt.update(scale=4, network_g=X4, distortions=[{'type': 'Downsample', 'scale': 4, 'mode': ['bicubic', 'area']}])
    opt['datasets']['train'].update(gt_size=32)
    opt['train']['total_iter'] = 3
    return pipeline(opt) / 'experiments' / 'run' / 'models' / 'net_g_latest.pth'


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (12, 14, 3), np.uint8)


def expected(checkpoint, image, key):
    """The network's own output, by BasicSR's class alone, as 8 bits."""
    network = RRDBNet(**{name: value for name, value in X4.items() if name != 'type'})
    network.load_state_dict(torch.load(checkpoint, weights_only=True)[key])
    rgb = torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))).float()[None] / 255
    with torch.no_grad():
        return network(rgb)[0]


def as_image(output):
    return (output.clamp(0, 1) * 255).round().byte().numpy().transpose(1, 2, 0)[:, :, ::-1]


def test_the_keys(checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    assert set(content) == {'params', 'params_ema', NOTES}
    assert content[NOTES]['network_g'] == X4
    assert (content[NOTES]['scale'], content[NOTES]['iteration']) == (4, 3)
    assert content[NOTES]['confounders'] == ['Downsample(scale=4)', 'Downsample(scale=4, mode=area)']


def test_an_earlier_checkpoint_says_its_own_iteration(checkpoint):
    assert torch.load(checkpoint.with_name('net_g_2.pth'), weights_only=True)[NOTES]['iteration'] == 2


@pytest.mark.parametrize('key', ['params', 'params_ema'])
def test_basicsr(checkpoint, image, key):
    model = BaseModel({'num_gpu': 0, 'is_train': False})
    network = RRDBNet(**{name: value for name, value in X4.items() if name != 'type'})
    model.load_network(network, str(checkpoint), True, key)
    torch.testing.assert_close(dict(network.state_dict()), dict(torch.load(checkpoint, weights_only=True)[key]))


def test_real_esrgan(checkpoint, image):
    realesrgan = pytest.importorskip('realesrgan')
    network = RRDBNet(**{name: value for name, value in X4.items() if name != 'type'})
    upsampler = realesrgan.RealESRGANer(4, str(checkpoint), model=network, pre_pad=0, device=torch.device('cpu'))
    restored, _ = upsampler.enhance(image)
    np.testing.assert_array_equal(restored, as_image(expected(checkpoint, image, 'params_ema')))


def test_spandrel(checkpoint, image):
    spandrel = pytest.importorskip('spandrel')
    model = spandrel.ModelLoader(device='cpu').load_from_file(checkpoint)
    assert (model.architecture.id, model.scale) == ('ESRGAN', 4)
    rgb = torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))).float()[None] / 255
    with torch.no_grad():
        restored = model(rgb)[0]
    torch.testing.assert_close(restored, expected(checkpoint, image, 'params_ema').clamp(0, 1), atol=1e-6, rtol=0)


def test_ours_needs_no_yaml(checkpoint, image):
    network = load_network(checkpoint)
    assert (network.name, network.scale, network.param_key) == ('RRDBNet', 4, 'params_ema')
    rgb = torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))).float()[None] / 255
    torch.testing.assert_close(network(rgb)[0], expected(checkpoint, image, 'params_ema'))


@pytest.mark.parametrize(('growth', 'told'), [(3, 1), (32, 0)])
def test_what_spandrel_cannot_load_is_said_once(base, parsed, tmp_path, monkeypatch, growth, told):
    base['network_g']['num_grow_ch'] = growth
    records = []
    monkeypatch.setattr(logging.getLogger('basicsr'), 'handle', records.append)
    model = DILModel(parsed(base))
    model.opt['path']['models'] = str(tmp_path)
    for iteration in (1, 2):
        model.save_network(model.net_g, 'net_g', iteration)
    warnings = [record.getMessage() for record in records if record.levelname == 'WARNING']
    said = 'network_g: spandrel and chaiNNer cannot load its checkpoints: num_grow_ch is 3, they know 32 alone.'
    assert warnings.count(said) == told == sum('spandrel' in warning for warning in warnings)
