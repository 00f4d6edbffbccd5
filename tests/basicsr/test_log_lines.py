"""The training log: the norm of the gradient, and lines that can be read."""

import re
from types import SimpleNamespace

import pytest
import torch

from dil_plugin.basicsr.log_lines import LogLines
from dil_plugin.basicsr.models.mixed_precision import MixedPrecision


def log_of(root):
    return ''.join(path.read_text() for path in (root / 'experiments/run').glob('*.log'))


def logged_norms(text):
    return [float(value) for value in re.findall(r' grad_norm: (\S+)', text)]


@pytest.fixture
def norms(monkeypatch):
    """Norms of the gradients that the optimiser's steps get, summed in double precision."""
    found = []
    step = MixedPrecision.step

    def watched(self, optimizer, params, grads, finite):
        found.append(sum(float((grad.double()**2).sum()) for grad in grads)**0.5)
        return step(self, optimizer, params, grads, finite)

    monkeypatch.setattr(MixedPrecision, 'step', watched)
    return found


@pytest.mark.parametrize(('dil', 'accumulated'), [({'variant': 'sf'}, 1), ({'variant': 'pf'}, 2)])
def test_the_norm_is_that_of_the_gradient_before_it_is_clipped(base, pipeline, norms, dil, accumulated):
    base['train'] |= {'dil': dil, 'accum_iter': accumulated, 'scheduler': {'type': 'MultiStepLR', 'milestones': [99]}}
    text = log_of(pipeline(base))
    assert logged_norms(text)[::accumulated] == pytest.approx(norms, rel=1e-4)  # there is none before the first step
    free = norms.copy()
    norms.clear()
    base |= {'name': 'clipped'}
    base['train']['clip_grad_norm'] = free[0] / 4
    root = pipeline(base)
    text = ''.join(path.read_text() for path in (root / 'experiments/clipped').glob('*.log'))
    assert logged_norms(text)[0] == pytest.approx(free[0], rel=1e-4)
    assert norms[0] == pytest.approx(free[0] / 4, rel=1e-4)


@pytest.mark.parametrize('distortions', [
    [{'type': 'GaussianNoise', 'sigma': [5, 10, 15, 20]}],
    [{'type': 'RealESRGAN', 'order': 1, 'final_sinc_prob': 0, 'scale': 1, 'draws': 4}]], ids=['noise', 'real'])
def test_lines_are_short(base, pipeline, distortions):
    """With their time of day, of four confounders and two losses."""
    base |= {'distortions': distortions}
    base['datasets']['train']['gt_size'] = 32
    base['train'] |= {'dil': {'variant': 'ps'}, 'optim_g': {'type': 'Adam', 'lr': 1e-4}}
    lines = log_of(pipeline(base)).splitlines()
    begin = next(k for k, line in enumerate(lines) if 'iter:       1' in line)
    entries = [line for line in lines[begin:] if 'iter:' in line and 'INFO: [run' in line]
    assert max(map(len, entries)) < 200
    text = '\n'.join(entries)
    found = {name: len(re.findall(rf' {name}', text)) for name in ('l_inner: ', 'l_inner_', 'l_outer: ', 'grad_norm: ',
                                                                   't_synthesis: ', 't_outer: ')}
    assert found == {name: 16 if name == 'l_inner_' else 4 for name in found}
    assert 'skipped' not in text


def lines_of(log_vars, board=None):
    logger = LogLines({'name': 'run', 'logger': {'print_freq': 1, 'use_tb_logger': board is not None},
                       'train': {'total_iter': 9}}, 1, board)
    lines = []
    logger.logger = SimpleNamespace(info=lines.append)
    logger({'epoch': 0, 'iter': 1234, 'lrs': [1e-4], 'time': 0.1, 'data_time': 0.0, **log_vars})
    return lines


OURS = {'l_inner': 0.25, 'l_inner_a': 0.125, 'l_inner_b': 1 / 3, 'grad_norm': 2.0, 'skipped': 0, 't_outer': 0.5}


def test_what_stands_where():
    first, second = lines_of(OURS)
    assert first.startswith('[run..][epoch:  0, iter:   1,234, lr:(1.000e-04,)] [eta: ')
    assert first.endswith('l_inner: 2.5000e-01 grad_norm: 2.0000e+00 ')
    assert second == '[run..][iter:   1,234] l_inner_a: 0.125 l_inner_b: 0.3333 t_outer: 0.5'


def test_skipped_steps_are_a_number_of_steps():
    assert ' skipped: 3 ' in lines_of({**OURS, 'skipped': 3})[1]


def test_tensorboard_gets_all():
    scalars = {}
    board = SimpleNamespace(add_scalar=lambda name, value, step: scalars.update({name: (value, step)}))
    lines_of(OURS, board)
    assert scalars == {('losses/' if name.startswith('l_') else '') + name: (value, 1234)
                       for name, value in OURS.items()}


def test_the_line_of_basicsrs_models_stays():
    line, = lines_of({'l_pix': 0.25, 'l_inner_a': 1.0})
    assert line.endswith('] l_pix: 2.5000e-01 l_inner_a: 1.0000e+00 ')


def test_a_resumed_run_knows_the_norm_of_the_last_step(base, pipeline):
    base['train'] |= {'accum_iter': 2, 'total_iter': 3}
    base['logger']['save_checkpoint_freq'] = 2
    root = pipeline(base)
    before = logged_norms(log_of(root))
    assert len(before) == 2
    assert before[0] == before[1]  # of iterations 2 and 3; there is none before
    state = torch.load(root / 'experiments/run/training_states/2.state', weights_only=True)
    assert float(state['dil']['outer']['norm']) == pytest.approx(before[0], rel=1e-4)


def test_the_first_lines_say_how_long_an_epoch_is_and_what_is_validated(base, pipeline):
    """Six images are one batch of four, and the rest is dropped; without an average nothing is said of one."""
    base['datasets']['train']['dataset_enlarge_ratio'] = 1
    for decay in (0.9, 0):
        base['name'], base['train']['ema_decay'] = f'decay_{decay}', decay
        base['train'].update(total_iter=2)
        log, = (pipeline(base) / f'experiments/decay_{decay}').glob('train_*.log')
        text = log.read_text()
        assert 'Number of train images: 6' in text
        assert 'Require iter number per epoch: 1\n' in text
        assert 'Total epochs: 2; iters: 2.' in text
        assert text.count('Validation, the best results too, is of the moving average of the weights') == bool(decay)
