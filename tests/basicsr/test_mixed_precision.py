"""``train.amp``: the meta-gradient in half precision against that in float32, and what happens at an overflow."""

import copy

import pytest
import torch
from basicsr.models import build_model

from dil_plugin.errors import OptionError

# of the largest difference in the norm of the gradient; bfloat16 has 8 bits, float16 has 11
TOLERANCE = {'bf16': 0.1, 'fp16': 0.02}


def prepared(parsed, base, variant, amp):
    opt = copy.deepcopy(base)
    inner = {'type': 'SGD', 'lr': 0.01}
    opt['train'] |= {'dil': {'variant': variant, 'inner': inner} if variant != 'erm' else {'variant': 'erm'},
                     'amp': amp, 'ema_decay': 0}
    opt['network_g'].update(num_feat=16, num_grow_ch=8)
    opt = parsed(opt)
    opt['path'] |= {'models': str(opt['path']['models'])}
    return build_model(opt)


def seen_by_the_optimiser(model, gt):
    """Gradients at the moment of the optimiser's first step, as it gets them."""
    seen = []

    def record(optimizer, *_):
        if not seen:
            seen.extend(p.grad.clone() for group in optimizer.param_groups for p in group['params'])

    model.optimizer_g.register_step_pre_hook(record)
    model.feed_data({'gt': gt})
    model.optimize_parameters(1)
    return torch.cat([grad.flatten() for grad in seen]) if seen else None


@pytest.fixture
def gt():
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(('amp', 'variant'), [('bf16', v) for v in ('sf', 'pf', 'ss', 'ps', 'erm')] +
                         [('fp16', v) for v in ('sf', 'pf', 'erm')])
def test_the_meta_gradient_is_that_of_float32_but_for_rounding(base, parsed, gt, amp, variant):
    """The same weights and draws; close, and not equal, since something is computed in half precision."""
    exact, half = (seen_by_the_optimiser(prepared(parsed, base, variant, name), gt) for name in (None, amp))
    assert half.dtype == torch.float32
    difference = float((exact - half).norm() / exact.norm())
    assert 0 < difference < TOLERANCE[amp]


def test_parameters_and_virtual_ones_stay_in_float32(base, parsed, gt):
    model = prepared(parsed, base, 'ps', 'bf16')
    seen, outputs = [], []
    forward = model.net_g.forward
    model.net_g.forward = lambda x: outputs.append(forward(x)) or outputs[-1]
    model.net_g.conv_last.register_forward_pre_hook(lambda layer, _: seen.append(layer.weight.dtype))
    model.feed_data({'gt': gt})
    model.optimize_parameters(1)
    assert set(seen) == {torch.float32}
    assert {output.dtype for output in outputs} == {torch.bfloat16}
    assert {p.dtype for p in model.net_g.parameters()} == {torch.float32}


@pytest.mark.parametrize('variant', ['sf', 'erm'])
def test_a_step_that_overflows_is_skipped(base, parsed, gt, variant):
    """At a scale beyond float16; the scale is lowered until steps are taken again, and nothing has become infinite."""
    model = prepared(parsed, base, variant, 'fp16')
    model.precision.scaler = torch.amp.GradScaler('cpu', init_scale=2.0**40)
    before = copy.deepcopy(model.net_g.state_dict())
    model.feed_data({'gt': gt})
    model.optimize_parameters(1)
    assert all(torch.equal(value, before[name]) for name, value in model.net_g.state_dict().items())
    assert model.precision.scaler.get_scale() < 2.0**40
    for iteration in range(2, 40):
        model.feed_data({'gt': gt})
        model.optimize_parameters(iteration)
    after = model.net_g.state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in after.items())
    assert all(bool(value.isfinite().all()) for value in after.values())


def test_the_scale_is_resumed(base, pipeline, parsed):
    base['train'] |= {'dil': {'variant': 'sf'}, 'amp': 'fp16', 'total_iter': 2}
    root = pipeline(base)
    state = torch.load(root / 'experiments/run/training_states/2.state', weights_only=True)
    assert state['dil']['precision']['scale'] == 2.0**16
    state['dil']['precision']['scale'] = 2.0**9
    model = build_model(parsed(base))
    model.resume_training(state)
    assert model.precision.scaler.get_scale() == 2.0**9


def test_runs_train_in_bfloat16(base, pipeline):
    base['train'] |= {'dil': {'variant': 'ps'}, 'amp': 'bf16'}
    root = pipeline(base)
    weights = torch.load(root / 'experiments/run/models/net_g_latest.pth', weights_only=True)['params']
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in weights.values())


@pytest.mark.parametrize(('amp', 'variant', 'words'), [
    ('bfloat16', 'sf', r"train\.amp: .* got 'bfloat16'; .*allowed: bf16, fp16"),
    ('fp16', 'ps', r'train\.amp: fp16, .* variant ps vanish; allowed: bf16'),
    ('fp16', 'ss', r'train\.amp: fp16, .* variant ss vanish'),
])
def test_what_cannot_be(base, parsed, tmp_path, amp, variant, words):
    base['train'] |= {'dil': {'variant': variant}, 'amp': amp}
    with pytest.raises(OptionError, match=words):
        parsed(base)
    assert not (tmp_path / 'experiments').exists()
