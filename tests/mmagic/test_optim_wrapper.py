"""What mmengine's optimiser wrappers do with the meta-gradient: accumulation, clipping, mixed precision."""

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.optim.optimizer import amp_optimizer_wrapper

from dil_plugin.distortions import parse_distortions
from dil_plugin.errors import OptionError
from dil_plugin.learning import NetworkLoss, Pair, build_variant
from dil_plugin.learning.options import parse_dil_options
from dil_plugin.learning.precision import AutocastLoss, OverflowGuard
from dil_plugin.mmagic.given_gradient import loss_with_gradient
from dil_plugin.sampling import build_sampler

from .conftest import NOISE, Recorder, batch_of, build, recorded, relative_error

ALL = ['sf', 'pf', 'ss', 'ps']


def test_given_gradient():
    """Scaled by what the loss is scaled by, added to what is there."""
    params = [torch.ones(3, requires_grad=True), torch.ones(2, 2, requires_grad=True)]
    grads = [torch.arange(3.), torch.full((2, 2), 7.)]
    loss = loss_with_gradient(torch.tensor(0.25), params, grads)
    assert loss.item() == 0.25
    (loss / 4).backward()
    (3 * loss_with_gradient(torch.tensor(1.), params, grads)).backward()
    for param, grad in zip(params, grads, strict=True):
        assert torch.equal(param.grad, 3.25 * grad)


@pytest.mark.parametrize('variant', ALL)
def test_accumulation_is_the_mean_of_the_meta_gradients(variant, images):
    """Two iterations at the same parameters, then one step."""
    dil = {'variant': variant, 'inner': {'type': 'SGD', 'lr': 0.01}}
    first, second = images, images[:, ::-1]
    wrapper, accumulated = recorded(model := build(dil=dil), accumulative_counts=2)
    before = [p.clone() for p in model.generator.parameters()]
    model.train_step(batch_of(first), wrapper)
    assert accumulated.grads == []
    model.train_step(batch_of(second), wrapper)
    assert all(map(torch.equal, before, model.generator.parameters()))

    wrapper, single = recorded(model := build(dil=dil))  # steps are recorded and not taken
    model.train_step(batch_of(first), wrapper)
    model.train_step(batch_of(second), wrapper)
    mean = [(a + b) / 2 for a, b in zip(*single.grads, strict=True)]
    assert len(accumulated.grads) == 1
    assert relative_error(accumulated.grads[0], mean) < 1e-6
    assert relative_error(single.grads[0], single.grads[1]) > 1e-3


def test_accumulated_erm_is_one_step_on_the_larger_batch(images):
    """Pairs of the data set, so that nothing is drawn: two batches of two against one of four."""
    dil = {'variant': 'erm', 'erm_steps': 1}
    lq = images // 2
    wrapper, accumulated = recorded(model := build(dil=dil), accumulative_counts=2)
    for half in (slice(0, 2), slice(2, 4)):
        model.train_step(batch_of(images[half], img=lq[half]), wrapper)
    wrapper, whole = recorded(model := build(dil=dil))
    model.train_step(batch_of(images, img=lq), wrapper)
    assert len(accumulated.grads) == len(whole.grads) == 1
    assert relative_error(accumulated.grads[0], whole.grads[0]) < 1e-5


def test_steps_of_erm_are_counted_for_accumulation(images, hub):
    """mmengine counts iterations; four steps of each are accumulated in threes, the last one is not lost."""
    hub.update_info('max_iters', 2)
    hub.update_info('iter', 0)
    model = build(dil={'variant': 'erm'})
    wrapper, recorder = recorded(model, accumulative_counts=3)
    wrapper.initialize_count_status(model, 0, 2)  # as the Runner does
    stepped_at, take = [], wrapper.optimizer.step
    wrapper.optimizer.step = lambda: (stepped_at.append(wrapper.inner_count), take())
    for _ in range(2):
        model.train_step(batch_of(images), wrapper)
    assert stepped_at == [3, 6, 8]
    assert len(recorder.grads) == 3


@pytest.mark.parametrize('variant', ALL)
def test_clipping(variant, images):
    dil = {'variant': variant}
    wrapper, plain = recorded(model := build(dil=dil))
    model.train_step(batch_of(images), wrapper)
    norm = torch.cat([g.flatten() for g in plain.grads[0]]).norm()
    wrapper, clipped = recorded(model := build(dil=dil), clip_grad={'max_norm': float(norm) / 5})
    model.train_step(batch_of(images), wrapper)
    assert torch.cat([g.flatten() for g in clipped.grads[0]]).norm() == pytest.approx(float(norm) / 5, rel=1e-4)
    assert relative_error(clipped.grads[0], [g / 5 for g in plain.grads[0]]) < 1e-4


def test_optim_wrapper_dict(images):
    model = build()
    wrapper, recorder = recorded(model)
    model.train_step(batch_of(images), OptimWrapperDict(generator=wrapper))
    assert len(recorder.grads) == 1
    with pytest.raises(OptionError, match='discriminator'):
        build().train_step(batch_of(images), OptimWrapperDict(generator=wrapper, discriminator=wrapper))


def amp(model, monkeypatch, dtype, scale=1024.0, steps=False):
    """mmengine's own AmpOptimWrapper, which asks for a GPU, with a GradScaler and autocast of the CPU."""
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    optimizer = torch.optim.SGD(model.generator.parameters(), lr=0.1)
    recorder = Recorder(optimizer, steps)
    wrapper = amp_optimizer_wrapper.AmpOptimWrapper(optimizer=optimizer, dtype=dtype)
    wrapper.loss_scaler = torch.amp.GradScaler('cpu', init_scale=scale, growth_interval=10**6)
    return wrapper, recorder


@pytest.mark.parametrize('variant', ALL)
def test_bfloat16(variant, images, monkeypatch):
    """The scaler's scale is gone when the optimiser steps; the gradient is that of autocast, near that of float32."""
    dil = {'variant': variant, 'inner': {'type': 'SGD', 'lr': 0.01}}
    wrapper, plain = recorded(model := build(dil=dil))
    model.train_step(batch_of(images), wrapper)
    wrapper, mixed = amp(model := build(dil=dil), monkeypatch, 'bfloat16')
    dtypes = []
    model.generator.conv_body.register_forward_hook(lambda module, args, output: dtypes.append(output.dtype))
    model.train_step(batch_of(images), wrapper)
    assert set(dtypes) == {torch.bfloat16}
    assert 1e-5 < relative_error(mixed.grads[0], plain.grads[0]) < 0.2


def test_a_walk_under_autocast_uses_the_weights_of_every_step(images, monkeypatch):
    """Autocast keeps low-precision copies of weights, which a walk overwrites. Reference: a context for every step."""
    dil = {'variant': 'sf', 'inner': {'type': 'SGD', 'lr': 0.5}, 'order': 'fixed'}
    wrapper, recorder = amp(model := build(dil=dil), monkeypatch, 'bfloat16')
    model.train_step(batch_of(images), wrapper)

    gt = torch.from_numpy(images[..., ::-1].copy()).permute(0, 3, 1, 2).float() / 255
    from dil_plugin.sampling import sampler_seed
    [batch] = build_sampler(parse_dil_options(dil), parse_distortions(NOISE), sampler_seed(3, 0)).sample(gt)
    network = copy.deepcopy(model.generator)
    for lq, target in batch.confounders:
        network.zero_grad()
        with torch.autocast('cpu', dtype=torch.bfloat16):
            loss = torch.nn.functional.l1_loss(network(lq), target)
        loss.backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter -= 0.5 * parameter.grad
    expected = [a.detach() - b.detach() for a, b in zip(model.generator.parameters(), network.parameters(),
                                                        strict=True)]
    assert relative_error(recorder.grads[0], expected) < 1e-4


def test_small_gradients_survive_float16():
    """A loss so small that its gradients vanish in float16, except when they are enlarged inside of the network."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    loss = NetworkLoss(network, lambda output, gt: 1e-6 * (output.float() - gt).square().mean())
    params, pair = loss.parameters(), Pair(torch.randn(4, 8), torch.randn(4, 3))
    expected = torch.autograd.grad(loss(params, pair), list(params.values()))
    with torch.autocast('cpu', dtype=torch.float16):
        lost = torch.autograd.grad(AutocastLoss(loss)(params, pair), list(params.values()))
        kept = torch.autograd.grad(AutocastLoss(loss, torch.tensor(2.**16))(params, pair), list(params.values()))
    assert relative_error(kept, expected) < 0.01
    assert relative_error(lost, expected) > 0.1


@pytest.mark.parametrize('variant', ['sf', 'pf'])
def test_an_overflow_stays_out_of_the_inner_optimiser(variant):
    """The meta-gradient says so to the GradScaler; Adam's moments, which persist, stay finite and go on."""
    params = {'w': torch.ones(3, requires_grad=True)}
    guard = OverflowGuard()
    made = build_variant(parse_dil_options({'variant': variant}), params, 0, guard)
    from dil_plugin.learning import MetaBatch
    good, bad = (Pair(torch.tensor(x), torch.zeros(())) for x in (1., float('inf')))

    def loss(weights, pair):
        return (weights['w'] * pair.lq).sum()

    for first, finite in ((bad, False), (good, True)):
        guard.start(active=True)
        grads = guard.marked(made(loss, params, MetaBatch([first, good], good)).grads)
        assert all(bool(g.isfinite().all()) == finite for g in grads)
        assert all(bool(value.isfinite().all()) for state in made.walk.optimizer.state.values()
                   for value in state.values())


def float16_on_cpu(monkeypatch):
    """mmengine's autocast takes bfloat16 alone on a CPU; torch's own takes both."""
    monkeypatch.setattr('mmengine.runner.amp.autocast', lambda dtype=None: torch.autocast('cpu', dtype=dtype))


def test_float16(images, monkeypatch):
    float16_on_cpu(monkeypatch)
    dil = {'variant': 'sf', 'inner': {'type': 'SGD', 'lr': 0.01}}
    wrapper, plain = recorded(model := build(dil=dil))
    model.train_step(batch_of(images), wrapper)
    wrapper, mixed = amp(model := build(dil=dil), monkeypatch, 'float16')
    model.train_step(batch_of(images), wrapper)
    assert relative_error(mixed.grads[0], plain.grads[0]) < 0.05


def test_overflow_in_float16_skips_the_step_and_lowers_the_scale(images, monkeypatch):
    float16_on_cpu(monkeypatch)
    wrapper, mixed = amp(model := build(dil={'variant': 'sf'}), monkeypatch, 'float16', scale=2.**40, steps=True)
    before = [p.clone() for p in model.generator.parameters()]
    model.train_step(batch_of(images), wrapper)
    assert all(map(torch.equal, before, model.generator.parameters()))
    assert mixed.grads == []
    assert wrapper.loss_scaler.get_scale() == 2.**39


@pytest.mark.parametrize('variant', ['ss', 'ps'])
def test_second_order_needs_bfloat16(variant, images, monkeypatch):
    float16_on_cpu(monkeypatch)
    wrapper, _ = amp(model := build(dil={'variant': variant}), monkeypatch, 'float16')
    with pytest.raises(OptionError, match=r"optim_wrapper\.dtype.*'bfloat16'"):
        model.train_step(batch_of(images), wrapper)


def test_plain_wrapper_is_enough(images):
    """A step of the real optimiser, no recorder in between."""
    model = build()
    before = [p.clone() for p in model.generator.parameters()]
    model.train_step(batch_of(images), OptimWrapper(torch.optim.Adam(model.parameters(), lr=1e-3)))
    assert not any(map(torch.equal, before, model.generator.parameters()))
