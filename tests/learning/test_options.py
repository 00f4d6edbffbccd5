"""The block ``train.dil``: every option has its effect, every mistake its message."""

from typing import Any

import pytest
import torch
import yaml

from dil_plugin.errors import OptionError
from dil_plugin.learning import (
    ERM,
    MLDG,
    ParallelFirstOrder,
    ParallelSecondOrder,
    SerialFirstOrder,
    SerialSecondOrder,
    build_variant,
)
from dil_plugin.learning.hessian import exact, exact_recomputed, finite_difference
from dil_plugin.learning.options import DILOptions, parse_dil_options


def parse(text: str) -> DILOptions:
    return parse_dil_options(yaml.safe_load(text))


def build(text: str, seed: int = 0, **more: Any) -> Any:
    params = {'weight': torch.ones(2, 2, requires_grad=True), 'bias': torch.zeros(3, requires_grad=True)}
    return build_variant(parse(text), params, seed, **more)


@pytest.mark.parametrize(('name', 'cls'), [('sf', SerialFirstOrder), ('pf', ParallelFirstOrder),
                                           ('ss', SerialSecondOrder), ('ps', ParallelSecondOrder), ('erm', ERM),
                                           ('mldg', MLDG)])
def test_variant(name: str, cls: type) -> None:
    assert type(build(f'variant: {name}')) is cls


@pytest.mark.parametrize('name', ['sf', 'pf'])
def test_inner_is_adam_as_released_by_default(name: str) -> None:
    optimizer = build(f'variant: {name}').walk.optimizer
    assert type(optimizer) is torch.optim.Adam
    [group] = optimizer.param_groups
    assert (group['lr'], group['betas'], group['eps']) == (1e-4, (0.0, 0.999), 1e-8)
    assert [p.shape for p in group['params']] == [(2, 2), (3, )]


@pytest.mark.parametrize('name', ['sf', 'pf'])
def test_inner_adam(name: str) -> None:
    text = f'{{variant: {name}, inner: {{type: Adam, lr: 0.002, betas: [0.9, 0.99], eps: 1.0e-7}}}}'
    [group] = build(text).walk.optimizer.param_groups
    assert (group['lr'], tuple(group['betas']), group['eps']) == (0.002, (0.9, 0.99), 1e-7)


@pytest.mark.parametrize('name', ['sf', 'pf'])
def test_moments_persist_unless_they_shall_not(name: str) -> None:
    for text, persistent in (('', True), (', persistent: true', True), (', persistent: false', False)):
        assert build(f'{{variant: {name}, inner: {{type: Adam{text}}}}}').walk.persistent is persistent


@pytest.mark.parametrize('name', ['sf', 'pf'])
def test_inner_sgd_is_plain(name: str) -> None:
    optimizer = build(f'{{variant: {name}, inner: {{type: SGD, lr: 0.01}}}}').walk.optimizer
    assert type(optimizer) is torch.optim.SGD
    [group] = optimizer.param_groups
    assert (group['lr'], group['momentum'], group['weight_decay'], group['nesterov']) == (0.01, 0, 0, False)


@pytest.mark.parametrize('name', ['ss', 'ps'])
def test_alpha(name: str) -> None:
    assert build(f'{{variant: {name}, inner: {{type: SGD, lr: 0.01}}}}').alpha == 0.01
    assert build(f'variant: {name}').alpha == 1e-4


@pytest.mark.parametrize(('text', 'function'), [
    ('variant: ss', exact),
    ('{variant: ss, hvp: exact}', exact),
    ('{variant: ss, hvp: finite_difference}', finite_difference),
    ('variant: ps', exact_recomputed),
    ('{variant: ps, hvp: exact}', exact_recomputed),
    ('{variant: ps, hvp: finite_difference}', finite_difference),
    ('variant: mldg', exact_recomputed),
    ('{variant: mldg, recompute: false}', exact),
    ('{variant: mldg, hvp: finite_difference}', finite_difference),
])
def test_hvp(text: str, function: Any) -> None:
    assert build(text).inner is function


def test_mldg() -> None:
    made = build('variant: mldg')
    assert (made.alpha, made.held_out, made.beta) == (1e-4, 1, 1.0)
    made = build('{variant: mldg, inner: {type: SGD, lr: 0.01}, held_out: 2, beta: 0.5}', seed=4)
    assert (made.alpha, made.held_out, made.beta) == (0.01, 2, 0.5)
    assert torch.equal(made.generator.get_state(), torch.Generator().manual_seed(4).get_state())


def test_order() -> None:
    assert build('{variant: sf, order: fixed}').generator is None
    for text in ('variant: sf', '{variant: sf, order: shuffled}'):
        draws = [torch.randperm(50, generator=build(text, seed).generator).tolist() for seed in (4, 4, 5)]
        assert draws[0] == draws[1] != draws[2]


def test_average_reaches_every_variant() -> None:
    def average(grads: Any) -> Any:
        return grads

    for name in ('sf', 'pf', 'ss', 'ps', 'erm', 'mldg'):
        variant = build(f'variant: {name}', average=average)
        assert getattr(variant, 'walk', variant).average is average


def test_patches_outputs_and_erm_steps_are_read() -> None:
    options = parse('{variant: erm, patches: fresh, outputs: last, erm_steps: 3}')
    assert (options.patches, options.outputs, options.erm_steps) == ('fresh', 'last', 3)
    assert (parse('variant: erm').patches, parse('variant: erm').outputs) == ('same', 'all')


@pytest.mark.parametrize(('text', 'unused'), [
    ('{variant: sf, inner: {type: SGD}, order: fixed}', []),
    ('{variant: pf, inner: {type: Adam}, order: fixed}', ['order']),
    ('{variant: ss, inner: {type: SGD}, hvp: exact}', []),
    ('{variant: ps, hvp: exact, erm_steps: 2, patches: fresh}', ['erm_steps']),
    ('{variant: erm, erm_steps: 4, erm_sampling: serial}', []),
    ('{variant: sf, erm_sampling: mixed}', ['erm_sampling']),
    ('{variant: ps, deploy: phi, deploy_patches: 8}', []),
    ('{variant: ss, deploy: theta, deploy_patches: 8}', ['deploy_patches']),
    ('{variant: erm, deploy: theta}', ['deploy']),
    ('{variant: mldg, held_out: 2, beta: 0.5, hvp: exact, recompute: true, inner: {type: SGD}}', []),
    ('{variant: ps, held_out: 2, beta: 0.5}', ['held_out', 'beta']),
    ('{variant: erm, inner: {type: SGD}, hvp: exact, order: fixed}', ['inner', 'hvp', 'order']),
    ('{variant: sf, hvp: exact}', ['hvp']),
])
def test_options_without_a_use_are_named(text: str, unused: list[str]) -> None:
    assert parse(text).unused() == unused


MISTAKES = {
    # text: what the message must name: the key, the value, what is allowed
    '{variant: sff}': ['train.dil.variant', "'sff'", 'sf, pf, ss, ps, erm, mldg'],
    '{variant: [sf]}': ['train.dil.variant', "['sf']", 'sf, pf, ss, ps, erm, mldg'],
    '{hvp: exact}': ['train.dil', 'variant'],
    '{variant: ss, hpv: exact}': ['train.dil', "'hpv'", "did you mean 'hvp'?", 'hvp, inner, max_skipped'],
    '{variant: ss, hvp: approximate}': ['train.dil.hvp', "'approximate'", 'exact, finite_difference'],
    '{variant: sf, order: random}': ['train.dil.order', "'random'", 'shuffled, fixed'],
    '{variant: sf, patches: other}': ['train.dil.patches', "'other'", 'same, fresh'],
    '{variant: sf, outputs: middle}': ['train.dil.outputs', "'middle'", 'all, first, last'],
    '{variant: erm, erm_sampling: single}': ['train.dil.erm_sampling', "'single'", 'mixed, serial'],
    '{variant: pf, deploy: phi}': ['train.dil.deploy', 'phi', 'variant pf', 'allowed: theta, or variant ss or ps'],
    '{variant: ps, deploy: Phi}': ['train.dil.deploy', "'Phi'", 'theta, phi'],
    '{variant: erm, erm_steps: 0}': ['train.dil.erm_steps', '0', '>= 1'],
    '{variant: erm, erm_steps: 2.5}': ['train.dil.erm_steps', '2.5', 'a whole number'],
    '{variant: ss, inner: {type: SGD, lr: 0}}': ['train.dil.inner.lr', 'got 0', '> 0'],
    '{variant: sf, inner: {type: Adam, lr: -0.1}}': ['train.dil.inner.lr', '-0.1', '> 0'],
    '{variant: sf, inner: {type: Adam, lr: .nan}}': ['train.dil.inner.lr', 'nan', 'finite'],
    '{variant: sf, inner: {type: Adam, lr: true}}': ['train.dil.inner.lr', 'True', 'a number'],
    '{variant: sf, inner: {type: Adam, lr: 1e-4}}': ['train.dil.inner.lr', "'1e-4'", 'a number', 'write !!float 1e-4'],
    '{variant: sf, inner: {type: Adam, lr: fast}}': ['train.dil.inner.lr', "'fast'", 'a number'],
    '{variant: mldg, inner: {type: Adam}}': ['train.dil', 'inner.type', "'Adam'", 'allowed: SGD', 'mldg'],
    '{variant: mldg, held_out: 0}': ['train.dil.held_out', 'got 0', '>= 1'],
    '{variant: mldg, beta: 0}': ['train.dil.beta', 'got 0', '> 0'],
    '{variant: mldg, deploy: phi}': ['train.dil.deploy', 'phi', 'variant mldg'],
    '{variant: ss, inner: {type: Adam}}': ['train.dil', 'inner.type', "'Adam'", 'allowed: SGD', 'ss'],
    '{variant: ps, inner: {type: Adam, lr: 0.1}}': ['train.dil', 'inner.type', "'Adam'", 'allowed: SGD', 'ps'],
    '{variant: sf, inner: {type: SGD, betas: [0, 0.9]}}': ['train.dil.inner', "'betas'", 'allowed: lr, type'],
    '{variant: sf, inner: {type: Adam, beta: [0, 0.9]}}': ['train.dil.inner', "did you mean 'betas'?", 'eps, lr'],
    '{variant: sf, inner: {type: Adam, betas: [0.9]}}': ['train.dil.inner.betas', '[0.9]', 'length 2'],
    '{variant: sf, inner: {type: Adam, betas: [0.9, 1]}}': ['train.dil.inner.betas[1]', 'got 1', '< 1'],
    '{variant: sf, inner: {type: Adam, eps: 0}}': ['train.dil.inner.eps', 'got 0', '> 0'],
    '{variant: sf, inner: {type: Adam, persistent: 1}}': ['train.dil.inner.persistent', '1', 'true or false'],
    '{variant: sf, inner: {type: SGD, persistent: false}}': ['train.dil.inner', "'persistent'", 'allowed: lr, type'],
    '{variant: sf, inner: {type: RMSprop}}': ['train.dil.inner.type', "'RMSprop'", 'SGD, Adam'],
    '{variant: sf, inner: {lr: 0.1}}': ['train.dil.inner', 'type'],
    '{variant: sf, inner: SGD}': ['train.dil.inner', "'SGD'"],
    '[variant, sf]': ['train.dil', "['variant', 'sf']", 'a block of options'],
    '': ['train.dil', 'None', 'a block of options'],
}


@pytest.mark.parametrize('text', list(MISTAKES))
def test_mistake_is_named(text: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(text)
    message = str(caught.value)
    assert message.startswith('train.dil')
    for part in MISTAKES[text]:
        assert part in message
    assert '\n' not in message


def test_text_number_is_a_number_with_the_hint_followed() -> None:
    assert build('{variant: ss, inner: {type: SGD, lr: !!float 1e-4}}').alpha == 1e-4


def test_key_is_the_callers() -> None:
    with pytest.raises(OptionError, match='^val.dil.variant'):
        parse_dil_options({'variant': 'x'}, 'val.dil')
