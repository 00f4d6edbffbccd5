"""What has to hold on a GPU; skipped where there is none."""

import pytest
import torch

import dil_plugin.basicsr  # noqa: F401
from dil_plugin.distortions import parse_distortions
from dil_plugin.learning import NetworkLoss, build_variant
from dil_plugin.learning.options import SGD, DILOptions
from dil_plugin.sampling import MetaBatchSampler
from dil_plugin.verification import verify_folder

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')]


def test_golden_meta_gradients():
    checks = [check for check in verify_folder(device='cuda') if not check.name.startswith('released')]
    assert checks
    assert all(check.passed for check in checks), checks


@pytest.mark.parametrize('variant', ['sf', 'pf', 'ss', 'ps', 'erm'])
def test_step_without_host_synchronisation(variant):
    from dil_plugin.basicsr.archs.rrdb_no_upsample_arch import RRDBNetNoUpsample
    distortions = parse_distortions([{'type': 'GaussianNoise', 'sigma': [5, 20]}, {'type': 'GaussianBlur', 'sigma': 1}])
    network = RRDBNetNoUpsample(num_feat=8, num_block=1, num_grow_ch=4).cuda()
    loss = NetworkLoss(network, torch.nn.functional.l1_loss)
    inner = SGD(lr=1e-3)
    step = build_variant(DILOptions(variant=variant, inner=inner), loss.parameters())
    sampler = MetaBatchSampler(distortions, type(step).uses_confounders, type(step).uses_query, device='cuda')
    gt = torch.rand(4, 3, 32, 32, device='cuda')
    step(loss, loss.parameters(), sampler.sample(gt)[0])  # the first use of a kernel may synchronise
    torch.cuda.set_sync_debug_mode('error')
    try:
        result = step(loss, loss.parameters(), sampler.sample(gt)[0])
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert all(torch.isfinite(grad).all() for grad in result.grads)


def test_distortions_agree_with_the_cpu_in_their_statistics():
    clean = torch.full((2, 3, 128, 128), 0.5)
    noise, = parse_distortions([{'type': 'GaussianNoise', 'sigma': 20}])
    blur, = parse_distortions([{'type': 'GaussianBlur', 'sigma': 2}])
    generator = torch.Generator('cuda').manual_seed(0)
    noisy = noise(clean.cuda(), generator)
    assert (noisy - 0.5).std().item() * 255 == pytest.approx(20, rel=0.02)
    image = torch.rand(2, 3, 40, 41)
    torch.testing.assert_close(blur(image.cuda()).cpu(), blur(image), rtol=0, atol=1e-3)
