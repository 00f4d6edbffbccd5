"""Networks with fused attention, checkpointing of their own or weights in containers: as their plain twins."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from learning_helpers import charbonnier, conv_network, meta_batch, relative_error, seeded
from test_memory_options import VARIANTS
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from dil_plugin.errors import OptionError
from dil_plugin.learning import NetworkLoss
from dil_plugin.learning.forward_passes import Checkpointed

EXACT = ('ss', 'ss recomputed', 'ps', 'ps held', 'mldg')


def gradients(variant: str, network: nn.Module, forward: Any = None) -> Sequence[Tensor]:
    loss = NetworkLoss(network, nn.functional.mse_loss, forward=None if forward is None else forward(network))
    return VARIANTS[variant](loss.parameters())(loss, loss.parameters(), meta_batch()).grads


def tolerance(variant: str) -> float:
    return 1e-6 if 'finite' in variant else 1e-12


class ByHand(nn.Module):
    """Self-attention of two heads over pixels, written down."""

    def __init__(self) -> None:
        super().__init__()
        self.m = nn.MultiheadAttention(8, 2, batch_first=True)

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(-1, -2) / q.shape[-1]**0.5).softmax(-1) @ v

    def forward(self, x: Tensor) -> Tensor:
        rows, length, _ = x.shape
        qkv = functional.linear(x, self.m.in_proj_weight, self.m.in_proj_bias)
        q, k, v = (z.reshape(rows, length, 2, 4).transpose(1, 2).contiguous() for z in qkv.chunk(3, -1))
        out: Tensor = self.m.out_proj(self.attention(q, k, v).transpose(1, 2).reshape(rows, length, 8))
        return out


class Fused(ByHand):

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v)


class Module(ByHand):

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.m(x, x, x, need_weights=False)[0]
        return out


class Attending(nn.Module):

    def __init__(self, kind: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.body = nn.Sequential(kind(), kind())

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        tokens = self.body(y.flatten(2).transpose(1, 2))
        return x + self.tail(y + tokens.transpose(1, 2).reshape(y.shape))


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('forward', [None, Checkpointed])
@pytest.mark.parametrize('kind', [Fused, Module])
@pytest.mark.parametrize('variant', VARIANTS)
def test_fused_attention(variant: str, kind: Any, forward: Any, training: bool) -> None:
    expected = gradients(variant, seeded(lambda: Attending(ByHand)).train(training))
    found = gradients(variant, seeded(lambda: Attending(kind)).train(training), forward)
    assert relative_error(found, expected) < tolerance(variant)


@pytest.mark.parametrize('variant', EXACT)
def test_encoder_layer(variant: str) -> None:
    """In evaluation mode, where the layer has a kernel of its own for networks that are not trained."""
    expected, found = (gradients(variant, seeded(partial(Attending, partial(Encoder, fused))).eval())
                       for fused in (False, True))
    assert relative_error(found, expected) < 1e-12


class Encoder(nn.TransformerEncoderLayer):

    def __init__(self, fused: bool) -> None:
        super().__init__(8, 2, 16, dropout=0, batch_first=True)
        self.fused = fused

    def forward(self, src: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.fused:
            return super().forward(src, *args, **kwargs)
        x = self.norm1(src + self.self_attn(src, src, src, need_weights=True)[0])
        out: Tensor = self.norm2(x + self.linear2(self.activation(self.linear1(x))))
        return out


@pytest.mark.parametrize('variant', ['erm', 'sf', 'pf', 'ss finite difference'])
def test_first_order_variants_keep_the_fused_kernel(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = functional.scaled_dot_product_attention

    def looking(*args: Any, **kwargs: Any) -> Tensor:
        seen.append(torch.backends.cuda.flash_sdp_enabled())
        return original(*args, **kwargs)

    monkeypatch.setattr(functional, 'scaled_dot_product_attention', looking)
    gradients(variant, seeded(lambda: Attending(Fused)))
    assert seen == [True] * len(seen) != []


class Recomputing(nn.Module):
    """Three ways to hold the same layers: called, computed anew in the backward pass, or with weights in containers."""

    def __init__(self, how: str = 'plain') -> None:
        super().__init__()
        self.how = how
        self.head, self.tail = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 3, 3, padding=1)
        self.middle = nn.Conv2d(6, 6, 3, padding=1)
        self.kept: Any = {'list': [self.middle.weight, self.middle.bias], 'tuple': (self.middle.weight, ),
                          'dict': {'w': [self.middle.weight]}}.get(how)
        self.function: Any = None
        if how == 'closure':
            weight = self.middle.weight
            self.function = lambda y: functional.conv2d(y, weight, padding=1)

    def layer(self, y: Tensor) -> Tensor:
        if self.how in ('plain', 'True', 'False'):
            return torch.tanh(self.middle(y))
        if self.how == 'closure':
            return torch.tanh(self.function(y))
        weight = {'list': lambda: self.kept[0], 'tuple': lambda: self.kept[0], 'dict': lambda: self.kept['w'][0]}
        bias = self.kept[1] if self.how == 'list' else self.middle.bias
        return torch.tanh(functional.conv2d(y, weight[self.how](), bias, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        if self.how in ('True', 'False'):
            return x + self.tail(checkpoint(self.layer, y, use_reentrant=self.how == 'True'))
        return x + self.tail(self.layer(y))


@pytest.mark.parametrize('how', ['False', 'list', 'tuple', 'dict'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_checkpointing_and_containers_in_a_network(variant: str, how: str) -> None:
    """What is computed anew, and what stands in a list, has the virtual parameters, not the network's own."""
    expected = gradients(variant, seeded(Recomputing))
    network = seeded(lambda: Recomputing(how))
    own = network.kept
    assert relative_error(gradients(variant, network), expected) < tolerance(variant)
    assert network.kept is own


@pytest.mark.parametrize('variant', VARIANTS)
def test_re_entrant_checkpointing_is_refused(variant: str) -> None:
    with pytest.raises(OptionError, match='use_reentrant=True.*train.dil.checkpointing: true'):
        gradients(variant, seeded(lambda: Recomputing('True')))


@pytest.mark.parametrize('variant', [variant for variant in VARIANTS if variant != 'erm'])
def test_weights_in_a_closure_are_refused(variant: str) -> None:
    with pytest.raises(OptionError, match='it uses middle.weight from another place'):
        gradients(variant, seeded(lambda: Recomputing('closure')))


def test_weights_in_a_closure_serve_erm() -> None:
    grads = gradients('erm', seeded(lambda: Recomputing('closure')))
    assert all(bool(grad.any()) for grad in grads[:-1])


class OnceOnly(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x.tanh())
        return x.tanh()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * (1 - ctx.saved_tensors[0]**2)


@pytest.mark.parametrize('variant', EXACT)
def test_an_operation_without_second_derivative(variant: str) -> None:

    class Once(Recomputing):

        def layer(self, y: Tensor) -> Tensor:
            return OnceOnly.apply(self.middle(y))

    with pytest.raises(OptionError, match='train.dil.hvp: exact, but an operation .* no second derivative'):
        gradients(variant, seeded(Once))
    assert all(bool(grad.isfinite().all()) for grad in gradients('ps finite difference', seeded(Once)))


def test_containers_that_stand_in_themselves() -> None:
    """As a cache that knows itself; the weights beside it are found and replaced all the same."""
    network = conv_network()
    network.cache = {'weights': [network[0].weight]}
    network.cache['self'] = network.cache
    loss = NetworkLoss(network, charbonnier)
    params = {name: p.detach() + 1 for name, p in loss.parameters().items()}
    assert loss.at(params, lambda: network.cache['weights'][0]) is params['0.weight']
    assert network.cache['self'] is network.cache
    assert network.cache['weights'][0] is network[0].weight
