"""How a step is computed: ``accum_iter``, ``clip_grad_norm``, ``channels_last``, ``compile`` and the memory options."""

import copy

import pytest
import torch
from basicsr.models import build_model

from dil_plugin.errors import OptionError

VARIANTS = ['erm', 'sf', 'pf', 'ss', 'ps']


def built(parsed, base, variant, dil=None, **train):
    opt = copy.deepcopy(base)
    block = {'variant': variant, **(dil or {})}
    if variant == 'erm':
        block['erm_steps'] = 1
    else:
        block['inner'] = {'type': 'SGD', 'lr': 0.01}
    opt['train'] |= {'dil': block, 'ema_decay': 0, **train}
    return build_model(parsed(opt))


def gradients(model, patches, iterations=1):
    """What the optimiser gets at each of its steps."""
    seen = []

    def record(optimizer, *_):
        seen.append(torch.cat([p.grad.flatten() for group in optimizer.param_groups for p in group['params']]))

    model.optimizer_g.register_step_pre_hook(record)
    for iteration in range(iterations):
        model.feed_data({'gt': patches[iteration]})
        model.optimize_parameters(iteration + 1)
    return seen


def close(one, other, tolerance):
    return float((one - other).norm()) <= tolerance * float(other.norm())


@pytest.fixture
def patches():
    return torch.rand(4, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('variant', VARIANTS)
def test_accumulation_takes_the_mean(base, parsed, patches, variant):
    """Two iterations at the same weights against each of them alone; nothing is learnt in between."""
    model = built(parsed, base, variant, accum_iter=2)
    before = copy.deepcopy(model.net_g.state_dict())
    model.feed_data({'gt': patches[0]})
    model.optimize_parameters(1)
    assert all(torch.equal(value, before[name]) for name, value in model.net_g.state_dict().items())

    both = gradients(built(parsed, base, variant, accum_iter=2), patches, 4)
    assert len(both) == 2
    singly = built(parsed, base, variant)
    singly.optimizer_g.step = lambda *_: None  # the weights stay
    alone = []

    def step(_, __, grads, ___):
        alone.append(torch.cat([grad.flatten() for grad in grads]))
        return torch.tensor(True), torch.tensor(False)

    singly.precision.step = step
    for patch in patches[:2]:
        singly.feed_data({'gt': patch})
        singly.optimize_parameters(1)
    assert not torch.equal(alone[0], alone[1])
    assert close(both[0], (alone[0] + alone[1]) / 2, 1e-6)


def test_accumulation_of_plain_steps(base, parsed, patches):
    """erm takes four plain steps per iteration here, and a step of the optimiser is the mean of two of them."""
    opt = copy.deepcopy(base)
    opt['train'] |= {'dil': {'variant': 'erm'}, 'accum_iter': 2}
    assert len(gradients(build_model(parsed(opt)), patches, 3)) == 6


def test_average_follows_steps_and_not_iterations(base, parsed, patches):
    opt = copy.deepcopy(base)
    opt['train'] |= {'dil': {'variant': 'sf'}, 'accum_iter': 2, 'ema_decay': 0.5}
    model = build_model(parsed(opt))
    start = model.net_g_ema.state_dict()['conv_first.weight'].clone()
    for iteration in (1, 2):
        model.feed_data({'gt': patches[iteration]})
        model.optimize_parameters(iteration)
        moved = not torch.equal(model.net_g_ema.state_dict()['conv_first.weight'], start)
        assert moved == (iteration == 2)


def test_average_is_basicsrs(base, parsed, patches):
    """BasicSR's own loop over the parameters, beside ours."""
    from basicsr.models.base_model import BaseModel
    opt = copy.deepcopy(base)
    opt['train'] |= {'dil': {'variant': 'sf'}, 'ema_decay': 0.9}
    ours, theirs = (build_model(parsed(opt)) for _ in range(2))
    theirs.model_ema = lambda decay, where: BaseModel.model_ema(theirs, decay)
    for model in (ours, theirs):
        gradients(model, patches, 3)
    average, expected = (dict(model.net_g_ema.named_parameters()) for model in (ours, theirs))
    assert all(torch.equal(value, expected[name]) for name, value in average.items())
    assert not torch.equal(average['conv_first.weight'], ours.net_g.conv_first.weight)


@pytest.mark.parametrize('variant', ['sf', 'ps'])
def test_a_run_is_resumed_within_an_accumulation(base, pipeline, variant):
    base['train'] |= {'dil': {'variant': variant}, 'accum_iter': 3, 'total_iter': 6}
    base['logger']['save_checkpoint_freq'] = 4
    root = pipeline(base)
    models = root / 'experiments/run/models'
    whole = torch.load(models / 'net_g_latest.pth', weights_only=True)
    state = root / 'experiments/run/training_states/4.state'
    saved = torch.load(state, weights_only=True)['dil']['outer']
    assert saved['count'] == 1
    assert sum(float(total.abs().sum()) for total in saved['total']) > 0
    base['path']['resume_state'] = str(state)
    (models / 'net_g_latest.pth').unlink()
    pipeline(base)
    again = torch.load(models / 'net_g_latest.pth', weights_only=True)
    for key in ('params', 'params_ema'):
        assert all(torch.equal(value, whole[key][name]) for name, value in again[key].items())


@pytest.mark.parametrize('variant', VARIANTS)
def test_clipping_is_pytorchs(base, parsed, patches, variant):
    (free, ) = gradients(built(parsed, base, variant), patches)
    limit = float(free.norm()) / 3
    (clipped, ) = gradients(built(parsed, base, variant, clip_grad_norm=limit), patches)
    parameter = torch.nn.Parameter(torch.zeros_like(free))
    parameter.grad = free.clone()
    torch.nn.utils.clip_grad_norm_([parameter], limit)
    assert close(clipped, parameter.grad, 1e-6)
    (loose, ) = gradients(built(parsed, base, variant, clip_grad_norm=3 * float(free.norm())), patches)
    assert torch.equal(loose, free)


def test_overflow_is_seen_in_spite_of_clipping(base, parsed, patches):
    model = built(parsed, base, 'sf', amp='fp16', clip_grad_norm=0.1)
    model.precision.scaler = torch.amp.GradScaler('cpu', init_scale=2.0**40)
    before = copy.deepcopy(model.net_g.state_dict())
    model.feed_data({'gt': patches[0]})
    model.optimize_parameters(1)
    assert all(torch.equal(value, before[name]) for name, value in model.net_g.state_dict().items())
    assert model.precision.scaler.get_scale() < 2.0**40


@pytest.mark.parametrize('variant', VARIANTS)
def test_channels_last(base, parsed, patches, variant):
    seen = []
    model = built(parsed, base, variant, channels_last=True)
    model.net_g.conv_first.register_forward_pre_hook(
        lambda layer, inputs: seen.append([x.is_contiguous(memory_format=torch.channels_last)
                                           for x in (inputs[0], layer.weight)]))
    (last, ), (first, ) = gradients(model, patches), gradients(built(parsed, base, variant), patches)
    assert seen
    assert all(all(one) for one in seen)
    assert close(last, first, 1e-5)


@pytest.mark.parametrize('variant', VARIANTS)
def test_channels_last_learns_the_same(base, parsed, patches, variant):
    def weights(**train):
        model = built(parsed, base, variant, optim_g={'type': 'Adam', 'lr': 1e-3, 'betas': [0.9, 0.99], 'eps': 1e-3},
                      **train)
        gradients(model, patches, 3)
        return torch.cat([value.contiguous().flatten() for value in model.net_g.state_dict().values()])

    assert close(weights(channels_last=True), weights(), 1e-6)


def test_fused_steps_with_channels_last(base, parsed, patches):
    """The optimiser's gradients lie in memory as its weights do: a fused one looks at nothing else."""
    model = built(parsed, base, 'sf', channels_last=True)
    average = model.precision.guard
    model.variant.walk.average = lambda grads: [grad.contiguous() for grad in average(grads)]
    strides = []
    model.optimizer_g.register_step_pre_hook(
        lambda optimizer, *_: strides.extend((p.stride(), p.grad.stride())
                                             for p in optimizer.param_groups[0]['params']))
    model.variant.walk.displacement = lambda params: [torch.zeros_like(p).contiguous() for p in params.values()]
    gradients(model, patches)
    assert any(len(weight) == 4 and weight[1] == 1 for weight, _ in strides)
    assert all(weight == gradient for weight, gradient in strides)


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('option', [{'micro_batch': 1}, {'micro_batch': 3}, {'checkpointing': True}])
def test_memory_options_reach_the_step(base, parsed, patches, variant, option):
    def run(**dil):
        model, calls = built(parsed, base, variant, dil), []
        model.net_g.body[0].rdb1.conv1.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
        return gradients(model, patches)[0], calls

    (plain, few), (lean, many) = run(), run(**option)
    assert close(lean, plain, 1e-5)
    assert len(many) > len(few)


@pytest.mark.parametrize('variant', ['ss', 'ps'])
def test_recompute_reaches_the_step(base, parsed, patches, variant):
    def run(recompute):
        model, calls = built(parsed, base, variant, {'recompute': recompute}), []
        model.net_g.conv_first.register_forward_pre_hook(lambda *_: calls.append(1))
        return gradients(model, patches)[0], len(calls)

    (held, few), (again, many) = run(False), run(True)
    assert close(again, held, 1e-6)
    assert (few, many) == ({'ss': 8, 'ps': 5}[variant], {'ss': 12, 'ps': 9}[variant])  # 4 confounders and the query


def test_tensorboard_need_not_be_mentioned(base, pipeline):
    del base['logger']['use_tb_logger']
    assert (pipeline(base) / 'experiments/run/models/net_g_latest.pth').is_file()


def test_a_compiled_run(base, pipeline, monkeypatch):
    """Through BasicSR's pipeline, with a compiler that needs no C++; validation keeps the network as it is."""
    from dil_plugin.learning import forward_passes
    compiled = []

    def compile_plainly(network, backend):
        compiled.append(network)
        return torch_compile(network, backend='aot_eager')

    torch_compile = torch.compile
    monkeypatch.setattr(forward_passes.torch, 'compile', compile_plainly)
    base['train'] |= {'dil': {'variant': 'sf'}, 'compile': True}
    root = pipeline(base)
    assert len(compiled) == 1
    names = torch.load(root / 'experiments/run/models/net_g_latest.pth', weights_only=True)['params']
    assert not any('_orig_mod' in name for name in names)


@pytest.mark.parametrize(('change', 'words'), [
    ({'compile': True, 'dil': {'variant': 'ps'}}, r'train\.compile: true, but variant ps with hvp exact'),
    ({'compile': True, 'dil': {'variant': 'sf', 'checkpointing': True}}, r'train\.compile: true, .*checkpointing'),
    ({'compile': 'yes'}, r"train\.compile: .* got 'yes'"),
    ({'channels_last': 1}, r'train\.channels_last: .* got 1'),
    ({'accum_iter': 0}, r'train\.accum_iter: .* got 0'),
    ({'accum_iter': 5}, r'train\.accum_iter: 5, but total_iter is 4'),
    ({'clip_grad_norm': 0}, r'train\.clip_grad_norm: .* got 0'),
    ({'dil': {'variant': 'sf', 'micro_batch': 0}}, r'train\.dil\.micro_batch: .* got 0'),
    ({'dil': {'variant': 'sf', 'micro_batch': 2}, 'pixel_opt': {'type': 'L1Loss', 'reduction': 'sum'}},
     r'train\.dil\.micro_batch: with pixel_opt\.reduction: sum'),
    ({'dil': {'variant': 'ps', 'hvp': 'finite_difference', 'recompute': True}},
     r'train\.dil\.recompute: true, but hvp finite_difference'),
])
def test_what_cannot_be(base, parsed, tmp_path, change, words):
    base['train'] |= change
    with pytest.raises(OptionError, match=words):
        parsed(base)
    assert not (tmp_path / 'experiments').exists()


def test_a_network_without_blocks_is_refused_before_anything_is_made(base, pipeline, tmp_path):
    base['train']['dil'] = {'variant': 'sf', 'checkpointing': True}
    base['network_g'] = {'type': 'SRVGGNetCompact', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 6, 'num_conv': 2,
                         'upscale': 1}
    with pytest.raises(OptionError, match=r'train\.dil\.checkpointing: true, but network_g \(SRVGGNetCompact\)'):
        pipeline(base)
    assert not (tmp_path / 'experiments').exists()


def test_torchrun_without_the_launcher(base, parsed, monkeypatch):
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'x')
    monkeypatch.setenv('WORLD_SIZE', '1')
    parsed(copy.deepcopy(base))
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(OptionError, match='--launcher: none, but torchrun has started several processes'):
        parsed(base)


def test_compilation_without_a_compiler(base, parsed, monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    base['train'] |= {'compile': True}
    with pytest.raises(OptionError, match=r'C\+\+ compiler on a CPU, and there is no no-such-compiler'):
        parsed(base)


@pytest.mark.parametrize(('accum_iter', 'left'), [(3, 1), (2, 0)])
def test_meta_gradients_that_lead_to_no_step_are_told(base, parsed, capsys, accum_iter, left):
    base['train'] |= {'dil': {'variant': 'sf'}, 'accum_iter': accum_iter, 'total_iter': 4}
    parsed(base)
    assert ('the last 1 meta-gradients lead to no step' in capsys.readouterr().err) == bool(left)
