"""The gradient that reaches the optimiser, against BasicSR's half and against the method in plain PyTorch."""

import copy

import pytest
import torch
from basicsr.models import build_model

from dil_plugin.distortions import parse_distortions
from dil_plugin.learning import MetaBatch, NetworkLoss, Pair, build_variant
from dil_plugin.learning.options import parse_dil_options
from dil_plugin.learning.precision import AutocastLoss
from dil_plugin.sampling import build_sampler, sampler_seed

from .conftest import NOISE, Recorder, batch_of, build, recorded, relative_error

DIL = {
    'sf': {'variant': 'sf'},
    'sf fresh': {'variant': 'sf', 'patches': 'fresh', 'inner': {'type': 'SGD', 'lr': 0.01}},
    'pf': {'variant': 'pf'},
    'ss': {'variant': 'ss', 'inner': {'type': 'SGD', 'lr': 0.05}},
    'ps': {'variant': 'ps', 'inner': {'type': 'SGD', 'lr': 0.05}},
    'ps difference': {'variant': 'ps', 'inner': {'type': 'SGD', 'lr': 1e-3}, 'hvp': 'finite_difference'},
    'ps lean': {'variant': 'ps', 'inner': {'type': 'SGD', 'lr': 0.05}, 'micro_batch': 3, 'checkpointing': True},
    'ps held': {'variant': 'ps', 'inner': {'type': 'SGD', 'lr': 0.05}, 'recompute': False},
    'sf anew': {'variant': 'sf', 'inner': {'type': 'Adam', 'lr': 1e-3, 'persistent': False}},
    'mldg': {'variant': 'mldg', 'inner': {'type': 'SGD', 'lr': 0.05}, 'held_out': 2, 'beta': 0.5},
    'erm': {'variant': 'erm', 'patches': 'fresh'},
    'erm serial': {'variant': 'erm', 'erm_sampling': 'serial'},
}


def unit(images):
    """Images as BasicSR's data sets give them: RGB in [0, 1]."""
    return torch.from_numpy(images[..., ::-1].copy()).permute(0, 3, 1, 2).float() / 255


def basicsr_gradients(dil, model, gt, tmp_path, iterations, **data):
    """What BasicSR's ``DILModel`` hands to its optimiser, from the weights of ``model``."""
    opt = {
        'name': 'run', 'model_type': 'DILModel', 'scale': 1, 'num_gpu': 0, 'manual_seed': 3, 'is_train': True,
        'dist': False, 'rank': 0, 'world_size': 1, 'distortions': copy.deepcopy(NOISE), 'datasets': {},
        'network_g': {'type': 'RRDBNetNoUpsample', 'num_feat': 6, 'num_block': 1, 'num_grow_ch': 3},
        'path': {'pretrain_network_g': None, 'models': str(tmp_path)},
        'train': {'dil': dil, 'optim_g': {'type': 'Adam', 'lr': 0.1},
                  'scheduler': {'type': 'MultiStepLR', 'milestones': [100]}, 'total_iter': 10, 'ema_decay': 0,
                  'pixel_opt': {'type': 'L1Loss', 'loss_weight': 1.0, 'reduction': 'mean'}},
        'logger': {},
    }
    theirs = build_model(copy.deepcopy(opt))
    theirs.net_g.load_state_dict(model.generator.state_dict())
    theirs.optimizer_g = torch.optim.SGD(theirs.net_g.parameters(), lr=0.1)  # which BasicSR has no name for
    recorder = Recorder(theirs.optimizer_g, steps=True)
    for k in range(iterations):
        theirs.feed_data({'gt': gt, **data})
        theirs.optimize_parameters(k + 1)
    return recorder.grads, theirs.get_current_log()


@pytest.mark.parametrize('name', list(DIL))
def test_gradient_is_that_of_the_basicsr_half(name, images, tmp_path):
    """The same weights, batch and draws; two iterations, so that moments and generators go on alike."""
    model = build(dil=DIL[name])
    expected, log = basicsr_gradients(DIL[name], model, unit(images), tmp_path, 2)
    wrapper, recorder = recorded(model, steps=True)
    for _ in range(2):
        losses = model.train_step(batch_of(images), wrapper)
    assert len(recorder.grads) == len(expected) == (8 if name.startswith('erm') else 2)
    for ours, theirs in zip(recorder.grads, expected, strict=True):
        assert any(bool(g.any()) for g in theirs)
        assert relative_error(ours, theirs) < 1e-5
    for key in (key for key in log if key.startswith('l_')):
        assert losses[key].item() == pytest.approx(log[key], rel=1e-5), key
    assert set(losses) == {key for key in log if key.startswith('l_')} | {'loss'}


@pytest.mark.parametrize('name', ['sf', 'ps', 'mldg', 'erm', 'erm serial'])
def test_counterfactuals_of_the_pipeline(name, images, tmp_path):
    """Versions that the data workers made, with one of them as the query, as BasicSR's worker mode."""
    generator = torch.Generator().manual_seed(1)
    gt = unit(images)
    versions = torch.stack(parse_distortions(NOISE).counterfactuals(gt, generator), 1)
    model = build(dil=DIL[name])
    expected, _ = basicsr_gradients(DIL[name], model, gt, tmp_path, 1, counterfactuals=versions, lq=versions[:, 2])
    wrapper, recorder = recorded(model, steps=True)
    bgr = (versions * 255).flip(2)
    model.train_step(batch_of(images, counterfactuals=bgr, img=bgr[:, 2].permute(0, 2, 3, 1).numpy()), wrapper)
    for ours, theirs in zip(recorder.grads, expected, strict=True):
        assert relative_error(ours, theirs) < 1e-5


def test_the_pair_is_the_query(images, tmp_path):
    lq = (images.astype(float) * 0.5 + 20).astype('uint8')
    model = build(dil=DIL['pf'])
    expected, _ = basicsr_gradients(DIL['pf'], model, unit(images), tmp_path, 1, lq=unit(lq))
    wrapper, recorder = recorded(model)
    model.train_step(batch_of(images, img=lq), wrapper)
    assert relative_error(recorder.grads[0], expected[0]) < 1e-5


@pytest.mark.parametrize(('mean', 'std', 'order', 'loaded'), [
    ([127.5, 127.5, 127.5], [127.5, 127.5, 127.5], 'RGB', 'bgr'),
    ([110., 120., 130.], [50., 60., 70.], 'BGR', 'bgr'),
    ([110., 120., 130.], [50., 60., 70.], None, 'rgb'),
    ([0., 0., 0.], [255., 255., 255.], None, 'bgr'),
])
@pytest.mark.parametrize('name', ['sf', 'ps'])
def test_normalisation_and_order_of_the_channels(name, mean, std, order, loaded, images):
    """The confounders are made of RGB in [0, 1]; the network sees what the data preprocessor would give it."""
    preprocessor = {'type': 'DataPreprocessor', 'mean': mean, 'std': std, 'output_channel_order': order}
    model = build(dil=DIL[name], data_preprocessor=preprocessor)
    dil = parse_dil_options(DIL[name])
    sampler = build_sampler(dil, parse_distortions(NOISE), sampler_seed(3, 0))
    [batch] = sampler.sample(unit(images))
    bgr = (order or loaded.upper()) == 'BGR'

    def seen(x):
        x = x[:, [2, 1, 0]] if bgr else x
        return (255 * x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)

    batch = MetaBatch([Pair(seen(lq), seen(gt)) for lq, gt in batch.confounders],
                      batch.query and Pair(*map(seen, batch.query)))
    loss = NetworkLoss(copy.deepcopy(model.generator), torch.nn.functional.l1_loss)
    expected = build_variant(dil, loss.parameters(), 3)(loss, loss.parameters(), batch)
    wrapper, recorder = recorded(model)
    model.train_step(batch_of(images if loaded == 'bgr' else images[..., ::-1], loaded), wrapper)
    assert relative_error(recorder.grads[0], expected.grads) < 1e-4


def test_patches_are_cut_and_pooled(images):
    """``gt_size`` and ``queue_size`` reach the sampler: first batches are used as they come, cut to the size."""
    model = build(dil=DIL['ps'], gt_size=8, queue_size=8)
    wrapper, recorder = recorded(model)
    model.train_step(batch_of(images), wrapper)
    dil = parse_dil_options(DIL['ps'])
    sampler = build_sampler(dil, parse_distortions(NOISE), sampler_seed(3, 0), crop=8, queue_size=8)
    [batch] = sampler.sample(unit(images))
    assert batch.query.gt.shape[-2:] == (8, 8)
    loss = NetworkLoss(model.generator, torch.nn.functional.l1_loss)
    expected = build_variant(dil, loss.parameters(), 3)(AutocastLoss(loss), loss.parameters(), batch)
    assert relative_error(recorder.grads[0], expected.grads) < 1e-5


@pytest.mark.parametrize(('generator', 'distortion', 'size'), [
    ({'type': 'SwinIRNet', 'upscale': 1, 'in_chans': 3, 'img_size': 16, 'window_size': 8, 'depths': [2],
      'num_heads': [2], 'embed_dim': 8, 'mlp_ratio': 2, 'upsampler': '', 'drop_path_rate': 0.0}, NOISE, 16),
    ({'type': 'RRDBNet', 'in_channels': 3, 'out_channels': 3, 'mid_channels': 6, 'num_blocks': 1,
      'growth_channels': 3, 'upscale_factor': 4}, [{'type': 'RealESRGAN', 'order': 1, 'draws': 2}], 64),
    ({'type': 'MSRResNet', 'in_channels': 3, 'out_channels': 3, 'mid_channels': 6, 'num_blocks': 1,
      'upscale_factor': 2}, [{'type': 'Downsample', 'scale': 2}], 16),
    ({'type': 'NAFNet', 'img_channels': 3, 'mid_channels': 6, 'enc_blk_nums': [1], 'middle_blk_num': 1,
      'dec_blk_nums': [1]}, NOISE, 16),
], ids=['SwinIR', 'RRDB x4', 'MSRResNet x2', 'NAFNet'])
@pytest.mark.parametrize('name', ['sf', 'ps'])
def test_other_generators(name, generator, distortion, size, crops):
    """Each of mmagic's restorers gets a gradient for all of its parameters, and restores."""
    import cv2
    images = [cv2.imread(str(path)) for path in sorted(crops.iterdir())[:2]]
    images = [cv2.resize(image, (size, size)) for image in images]
    model = build(generator=generator, dil=DIL[name], distortions=distortion)
    wrapper, recorder = recorded(model)
    losses = model.train_step(batch_of(images), wrapper)
    assert all(bool(value.isfinite()) for value in losses.values())
    assert all(bool(g.isfinite().all()) for g in recorder.grads[0])
    assert sum(bool(g.any()) for g in recorder.grads[0]) > 0.9 * len(recorder.grads[0])
