"""Networks from checkpoints, and their inference at any size."""

import numpy as np
import pytest
import torch
import yaml

from dil_plugin.errors import DataError, OptionError
from dil_plugin.evaluation.networks import RestorationNetwork, build_module, load_network
from dil_plugin.networks.size_needs import SizeNeeds

SMALL = {'type': 'RRDBNetNoUpsample', 'num_feat': 4, 'num_block': 1, 'num_grow_ch': 2}
SWINIR = {'type': 'SwinIR', 'upscale': 1, 'in_chans': 3, 'img_size': 16, 'window_size': 8, 'img_range': 1.,
          'depths': [2], 'embed_dim': 12, 'num_heads': [2], 'mlp_ratio': 2, 'upsampler': '', 'resi_connection': '1conv'}


def rrdbnet(scale):
    return {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'scale': scale, 'num_feat': 4, 'num_block': 1,
            'num_grow_ch': 2}


def images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(('network_g', 'scale', 'multiple'), [
    (SMALL, 1, 1), (SWINIR, 1, 8), (rrdbnet(4), 4, 1), (rrdbnet(2), 2, 2), (rrdbnet(1), 1, 4)])
def test_any_size_is_restored(save_network, network_g, scale, multiple):
    network = load_network(save_network(network_g=network_g, scale=scale))
    assert (network.scale, network.multiple) == (scale, multiple)
    output = network(images(2, 3, 13, 18))
    assert output.shape == (2, 3, 13 * scale, 18 * scale)
    assert output.dtype == torch.float32
    assert not output.requires_grad


@pytest.mark.parametrize('network_g', [SWINIR, rrdbnet(1)])
def test_padding_is_by_reflection(save_network, network_g):
    """As BasicSR's SwinIRModel pads, checked by numpy."""
    network = load_network(save_network(network_g=network_g))
    small = images(1, 3, 13, 18)
    missing = [(0, -side % network.multiple) for side in (13, 18)]
    padded = torch.from_numpy(np.pad(small.numpy(), [(0, 0), (0, 0), *missing], 'reflect'))
    with torch.no_grad():
        expected = network.module(padded)[..., :13, :18]
    torch.testing.assert_close(network(small), expected, rtol=0, atol=0)


def test_padding_beyond_what_can_be_reflected():
    tiny = images(1, 3, 2, 9)
    padded = SizeNeeds(8, 8).pad(tiny)
    assert padded.shape == (1, 3, 8, 16)
    np.testing.assert_array_equal(padded[..., :9], np.pad(tiny.numpy(), [(0, 0), (0, 0), (0, 6), (0, 0)], 'edge'))


def test_parameters_are_those_of_the_file(save_network):
    path = save_network(seed=3)
    state = torch.load(path, weights_only=True)['params']
    network = load_network(path)
    assert all(torch.equal(value, state[name]) for name, value in network.module.state_dict().items())
    assert network.parameters == sum(value.numel() for value in state.values())
    assert not network.module.training


def test_the_average_is_taken_where_there_is_one(save_network):
    torch.manual_seed(9)
    ema = build_module(SMALL, 'test').state_dict()
    path = save_network(seed=1, params_ema=ema)
    assert torch.equal(load_network(path).module.conv_first.weight, ema['conv_first.weight'])
    assert not torch.equal(load_network(path, param_key='params').module.conv_first.weight, ema['conv_first.weight'])
    assert load_network(path).param_key == 'params_ema'


def test_of_several_outputs_the_last_or_the_one_said(save_network):
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, x):
            return [x * self.weight, 0 * x]

    batch = images(1, 3, 4, 4)
    assert torch.equal(RestorationNetwork(Two(), {}, outputs='first')(batch), batch)
    assert RestorationNetwork(Two(), {}, outputs='all')(batch).abs().max() == 0


def test_a_yaml_serves_where_the_checkpoint_says_nothing(save_network, tmp_path):
    path = save_network(notes=False)
    with pytest.raises(OptionError, match=r'net\.pth: does not say what network it is of.*--opt FILE'):
        load_network(path)
    (tmp_path / 'train.yml').write_text(yaml.safe_dump({'network_g': SMALL, 'scale': 1}))
    assert load_network(path, tmp_path / 'train.yml').name == 'RRDBNetNoUpsample'


@pytest.mark.parametrize('notes', [True, False])
def test_a_yaml_says_what_sides_a_network_takes(save_network, tmp_path, notes):
    """As in training; also of a checkpoint whose notes do not say it."""
    path, file = save_network(notes=notes), tmp_path / 'train.yml'
    file.write_text(yaml.safe_dump({'network_g': SMALL, 'val': {'window_size': 6}}))
    assert load_network(path, file).multiple == 6
    for wrong in ('8', 0, True):
        file.write_text(yaml.safe_dump({'network_g': SMALL, 'val': {'window_size': wrong}}))
        with pytest.raises(OptionError, match=r'--opt: .*train\.yml: val\.window_size: expected an integer >= 1, got'):
            load_network(path, file)


def test_a_wrong_scale_is_noticed(save_network, tmp_path):
    path = save_network(notes=False, network_g=rrdbnet(4))
    (tmp_path / 'train.yml').write_text(yaml.safe_dump({'network_g': rrdbnet(4), 'scale': 2}))
    with pytest.raises(OptionError, match=r'RRDBNet: returns \(16, 16\) for an input of \(4, 4\).*scale 2'):
        load_network(path, tmp_path / 'train.yml')(images(1, 3, 4, 4))


@pytest.mark.parametrize(('text', 'error', 'message'), [
    ('network_g: [', OptionError, '--opt: .*train.yml is not a YAML file'),
    ('- 1', OptionError, '--opt: .*train.yml is not a BasicSR options file'),
    ('scale: 1', OptionError, '--opt: .*train.yml has no network_g block'),
    (None, DataError, '--opt: there is no file .*train.yml'),
    ('network_g: {type: RRDBNetNoUpsampl}', OptionError, "unknown architecture 'RRDBNetNoUpsampl'; did you mean "
     "'RRDBNetNoUpsample'"),
    ('network_g: {type: RRDBNetNoUpsample, feat: 3}', OptionError, "network_g: RRDBNetNoUpsample cannot be built: .*"
     "unexpected keyword argument 'feat'"),
    ('{scale: x4, network_g: {type: RRDBNetNoUpsample}}', OptionError, "scale: expected an integer >= 1, got 'x4'"),
    ('{train: {dil: sf}, network_g: {type: RRDBNetNoUpsample}}', OptionError, 'train.dil.outputs: got None; allowed'),
    ('{train: {dil: {outputs: 3}}, network_g: {type: RRDBNetNoUpsample}}', OptionError, 'outputs: got 3; allowed: all'),
    ('network_g: {type: SwinIR, num_heads: [0], depths: [1]}', OptionError, 'SwinIR cannot be built: '),
    ('network_g: {type: RRDBNetNoUpsample, num_feat: 5}', DataError, 'net.pth: its parameters are not those of '
     'RRDBNetNoUpsample with the options .*missing .as body.1.*shape .4, 3, 3, 3., expected .5, 3, 3, 3.'),
])
def test_yaml_files_that_do_not_serve(save_network, tmp_path, text, error, message):
    if text is not None:
        (tmp_path / 'train.yml').write_text(text)
    with pytest.raises(error, match=message):
        load_network(save_network(notes=False), tmp_path / 'train.yml')


def test_an_architecture_of_ones_own_needs_its_module(save_network, tmp_path, monkeypatch):
    path = save_network()
    content = torch.load(path, weights_only=True)
    content['dil_plugin'].update(network_g={'type': 'MyOwnNet'}, custom_imports=['my_own_net'])
    torch.save(content, path)
    with pytest.raises(OptionError, match=r"unknown architecture 'MyOwnNet'; give --opt FILE, a YAML whose "
                       r"custom_imports lists the module that registers it \(my_own_net in its training\)$"):
        load_network(path)
    (tmp_path / 'my_own_net.py').write_text(
        'from basicsr.utils.registry import ARCH_REGISTRY\n'
        'from dil_plugin.basicsr.archs.rrdb_no_upsample_arch import RRDBNetNoUpsample\n'
        '@ARCH_REGISTRY.register()\n'
        'class MyOwnNet(RRDBNetNoUpsample):\n'
        '    def __init__(self):\n'
        '        super().__init__(num_feat=4, num_block=1, num_grow_ch=2)\n')
    (tmp_path / 'own.yml').write_text('custom_imports: [my_own_net]\n')
    monkeypatch.syspath_prepend(tmp_path)
    assert load_network(path, tmp_path / 'own.yml').name == 'MyOwnNet'


def test_other_channels_are_refused(save_network):
    network = load_network(save_network(network_g={**SMALL, 'num_in_ch': 1, 'num_out_ch': 1}))
    assert network.channels == 1
    with pytest.raises(OptionError, match='takes images of 1 channels, got 3'):
        network(images(1, 3, 4, 4))


@pytest.mark.parametrize('side', [16, 13])
def test_a_network_that_works_in_place(side):
    """It gets a copy, padded or not; what it returns does not lie in the batch."""

    class InPlace(torch.nn.Conv2d):

        def forward(self, x):
            x -= 0.5
            return x

    network = RestorationNetwork(InPlace(3, 3, 1), {}, window_size=8)
    batch = images(2, 3, side, side)
    before = batch.clone()
    output = network(batch)
    torch.testing.assert_close(output, before - 0.5)
    assert torch.equal(batch, before)
