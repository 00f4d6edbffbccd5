"""Numbers that are not finite in a training: what is skipped, what is said, and how a run ends on them."""

import copy
import re
import shutil
from pathlib import Path

import cv2
import pytest
import torch
from basicsr.models import build_model

from dil_plugin.basicsr.launch import run
from dil_plugin.errors import NumericalError
from dil_plugin.learning import MetaBatch, Pair
from dil_plugin.sampling import MetaBatchSampler

VARIANTS = ['sf', 'pf', 'ss', 'ps', 'erm']
WORKER = Path(__file__).with_name('skipping_worker.py')


def spoiled(batch, index):
    """One pixel of a confounder, or of the query (-1), is not a number."""
    pairs = [Pair(pair.lq.clone(), pair.gt) for pair in batch.confounders]
    query = batch.query and Pair(batch.query.lq.clone(), batch.query.gt)
    (query if index == -1 else pairs[index]).lq[0, 0, 3, 3] = float('nan')
    return MetaBatch(pairs, query)


@pytest.fixture
def spoil(monkeypatch):
    """Has the sampler spoil the batches of some iterations, counted from 1."""

    def patch(iterations, index):
        sample, calls = MetaBatchSampler.sample, []

        def bad(self, *args):
            calls.append(1)
            batches = sample(self, *args)
            return [spoiled(batch, index) for batch in batches] if len(calls) in iterations else batches

        monkeypatch.setattr(MetaBatchSampler, 'sample', bad)

    return patch


def state_of(model):
    tensors = dict(model.net_g.state_dict())
    for key, state in model.optimizer_g.state_dict()['state'].items():
        tensors |= {f'{key}.{name}': torch.as_tensor(value) for name, value in state.items()}
    return copy.deepcopy(tensors)


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


def train(model, iterations):
    generator = torch.Generator().manual_seed(0)
    for iteration in iterations:
        model.feed_data({'gt': torch.rand(20, 3, 16, 16, generator=generator), 'gt_path': ['a.png', 'b.png']})
        model.optimize_parameters(iteration)


@pytest.mark.parametrize('amp', [None, 'bf16'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_a_step_is_skipped_and_the_next_one_taken(base, parsed, spoil, variant, amp):
    base['train'] |= {'dil': {'variant': variant}, 'amp': amp}
    model = build_model(parsed(base))
    spoil({2}, -1 if variant == 'erm' else 1)
    train(model, [1])
    before = state_of(model)
    assert model.get_current_log()['skipped'] == 0
    train(model, [2])
    assert same(state_of(model), before)
    steps = 4 if variant == 'erm' else 1
    assert model.get_current_log()['skipped'] == steps
    train(model, [3])
    after = state_of(model)
    assert not same(after, before)
    assert all(value.isfinite().all() for value in after.values())
    assert all(value.isfinite().all() for value in model.net_g_ema.state_dict().values())
    assert model.get_current_log()['skipped'] == steps


@pytest.mark.parametrize('variant', ['sf', 'ps'])
def test_the_log_says_why(base, pipeline, spoil, variant):
    base['train']['dil'] = {'variant': variant}
    spoil({2, 3}, 1)
    root = pipeline(base)
    log, = (root / 'experiments/run').glob('train_*.log')
    lines = [line for line in log.read_text().splitlines() if 'were skipped' in line]
    assert len(lines) == 2
    assert all('1 steps were skipped' in line and 'inner loss of GaussianNoise(sigma=10)' in line for line in lines)
    assert not any('sigma=5)' in line or 'sigma=15' in line for line in lines)
    assert re.findall(r' skipped: (\S*)', log.read_text()) == ['1', '2', '2']  # none where there are none


@pytest.mark.parametrize('variant', VARIANTS)
def test_a_run_ends_and_keeps_the_batch(base, pipeline, spoil, tmp_path, variant, capsys):
    """Two bad iterations, a good one, three bad ones: it ends at the third, not before."""
    bad = {1, 2, 4, 5, 6}
    base['train'] |= {'dil': {'variant': variant, 'max_skipped': 3, **({'erm_steps': 1} if variant == 'erm' else {})},
                      'total_iter': 20}
    spoil(bad, -1 if variant == 'erm' else 1)
    with pytest.raises(SystemExit) as ended:
        run(lambda _: pipeline(base), str(tmp_path))
    assert ended.value.code == 2
    errors = capsys.readouterr().err.splitlines()
    line, = (line for line in errors if line.startswith('error:'))
    words = ['iteration 6', 'train.dil.max_skipped: 3', '.png', str(tmp_path / 'experiments/run/skipped/iter_6.pth')]
    words.append('the loss' if variant == 'erm' else 'GaussianNoise(sigma=10)')
    for word in words:
        assert word in line
    folder = tmp_path / 'experiments/run/skipped'
    dump = torch.load(folder / 'iter_6.pth', weights_only=True)
    assert dump['iter'] == 6
    assert len(dump['files']) == 4
    assert all(file in line for file in dump['files'])
    step, = dump['steps']
    if variant != 'erm':
        finite = [bool(pair['lq'].isfinite().all()) for pair in step['confounders']]
        assert finite == [True, False, True, True]
        assert step['inner_losses'].isfinite().tolist() == finite
    else:
        assert not step['query']['lq'].isfinite().all()
        assert not step['outer_loss'].isfinite()
    picture = cv2.imread(str(folder / f'iter_6_{"query" if variant == "erm" else "confounder_2"}.png'))
    assert picture.shape[0] == 32
    assert picture.shape[1] % 16 == 0
    assert 10 < picture.mean() < 245
    assert sorted(path.suffix for path in folder.iterdir()).count('.pth') == 1


@pytest.mark.parametrize(('bad', 'named'), [({1, 3}, 3), ({2, 4}, 4), ({1, 3, 4}, 3)])
def test_the_part_of_an_accumulated_step_that_was_bad_is_named(base, parsed, spoil, tmp_path, bad, named):
    """Not the part that came to the step, whose losses may all be finite."""
    base['train'] |= {'dil': {'variant': 'sf', 'max_skipped': 2}, 'accum_iter': 2}
    opt = parsed(base)
    opt['path']['experiments_root'] = str(tmp_path)
    model = build_model(opt)
    spoil(bad, 1)
    train(model, [1, 2, 3])
    with pytest.raises(NumericalError, match=rf'^iteration {named}: .*inner loss of GaussianNoise\(sigma=10\)'):
        train(model, [4])
    dump = torch.load(tmp_path / 'skipped' / f'iter_{named}.pth', weights_only=True)
    assert not dump['steps'][0]['confounders'][1]['lq'].isfinite().all()
    assert 'inner loss of GaussianNoise(sigma=10) (2).' in model.watch.skipped.read()[1]


def test_a_dump_that_cannot_be_written_does_not_hide_the_reason(base, parsed, spoil, tmp_path):
    base['train']['dil'] = {'variant': 'ps', 'max_skipped': 1}
    opt = parsed(base)
    file = tmp_path / 'file'
    file.touch()
    opt['path']['experiments_root'] = str(file)
    model = build_model(opt)
    spoil({1}, 2)
    with pytest.raises(NumericalError, match=r'iteration 1: .*GaussianNoise\(sigma=15\) is not finite.*a\.png.*'
                                             r'could not be written'):
        train(model, [1])


def test_a_gradient_alone(base, parsed, tmp_path):
    """The derivative of the square root at 0: losses are finite, and the gradient is not."""
    from torch import nn

    class Root(nn.Module):

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return x + self.weight.abs().sqrt()

    base['train']['dil'] = {'variant': 'sf', 'max_skipped': 1}
    opt = parsed(base)
    opt['path']['experiments_root'] = str(tmp_path)
    from basicsr.utils.registry import ARCH_REGISTRY
    ARCH_REGISTRY._obj_map.setdefault('RootForTest', Root)
    opt['network_g'] = {'type': 'RootForTest'}
    with pytest.raises(NumericalError, match='all losses are finite, the gradient is not'):
        train(build_model(opt), [1])


def test_a_bad_part_spoils_the_accumulated_step_alone(base, parsed, spoil):
    base['train'] |= {'dil': {'variant': 'ps'}, 'accum_iter': 2}
    model = build_model(parsed(base))
    start = state_of(model)
    spoil({1}, 0)
    train(model, [1, 2])
    assert same(state_of(model), start)
    assert model.get_current_log()['skipped'] == 1
    train(model, [3, 4])
    assert not same(state_of(model), start)
    assert model.get_current_log()['skipped'] == 1


def test_overflows_of_float16_do_not_count_until_its_scale_is_the_least(base, parsed, spoil):
    base['train'] |= {'dil': {'variant': 'sf', 'max_skipped': 2}, 'amp': 'fp16'}
    model = build_model(parsed(base))
    model.precision.scaler = torch.amp.GradScaler('cpu', init_scale=2.0**3)
    spoil(set(range(1, 20)), 1)
    with pytest.raises(NumericalError, match='iteration 5'):  # 8, 4 and 2 are lowered; 1 and a half count
        train(model, range(1, 20))
    assert model.watch.read() == 2


def test_a_resumed_run_goes_on_counting(base, parsed, spoil):
    base['train']['dil'] = {'variant': 'sf', 'max_skipped': 3}
    model, resumed = build_model(parsed(base)), build_model(parsed(base))
    spoil({1, 2, 3}, 1)
    train(model, [1])
    assert model.get_current_log()['skipped'] == 1
    train(model, [2])
    resumed.resume_training({'iter': 2, 'epoch': 0, 'optimizers': [model.optimizer_g.state_dict()],
                             'schedulers': [model.schedulers[0].state_dict()], 'dil': model.training_state()})
    total, said = resumed.watch.skipped.read()
    assert total == 2
    assert said.startswith('1 steps were skipped')
    with pytest.raises(NumericalError, match='last 3 or more steps in a row'):
        train(resumed, [3])


def test_nothing_is_saved_while_steps_are_skipped(base, pipeline, spoil):
    """The weights may be why; the last good state and network stay, and a later good step is saved again."""
    base['train'] |= {'dil': {'variant': 'sf'}, 'total_iter': 6}
    base['logger'] |= {'save_checkpoint_freq': 1, 'keep_last': 1}
    spoil({3, 4, 6}, 1)
    run = pipeline(base) / 'experiments/run'
    assert [path.name for path in run.glob('training_states/*')] == ['5.state']
    assert sorted(path.name for path in run.glob('models/*')) == ['net_g_5.pth', 'net_g_latest.pth']
    log, = (path.read_text() for path in run.glob('train_*.log'))
    found = re.findall(r'Iteration (\d) is not saved: it ends on (\d) skipped steps', log)
    assert found == [('3', '1'), ('4', '2'), ('6', '1')]


def test_a_save_that_was_left_out_is_made_up_for(base, pipeline, spoil):
    base['train'] |= {'dil': {'variant': 'sf'}, 'total_iter': 6}
    base['logger'] |= {'save_checkpoint_freq': 3}
    spoil({3, 4}, 1)
    run = pipeline(base) / 'experiments/run'
    assert sorted(path.name for path in run.glob('training_states/*')) == ['5.state', '6.state']


def test_a_signal_while_steps_are_skipped(base, pipeline, spoil, monkeypatch, tmp_path):
    """The run ends after the next step that is taken, which is saved."""
    from dil_plugin.basicsr.models import resumable_model
    base['train'] |= {'dil': {'variant': 'sf'}, 'total_iter': 8}
    base['logger']['save_checkpoint_freq'] = 8
    spoil({2, 3, 4}, 1)
    looks = []
    monkeypatch.setattr(resumable_model, 'received_signal', lambda: looks.append(1) or 15 * (len(looks) >= 4))
    with pytest.raises(SystemExit) as stop:
        pipeline(base)
    assert stop.value.code == 143
    run = tmp_path / 'experiments/run'
    assert [path.name for path in run.glob('training_states/*')] == ['5.state']
    log, = (path.read_text() for path in run.glob('train_*.log'))
    assert 'SIGTERM: the run ends after iteration 5, which is saved' in log


@pytest.mark.parametrize(('variant', 'rate', 'warns'), [('sf', 0.01, False), ('sf', 5., True), ('pf', 100., True),
                                                        ('ss', 0.01, False), ('ss', 100., True), ('ps', 0.01, False),
                                                        ('ps', 100., True)])
def test_diverging_virtual_updates_are_reported_once(base, pipeline, variant, rate, warns):
    base['train']['dil'] = {'variant': variant, 'inner': {'type': 'SGD', 'lr': rate}}
    base['train']['optim_g']['lr'] = 1e-6
    root = pipeline(base)
    log, = (root / 'experiments/run').glob('train_*.log')
    lines = [line for line in log.read_text().splitlines() if 'multiplies the loss' in line]
    assert len(lines) == int(warns)
    if warns:
        advice = float(re.search(rf'\(alpha\) is {rate:g}; try (\S+) or less', lines[0])[1])
        assert advice <= rate / 10
        before, after = map(float, re.search(r'loss: (\S+) at theta, (\S+) at', lines[0]).groups())
        assert not after <= 2 * before  # not a number where it came that far
        base['name'], base['train']['dil']['inner']['lr'] = 'again', advice
        again, = (pipeline(base) / 'experiments/again').glob('train_*.log')
        assert 'multiplies the loss' not in again.read_text()


def test_looking_for_divergence_changes_nothing(base, pipeline):
    """Whether the log is read in every iteration or never, the weights are the same."""
    weights = []
    for frequency in (1, 100):
        base['logger']['print_freq'] = frequency
        root = pipeline(base)
        path = root / 'experiments/run/models/net_g_latest.pth'
        weights.append(torch.load(path, weights_only=True)['params'])
        shutil.rmtree(root / 'experiments')
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_all_ranks_skip_together(run_ranks):
    """The patch is bad on the second rank alone."""
    ranks = run_ranks(WORKER, 2)
    for variant in ranks[0]:
        one, other = (rank[variant] for rank in ranks)
        assert one['counts'] == other['counts'] == [0, 1, 1]
        assert torch.equal(one['weights'][0], one['weights'][1])
        assert not torch.equal(one['weights'][1], one['weights'][2])
        assert all(torch.equal(*pair) for pair in zip(one['weights'], other['weights'], strict=True))
        assert not one['named']
        assert other['named']


@pytest.fixture
def norm(base):
    """A network with running statistics."""
    from basicsr.utils.registry import ARCH_REGISTRY
    from torch import nn

    class Norm(nn.Module):

        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))

        def forward(self, x):
            return x + self.body(x)

    ARCH_REGISTRY._obj_map.setdefault('SkippedNormForTest', Norm)
    base['network_g'] = {'type': 'SkippedNormForTest'}
    base['train']['dil'] = {'variant': 'ps'}
    return base


def test_running_statistics_within_an_accumulation(norm, parsed, spoil):
    """They may be saved between its parts, so the bad part leaves nothing in them."""
    norm['train']['accum_iter'] = 3
    model = build_model(parsed(norm))
    spoil({2}, 1)
    train(model, [1])
    before = copy.deepcopy(dict(model.net_g.named_buffers()))
    train(model, [2])
    assert same(dict(model.net_g.named_buffers()), before)
    train(model, [3])
    assert all(buffer.isfinite().all() for buffer in model.net_g.buffers())
    assert model.get_current_log()['skipped'] == 1


def test_ranks_share_running_statistics_though_the_first_step_is_skipped(norm, parsed, spoil, monkeypatch):
    from dil_plugin.learning import distributed
    shared = []
    monkeypatch.setattr(distributed, 'in_several_processes', lambda: True)
    monkeypatch.setattr(distributed.distributed, 'all_reduce', lambda *_: None)
    monkeypatch.setattr(distributed, 'take_from_first_rank', lambda tensors: shared.append(len(list(tensors))))
    model = build_model(parsed(norm))
    monkeypatch.setattr(distributed, 'in_several_processes', lambda: False)
    spoil({1}, 1)
    train(model, [1, 2])
    assert shared == [3, 3]  # mean, variance, and the number of batches


def test_running_statistics_are_those_before_the_skipped_step(norm, parsed, spoil):
    model = build_model(parsed(norm))
    spoil({2}, 1)
    train(model, [1])
    before = copy.deepcopy(dict(model.net_g.named_buffers()))
    train(model, [2])
    assert same(dict(model.net_g.named_buffers()), before)
    train(model, [3])
    assert not same(dict(model.net_g.named_buffers()), before)


@pytest.mark.parametrize(('variant', 'steps'), [('ps', 1), ('sf', 1), ('erm', 1), ('erm', 2)])
def test_the_moving_average_follows_steps_that_were_taken(base, parsed, spoil, variant, steps):
    """It is the loop over the weights after each iteration that took a step; of two steps one is enough."""
    base['train']['dil'] = {'variant': variant, **({'erm_steps': steps} if variant == 'erm' else {})}
    model = build_model(parsed(base))
    spoil({2, 3}, -1 if variant == 'erm' else 1)
    expected = [param.clone() for param in model.net_g_ema.parameters()]
    for iteration in range(1, 5):
        before = state_of(model)
        train(model, [iteration])
        assert same(state_of(model), before) == (iteration in (2, 3))
        if iteration not in (2, 3):
            expected = [old.mul(0.9).add(new.detach(), alpha=1 - 0.9)
                        for old, new in zip(expected, model.net_g.parameters(), strict=True)]
        assert all(map(torch.equal, model.net_g_ema.parameters(), expected))


def test_the_best_network_stays_while_steps_are_skipped(base, parsed, spoil, tmp_path):
    base['train'] |= {'dil': {'variant': 'sf'}, 'ema_decay': 0}
    opt = parsed(base)
    opt['val'] = {'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}, 'keep_best': 'psnr'}
    opt['path']['models'] = str(tmp_path)
    model = build_model(opt)
    spoil({2}, 1)
    kept = []
    for iteration in (1, 2, 3):
        train(model, [iteration])
        model._keep_if_best('psnr', 20. + iteration, iteration)
        kept.append(model._best['iter'])
    assert kept == [1, 1, 3]
