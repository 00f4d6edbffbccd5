"""Options, restoring, and what is refused."""

import copy

import pytest
import torch
from mmagic.registry import MODELS
from mmagic.structures import DataSample
from mmengine.config import Config
from torch import nn

from dil_plugin.errors import DataError, OptionError

from .conftest import MODEL, batch_of, build, recorded

PREPROCESSOR = MODEL['data_preprocessor']


@MODELS.register_module()
class TwoOutputs(nn.Module):
    """A network of two outputs; what it was given is kept."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return [self.gain * x, 2 * self.gain * x]


def test_options_of_a_config_are_those_of_a_dictionary():
    """mmengine's own dictionaries, tuples for lists."""
    dil = {'variant': 'sf', 'inner': {'type': 'Adam', 'lr': 1e-3, 'betas': (0.5, 0.9)}}
    distortions = ({'type': 'GaussianNoise', 'sigma': (5, 10)}, )
    config = Config({'model': {**copy.deepcopy(MODEL), 'dil': dil, 'distortions': distortions}})
    model = MODELS.build(config.model)
    assert model.options.dil.inner.betas == (0.5, 0.9)
    assert model.distortions.labels == ['GaussianNoise(sigma=5)', 'GaussianNoise(sigma=10)']


@pytest.mark.parametrize(('changes', 'words'), [
    ({'distorsions': []}, ["model: unknown option 'distorsions'", "did you mean 'distortions'"]),
    ({'dil': None}, ['model.dil', 'missing']),
    ({'distortions': None}, ['model.distortions', 'missing']),
    ({'dil': {'variant': 'sff'}}, ['model.dil.variant', "'sff'", 'sf, pf, ss, ps, erm']),
    ({'dil': {'variant': 'sf', 'ordr': 'fixed'}}, ["model.dil: unknown option 'ordr'", "'order'"]),
    ({'dil': {'variant': 'ps', 'inner': {'type': 'Adam'}}}, ['model.dil.inner.type', 'SGD']),
    ({'dil': {'variant': 'mldg', 'held_out': 4}}, ['model.dil.held_out', '4 of 4', 'at most 3']),
    ({'dil': {'variant': 'ps', 'deploy': 'phi'}}, ['model.dil.deploy', "'phi'", "allowed: 'theta'"]),
    ({'dil': {'variant': 'sf', 'max_skipped': 0}}, ['model.dil.max_skipped', '0', '>= 1']),
    ({'distortions': [{'type': 'GaussianNoise', 'sigmas': 5}]}, ['model.distortions[0]', "'sigma'"]),
    ({'gt_size': 0}, ['model.gt_size', '0']),
    ({'queue_size': 'many'}, ['model.queue_size', "'many'"]),
    ({'is_use_ema': 'yes'}, ['model.is_use_ema', "'yes'"]),
    ({'data_preprocessor': None}, ['model.data_preprocessor', 'BaseDataPreprocessor', "type='DataPreprocessor'"]),
    ({'data_preprocessor': {**PREPROCESSOR, 'mean': None, 'std': None}}, ['model.data_preprocessor.mean', 'None']),
    ({'data_preprocessor': {**PREPROCESSOR, 'data_keys': ['gt_img', 'counterfactuals']}}, ['data_keys', 'itself']),
    ({'dil': {'variant': 'sf', 'micro_batch': 2}, 'pixel_loss': {'type': 'L1Loss', 'reduction': 'sum'}},
     ['model.dil.micro_batch', "'sum'", 'mean']),
    ({'data_preprocessor': {**PREPROCESSOR, 'data_keys': []}}, ['data_keys', "'gt_img'"]),
    ({'data_preprocessor': {**PREPROCESSOR, 'stack_data_sample': False}}, ['stack_data_sample', 'True']),
])
def test_wrong_options(changes, words):
    with pytest.raises(OptionError) as error:
        MODELS.build({**copy.deepcopy(MODEL), **changes})
    assert all(word in str(error.value) for word in words), error.value


def test_options_without_a_use_are_named(monkeypatch):
    said = []
    monkeypatch.setattr('dil_plugin.mmagic.models.dil_edit_model.say', lambda text, _: said.append(text))
    build(dil={'variant': 'pf', 'hvp': 'exact'})
    assert said == ['model.dil.hvp has no effect with variant pf.']


def test_wrong_batches(images):
    def step(batch, **changes):
        model = build(**changes)
        model.train_step(batch, recorded(model)[0])

    with pytest.raises(OptionError, match=r'train_dataloader\.batch_size: 4 cannot be divided into 5'):
        step(batch_of(images), dil={'variant': 'ps', 'patches': 'fresh'})
    with pytest.raises(OptionError, match='queue_size: 6 is no multiple of 4'):
        step(batch_of(images), queue_size=6)
    with pytest.raises(DataError, match='3 counterfactuals per image, but.*4 confounders'):
        step(batch_of(images, counterfactuals=torch.zeros(4, 3, 3, 16, 16)))
    mixed = batch_of(images, img=images)
    for sample in mixed['data_samples']:
        sample.set_metainfo({'img_channel_order': 'rgb'})
    plain = {**PREPROCESSOR, 'output_channel_order': None}
    with pytest.raises(DataError, match='in different orders'):
        step(mixed, data_preprocessor=plain)
    bare = {'inputs': [torch.zeros(3, 16, 16)], 'data_samples': [DataSample()]}
    with pytest.raises(DataError, match="gives no gt.*key='gt'"):
        step(bare)
    frozen = build()
    frozen.generator.requires_grad_(False)
    with pytest.raises(OptionError, match=r'model\.generator: all parameters are frozen'):
        frozen.train_step(batch_of(images), recorded(build())[0])


@pytest.mark.parametrize(('which', 'gain'), [('all', 1.0), ('first', 0.5), ('last', 1.0)])
def test_restoring(which, gain, images):
    """As BaseEditModel: the network on normalised RGB, the result in BGR from 0 to 255; of several outputs one."""
    model = build(generator={'type': 'TwoOutputs'}, dil={'variant': 'sf', 'outputs': which})
    with torch.no_grad():
        model.generator.gain.fill_(0.5)
    [sample] = model.eval().val_step(batch_of(images[:1], img=images[:1]))
    expected = torch.from_numpy(images[0]).permute(2, 0, 1).float() * gain
    assert torch.allclose(sample.output.pred_img, expected, atol=1e-3)
    assert torch.equal(sample.gt_img, torch.from_numpy(images[0]).permute(2, 0, 1))


def test_restoring_is_that_of_base_edit_model(images):
    model = build().eval()
    plain = MODELS.build(copy.deepcopy({**{k: v for k, v in MODEL.items() if k not in ('dil', 'distortions')},
                                        'type': 'BaseEditModel'})).eval()
    plain.load_state_dict(model.state_dict())  # strictly: the same names and nothing else
    [ours], [theirs] = (m.test_step(batch_of(images[:1], img=images[:1])) for m in (model, plain))
    assert torch.equal(ours.output.pred_img, theirs.output.pred_img)


def test_generator_ema(images):
    model = build(is_use_ema=True)
    with torch.no_grad():
        for parameter in model.generator_ema.parameters():
            parameter.zero_()
    batch = batch_of(images[:1], img=images[:1])
    [sample] = model.eval().val_step(copy.deepcopy(batch))
    assert not sample.output.pred_img.any()
    model.init_weights()
    assert all(map(torch.equal, model.generator.parameters(), model.generator_ema.parameters()))
    wrapper, recorder = recorded(model.train())
    model.train_step(batch_of(images), wrapper)
    assert recorder.grads
    assert all(p.grad is None for p in model.generator_ema.parameters())


def test_losses_are_those_of_the_confounders(images):
    """The logged losses, with an inner learning rate of next to nothing, are the network's on each confounder."""
    model = build(dil={'variant': 'ps', 'inner': {'type': 'SGD', 'lr': 1e-12}},
                  distortions=[{'type': 'GaussianBlur', 'sigma': s} for s in (1, 2)])
    log = model.train_step(batch_of(images), recorded(model)[0])
    gt = torch.from_numpy(images[..., ::-1].copy()).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        expected = [float(nn.functional.l1_loss(model.generator(d(gt)), gt)) for d in model.distortions]
    assert log['l_inner_GaussianBlur(sigma=1)'].item() == pytest.approx(expected[0], rel=1e-5)
    assert log['l_inner_GaussianBlur(sigma=2)'].item() == pytest.approx(expected[1], rel=1e-5)
    assert log['l_inner'].item() == pytest.approx(sum(expected) / 2, rel=1e-5)
    assert min(expected) - 1e-6 <= log['l_outer'].item() <= max(expected) + 1e-6
    assert log['loss'] is log['l_outer']


def test_state_is_not_copied_with_the_model(images):
    """mmengine's EMAHook copies the model; a copy trains on by itself."""
    model = build()
    model.train_step(batch_of(images), recorded(model)[0])
    other = copy.deepcopy(model)
    other.train_step(batch_of(images), recorded(other)[0])
    assert other._training.loss.network is other.generator


@pytest.mark.parametrize('std', [1.0, 255.0])
def test_images_from_0_to_1_are_refused(images, std):
    """They would be all but black to the confounders, and the noise on the 0-255 scale would bury them."""
    preprocessor = {'type': 'DataPreprocessor', 'mean': [0.] * 3, 'std': [std] * 3}
    model = build(dil={'variant': 'ps'}, data_preprocessor=preprocessor)
    wrapper, _ = recorded(model)
    with pytest.raises(DataError, match='gt in the first batch are at most 1; expected 0 to 255'):
        model.train_step(batch_of(images.astype('float32') / 255), wrapper)


@pytest.mark.parametrize('variant', ['ps', 'erm', 'sf'])
def test_pairs_of_which_one_image_is_from_0_to_1(variant, images):
    """RescaleToZeroOne for img alone: a black query, or input of erm; sf makes nothing of img."""
    model = build(dil={'variant': variant})
    batch, wrapper = batch_of(images, img=images.astype('float32') / 255), recorded(model)[0]
    if variant == 'sf':
        model.train_step(batch, wrapper)
        return
    with pytest.raises(DataError, match='all values of img in the first batch are at most 1; expected 0 to 255'):
        model.train_step(batch, wrapper)


@pytest.mark.parametrize('kind', [ValueError, IndexError, ZeroDivisionError, AssertionError])
def test_a_networks_own_error_for_sizes_is_translated(kind, images, monkeypatch):
    model = build()
    forward = type(model.generator).forward

    def picky(self, x):
        if any(side % 32 for side in x.shape[-2:]):
            raise kind('bad size')
        return forward(self, x)

    monkeypatch.setattr(type(model.generator), 'forward', picky)
    with pytest.raises(OptionError, match='gets patches of 16x16 pixels, but takes sides that are multiples of 32'):
        model.train_step(batch_of(images), recorded(model)[0])


def test_patches_smaller_than_gt_size_are_refused(images):
    model = build(dil={'variant': 'ps'}, gt_size=512)
    wrapper, _ = recorded(model)
    with pytest.raises(DataError, match=r'model\.gt_size: 512, but the pipeline gives patches of'):
        model.train_step(batch_of(images), wrapper)


def test_gt_size_is_a_multiple_of_the_scale():
    with pytest.raises(OptionError, match=r'model\.gt_size: 33; allowed: multiples of 2'):
        build(dil={'variant': 'ps'}, gt_size=33, distortions=[{'type': 'Downsample', 'scale': 2}])


@pytest.mark.parametrize('scale', [1, 2])
@pytest.mark.parametrize('sides', [(13, 18), (16, 24), (1, 3)])
def test_images_of_any_size_are_restored(scale, sides):
    """mmagic's RRDBNet takes multiples of 4 and 2 at these scales; what is padded is BasicSR's SwinIRModel's."""
    generator = {'type': 'RRDBNet', 'in_channels': 3, 'out_channels': 3, 'mid_channels': 4, 'num_blocks': 1,
                 'growth_channels': 2, 'upscale_factor': scale}
    model = build(generator=generator, distortions=[{'type': 'Downsample', 'scale': 2}] if scale == 2 else
                  MODEL['distortions']).eval()
    batch, multiple = torch.rand(1, 3, *sides), {1: 4, 2: 2}[scale]
    missing = [-side % multiple for side in sides]
    modes = ['reflect' if gap < side else 'replicate' for gap, side in zip(missing, sides, strict=True)]
    padded = nn.functional.pad(batch, (0, 0, 0, missing[0]), modes[0]) if missing[0] else batch
    padded = nn.functional.pad(padded, (0, missing[1], 0, 0), modes[1]) if missing[1] else padded
    with torch.no_grad():
        expected = model.generator(padded)[..., :scale * sides[0], :scale * sides[1]]
        assert torch.equal(model(batch), expected)
    if any(missing):
        with pytest.raises((AssertionError, RuntimeError)):
            model.generator(batch)


@pytest.mark.parametrize('training', [True, False])
def test_a_network_that_works_in_place_leaves_the_images(training):
    """Metrics and pictures are of what the data loader gave."""

    class InPlace(nn.Module):

        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(0.5))

        def forward(self, x):
            x -= 0.45
            return x * self.gain

    model = build().train(training)
    model.generator = InPlace()
    inputs = torch.rand(2, 3, 16, 16)
    before = inputs.clone()
    assert torch.equal(model.forward_tensor(inputs), (before - 0.45) * 0.5)
    assert torch.equal(inputs, before)


@pytest.mark.parametrize('variant', ['sf', 'ps', 'erm'])
@pytest.mark.parametrize(('scale', 'size', 'words'), [
    (1, 14, ['RRDBNet gets patches of 14x14 pixels', 'multiples of 4', 'model.gt_size', 'of multiples of 4']),
    (2, 14, ['gets patches of 7x7 pixels', 'multiples of 2;', 'of multiples of 4'])])
def test_patches_that_the_generator_does_not_take_are_named(images, variant, scale, size, words):
    generator = {'type': 'RRDBNet', 'in_channels': 3, 'out_channels': 3, 'mid_channels': 4, 'num_blocks': 1,
                 'growth_channels': 2, 'upscale_factor': scale}
    model = build(generator=generator, dil={'variant': variant}, gt_size=size,
                  distortions=[{'type': 'Downsample', 'scale': 2}] if scale == 2 else MODEL['distortions'])
    with pytest.raises(OptionError) as error:
        model.train_step(batch_of(images), recorded(model)[0])
    assert all(word in str(error.value) for word in words), error.value
