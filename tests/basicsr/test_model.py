import copy
import logging
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
import yaml
from basicsr.models import build_model
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn
from torch.nn import functional

from dil_plugin.checkpoints import NOTES, save_atomically
from dil_plugin.distortions import DISTORTION_REGISTRY, Distortion
from dil_plugin.errors import OptionError
from dil_plugin.training.idle_parameters import FIRST_STEPS

ROOT = Path(__file__).parents[2]
VARIANTS = {
    'sf': {'variant': 'sf', 'patches': 'fresh'},
    'pf': {'variant': 'pf', 'inner': {'type': 'SGD', 'lr': 0.01}},
    'ss': {'variant': 'ss', 'inner': {'type': 'SGD', 'lr': 0.01}},
    'ps': {'variant': 'ps', 'inner': {'type': 'SGD', 'lr': 0.01}, 'hvp': 'finite_difference'},
    'erm': {'variant': 'erm', 'erm_steps': 2},
    'mldg': {'variant': 'mldg', 'inner': {'type': 'SGD', 'lr': 0.01}, 'held_out': 2, 'patches': 'fresh'},
    'erm serial': {'variant': 'erm', 'erm_sampling': 'serial', 'patches': 'fresh'},
}
ARCHS = {
    'RRDBNet': {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'scale': 1, 'num_feat': 4, 'num_block': 1,
                'num_grow_ch': 2},
    'SwinIR': {'type': 'SwinIR', 'img_size': 16, 'window_size': 8, 'depths': [2], 'num_heads': [2], 'embed_dim': 8,
               'mlp_ratio': 2, 'upscale': 1, 'upsampler': '', 'resi_connection': '1conv'},
    'MSRResNet': {'type': 'MSRResNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'upscale': 2},
}


@DISTORTION_REGISTRY.register
class HalveForTest(Distortion, frozen=True):
    """Mean of 2x2 pixels: a confounder that changes the resolution."""

    @property
    def scale(self):
        return 2

    def apply(self, clean, generator):
        return functional.avg_pool2d(clean, 2)


@ARCH_REGISTRY.register()
class TwoOutputsForTest(nn.Module):
    """A BatchNorm, a frozen parameter, two outputs."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3, 1, 1))
        self.gain = nn.Parameter(torch.full((1, ), 0.5), requires_grad=False)

    def forward(self, x):
        return [x, x + self.gain * self.body(x)]


def model_for(parsed, base, **dil):
    base['train']['dil'] = dil or base['train']['dil']
    return build_model(parsed(base))


def weights(path, key='params'):
    return torch.load(path, weights_only=True)[key]


@pytest.mark.parametrize('variant', VARIANTS)
def test_every_variant_trains_saves_and_is_tested(base, pipeline, variant):
    base['train']['dil'] = VARIANTS[variant]
    root = pipeline(base)
    before, after = (weights(root / f'experiments/run/models/net_g_{k}.pth') for k in (2, 4))
    assert all(torch.isfinite(w).all() for w in after.values())
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize('arch', ARCHS)
@pytest.mark.parametrize('variant', ['sf', 'ps', 'mldg'])
def test_basicsr_architectures_work_by_name(base, pipeline, arch, variant):
    base['network_g'] = ARCHS[arch]
    if arch == 'MSRResNet':
        base.update(scale=2, distortions=[{'type': 'HalveForTest'}, {'type': 'HalveForTest'}])
    dil = {'sf': VARIANTS['sf'], 'ps': {**VARIANTS['ps'], 'hvp': 'exact'},
           'mldg': {**VARIANTS['mldg'], 'held_out': 1}}[variant]
    base['train'].update(dil=dil, total_iter=2)
    base['logger']['save_checkpoint_freq'] = 1
    root = pipeline(base)
    first, last = (weights(root / f'experiments/run/models/net_g_{k}.pth') for k in (1, 2))
    assert any(not torch.equal(first[name], last[name]) for name in first)


@pytest.mark.parametrize('distort_on', ['worker', 'device'])
def test_erm_step_is_basicsrs(base, parsed, distort_on):
    """One plain step of variant erm is a step of SRModel on the same batch, bit for bit."""
    base['datasets']['train']['distort_on'] = distort_on
    ours = model_for(parsed, base, variant='erm', erm_steps=1)
    plain = copy.deepcopy(base)
    plain['model_type'] = 'SRModel'
    plain['datasets']['train']['distort_on'] = 'worker'
    theirs = build_model(parsed(plain))
    theirs.net_g.load_state_dict(ours.net_g.state_dict())
    theirs.net_g_ema.load_state_dict(ours.net_g_ema.state_dict())
    for k in range(1, 4):
        gt, lq = torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16)
        for model in (ours, theirs):
            model.update_learning_rate(k)
            model.feed_data({'gt': gt, 'lq': lq})
            model.optimize_parameters(k)
        assert ours.get_current_log()['l_outer'] == pytest.approx(theirs.get_current_log()['l_pix'], rel=1e-6)
    for a, b in zip(ours.net_g.parameters(), theirs.net_g.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(ours.net_g_ema.parameters(), theirs.net_g_ema.parameters(), strict=True):
        assert torch.equal(a, b)


def test_second_order_step_against_an_unrolled_objective(base, parsed):
    """The gradient that reaches the optimiser is autograd's through inner step and outer loss (Eq. 5)."""
    from torch.func import functional_call
    base['datasets']['train']['distort_on'] = 'worker'
    base['train']['optim_g'] = {'type': 'Adam', 'lr': 1e-3, 'betas': [0.9, 0.99]}
    model = model_for(parsed, base, variant='ps', inner={'type': 'SGD', 'lr': 0.05})
    model.net_g.double()
    params = {name: p.detach().clone().requires_grad_() for name, p in model.net_g.named_parameters()}
    gt, lq, versions = (torch.rand(*shape).double() for shape in ((2, 3, 16, 16), (2, 3, 16, 16), (2, 4, 3, 16, 16)))
    gt, lq, versions = gt.double(), lq.double(), versions.double()

    def loss(values, x):
        return (functional_call(model.net_g, values, (x, )) - gt).abs().mean()

    inner = torch.stack([loss(params, versions[:, i]) for i in range(4)]).mean()
    grads = torch.autograd.grad(inner, list(params.values()), create_graph=True)
    phi = {name: p - 0.05 * g for (name, p), g in zip(params.items(), grads, strict=True)}
    expected = torch.autograd.grad(loss(phi, lq), list(params.values()))

    seen = []
    model.optimizer_g.step = lambda: seen.extend(p.grad.clone() for p in model.net_g.parameters())
    model.feed_data({'gt': gt, 'lq': lq, 'counterfactuals': versions})
    model.optimize_parameters(1)
    for a, b in zip(seen, expected, strict=True):
        assert (a - b).norm() <= 1e-8 * b.norm()


def test_log_names_every_confounder(base, parsed):
    model = model_for(parsed, base, variant='ps')
    model.feed_data({'gt': torch.rand(2, 3, 16, 16)})
    model.optimize_parameters(1)
    log = model.get_current_log()
    each = [log[f'l_inner_GaussianNoise(sigma={s})'] for s in (5, 10, 15, 20)]
    assert log['l_inner'] == pytest.approx(sum(each) / 4, rel=1e-5)
    assert log['l_outer'] > 0


def test_ema_and_scheduler(base, pipeline):
    root = pipeline(base)
    models = root / 'experiments/run/models'
    two, four = (torch.load(models / f'net_g_{k}.pth', weights_only=True) for k in (2, 4))
    assert any(not torch.equal(four['params'][k], four['params_ema'][k]) for k in four['params'])
    states = [torch.load(root / f'experiments/run/training_states/{k}.state', weights_only=True) for k in (2, 4)]
    assert [s['optimizers'][0]['param_groups'][0]['lr'] for s in states] == [1e-3, 5e-4]
    assert set(two) == {'params', 'params_ema', NOTES}


def test_perceptual_loss(base, pipeline, tmp_path, monkeypatch):
    """With BasicSR's perceptual loss, on a VGG of random weights where BasicSR looks for the pretrained ones."""
    from torchvision.models import vgg19
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / 'experiments/pretrained_models'
    folder.mkdir(parents=True)
    torch.save(vgg19(weights=None).state_dict(), folder / 'vgg19-dcbb9e9d.pth')
    base['datasets']['train'].update(gt_size=32, batch_size_per_gpu=1)
    base['train'].update(dil=VARIANTS['ps'], total_iter=1, perceptual_opt={
        'type': 'PerceptualLoss', 'layer_weights': {'conv1_2': 1.0}, 'vgg_type': 'vgg19', 'use_input_norm': True,
        'range_norm': False, 'perceptual_weight': 1.0, 'style_weight': 0, 'criterion': 'l1'})
    import basicsr.archs.vgg_arch
    monkeypatch.setattr(basicsr.archs.vgg_arch, 'VGG_PRETRAIN_PATH', str(folder / 'vgg19-dcbb9e9d.pth'))
    root = pipeline(base)
    log = next((root / 'experiments/run').glob('*.log')).read_text()
    assert 'l_percep:' in log
    assert 'l_pix:' in log


@pytest.mark.parametrize('variant', VARIANTS)
def test_batchnorm_frozen_parameters_and_several_outputs(base, parsed, variant):
    base['network_g'] = {'type': 'TwoOutputsForTest'}
    model = model_for(parsed, base, **VARIANTS[variant], outputs='last')
    statistics = model.net_g.body[1].running_mean.clone()
    for k in (1, 2):
        model.feed_data({'gt': torch.rand(4, 3, 16, 16)})
        model.optimize_parameters(k)
    assert model.net_g.gain.item() == 0.5
    assert not torch.equal(statistics, model.net_g.body[1].running_mean)
    model.feed_data({'lq': torch.rand(1, 3, 16, 16)})
    model.test()
    assert torch.equal(model.output, model.net_g_ema(model.lq)[1])


@ARCH_REGISTRY.register()
class ForgetfulForTest(nn.Module):

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Conv2d(3, 3, 3, 1, 1), nn.Conv2d(3, 3, 1)
        self.more = [nn.Conv2d(3, 3, 1)]

    def forward(self, x):
        return x + self.used(self.more[0](x))


def test_what_no_gradient_reaches_is_named_once(base, parsed, monkeypatch):
    """Parameters that stay as they are after the first steps, layers in a Python list at once."""
    said = []

    class Logger(logging.Logger):

        def warning(self, text):
            said.append(text)

    monkeypatch.setattr('dil_plugin.basicsr.models.dil_model.get_root_logger', lambda: Logger('test'))
    base['network_g'] = {'type': 'ForgetfulForTest'}
    model = model_for(parsed, base, **VARIANTS['sf'])
    assert [text for text in said if 'ForgetfulForTest keeps more[0] in a Python list' in text] == said != []
    said.clear()
    for k in range(FIRST_STEPS + 2):
        model.feed_data({'gt': torch.rand(4, 3, 16, 16)})
        model.optimize_parameters(k + 1)
        model.get_current_log()
    assert [text for text in said if 'no gradient' in text] == [
        f'2 of 4 parameters had no gradient in the first {FIRST_STEPS} steps, and stay as they are: unused.weight, '
        'unused.bias. The loss does not depend on them, or its gradient is zero there.']


def test_a_network_that_works_in_place_leaves_lq(base, parsed):
    """What is validated and pictured beside the result is what the data set gave."""
    model = model_for(parsed, base, **VARIANTS['sf'])

    class InPlace(nn.Module):

        def forward(self, x):
            return x.sub_(0.45)

    model.net_g_ema = InPlace()
    image = torch.rand(1, 3, 16, 16)
    before = image.clone()
    model.feed_data({'lq': image})
    model.test()
    assert torch.equal(model.output, before - 0.45)
    assert torch.equal(model.lq, before)


def test_data_set_of_pairs(base, crops, pipeline, parsed):
    """PairedImageDataset: its lq is the query, the counterfactuals are made from gt."""
    base['datasets']['train'].update(type='PairedImageDataset', dataroot_lq=str(crops))
    base['train']['dil'] = VARIANTS['ps']
    pipeline(base)
    model = model_for(parsed, base, **VARIANTS['ps'])
    gt, lq = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    batch, = model.sampler.sample(gt, lq)
    assert torch.equal(batch.query.lq, lq)
    assert all(torch.equal(pair.gt, gt) for pair in batch.confounders)
    base['train']['dil'] = VARIANTS['erm serial']
    with pytest.raises(OptionError, match='erm_sampling: serial, but datasets.train is of type PairedImageDataset'):
        parsed(base)
    base['distortions'], base['train']['dil'] = None, VARIANTS['ps']
    with pytest.raises(OptionError, match='distortions: the block is missing'):
        parsed(base)


def test_erm_on_pairs_needs_no_distortions(base, crops, pipeline, parsed, capfd):
    """A step is that of the run with a confounder that it does not use, and the run goes on from its state."""
    base['datasets']['train'].update(type='PairedImageDataset', dataroot_lq=str(crops))
    base['distortions'] = [{'type': 'GaussianNoise', 'sigma': 15}]
    with_block = weights(pipeline(copy.deepcopy(base | {'name': 'block', 'train': base['train'] | {
        'dil': {'variant': 'erm'}}})) / 'experiments/block/models/net_g_4.pth')
    assert 'erm trains on the pairs: the distortions block gives no more than' in capfd.readouterr().err
    del base['distortions']
    base['train']['dil'] = {'variant': 'erm'}
    root = pipeline(base)
    assert 'distortions block' not in capfd.readouterr().err
    whole = weights(root / 'experiments/run/models/net_g_4.pth')
    assert whole.keys() == with_block.keys()
    assert all(torch.equal(whole[name], with_block[name]) for name in whole)
    assert 'confounders: pairs' in next((root / 'experiments/run').glob('train_*.log')).read_text()
    (root / 'experiments/run/models/net_g_4.pth').unlink()
    base['path']['resume_state'] = str(root / 'experiments/run/training_states/2.state')
    pipeline(base)
    again = weights(root / 'experiments/run/models/net_g_4.pth')
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    model = model_for(parsed, base, variant='erm')
    assert len(model.sampler.sample(torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16))) == 1


def test_plain_srmodel_takes_the_data_set(base, pipeline):
    base['model_type'] = 'SRModel'
    del base['train']['dil']
    root = pipeline(base)
    assert (root / 'experiments/run/models/net_g_4.pth').is_file()


def test_other_models_keep_their_own_options(base, parsed):
    """tools/train.py takes BasicSR's other YAMLs too: StyleGAN2's has no pixel_opt."""
    base['model_type'] = 'StyleGAN2Model'
    base['network_d'] = {'type': 'StyleGAN2Discriminator', 'out_size': 16}
    for name in ('pixel_opt', 'dil', 'scheduler'):
        del base['train'][name]
    del base['train']['optim_g']['lr']
    assert parsed(base)['model_type'] == 'StyleGAN2Model'


def test_noise_differs_between_iterations_and_seeds(base, parsed):
    gt = torch.full((2, 3, 16, 16), 0.5)
    runs = []
    for seed in (0, 0, 1):
        base['manual_seed'] = seed
        model = model_for(parsed, base, **VARIANTS['ps'])
        runs.append([model.sampler.sample(gt)[0].query.lq for _ in range(2)])
    assert torch.equal(runs[0][0], runs[1][0])
    assert not torch.equal(runs[0][0], runs[0][1])
    assert not torch.equal(runs[0][0], runs[2][0])


def test_seed_given_by_force_yml_reaches_the_initialisation(base, parsed):
    def initial(*arguments):
        return build_model(parsed(base, True, *arguments)).net_g.conv_first.weight
    assert torch.equal(initial(), initial('--force_yml', 'manual_seed=3'))
    assert not torch.equal(initial(), initial('--force_yml', 'manual_seed=4'))


def test_resume_restores_iteration_moments_and_generators(base, pipeline, parsed):
    root = pipeline(base)
    state = torch.load(root / 'experiments/run/training_states/4.state', weights_only=True)
    base['train']['total_iter'] = 6
    pipeline(base, 'train', '--auto_resume')
    logs = ''.join(path.read_text() for path in sorted((root / 'experiments/run').glob('*.log')))
    assert 'Resuming training from epoch: 0, iter: 4.' in logs
    assert (root / 'experiments/run/models/net_g_6.pth').is_file()

    model = model_for(parsed, base)
    assert not model.variant.walk.state_dict()['state']
    model.resume_training(state)
    restored = model.variant.state_dict()
    for index, moments in state['dil']['state']['walk']['state'].items():
        assert torch.equal(restored['walk']['state'][index]['exp_avg_sq'], moments['exp_avg_sq'])
        assert moments['step'] == 16
    assert torch.equal(model.sampler.noise.get_state(), state['dil']['sampler']['noise'])
    assert torch.equal(restored['order'], state['dil']['state']['order'])


def test_state_of_another_kind_of_device(base, pipeline, parsed):
    """Generator states of a GPU do not fit a CPU: the draws go on from a new seed, all else is restored."""
    root = pipeline(base)
    state = torch.load(root / 'experiments/run/training_states/4.state', weights_only=True)
    state['dil']['sampler'].update(device='cuda', noise=torch.zeros(16, dtype=torch.uint8))
    model = model_for(parsed, base)
    fresh = model.sampler.noise.get_state()
    model.resume_training(state)
    assert not torch.equal(model.sampler.noise.get_state(), fresh)
    assert torch.equal(model.variant.state_dict()['order'], state['dil']['state']['order'])
    with pytest.raises(ValueError, match='of device cuda, this is cpu'):
        model.sampler.load_state_dict(state['dil']['sampler'])


@pytest.mark.parametrize(('variant', 'workers'), [('sf', 0), ('ps', 2), ('erm', 0), ('erm serial', 0), ('mldg', 0)])
def test_interrupted_equals_uninterrupted(base, pipeline, variant, workers):
    """Killed after 4 of 6 iterations and resumed: the same weights, bit for bit (one process, CPU)."""
    base['train'].update(dil=VARIANTS[variant], total_iter=6)
    base['datasets']['train'].update(num_worker_per_gpu=workers, distort_on='worker', batch_size_per_gpu=8)
    whole = pipeline(base) / 'experiments/run'
    expected = torch.load(whole / 'models/net_g_6.pth', weights_only=True)
    (whole / 'training_states/6.state').unlink()
    (whole / 'models/net_g_6.pth').unlink()
    pipeline(base, 'train', '--auto_resume')
    resumed = torch.load(whole / 'models/net_g_6.pth', weights_only=True)
    for name, value in expected['params'].items():
        assert torch.equal(value, resumed['params'][name]), name


def test_small_sets_train_all_iterations(base, pipeline, parsed):
    """Six images, batches of 4 and no enlargement: one whole batch an epoch, and yet total_iter iterations."""
    base['datasets']['train']['dataset_enlarge_ratio'] = 1
    root = pipeline(base)
    assert (root / 'experiments/run/models/net_g_4.pth').is_file()
    base['datasets']['train']['batch_size_per_gpu'] = 8
    with pytest.raises(OptionError, match='dataset_enlarge_ratio: 1 times 6 images .* at least 2'):
        pipeline(base)


def test_swinir_restores_images_of_any_size(base, parsed):
    base['network_g'] = ARCHS['SwinIR']
    model = model_for(parsed, base, **VARIANTS['sf'])
    image = torch.rand(1, 3, 21, 18)
    model.feed_data({'lq': image})
    model.test()
    assert model.output.shape == image.shape
    assert torch.equal(model.lq, image)
    padded = functional.pad(image, (0, 6, 0, 3), 'reflect')
    with torch.no_grad():
        assert torch.equal(model.output, model.net_g_ema(padded)[..., :21, :18])


def test_several_gpus_in_the_machine(base, parsed, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4)
    base['num_gpu'] = 'auto'
    assert parsed(base)['num_gpu'] == 1
    base['num_gpu'] = 4
    with pytest.raises(OptionError, match='num_gpu: 4 in one process'):
        parsed(base)


def test_variants_that_do_not_use_pairs_say_so(base, crops, parsed, capfd):
    base['datasets']['train'].update(type='PairedImageDataset', dataroot_lq=str(crops))
    parsed(base)
    assert 'dataroot_lq has no effect' in capfd.readouterr().err
    base['train']['dil'] = VARIANTS['ps']
    parsed(base)
    assert 'no effect' not in capfd.readouterr().err


def test_checkpoint_is_tested_by_plain_basicsr(base, pipeline, crops):
    root = pipeline(base)
    test = {
        'name': 'test', 'model_type': 'SRModel', 'scale': 1, 'num_gpu': 0, 'manual_seed': 0,
        'datasets': {'test_1': {'name': 'pairs', 'type': 'PairedImageDataset', 'dataroot_gt': str(crops),
                                'dataroot_lq': str(crops), 'io_backend': {'type': 'disk'}}},
        'network_g': base['network_g'],
        'path': {'pretrain_network_g': str(root / 'experiments/run/models/net_g_latest.pth'), 'strict_load_g': True},
        'val': {'save_img': False, 'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}},
    }
    pipeline(test, 'test')
    log = next((root / 'results/test').glob('*.log')).read_text()
    assert '# psnr:' in log


def test_a_test_has_no_best_iteration(base, pipeline, crops):
    root = pipeline(base)
    pipeline({
        'name': 'test', 'model_type': 'DILModel', 'scale': 1, 'num_gpu': 0, 'network_g': base['network_g'],
        'datasets': {f'test_{k}': {'name': f'set{k}', 'type': 'DistortionAugmentedDataset', 'dataroot_gt': str(crops),
                                   'io_backend': {'type': 'disk'},
                                   'distortions': [{'type': 'GaussianNoise', 'sigma': 30}]} for k in (1, 2)},
        'path': {'pretrain_network_g': str(root / 'experiments/run/models/net_g_latest.pth')},
        'val': {'save_img': False, 'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}},
    }, 'test')
    log = next((root / 'results/test').glob('*.log')).read_text()
    assert log.count('# psnr: ') == 2
    assert 'Best' not in log


def test_measured_psnr_is_that_of_the_noise(base, pipeline, crops):
    """A network that is the identity leaves the noise: PSNR by its definition from the images written."""
    net = TwoOutputsForTest()
    nn.init.zeros_(net.gain)
    root = crops.parent
    torch.save({'params': net.state_dict()}, root / 'identity.pth')
    test = {
        'name': 'identity', 'model_type': 'DILModel', 'scale': 1, 'num_gpu': 0, 'manual_seed': 0,
        'datasets': {'test_1': {'name': 'noise', 'type': 'DistortionAugmentedDataset', 'dataroot_gt': str(crops),
                                'io_backend': {'type': 'disk'},
                                'distortions': [{'type': 'GaussianNoise', 'sigma': 30}]}},
        'network_g': {'type': 'TwoOutputsForTest'}, 'path': {'pretrain_network_g': str(root / 'identity.pth')},
        'val': {'save_img': True, 'suffix': 'noisy', 'metrics': {
            'psnr': {'type': 'calculate_psnr', 'crop_border': 0, 'test_y_channel': False}}},
    }
    out = pipeline(test, 'test')
    values = []
    for path in sorted(crops.iterdir()):
        clean = cv2.imread(str(path)).astype(float)
        noisy = cv2.imread(str(out / f'results/identity/visualization/noise/{path.stem}_noisy.png')).astype(float)
        values.append(10 * torch.log10(torch.tensor(255**2 / ((clean - noisy)**2).mean())).item())
    log = next((out / 'results/identity').glob('*.log')).read_text()
    assert float(log.split('# psnr: ')[1].split()[0]) == pytest.approx(sum(values) / len(values), abs=1e-3)
    assert 17 < values[0] < 22


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / 'net.pth'
    save_atomically({'value': torch.ones(2)}, str(path))
    with pytest.raises(Exception, match='pickle'):
        save_atomically({'value': lambda: None}, str(path))
    assert torch.equal(torch.load(path, weights_only=True)['value'], torch.ones(2))
    assert [p.name for p in tmp_path.iterdir()] == ['net.pth']


def run_tool(*arguments, **kwargs):
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT,
                          env=environment, timeout=240, **kwargs)


@pytest.mark.parametrize('variant', ['sf', 'ps', 'SRModel'])
def test_two_gloo_processes_train(base, crops, tmp_path, variant):
    base['name'] = f'gloo_{variant}_{os.getpid()}'
    base['train']['total_iter'] = 2
    del base['manual_seed']
    if variant == 'SRModel':  # a network with buffers, validated by rank 0 without EMA
        del base['train']['dil']
        base.update(model_type='SRModel', network_g=ARCHS['SwinIR'])
        base['train']['ema_decay'] = 0
    else:
        base['train']['dil'] = VARIANTS[variant]
    base['datasets']['val_1'] = {
        'name': 'val', 'type': 'DistortionAugmentedDataset', 'dataroot_gt': str(crops), 'io_backend': {'type': 'disk'},
        'distortions': [{'type': 'GaussianNoise', 'sigma': 30}]}
    base['val'] = {'val_freq': 2, 'save_img': False, 'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}}
    path = tmp_path / 'gloo.yml'
    path.write_text(yaml.safe_dump(base))
    try:
        done = run_tool('-m', 'torch.distributed.run', '--nproc_per_node=2', '--rdzv-backend=c10d',
                        '--rdzv-endpoint=localhost:0',
                        'tools/train.py', '-opt', path, '--launcher', 'pytorch')
        assert done.returncode == 0, done.stderr[-3000:]
        final = weights(ROOT / f'experiments/{base["name"]}/models/net_g_2.pth')
        assert all(torch.isfinite(w).all() for w in final.values())
    finally:
        import shutil
        shutil.rmtree(ROOT / 'experiments' / base['name'], ignore_errors=True)
