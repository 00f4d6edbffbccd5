"""``network_g.bias: false``: Mohan et al.'s bias-free network, in training, in checkpoints and in every tool."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from dil_plugin.basicsr.archs.rrdb_no_upsample_arch import RRDBNetNoUpsample
from dil_plugin.checkpoint_conversion import convert_file
from dil_plugin.errors import DataError
from dil_plugin.evaluation.networks import load_network

ROOT = Path(__file__).parents[2]
SMALL = {'num_feat': 6, 'num_block': 2, 'num_grow_ch': 3}


def trained_like(bias: bool) -> nn.Module:
    """All parameters random, biases too, which start as zeros."""
    network = RRDBNetNoUpsample(**SMALL, bias=bias).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


@pytest.mark.parametrize('factor', [1e-3, 0.1, 7.0])
def test_homogeneous_of_degree_one(factor):
    image = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(1)).double()
    free, usual = (trained_like(bias) for bias in (False, True))
    with torch.no_grad():
        torch.testing.assert_close(free(factor * image), factor * free(image), rtol=1e-9, atol=1e-12)
        assert not torch.allclose(usual(factor * image), factor * usual(image), rtol=1e-2)
    assert torch.equal(free(torch.zeros_like(image)), torch.zeros_like(image))


def test_the_output_is_the_jacobian_times_the_input():
    """Mohan et al.: a bias-free network is locally linear, without a constant."""
    network = trained_like(False)
    image = torch.rand(1, 3, 6, 5, generator=torch.Generator().manual_seed(1)).double()
    output, product = torch.func.jvp(network, (image, ), (image, ))
    torch.testing.assert_close(product, output, rtol=1e-9, atol=1e-12)


def test_same_weights_at_the_start_as_with_biases():
    states = []
    for bias in (True, False):
        torch.manual_seed(4)
        states.append(RRDBNetNoUpsample(**SMALL, bias=bias).state_dict())
    usual, free = states
    assert list(free) == [name for name in usual if name.endswith('weight')]
    assert all(torch.equal(free[name], usual[name]) for name in free)


@pytest.mark.parametrize('variant', [{'variant': 'sf', 'patches': 'fresh'},
                                     {'variant': 'ps', 'inner': {'type': 'SGD', 'lr': 0.01}}])
def test_trains_and_every_tool_takes_it(base, pipeline, crops, tmp_path, variant):
    base['network_g']['bias'] = False
    base['train']['dil'] = variant
    run = pipeline(base) / 'experiments/run'
    checkpoint = run / 'models/net_g_latest.pth'
    network = load_network(checkpoint)
    assert network.options['bias'] is False
    image = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(network(image / 4), network(image) / 4, rtol=1e-5, atol=1e-7)
    # tools/restore.py
    source = next(crops.iterdir())
    done = subprocess.run([sys.executable, str(ROOT / 'tools/restore.py'), '-i', str(source), '-o',
                           str(tmp_path / 'out'), '--checkpoint', str(checkpoint)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    restored = cv2.imread(str(tmp_path / 'out' / source.name))
    pixels = torch.from_numpy(np.ascontiguousarray(cv2.imread(str(source))[..., ::-1].transpose(2, 0, 1)))
    expected = (network(pixels[None].float() / 255)[0].clamp(0, 1) * 255).round().byte().numpy().transpose(1, 2, 0)
    assert np.abs(restored[..., ::-1].astype(int) - expected).max() <= 1
    # tools/convert_checkpoint.py, there and back
    made = convert_file(checkpoint, tmp_path / 'mmagic.pth')
    assert made.network['bias'] is False
    back = convert_file(tmp_path / 'mmagic.pth', tmp_path / 'back.pth')
    assert back.network['bias'] is False
    with torch.no_grad():
        assert torch.equal(load_network(tmp_path / 'back.pth')(image), network(image))
    # tools/test.py
    base['path']['pretrain_network_g'] = str(checkpoint)
    base['datasets'] = {'test_1': {'name': 'crops', 'type': 'DistortionAugmentedDataset', 'dataroot_gt': str(crops),
                                   'io_backend': {'type': 'disk'},
                                   'distortions': [{'type': 'GaussianNoise', 'sigma': 10}]}}
    base['val'] = {'save_img': False, 'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}}
    pipeline(base, 'test')


def test_checkpoints_with_and_without_biases_are_told_apart(base, pipeline, parsed):
    from basicsr.models import build_model
    base['train'].update(total_iter=1)
    for bias in (True, False):
        base['name'] = f'bias_{bias}'
        base['network_g']['bias'] = bias
        pipeline(base)
    root = parsed(base)['root_path']
    for bias in (True, False):
        base['network_g']['bias'] = bias
        base['path']['pretrain_network_g'] = f'{root}/experiments/bias_{not bias}/models/net_g_latest.pth'
        with pytest.raises(DataError, match='does not fit network_g .*conv_first.bias'):
            build_model(parsed(base))
