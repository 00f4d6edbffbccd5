"""What has to hold on a GPU; skipped where there is none."""

import copy
from pathlib import Path

import pytest
import skimage
import torch
import yaml
from scipy import stats

import dil_plugin.basicsr  # noqa: F401
from dil_plugin.basicsr.data.byte_images import on_device
from dil_plugin.basicsr.data.cuda_prefetcher import SafeCUDAPrefetcher
from dil_plugin.distortions import parse_distortions
from dil_plugin.distortions.resize import resize_by_matrices, resize_each
from dil_plugin.learning import NetworkLoss, Pair, build_variant
from dil_plugin.learning.options import SGD, DILOptions
from dil_plugin.sampling import MetaBatchSampler
from dil_plugin.verification import verify_folder

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')]


def test_golden_meta_gradients():
    checks = [check for check in verify_folder(device='cuda') if not check.name.startswith('released')]
    assert checks
    assert all(check.passed for check in checks), checks


@pytest.mark.parametrize('variant', ['sf', 'pf', 'ss', 'ps', 'erm', 'mldg'])
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


@pytest.mark.parametrize('dtype', [None, torch.bfloat16])
def test_deployed_network_is_that_of_the_cpu(dtype):
    """phi of patches that stay on the CPU, computed on the GPU; the generators of the training go on as they were."""
    from dil_plugin.basicsr.archs.rrdb_no_upsample_arch import RRDBNetNoUpsample
    from dil_plugin.basicsr.models.deployed_network import DeployedNetwork
    network = RRDBNetNoUpsample(num_feat=8, num_block=1, num_grow_ch=4)
    pairs = [Pair(torch.rand(5, 3, 16, 16), torch.rand(5, 3, 16, 16)) for _ in range(2)]
    moved = []
    for device in ('cpu', 'cuda'):
        loss = NetworkLoss(copy.deepcopy(network).to(device), torch.nn.functional.l1_loss)
        deployed = DeployedNetwork(loss, loss.parameters(), 0.05, pairs, 2, dtype=dtype)
        before = torch.cuda.get_rng_state()
        found = deployed.current().parameters()
        assert torch.equal(before, torch.cuda.get_rng_state())
        steps = zip(found, loss.parameters().values(), strict=True)
        moved.append(torch.cat([(a - b).flatten().cpu() for a, b in steps]))
    assert (moved[0] - moved[1]).norm() < (1e-3 if dtype is None else 0.1) * moved[0].norm()


DISTORTIONS = [d for entry in yaml.safe_load((Path(__file__).parent / 'data' / 'distortions.yml').read_text())
               for d in parse_distortions([entry])]
each_distortion = pytest.mark.parametrize('distortion', DISTORTIONS, ids=lambda d: d.label)


def photograph(batch):
    image = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1) / 255
    return torch.stack([image[:, 2 * k:2 * k + 80, 120:204] for k in range(batch)])


@each_distortion
def test_distortion_without_host_synchronisation(distortion):
    clean, generator = photograph(4).cuda(), torch.Generator('cuda').manual_seed(0)
    distortion(clean, generator)  # the first use of a kernel may synchronise
    for _ in range(3):
        state = generator.get_state()
        distortion(clean, generator)
        generator.set_state(state)
        torch.cuda.set_sync_debug_mode('error')
        try:
            out = distortion(clean, generator)
        finally:
            torch.cuda.set_sync_debug_mode('default')
        assert torch.isfinite(out).all()


@each_distortion
def test_seed_decides_on_the_gpu_too(distortion):
    clean = photograph(3).cuda()
    one, other = (distortion(clean, torch.Generator('cuda').manual_seed(5)) for _ in range(2))
    torch.testing.assert_close(one, other, rtol=0, atol=2.1 / 255)  # sums on the GPU may be taken in another order
    assert (one - other).abs().mean() < 1e-4


@each_distortion
def test_distortion_has_the_statistics_of_the_cpu(distortion):
    clean = photograph(1).expand(4, -1, -1, -1)
    sides = []
    for device in ('cpu', 'cuda'):
        generator = torch.Generator(device).manual_seed(3)
        outs = torch.cat([distortion(clean.to(device), generator)[:1].cpu() for _ in range(60)])
        sides.append((outs.mean((1, 2, 3)), outs.std((1, 2, 3))))
    for cpu, cuda in zip(*sides, strict=True):
        same = torch.allclose(cpu, cuda, atol=1e-4)  # where nothing is random
        assert same or stats.ks_2samp(cpu.numpy(), cuda.numpy()).pvalue > 1e-4


def test_fixed_distortions_agree_with_the_cpu():
    clean = photograph(3)
    for entry in ({'type': 'GaussianBlur', 'sigma': 2}, {'type': 'JPEG', 'quality': 40},
                  {'type': 'SincBlur', 'cutoff': 1}, {'type': 'Resize', 'factor': 0.4, 'mode': 'bicubic'}):
        distortion, = parse_distortions([entry])
        difference = (distortion(clean.cuda()).cpu() - distortion(clean)).abs()
        assert difference.mean() < 1e-4
        assert (difference < 1e-3).float().mean() > 0.999


def test_sizes_per_sample_agree_with_the_cpu():
    clean = photograph(6)
    factors = torch.linspace(0.2, 1.5, 6, dtype=torch.float64)
    there, back = torch.tensor([0, 1, 2] * 2), torch.tensor([2, 2, 1, 0, 0, 1])
    expected = resize_each(clean, factors, 1.5, there, back)
    found = resize_by_matrices(clean.cuda(), factors.cuda(), 1.5, there.cuda(), back.cuda()).cpu()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)  # TF32


def test_bytes_become_the_floats_of_the_cpu_without_host_synchronisation():
    every = torch.arange(256, dtype=torch.uint8).pin_memory()
    on_device(every, 'cuda')  # the first use of a kernel may synchronise
    torch.cuda.set_sync_debug_mode('error')
    try:
        moved = on_device(every, 'cuda')
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert torch.equal(moved.cpu(), every.float() / 255)


@pytest.mark.parametrize('distort_on', ['device', 'worker'])
@pytest.mark.parametrize('workers', [0, 2])
def test_prefetched_batches_are_those_of_the_loader(distort_on, workers):
    from basicsr.data import build_dataloader, build_dataset

    from dil_plugin.basicsr.data.draw_sampler import DrawSampler
    block = {'name': 'x', 'type': 'DistortionAugmentedDataset', 'phase': 'train', 'scale': 1, 'gt_size': 64, 'seed': 3,
             'dataroot_gt': str(Path(skimage.__file__).parent / 'data'), 'io_backend': {'type': 'disk'},
             'meta_info_file': None, 'distort_on': distort_on, 'distortions': [{'type': 'JPEG', 'quality': [30, 60]}],
             'batch_size_per_gpu': 2, 'num_worker_per_gpu': workers, 'prefetch_mode': 'cuda', 'pin_memory': True}
    dataset = build_dataset(block)
    dataset.paths = [path for path in dataset.paths if Path(path).stem in ('astronaut', 'coffee', 'rocket')]

    def loader():
        return build_dataloader(dataset, block, num_gpu=1, sampler=DrawSampler(dataset, 1, 0, ratio=4), seed=0)

    prefetcher = SafeCUDAPrefetcher(loader(), {'num_gpu': 1})
    for _ in range(2):  # epochs
        prefetcher.reset()
        count = 0
        for expected in loader():
            batch = prefetcher.next()
            count += 1
            assert batch.keys() == expected.keys()
            for key, value in expected.items():
                if torch.is_tensor(value):
                    assert batch[key].is_cuda
                    assert batch[key].dtype == value.dtype
                    assert torch.equal(batch[key].cpu(), value)
                else:
                    assert batch[key] == value
        assert count == 6
        assert prefetcher.next() is None


class Batches:
    """Batches of one value each, page-locked; a loader forgets what it has given."""

    def __init__(self, count):
        self.values = [torch.full((32, 3, 256, 256), k, dtype=torch.uint8).pin_memory() for k in range(count)]

    def __iter__(self):
        return ({'gt': value} for value in self.values)


def test_prefetched_batches_keep_their_memory_until_they_are_read():
    """The copy of a later batch must not overwrite one that queued kernels have not read yet."""
    prefetcher = SafeCUDAPrefetcher(Batches(8), {'num_gpu': 1})
    prefetcher.reset()
    means = []
    for _ in range(8):
        batch = prefetcher.next()
        torch.cuda._sleep(50_000_000)  # the GPU is behind the host, as in training
        means.append(on_device(batch['gt'], 'cuda').mean() * 255)
        del batch
    assert [round(mean.item()) for mean in means] == list(range(8))
