"""A resumed run says what it is told differently."""

import copy
import logging
from pathlib import Path

import pytest
import torch
from basicsr.models import build_model
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from dil_plugin.basicsr.resuming.changed_options import changes, changes_without_effect, recorded_options
from dil_plugin.checkpoints import save_atomically
from dil_plugin.errors import OptionError


@ARCH_REGISTRY.register()
class TrainedForTest(nn.Module):
    """Two layers."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.last(self.first(x))


@ARCH_REGISTRY.register()
class FrozenForTest(TrainedForTest):
    """The same, of which the first does not learn."""

    def __init__(self):
        super().__init__()
        self.first.requires_grad_(False)


def warned(root):
    log = ''.join(path.read_text() for path in Path(root / 'experiments/run').glob('*.log'))
    return [line.split('interrupted run: ')[1] for line in log.splitlines() if 'interrupted run: ' in line]


@pytest.mark.parametrize(('change', 'told'), [
    (lambda opt: opt['train'].update(total_iter=6), 'train.total_iter: 4 -> 6'),
    (lambda opt: opt['train']['optim_g'].update(lr=0.5), 'train.optim_g.lr: 0.0001 -> 0.5'),
    (lambda opt: opt['train']['dil'].update(order='fixed'), 'train.dil.order: not given -> fixed'),
    (lambda opt: opt['distortions'][0].update(sigma=[5, 10, 15, 25]), 'distortions[0].sigma[3]: 20 -> 25'),
    (lambda opt: opt['datasets']['train'].update(use_hflip=False), 'datasets.train.use_hflip: True -> False'),
], ids=['total_iter', 'lr', 'order', 'sigma', 'flip'])
def test_changes_are_told(base, pipeline, change, told):
    base['train'].update(total_iter=4)
    base['train']['optim_g']['lr'] = 1e-4
    base['train']['dil'] = {'variant': 'sf'}
    base['distortions'] = [{'type': 'GaussianNoise', 'sigma': [5, 10, 15, 20]}]
    base['datasets']['train']['use_hflip'] = True
    root = pipeline(base)
    (root / 'experiments/run/training_states/4.state').unlink()
    change(base)
    assert told in warned(pipeline(base, 'train', '--auto_resume'))[0]


def test_nothing_is_told_where_nothing_changed_but_the_speed(base, pipeline):
    root = pipeline(base)
    (root / 'experiments/run/training_states/4.state').unlink()
    base['datasets']['train'].update(num_worker_per_gpu=1)
    assert not warned(pipeline(base, 'train', '--auto_resume'))


def test_many_changes_are_cut_short():
    opt = {'datasets': {}, 'train': {f'option{k}': k for k in range(20)}}
    text = changes({}, recorded_options(opt))
    assert text.startswith('train.option0: not given -> 0; train.option1: not given -> 1')
    assert text.endswith('; …')
    assert text.count('->') == 12


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.mark.parametrize(('change', 'words'), [
    (lambda opt: opt['train'].update(optim_g={'type': 'SGD', 'lr': 1e-3, 'momentum': 0.9}),
     ['train.optim_g.type: SGD', '4.state is of an optimiser of type Adam', 'allowed: Adam, or a new run']),
    (lambda opt: opt['train'].update(scheduler={'type': 'CosineAnnealingRestartLR', 'periods': [8]}),
     ['train.scheduler.type: CosineAnnealingRestartLR', '4.state is of a schedule of type MultiStepLR']),
    (lambda opt: opt['network_g'].update(num_feat=8),
     ['network_g: is not the network of', 'net_g_4.pth', 'of another shape: conv_first.weight [6, 3, 3, 3], not [8,']),
    (lambda opt: (opt['network_g'].update(num_block=2), opt['path'].update(strict_load_g=False)),
     ['network_g: is not the network of', 'missing: body.1.rdb1.conv1.weight, …']),
    (lambda opt: opt.update(network_g={'type': 'FrozenForTest'}),
     ['network_g: is not the network of', 'net_g_4.pth', '4 parameters are trained in', '4.state, 2 now']),
], ids=['optimiser', 'schedule', 'width', 'depth', 'frozen'])
@pytest.mark.parametrize('noted', [True, False], ids=['noted', 'of-an-earlier-version'])
def test_what_cannot_go_on_is_one_line_and_touches_nothing(base, pipeline, change, words, noted):
    if '4 parameters are trained in' in words:
        base['network_g'] = {'type': 'TrainedForTest'}
    folder = pipeline(base) / 'experiments/run'
    if not noted:
        state = torch.load(folder / 'training_states/4.state', weights_only=True)
        del state['dil']['options']
        save_atomically(state, folder / 'training_states/4.state')
    before = contents(folder)
    base['train']['total_iter'] = 8
    change(base)
    with pytest.raises(OptionError) as error:
        pipeline(base, 'train', '--auto_resume')
    assert all(word in str(error.value) for word in words), error.value
    assert 'path.pretrain_network_g' in str(error.value)
    assert contents(folder) == before


@pytest.mark.parametrize(('before', 'after'), [('Adam', 'SGD'), ('SGD', 'Adam')])
def test_another_inner_optimiser_starts_anew(base, pipeline, before, after):
    base['train']['dil'] = {'variant': 'sf', 'inner': {'type': before, 'lr': 1e-4}}
    folder = pipeline(base) / 'experiments/run'
    base['train']['total_iter'] = 5
    base['train']['dil']['inner']['type'] = after
    assert f'train.dil.inner.type: {before} -> {after}' in warned(pipeline(base, 'train', '--auto_resume'))[0]
    base['logger']['save_checkpoint_freq'] = 5
    (folder / 'training_states/5.state').unlink(missing_ok=True)
    pipeline(base, 'train', '--auto_resume')
    inner = torch.load(folder / 'training_states/5.state', weights_only=True)['dil']['state']['walk']['state']
    assert set(inner.get(0, {})) == ({'step', 'exp_avg', 'exp_avg_sq'} if after == 'Adam' else set())


@pytest.mark.parametrize(('dil', 'queue_size'), [
    ({'variant': 'erm', 'erm_sampling': 'serial', 'erm_steps': 3, 'patches': 'same'}, None),
    ({'variant': 'sf', 'patches': 'same'}, 24), ({'variant': 'mldg', 'held_out': 1}, 24)], ids=['serial', 'sf', 'mldg'])
def test_fewer_and_more_confounders_go_on(base, pipeline, dil, queue_size):
    """Of four confounders in turn three are left over; the pool is half full of batches of another size."""
    base['train'] |= {'dil': dil, 'total_iter': 3}
    base['queue_size'] = queue_size
    base['logger']['save_checkpoint_freq'] = 1
    pipeline(base)
    for total, sigma, batch in ((6, [5, 10], 6), (8, [5, 10, 15, 20, 25, 30], 8)):
        base['train']['total_iter'] = total
        base['datasets']['train']['batch_size_per_gpu'] = batch
        base['distortions'] = [{'type': 'GaussianNoise', 'sigma': sigma}]
        root = pipeline(base, 'train', '--auto_resume')
    assert (root / f'experiments/run/training_states/{total}.state').is_file()


@pytest.mark.parametrize(('key', 'kept'), [
    ('train.warmup_iter', False), ('train.total_iter', False), ('train.optim_g.lr', True),
    ('train.scheduler.milestones[0]', True)])
def test_what_goes_on_as_saved_is_told_where_it_was_changed(key, kept):
    assert changes_without_effect({key: '1'}, {key: '2'}) == kept
    assert not changes_without_effect({key: '1'}, {key: '1'})
    assert not changes_without_effect({}, {'train.optim_g.type': 'Adam'})  # states of earlier versions do not say it


def test_a_resumed_run_says_so_of_those_alone(base, parsed, monkeypatch):
    said = []
    monkeypatch.setattr(logging.getLogger('basicsr'), 'handle', lambda record: said.append(record.getMessage()))
    model = build_model(parsed(base))
    state = {'iter': 1, 'epoch': 0, 'optimizers': [model.optimizer_g.state_dict()],
             'schedulers': [model.schedulers[0].state_dict()], 'dil': model.training_state()}
    for option, value, kept in (('warmup_iter', 2, False), ('optim_g', {'type': 'Adam', 'lr': 0.5}, True)):
        said.clear()
        opt = copy.deepcopy(base)
        opt['train'][option] = value
        build_model(parsed(opt)).resume_training(copy.deepcopy(state))
        line, = (text for text in said if text.startswith('Options that differ'))
        assert f'train.{option}' in line
        assert ('go on with what was saved' in line) == kept
