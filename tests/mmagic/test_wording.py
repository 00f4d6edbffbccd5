"""Messages of the mmagic half name the options of a config of mmengine, not those of a BasicSR YAML."""

import copy
import re

import pytest
from mmagic.registry import MODELS
from torch import nn

from dil_plugin.errors import DILError, SeveralErrors, UnusableImage
from dil_plugin.mmagic.transforms import CounterfactualDistortions
from dil_plugin.mmagic.wording import in_words_of_the_config, names_of_the_config

from .conftest import MODEL, NOISE, batch_of, build, recorded

BASICSR = re.compile(r'\btrain\.|network_g\b|\bdatasets\.|batch_size_per_gpu|manual_seed|optim_g\b|ema_decay|!!float|'
                     r'(?<!model\.)\bqueue_size:|YAML|scale, network|: true\b|: false\b')


@MODELS.register_module()
class Doubling(nn.Module):
    """Twice the size of what is wanted; no blocks."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return nn.functional.interpolate(self.conv(x), scale_factor=2)


DIL = {'variant': 'sf'}
IN_THE_CONFIG = [
    {'dil': {'variant': 'sff'}}, {'dil': 'sf'}, {'dil': {'variant': 'sf', 'ordr': 1}},
    {'dil': {**DIL, 'inner': {'type': 'Adam', 'lr': '1e-4'}}}, {'dil': {**DIL, 'inner': {'type': 'Adam', 'lr': 0}}},
    {'dil': {**DIL, 'checkpointing': 'yes'}}, {'dil': {**DIL, 'max_skipped': 0}}, {'dil': {**DIL, 'micro_batch': 0}},
    {'dil': {'variant': 'ps', 'hvp': 'finite_difference', 'recompute': True}},
    {'dil': {'variant': 'erm', 'erm_steps': 0}},
    {'dil': {'variant': 'ps', 'inner': {'type': 'Adam'}}}, {'dil': {'variant': 'sf', 'deploy': 'phi'}},
    {'dil': {'variant': 'ps', 'deploy': 'phi'}}, {'dil': {'variant': 'ps', 'deploy': 1}},
    {'dil': {'variant': 'mldg', 'held_out': 9}}, {'dil': {'variant': 'sf', 'inner': {'lr': 1.}}},
    {'distortions': []}, {'distortions': 5}, {'distortions': [{'type': 'GaussianNois'}]},
    {'distortions': [{'type': 'GaussianNoise', 'sigma': '5'}]},
    {'distortions': [{'type': 'GaussianNoise', 'scale': 4}]},
    {'gt_size': 0}, {'gt_size': 33, 'distortions': [{'type': 'Downsample', 'scale': 2}]}, {'queue_size': 0},
    {'dil': {**DIL, 'inner': {'type': 'Adam', 'lr': '1e-4'}, 'checkpointing': 'yes'}},
    {'distortions': [{'type': 'GaussianNoise', 'sigma': '5e0'}, {'type': 'JPEG', 'quality': '1e1'}]},
    {'is_use_ema': 1}, {'data_preprocessor': None}, {'generators': 1},
]
IN_A_STEP = [
    {'generator': {'type': 'Doubling'}}, {'generator': {'type': 'Doubling'}, 'dil': {**DIL, 'checkpointing': True}},
    {'dil': {'variant': 'ps', 'patches': 'fresh'}}, {'dil': {'variant': 'erm', 'erm_steps': 3, 'patches': 'fresh'}},
    {'queue_size': 6}, {'queue_size': 4, 'dil': {'variant': 'erm', 'erm_steps': 3, 'erm_sampling': 'serial'}},
    {'gt_size': 64}, {'distortions': [{'type': 'Downsample', 'scale': 2}]},
    {'distortions': [{'type': 'Downsample', 'scale': 3}]},
]


@pytest.mark.parametrize('changes', IN_THE_CONFIG, ids=str)
def test_mistakes_of_the_config(changes):
    with pytest.raises(DILError) as error:
        MODELS.build({**copy.deepcopy(MODEL), **changes})
    assert not BASICSR.search(str(error.value)), error.value


@pytest.mark.parametrize('changes', IN_A_STEP, ids=str)
def test_mistakes_that_a_step_finds(changes, images):
    model = build(**changes)
    wrapper, _ = recorded(model)
    with pytest.raises(DILError) as error:
        model.train_step(batch_of(images), wrapper)
    assert not BASICSR.search(str(error.value)), error.value
    with pytest.raises(DILError) as error:  # of a distributed run
        build(**changes)(mode='loss', **model.data_preprocessor(batch_of(images), True))
    assert not BASICSR.search(str(error.value)), error.value


def test_serial_sampling_of_pairs(images):
    model = build(dil={'variant': 'erm', 'erm_sampling': 'serial'})
    with pytest.raises(DILError, match=r'^model\.dil\.erm_sampling: serial, but the data set gives pairs'):
        model.train_step(batch_of(images, img=images), recorded(model)[0])


@pytest.mark.parametrize('changes', [{'mode': 'fix'}, {'distortions': []}, {'seed': -1}, {'counterfactuals': 'no'},
                                     {'distortions': [{'type': 'GaussianNoise', 'sigmas': 1}]}, {'mode': 'fixed'}])
def test_mistakes_of_the_transform(changes):
    with pytest.raises(DILError, match='CounterfactualDistortions') as error:
        CounterfactualDistortions(**{'distortions': NOISE, **changes})
    assert not BASICSR.search(str(error.value)), error.value


@pytest.mark.parametrize(('theirs', 'ours'), [
    ('check scale, network_g and train.dil.outputs',
     'check the scale of model.distortions, model.generator and model.dil.outputs'),
    ('datasets.train.batch_size_per_gpu: 6', 'train_dataloader.batch_size: 6'),
    ('lower the learning rates (train.dil.inner.lr, train.optim_g.lr)',
     'lower the learning rates (model.dil.inner.lr, optim_wrapper.optimizer.lr)'),
    ('queue_size: 6 is no multiple', 'model.queue_size: 6 is no multiple'),
    ('x: `str` (YAML reads 1e-4 as text: write !!float 1e-4)', 'x: `str` (a text: write 1e-4 without quotes)'),
    ('model.queue_size of model.generator', 'model.queue_size of model.generator'),
    ('inner loss of GaussianNoise(sigma=5) (1)', 'inner loss of GaussianNoise(sigma=5) (1)'),
])
def test_words(theirs, ours):
    assert in_words_of_the_config(theirs) == ours
    assert in_words_of_the_config(ours) == ours


def test_errors_stay_what_they_are():
    """Their class, what else they hold, and where they were raised."""
    with pytest.raises(UnusableImage) as error, names_of_the_config():
        raise UnusableImage('train.dil: this', 'a.png', 'small')
    assert str(error.value) == 'model.dil: this'
    assert (error.value.name, error.value.reason) == ('a.png', 'small')
    with pytest.raises(ValueError, match=r'^train\.dil$'), names_of_the_config():
        raise ValueError('train.dil')


def test_several_errors_are_told_in_the_same_words():
    several = SeveralErrors((DILError('train.dil: this'), DILError('network_g: that')))
    with pytest.raises(SeveralErrors) as error, names_of_the_config():
        raise several
    assert str(error.value) == 'model.dil: this\nerror: model.generator: that'
