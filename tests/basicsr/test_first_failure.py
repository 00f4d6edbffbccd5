"""What a network of the user's fails at in a training step, a validation or a reload: one line, found by check.py."""

import sys
from pathlib import Path

import pytest
import torch
import yaml

from dil_plugin.basicsr.checks.checking_tool import check
from dil_plugin.basicsr.checks.first_failure import in_one_line
from dil_plugin.basicsr.models.dil_model import DILModel
from dil_plugin.errors import DataError, OptionError

sys.path.insert(0, str(Path(__file__).parent / 'networks'))
ODD = str(Path(__file__).parent / 'networks/odd_networks.py')


@pytest.fixture
def checked(base, tmp_path):
    """The lines of check.py with one of ``odd_networks``."""

    def run(block, variant='sf', **options):
        base.update(custom_imports=['odd_networks'], network_g=block)
        base['train']['dil'] = {'variant': variant}
        base['train'].update(options)
        path = tmp_path / 'check.yml'
        path.write_text(yaml.safe_dump(base))
        return list(check(str(tmp_path), ['-opt', str(path), '--images', '1']))

    return run


@pytest.mark.parametrize(('name', 'said'), [
    ('WithoutGradient', r'RuntimeError: element 0 of tensors does not require grad.*\); the loss does not depend on '
                        'the parameters through autograd: is the output detached'),
    ('SpoiltGraph', 'RuntimeError: one of the variables .* modified by an inplace operation'),
    ('PlainNumbers', rf"KeyError: 'embedding', {ODD} line \d+\)"),
])
def test_a_step_that_fails(checked, base, pipeline, name, said):
    with pytest.raises(OptionError, match=f'^network_g: {name}: the first training step fails \\({said}') as caught:
        checked({'type': name})
    with pytest.raises(OptionError, match=f'^network_g: {name}: the first training step fails \\({said}'):
        pipeline(base)
    assert '\n' not in str(caught.value)


def test_no_second_derivative(checked, monkeypatch):
    def fails(*_):
        raise NotImplementedError('derivative for aten::some_backward is not implemented')

    monkeypatch.setattr('dil_plugin.learning.hessian.exact_recomputed', fails)
    with pytest.raises(OptionError, match=r'some_backward is not implemented\); it has no second derivative: allowed: '
                                          'train.dil.hvp: finite_difference, or variant sf'):
        checked({'type': 'HalfFrozen'}, 'ps')


def test_a_failing_validation(base, crops, pipeline, parsed):
    """Of a model that checks itself nothing but the training."""
    from basicsr.models import build_model
    base.update(custom_imports=['odd_networks'], network_g={'type': 'OfOneSize'})
    model = build_model(parsed(base))
    model.feed_data({'lq': torch.rand(1, 3, 20, 20)})
    with pytest.raises(OptionError, match=rf'OfOneSize: the first restored image fails \(.*, {ODD} line \d+\)'):
        model.test()


def test_later_errors_are_not_held_up(base, parsed, monkeypatch):
    """After a step that was taken, an error is one of the machine or of the plugin: it keeps its traceback."""
    from basicsr.models import build_model
    model = build_model(parsed(base))
    model.feed_data({'gt': torch.rand(4, 3, 16, 16)})
    model.optimize_parameters(1)
    monkeypatch.setattr(DILModel, '_meta_batches', lambda _: [][1])
    with pytest.raises(IndexError):
        model.optimize_parameters(2)


@pytest.mark.parametrize('error', [torch.OutOfMemoryError('x'), MemoryError(), DataError('y'),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")])
def test_what_passes(error):
    with pytest.raises(type(error)) as caught, in_one_line('a step', torch.nn.Identity()):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(('name', 'said'), [
    ('UnseenLayers', r'restores differently after it was saved and loaded \(by up to \d.* of 255'),
    ('UnsavedTable', r'restores differently after it was saved and loaded \(by up to \d.* of 255'),
    ('SizedBuffer', r'cannot be loaded from its own checkpoint \(RuntimeError: .*size mismatch for window'),
])
def test_a_checkpoint_that_does_not_hold_the_network(checked, base, crops, name, said):
    base['datasets']['val_1'] = {
        'name': 'noisy', 'type': 'DistortionAugmentedDataset', 'dataroot_gt': str(crops),
        'io_backend': {'type': 'disk'}, 'distortions': [{'type': 'GaussianNoise', 'sigma': 30}]}
    base['val'] = {'val_freq': 50, 'save_img': False}
    with pytest.raises(OptionError, match=f'^network_g: {name} {said}'):
        checked({'type': name})


@pytest.mark.parametrize('block', [
    {'type': 'WithDropout'}, {'type': 'Counting'}, {'type': 'ReplacedBuffer'}, {'type': 'Tied'},
    {'type': 'SizedBuffer', 'persistent': False}, {'type': 'Parametrized', 'how': 'old_spectral_norm'}])
def test_a_checkpoint_that_does(checked, block):
    assert not any('warning' in line for line in checked(block, channels_last=True))


def test_a_network_that_is_never_the_same_twice(checked):
    line, = (line for line in checked({'type': 'WithDropoutAlways'}) if 'warning' in line)
    assert 'WithDropoutAlways restores an image differently every time (by up to ' in line
