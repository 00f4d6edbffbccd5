"""Networks from outside in the mmagic half: in place, with fused attention, with layers that nothing reaches."""

import copy

import pytest
import torch
from mmagic.registry import MODELS
from torch import nn
from torch.nn import functional

from dil_plugin.errors import OptionError
from dil_plugin.training.idle_parameters import FIRST_STEPS

from .conftest import MODEL, batch_of, build, recorded, relative_error

DIL = {
    'ss': {'variant': 'ss', 'inner': {'type': 'SGD', 'lr': 0.05}},
    'ps': {'variant': 'ps', 'inner': {'type': 'SGD', 'lr': 0.05}},
    'mldg': {'variant': 'mldg', 'inner': {'type': 'SGD', 'lr': 0.05}},
    'erm': {'variant': 'erm', 'erm_steps': 4},
}


@MODELS.register_module()
class TwinForTest(nn.Module):

    def __init__(self, f=4):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, f, 3, padding=1), nn.Conv2d(f, 3, 3, padding=1)

    def forward(self, x):
        return self.rest(x - 0.45)

    def rest(self, x):
        return self.b(torch.tanh(self.a(x))) + x + 0.45


@MODELS.register_module()
class InPlaceForTest(TwinForTest):

    def forward(self, x):
        x -= 0.45
        return self.rest(x)


@MODELS.register_module()
class AttentionForTest(TwinForTest):
    fused = False

    def rest(self, x):
        y = self.a(x)
        q = y.flatten(2).transpose(1, 2).unsqueeze(1).contiguous()
        tokens = functional.scaled_dot_product_attention(q, q, q) if self.fused else \
            (q @ q.transpose(-1, -2) / q.shape[-1]**0.5).softmax(-1) @ q
        return x + self.b(tokens.squeeze(1).transpose(1, 2).reshape(y.shape))


@MODELS.register_module()
class FusedForTest(AttentionForTest):
    fused = True


@MODELS.register_module()
class ForgetfulForTest(TwinForTest):

    def __init__(self):
        super().__init__()
        self.more, self.unused = [nn.Conv2d(4, 4, 1)], nn.Conv2d(3, 3, 1)

    def rest(self, x):
        return self.b(self.more[0](self.a(x))) + x


def gradients(kind, dil, images, steps=1):
    model = build(dil=dil, generator={'type': kind})
    wrapper, recorder = recorded(model, steps=True)
    pairs = {'img': (images * 0.5 + 20).astype('uint8')} if dil['variant'] != 'mldg' else {}
    for _ in range(steps):
        model.train_step(batch_of(images, **pairs), wrapper)
    return [torch.cat([grad.flatten() for grad in grads]) for grads in recorder.grads]


@pytest.mark.parametrize('variant', DIL)
def test_a_network_that_works_in_place(variant, images):
    """To the bit as its twin; erm takes four steps on the same pairs."""
    twin, in_place = (gradients(kind, DIL[variant], images) for kind in ('TwinForTest', 'InPlaceForTest'))
    assert len(twin) == (4 if variant == 'erm' else 1)
    assert all(torch.equal(a, b) for a, b in zip(twin, in_place, strict=True))


@pytest.mark.parametrize('variant', ['ss', 'ps', 'mldg'])
def test_fused_attention(variant, images):
    by_hand, fused = (gradients(kind, DIL[variant], images) for kind in ('AttentionForTest', 'FusedForTest'))
    assert relative_error(fused, by_hand) < 1e-4


def test_what_no_gradient_reaches_is_named_once(images, monkeypatch):
    said = []
    monkeypatch.setattr('dil_plugin.mmagic.wording.print_log', lambda text, *_: said.append(text))
    gradients('ForgetfulForTest', {'variant': 'sf'}, images, FIRST_STEPS + 2)
    listed, idle = (text for text in said if 'ForgetfulForTest keeps' in text or 'no gradient' in text)
    assert 'keeps more[0] in a Python list' in listed
    assert f'2 of 6 parameters had no gradient in the first {FIRST_STEPS} steps' in idle
    assert 'unused.weight, unused.bias' in idle


def test_lazy_modules_are_refused():

    class LazyForTest(TwinForTest):

        def __init__(self):
            super().__init__()
            self.a = nn.LazyConv2d(4, 3, padding=1)

    MODELS.register_module(module=LazyForTest, force=True)
    with pytest.raises(OptionError, match=r'LazyForTest has lazy modules \(a\)'):
        MODELS.build({**copy.deepcopy(MODEL), 'generator': {'type': 'LazyForTest'}})
