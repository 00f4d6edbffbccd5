"""Networks without the gradient that a variant takes are one line before anything is made."""

import random

import numpy as np
import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from dil_plugin.basicsr.checks.gradient_check import check_gradient
from dil_plugin.errors import OptionError
from dil_plugin.learning import DILOptions

VARIANTS = ['erm', 'sf', 'pf', 'ss', 'ps', 'mldg']


class Small(nn.Module):

    def __init__(self, f=4):
        super().__init__()
        self.head, self.middle, self.tail = self.conv(3, f), self.conv(f, f), self.conv(f, 3)

    def conv(self, channels, features):
        return nn.Conv2d(channels, features, 3, 1, 1)

    def forward(self, x):
        return x + self.tail(self.inside(self.head(x)))

    def inside(self, y):
        return torch.tanh(self.middle(y))


@ARCH_REGISTRY.register()
class ReentrantForTest(Small):

    def inside(self, y):
        return checkpoint(self.middle, y, use_reentrant=True)


@ARCH_REGISTRY.register()
class NonReentrantForTest(Small):

    def inside(self, y):
        return checkpoint(self.middle, y, use_reentrant=False)


@ARCH_REGISTRY.register()
class LazyForTest(Small):

    def conv(self, channels, features):
        return nn.LazyConv2d(features, 3, 1, 1)


@ARCH_REGISTRY.register()
class ClosureForTest(Small):

    def __init__(self):
        super().__init__()
        weight = self.middle.weight
        self.run = lambda y: functional.conv2d(y, weight, padding=1)

    def inside(self, y):
        return self.run(y)


@ARCH_REGISTRY.register()
class DrawingForTest(Small):
    drawn = 0

    def inside(self, y):
        type(self).drawn += 1
        return self.middle(y) * random.random() * np.random.rand() * torch.rand(())  # noqa: NPY002


class Once(torch.autograd.Function):

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad * (ctx.saved_tensors[0] > 0)


@ARCH_REGISTRY.register()
class OnceForTest(Small):

    def inside(self, y):
        return Once.apply(self.middle(y))


def options(base, arch, variant):
    base['network_g'] = {'type': arch}
    base['train']['dil'] = {'variant': variant}
    return base


@pytest.mark.parametrize(('arch', 'variants', 'words'), [
    ('ReentrantForTest', VARIANTS, 'network_g: .* use_reentrant=True.* train.dil.checkpointing: true'),
    ('LazyForTest', VARIANTS, r'network_g: LazyForTest has lazy modules \(head, middle, tail\)'),
    ('ClosureForTest', VARIANTS[1:], 'network_g: it uses middle.weight from another place'),
    ('OnceForTest', VARIANTS[3:], 'train.dil.hvp: exact, but an operation of network_g .* finite_difference')])
def test_what_has_no_gradient_is_refused(base, parsed, arch, variants, words):
    for variant in VARIANTS:
        if variant in variants:
            with pytest.raises(OptionError, match=words):
                parsed(options(base, arch, variant))
        else:
            parsed(options(base, arch, variant))


def test_what_has_one_is_not(base, parsed):
    for variant in VARIANTS:
        parsed(options(base, 'NonReentrantForTest', variant))


def test_the_generators_of_the_run_stay(base, parsed):
    opt = parsed(options(base, 'DrawingForTest', 'sf'))
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    DrawingForTest.drawn = 0
    check_gradient(opt, DILOptions(variant='sf'))
    assert DrawingForTest.drawn > 0
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before  # noqa: NPY002


def test_the_parameter_of_swinir_that_fails(base, parsed):
    base['network_g'] = {'type': 'SwinIR', 'upscale': 1, 'window_size': 8, 'embed_dim': 12, 'depths': [2],
                         'num_heads': [2], 'use_checkpoint': True}
    with pytest.raises(OptionError, match='network_g.use_checkpoint: true.* train.dil.checkpointing: true'):
        parsed(base)
