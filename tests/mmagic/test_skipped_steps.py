"""Numbers that are not finite in a training: what is skipped, what is said, and how a run ends on them."""

import copy
import json
from pathlib import Path

import pytest
import torch
from mmagic.registry import MODELS
from mmengine.optim import OptimWrapper
from torch import nn

from dil_plugin.errors import NumericalError
from dil_plugin.launch import errors_in_one_line
from dil_plugin.learning import MetaBatch, Pair
from dil_plugin.sampling import MetaBatchSampler

from .conftest import MODEL, batch_of, build, runner
from .test_optim_wrapper import amp, float16_on_cpu

VARIANTS = ['sf', 'pf', 'ss', 'ps', 'mldg', 'erm']


@MODELS.register_module()
class RunningStatistics(nn.Module):
    """With a BatchNorm, which sees the spoiled pixel."""

    def __init__(self):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return x + self.conv(self.norm(x))


@pytest.fixture
def spoil(monkeypatch):
    """Has the sampler spoil a pixel of the batches of some iterations, counted from 1."""

    def patch(iterations, value=float('nan')):
        sample, calls = MetaBatchSampler.sample, []

        def bad(self, *args):
            calls.append(1)
            batches = sample(self, *args)
            return [_spoiled(batch, value) for batch in batches] if len(calls) in iterations else batches

        monkeypatch.setattr(MetaBatchSampler, 'sample', bad)

    return patch


def _spoiled(batch, value):
    pairs = [Pair(pair.lq.clone(), pair.gt) for pair in batch.confounders]
    query = batch.query and Pair(batch.query.lq.clone(), batch.query.gt)
    (pairs[1] if pairs else query).lq[0, 0, 3, 3] = value
    return MetaBatch(pairs, query)


def adam(model, **options):
    optimizer = torch.optim.Adam(model.generator.parameters(), lr=1e-3, **options)
    return OptimWrapper(optimizer)


def state_of(model, wrapper):
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    for k, state in wrapper.optimizer.state_dict()['state'].items():
        tensors |= {f'{k}.{name}': torch.as_tensor(value).clone() for name, value in state.items()}
    return tensors


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


@pytest.mark.parametrize('how', ['plain', 'fused', 'bfloat16'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_a_step_is_skipped_and_the_next_one_taken(variant, how, images, spoil, monkeypatch):
    """Weights, moments and counts of steps stay bit for bit; the first step of all is skipped likewise."""
    model = build(dil={'variant': variant})
    if how == 'bfloat16':
        wrapper, _ = amp(model, monkeypatch, 'bfloat16', steps=True)
    else:
        wrapper = adam(model, fused=how == 'fused')
    spoil({1, 3})
    before = state_of(model, wrapper)
    model.train_step(batch_of(images), wrapper)
    assert same(state_of(model, wrapper), before)
    model.train_step(batch_of(images), wrapper)
    before = state_of(model, wrapper)
    model.train_step(batch_of(images), wrapper)
    assert same(state_of(model, wrapper), before)
    assert model.skipped_steps() == 2 * (4 if variant == 'erm' else 1)
    model.train_step(batch_of(images), wrapper)
    after = state_of(model, wrapper)
    assert not same(after, before)
    assert all(value.isfinite().all() for value in after.values())


def test_a_bad_part_spoils_the_accumulated_step_alone(images, spoil):
    """As in the BasicSR half: the mean of two is one step, whichever of them is bad."""
    model = build(generator={'type': 'RunningStatistics'})
    wrapper = OptimWrapper(torch.optim.Adam(model.generator.parameters(), lr=1e-3), accumulative_counts=2)
    spoil({3, 6})
    stepped, before = [], state_of(model, wrapper)
    for _ in range(8):
        model.train_step(batch_of(images), wrapper)
        now = state_of(model, wrapper)
        stepped.append(not torch.equal(now['generator.conv.weight'], before['generator.conv.weight']))
        assert now['generator.norm.running_mean'].isfinite().all()
        before = now
    assert stepped == [False, True, False, False, False, False, False, True]
    assert model.skipped_steps() == 2


def test_clipping_by_value_makes_no_number_of_an_infinity(images, spoil):
    model = build(dil={'variant': 'sf', 'inner': {'type': 'SGD', 'lr': 1e-4}})
    wrapper = OptimWrapper(torch.optim.SGD(model.generator.parameters(), lr=1.), clip_grad={'type': 'value',
                                                                                          'clip_value': 1e-3})
    spoil({1}, float('inf'))
    before = state_of(model, wrapper)
    model.train_step(batch_of(images), wrapper)
    assert same(state_of(model, wrapper), before)


@pytest.mark.parametrize('asked', [True, False])
def test_a_clipping_that_ends_runs_is_told_of(asked, monkeypatch, tmp_path):
    said = []
    monkeypatch.setattr('dil_plugin.mmagic.outer_step.say', lambda text, _: said.append(text))
    model = build()
    wrapper = OptimWrapper(torch.optim.SGD(model.generator.parameters(), lr=1.),
                           clip_grad={'max_norm': 1., 'error_if_nonfinite': asked})
    for _ in range(2):
        model.prepare_training(wrapper, str(tmp_path))
    assert [text.split(':')[0] for text in said] == ['optim_wrapper.clip_grad.error_if_nonfinite'] * asked


def test_running_statistics_are_those_before_the_skipped_step(images, spoil):
    model = build(generator={'type': 'RunningStatistics'}, dil={'variant': 'ps'})
    wrapper = adam(model)
    model.train_step(batch_of(images), wrapper)
    before = {name: value.clone() for name, value in model.generator.named_buffers()}
    spoil({1})
    model.train_step(batch_of(images), wrapper)
    assert same(dict(model.generator.named_buffers()), before)
    model.train_step(batch_of(images), wrapper)
    assert not same(dict(model.generator.named_buffers()), before)


@pytest.mark.parametrize('static', [False, True])
def test_overflows_of_float16_count_where_the_scale_is_not_to_blame(static, images, spoil, monkeypatch):
    """A scale that is lowered excuses them, one that stays (a number for loss_scale) does not."""
    float16_on_cpu(monkeypatch)
    model = build(dil={'variant': 'sf'})
    wrapper, _ = amp(model, monkeypatch, 'float16', scale=4., steps=True)
    wrapper._scale_update_param = 4. if static else None
    spoil(range(1, 6))
    counted = []
    for _ in range(5):
        model.train_step(batch_of(images), wrapper)
        counted.append(model.skipped_steps())
    assert counted == ([1, 2, 3, 4, 5] if static else [0, 0, 1, 2, 3])  # at 4 and 2, then at 1 and less


def test_a_run_with_one_bad_loss_keeps_good_checkpoints(run_config, spoil, capfd):
    """Every checkpoint is finite, the rest of the run is trained, the log says what happened."""
    run_config['default_hooks']['checkpoint'] |= {'interval': 1, 'max_keep_ckpts': 3}
    run_config['train_cfg'] |= {'max_iters': 8, 'val_interval': 8}
    spoil({4})
    trained = runner(run_config)
    trained.train()
    said = '1 steps were skipped since the last line of the log; not finite: inner loss of GaussianNoise(sigma=10)'
    assert said in capfd.readouterr().out
    work = Path(run_config['work_dir'])
    scalars = [json.loads(line) for path in work.rglob('scalars.json') for line in path.read_text().splitlines()]
    assert [entry['skipped'] for entry in scalars if 'skipped' in entry] == [1]
    files = sorted(work.glob('iter_*.pth'))
    assert [file.name for file in files] == ['iter_6.pth', 'iter_7.pth', 'iter_8.pth']
    weights = [torch.load(file, weights_only=True)['state_dict'] for file in files]
    assert all(value.isfinite().all() for one in weights for value in one.values())
    assert not same(weights[0], weights[1])
    [validated] = [entry['PSNR'] for entry in scalars if 'PSNR' in entry]
    assert 5 < validated < 60


def test_epochs_that_are_shorter_than_the_interval_of_the_log(run_config, spoil):
    """Each of three epochs of three iterations ends in a line of the log, which knows what was skipped till then."""
    run_config['val_dataloader'] = run_config['val_cfg'] = run_config['val_evaluator'] = None
    run_config['train_cfg'] = {'type': 'EpochBasedTrainLoop', 'max_epochs': 3}
    run_config['train_dataloader'] |= {'batch_size': 2, 'sampler': {'type': 'DefaultSampler', 'shuffle': True}}
    spoil({2, 4, 5})
    runner(run_config).train()
    scalars = [json.loads(line) for path in Path(run_config['work_dir']).rglob('scalars.json')
               for line in path.read_text().splitlines()]
    assert [entry.get('skipped') for entry in scalars if 'loss' in entry] == [1, 3, 3]


@pytest.mark.parametrize('variant', ['ps', 'erm'])
def test_a_run_ends_and_names_the_batch(variant, run_config, spoil, capsys):
    """Two bad iterations, a good one, three bad ones: it ends at the third, with the images' names."""
    run_config['model'] = {**MODEL, 'dil': {'variant': variant, 'max_skipped': 3,
                                            **({'erm_steps': 1} if variant == 'erm' else {})}}
    spoil({1, 2, 4, 5, 6})
    with pytest.raises(SystemExit) as end, errors_in_one_line():
        runner(run_config).train()
    assert end.value.code == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    dump = Path(run_config['work_dir']) / 'skipped' / 'iter_6.pth'
    for word in ('iteration 6', 'model.dil.max_skipped: 3', str(dump), 'optim_wrapper.optimizer.lr',
                 'the loss' if variant == 'erm' else 'GaussianNoise(sigma=10)'):
        assert word in line
    kept = torch.load(dump, weights_only=True)
    assert len(kept['files']) == 4
    assert all(Path(file).is_file() and file in line for file in kept['files'])
    assert dump.with_name('iter_6_query.png').is_file()


@pytest.mark.parametrize(('bad', 'named'), [({1, 3}, 3), ({2, 4}, 4), ({1, 4}, 4), ({1, 3, 4}, 3)])
def test_the_part_of_an_accumulated_step_that_was_bad_is_named(bad, named, images, spoil, tmp_path, hub):
    """Not the part that came to the step, whose losses may all be finite."""
    model = build(dil={'variant': 'sf', 'max_skipped': 2})
    wrapper = OptimWrapper(torch.optim.Adam(model.generator.parameters(), lr=1e-3), accumulative_counts=2)
    model.prepare_training(wrapper, str(tmp_path))
    spoil(bad)

    def train(iteration):
        hub.update_info('iter', iteration - 1)
        batch = batch_of(images)
        for sample in batch['data_samples']:
            sample.set_metainfo({'gt_path': f'of_{iteration}.png'})
        model.train_step(batch, wrapper)

    for iteration in (1, 2, 3):
        train(iteration)
    with pytest.raises(NumericalError) as error:
        train(4)
    for words in (f'iteration {named}: ', r'inner loss of GaussianNoise(sigma=10)', f'of_{named}.png'):
        assert words in str(error.value)
    dump = torch.load(tmp_path / 'skipped' / f'iter_{named}.pth', weights_only=True)
    assert not dump['steps'][0]['confounders'][1]['lq'].isfinite().all()


def test_a_resumed_run_goes_on_counting(run_config, spoil, tmp_path):
    run_config['val_dataloader'] = run_config['val_cfg'] = run_config['val_evaluator'] = None
    run_config['train_cfg'] = {'type': 'IterBasedTrainLoop', 'max_iters': 10}
    run_config['model'] = {**MODEL, 'dil': {'variant': 'sf', 'max_skipped': 4}}
    spoil({1, 9, 10, 11, 12})
    runner(run_config).train()
    rest = runner(run_config, resume=True, **{'train_cfg.max_iters': 20})
    with pytest.raises(NumericalError, match='iteration 12'):
        rest.train()
    assert rest.model.skipped_steps() == 5


def test_diverging_virtual_updates_are_reported_once(run_config, capfd):
    run_config['model'] = {**copy.deepcopy(MODEL), 'dil': {'variant': 'ps', 'inner': {'type': 'SGD', 'lr': 100.}}}
    run_config['optim_wrapper']['optimizer']['lr'] = 1e-6
    runner(run_config, **{'train_cfg.max_iters': 10, 'train_cfg.val_interval': 20}).train()
    log = capfd.readouterr().out
    assert log.count('The virtual update multiplies the loss') == 1
    assert 'model.dil.inner.lr (alpha) is 100' in log
