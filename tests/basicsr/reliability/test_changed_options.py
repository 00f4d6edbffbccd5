"""A resumed run says what it is told differently."""

from pathlib import Path

import pytest

from dil_plugin.basicsr.resuming.changed_options import changes, recorded_options


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
