"""``train.dil.deploy: phi``: what phi is, what is validated and saved, that training goes on from theta."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from basicsr.models import build_model
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from dil_plugin.basicsr.models.deployment_patches import draw_patches
from dil_plugin.checkpoints import NOTES
from dil_plugin.distortions import GaussianBlur
from dil_plugin.errors import OptionError
from dil_plugin.evaluation.networks import load_network
from dil_plugin.learning import Pair

sys.path.insert(0, str(Path(__file__).parent / 'reliability'))
from training_runs import TrainingRun, differences

ALPHA = 0.05
COUNT = 10  # more than the six images
CPU = torch.device('cpu')
SWINIR = {'type': 'SwinIR', 'img_size': 16, 'window_size': 8, 'depths': [2], 'num_heads': [2], 'embed_dim': 8,
          'mlp_ratio': 2, 'upscale': 1, 'upsampler': '', 'resi_connection': '1conv'}
NETWORKS = {
    'RRDBNetNoUpsample': {'type': 'RRDBNetNoUpsample', 'num_feat': 6, 'num_block': 1, 'num_grow_ch': 3},
    'MSRResNet': {'type': 'MSRResNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'upscale': 2},
    'SwinIR': {**SWINIR, 'drop_path_rate': 0.0},
    'frozen and norm': {'type': 'FrozenAndNormForTest'},
}


@ARCH_REGISTRY.register()
class FrozenAndNormForTest(nn.Module):
    """A BatchNorm, a frozen parameter, two outputs."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3, 1, 1))
        self.gain = nn.Parameter(torch.full((1, ), 0.5), requires_grad=False)

    def forward(self, x):
        return [x, x + self.gain * self.body(x)]


def deploying(base, variant='ps', **dil):
    base['train'].update(ema_decay=0, dil={'variant': variant, 'inner': {'type': 'SGD', 'lr': ALPHA}, 'deploy': 'phi',
                                           'deploy_patches': COUNT, **dil})
    return base


def built(base, parsed):
    return build_model(parsed(base))


def stored(path):
    return torch.load(path, weights_only=True)


def phi_of(network, pairs, alpha=ALPHA, part=4, outputs=slice(None)):
    """One step of torch.optim on a copy, in parts of four as the batches of training; mean over the confounders."""
    fast = copy.deepcopy(network).train()
    optimizer = torch.optim.SGD([p for p in fast.parameters() if p.requires_grad], alpha)
    for lq, gt in pairs:
        for x, y in zip(lq.split(part), gt.split(part), strict=True):
            out = fast(x)
            out = out if isinstance(out, torch.Tensor) else out[-1]
            (nn.functional.l1_loss(out, y) * (len(x) / len(lq)) / len(pairs)).backward()
    optimizer.step()
    return [p.detach() for p in fast.parameters()]


@pytest.mark.parametrize('variant', ['ss', 'ps'])
@pytest.mark.parametrize('name', NETWORKS)
def test_phi_is_one_step_of_plain_gradient_descent(base, parsed, name, variant):
    """In double precision, on a copy of the network; for ss too, whose updates it is the mean of."""
    base['network_g'] = NETWORKS[name]
    if name == 'MSRResNet':
        base.update(scale=2, distortions=[{'type': 'Downsample', 'scale': 2, 'mode': ['bicubic', 'area']}])
    model = built(deploying(base, variant, outputs='last'), parsed)
    model.net_g.double()
    model.deployed._network.double()
    model.deployed.pairs = pairs = [Pair(lq.double(), gt.double()) for lq, gt in model.deployed.pairs]
    assert all(len(lq) == len(gt) == COUNT for lq, gt in pairs)
    before = copy.deepcopy(model.net_g.state_dict())
    found, expected = list(model.deployed.current().parameters()), phi_of(model.net_g, pairs)
    moved = torch.cat([(a - b).flatten() for a, b in zip(found, model.net_g.parameters(), strict=True)]).norm()
    off = torch.cat([(a - b).flatten() for a, b in zip(found, expected, strict=True)]).norm()
    assert off <= 1e-12 * moved
    assert moved > 0
    assert not differences(before, model.net_g.state_dict())
    one_each = [phi_of(model.net_g, [pair]) for pair in pairs]
    mean = [torch.stack(same).mean(0) for same in zip(*one_each, strict=True)]
    assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(mean, expected, strict=True))
    if name == 'frozen and norm':  # statistics are those of theta
        assert model.deployed.current().gain.item() == 0.5
        assert torch.equal(model.deployed.current().body[1].running_mean, model.net_g.body[1].running_mean)


def test_phi_follows_theta(base, parsed):
    model = built(deploying(base), parsed)
    seen = []
    for k in (1, 2):
        model.feed_data({'gt': torch.rand(4, 3, 16, 16)})
        model.optimize_parameters(k)
        seen.append([p.clone() for p in model.deployed.current().parameters()])
        for a, b in zip(seen[-1], phi_of(model.net_g, model.deployed.pairs), strict=True):
            torch.testing.assert_close(a, b)
    assert not torch.equal(seen[0][0], seen[1][0])
    assert model.deployed.current() is model.deployed.current()


@pytest.mark.parametrize('distort_on', ['device', 'worker'])
def test_patches_are_of_the_training_images_under_every_confounder(base, parsed, distort_on):
    base['distortions'] = [{'type': 'GaussianBlur', 'sigma': [0.5, 1, 2]}]
    base['datasets']['train']['distort_on'] = distort_on
    opt = parsed(deploying(base))
    model = build_model(opt)
    pairs = model.deployed.pairs
    assert len(pairs) == 3
    for (lq, gt), sigma in zip(pairs, (0.5, 1, 2), strict=True):
        torch.testing.assert_close(lq, GaussianBlur(sigma)(gt), atol=1e-6, rtol=0)
        assert torch.equal(gt, pairs[0].gt)
        assert len({tuple(patch.flatten().tolist()) for patch in gt}) == COUNT
    again = draw_patches(opt, model.distortions, COUNT, 4, CPU)
    assert not differences([tuple(pair) for pair in pairs], [tuple(pair) for pair in again])
    fewer = draw_patches(opt, model.distortions, 4, 4, CPU)
    assert torch.equal(fewer[1].lq, pairs[1].lq[:4])
    other = draw_patches({**opt, 'manual_seed': 4}, model.distortions, COUNT, 4, CPU)
    assert not torch.equal(other[0].gt, pairs[0].gt)


def test_sets_of_pairs(base, parsed, crops):
    sets = [{'name': name, 'dataroot_lq': str(crops), 'dataroot_gt': str(crops)} for name in 'ab']
    del base['distortions'], base['datasets']['train']['dataroot_gt']
    base['datasets']['train'].update(type='PairedConfounderDataset', confounders=sets)
    model = built(deploying(base), parsed)
    assert [tuple(lq.shape) for lq, _ in model.deployed.pairs] == [(COUNT, 3, 16, 16)] * 2
    assert all(torch.equal(lq, gt) for lq, gt in model.deployed.pairs)


def test_pairs_of_a_data_set_of_pairs_are_the_query_alone(base, parsed, crops):
    base['datasets']['train'].update(type='PairedImageDataset', dataroot_lq=str(crops))
    model = built(deploying(base), parsed)
    noise = [float((lq - gt).std() * 255) for lq, gt in model.deployed.pairs]
    assert noise == sorted(noise)
    assert 4 < noise[0] < 6


def run_with_validation(base, crops):
    base['datasets']['val_1'] = {
        'name': 'noisy', 'type': 'DistortionAugmentedDataset', 'dataroot_gt': str(crops),
        'io_backend': {'type': 'disk'}, 'distortions': [{'type': 'GaussianNoise', 'sigma': 30}]}
    base['val'] = {'val_freq': 2, 'save_img': False, 'keep_best': 'psnr',
                   'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}}
    return base


@pytest.mark.parametrize('variant', ['ss', 'ps'])
def test_phi_is_validated_and_saved_and_training_is_that_of_theta(base, pipeline, crops, variant, monkeypatch):
    from dil_plugin.basicsr.models.dil_model import DILModel
    results = {}
    record = DILModel._log_validation_metric_values

    def note(self, current_iter, dataset, tb_logger):
        results[self.opt['name'], current_iter] = self.metric_results['psnr']
        record(self, current_iter, dataset, tb_logger)

    monkeypatch.setattr(DILModel, '_log_validation_metric_values', note)
    opt = run_with_validation(deploying(base, variant), crops)
    run = pipeline(opt) / 'experiments/run'
    plain = copy.deepcopy(opt)
    plain['name'] = 'plain'
    for option in ('deploy', 'deploy_patches'):
        del plain['train']['dil'][option]
    theta = pipeline(plain) / 'experiments/plain'
    for name in ('net_g_2', 'net_g_4', 'net_g_latest', 'net_g_best_psnr'):
        ours, theirs = (stored(folder / f'models/{name}.pth') for folder in (run, theta))
        assert set(ours) == {'params', 'params_theta', NOTES}
        assert set(theirs) == {'params', NOTES}
        if name != 'net_g_best_psnr':
            assert not differences(ours['params_theta'], theirs['params'])
        assert differences(ours['params'], ours['params_theta'])
    log = next(run.glob('*.log')).read_text()
    assert f'phi, one virtual update of lr 0.05 on {COUNT} training patches under 4 confounders, is validated' in log
    assert log.count('phi is deployed; the loss of its patches at theta is ') == 2  # at 2 and 4
    assert 'theta is validated and saved as params' in next(theta.glob('*.log')).read_text()
    # the checkpoint, tested as any other, gives what validation gave
    for key, expected in (('params', results['run', 4]), ('params_theta', results['plain', 4])):
        test = copy.deepcopy(opt)
        test['name'] = f'test_{key}'
        del test['datasets']['train']
        test['datasets'] = {'test_1': test['datasets']['val_1']}
        test['path'].update(pretrain_network_g=str(run / 'models/net_g_4.pth'), param_key_g=key)
        pipeline(test, 'test')
        assert results[f'test_{key}', test['name']] == pytest.approx(expected, rel=1e-9)
    image = torch.rand(1, 3, 12, 12)
    by_default, by_key = (load_network(run / 'models/net_g_4.pth', param_key=key) for key in (None, 'params_theta'))
    assert not torch.equal(by_default(image), by_key(image))
    assert by_default.param_key == 'params'


def test_fine_tuning_starts_from_what_was_deployed_and_resuming_does_not(base, pipeline, parsed):
    run = pipeline(deploying(base)) / 'experiments/run'
    content = stored(run / 'models/net_g_4.pth')
    tuned = copy.deepcopy(base)
    tuned['name'] = 'tuned'
    tuned['path']['pretrain_network_g'] = str(run / 'models/net_g_4.pth')
    assert not differences(dict(content['params']), dict(built(tuned, parsed).net_g.state_dict()))
    resumed = copy.deepcopy(base)
    resumed['path']['resume_state'] = str(run / 'training_states/4.state')
    resumed['train'].update(dil={'variant': 'ps'}, ema_decay=0.9, total_iter=6)  # the options may change
    opt = parsed(resumed)
    from dil_plugin.basicsr.resuming.training_states import load_resume_state
    load_resume_state(opt)
    model = build_model(opt)
    for network in (model.net_g, model.net_g_ema):
        assert not differences(dict(content['params_theta']), dict(network.state_dict()))


@pytest.mark.parametrize('size', [1, 3])
def test_micro_batches(base, parsed, size):
    whole = built(deploying(base), parsed)
    parts = built(deploying(base, micro_batch=size, checkpointing=True), parsed)
    sizes = []
    parts.net_g.conv_first.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    for a, b in zip(whole.deployed.current().parameters(), parts.deployed.current().parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert max(sizes) == size


def test_no_more_images_at_a_time_than_in_a_step(base, parsed):
    base['datasets']['train']['batch_size_per_gpu'] = 15  # five parts of three
    model = built(deploying(base, patches='fresh'), parsed)
    sizes = []
    model.net_g.conv_first.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    model.deployed.current()
    assert sizes == [3, 3, 3, 1] * 4


def test_bfloat16_as_in_training(base, parsed):
    base['train']['amp'] = 'bf16'
    model = built(deploying(base), parsed)
    with torch.autocast('cpu', torch.bfloat16):
        expected = phi_of(model.net_g, model.deployed.pairs)
    exact = phi_of(model.net_g, model.deployed.pairs)
    found, rough, fine = (torch.cat([(a - b).flatten() for a, b in zip(params, model.net_g.parameters(), strict=True)])
                          for params in (model.deployed.current().parameters(), expected, exact))
    assert (found - rough).norm() < 0.2 * (fine - rough).norm()


def test_training_draws_are_left_alone(base, parsed):
    base['network_g'] = {**SWINIR, 'drop_path_rate': 0.5}
    model = built(deploying(base), parsed)
    state = torch.get_rng_state()
    first = [p.clone() for p in model.deployed.current().parameters()]
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(3)
    model.deployed.forget()
    assert not differences(first, [p.clone() for p in model.deployed.current().parameters()])


def test_phi_that_is_not_finite_is_not_deployed(base, parsed, caplog):
    model = built(deploying(base), parsed)
    model.deployed.pairs[0].lq[0, 0, 0, 0] = torch.nan
    assert not differences(dict(model.deployed.current().state_dict()), dict(model.net_g.state_dict()))


def test_two_ranks_deploy_the_same_phi(base, parsed, tmp_path, crops):
    """It is that of one process for the same theta: each rank takes all patches."""
    opt = run_with_validation(deploying(base), crops)
    run = TrainingRun(tmp_path / 'ranks', opt, 2)
    run.finish()
    content = run.files()['net_g_4.pth']
    model = built({**opt, 'name': 'alone'}, parsed)
    model.net_g.load_state_dict(content['params_theta'])
    model.deployed.forget()
    assert not differences(dict(content['params']), dict(model.deployed.current().state_dict()))


@pytest.mark.parametrize(('change', 'words'), [
    ({'variant': 'sf'}, ['train.dil.deploy: phi', 'variant sf', 'allowed: theta, or variant ss or ps']),
    ({'variant': 'erm'}, ['train.dil.deploy: phi', 'variant erm']),
    ({'deploy': 'both'}, ['train.dil.deploy', "'both'", 'theta, phi']),
    ({'deploy_patches': 0}, ['train.dil.deploy_patches', 'got 0', '>= 1']),
    ({'ema_decay': 0.9}, ['train.dil.deploy: phi', 'ema_decay: 0.9', 'allowed: one of them']),
    ({'reduction': 'sum'}, ['train.dil.deploy', 'pixel_opt.reduction: sum', 'deploy: theta']),
])
def test_mistakes_are_named(base, parsed, change, words):
    deploying(base)
    base['train']['ema_decay'] = change.pop('ema_decay', 0)
    base['train']['pixel_opt']['reduction'] = change.pop('reduction', 'mean')
    base['train']['dil'].update(change)
    if base['train']['dil']['variant'] not in ('ss', 'ps'):
        del base['train']['dil']['inner']
    with pytest.raises(OptionError) as caught:
        parsed(base)
    assert all(word in str(caught.value) for word in words), caught.value
