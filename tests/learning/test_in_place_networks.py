"""A network or criterion that works on its arguments in place counts as its out-of-place twin, to the bit."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from learning_helpers import equal, meta_batch, seeded
from test_memory_options import VARIANTS
from torch import Tensor, nn

from dil_plugin.learning import ERM, MetaBatch, MetaGradient, NetworkLoss, Pair
from dil_plugin.learning.divergence import growth
from dil_plugin.learning.forward_passes import Checkpointed, Compiled
from dil_plugin.learning.options import DILOptions, build_loss, build_variant
from dil_plugin.learning.precision import AutocastLoss


class Residual(nn.Module):

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.conv(x))


class Twin(nn.Module):
    """Subtracts a mean, as RCAN or EDSR do, without touching its input."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 3, 3, padding=1)
        self.body = nn.Sequential(Residual(), Residual())

    def forward(self, x: Tensor) -> Tensor:
        return self.restored(x - 0.45)

    def restored(self, x: Tensor) -> Tensor:
        return self.tail(self.body(self.head(x))) + x + 0.45


class InPlace(Twin):

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.45
        return self.restored(x)


def in_place_l1(output: Tensor, target: Tensor) -> Tensor:
    target -= 0.1
    return (output - 0.1 - target).abs().mean()


def twin_l1(output: Tensor, target: Tensor) -> Tensor:
    return (output - 0.1 - (target - 0.1)).abs().mean()


FORMS: dict[str, Callable[[nn.Module, Any], Any]] = {
    'plain': NetworkLoss,
    'micro_batch': lambda network, criterion: NetworkLoss(network, criterion, micro_batch=2),
    'checkpointing': lambda network, criterion: NetworkLoss(network, criterion, forward=Checkpointed(network)),
    'bf16': lambda network, criterion: AutocastLoss(NetworkLoss(network, criterion)),
    'channels_last': lambda network, criterion: NetworkLoss(network.to(memory_format=torch.channels_last), criterion,
                                                            memory_format=torch.channels_last),
}


def step(variant: str, form: str, network: type[nn.Module], criterion: Any, batch: MetaBatch) -> MetaGradient:
    loss = FORMS[form](seeded(network, dtype=torch.float32), criterion)
    params = getattr(loss, 'loss', loss).parameters()
    with torch.autocast('cpu', torch.bfloat16, enabled=form == 'bf16'):
        return VARIANTS[variant](params)(loss, params, batch)


def copied(batch: MetaBatch) -> MetaBatch:
    return copy.deepcopy(batch)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('variant', VARIANTS)
def test_every_variant(variant: str, form: str) -> None:
    """The query is used n times by ss, inner batches twice by ps and mldg; here all batches lie in one memory too."""
    batch = meta_batch(batch=5, dtype=torch.float32)
    images = torch.stack([pair.lq for pair in batch.confounders], 1)
    batch = MetaBatch([Pair(images[:, i], pair.gt) for i, pair in enumerate(batch.confounders)], batch.query)
    expected = step(variant, form, Twin, twin_l1, copied(batch))
    before = copied(batch)
    found = step(variant, form, InPlace, in_place_l1, batch)
    assert equal(found.grads, expected.grads)
    for name in ('inner_losses', 'outer_loss'):
        if getattr(expected, name) is not None:
            assert torch.equal(getattr(found, name), getattr(expected, name))
    for pair, kept in zip([*batch.confounders, batch.query], [*before.confounders, before.query], strict=True):
        assert equal(pair or (), kept or ())


@pytest.mark.parametrize('variant', ['erm', 'sf', 'pf', 'ss', 'ps'])
def test_compiled(variant: str) -> None:
    found = []
    for network in (Twin, InPlace):
        loss = NetworkLoss(seeded(network, dtype=torch.float32), nn.functional.l1_loss)
        loss = NetworkLoss(loss.network, loss.criterion, forward=Compiled(loss.network, 'aot_eager'))
        options = DILOptions(variant=variant, hvp='finite_difference') if variant in ('ss', 'ps') else \
            DILOptions(variant=variant)
        params = loss.parameters()
        found.append(build_variant(options, params)(loss, params, meta_batch(dtype=torch.float32)).grads)
    assert equal(*found)


def test_erm_steps_on_one_batch() -> None:
    """Four plain steps on the same pairs: the fourth sees what the first saw."""
    weights = []
    for network in (Twin, InPlace):
        loss = build_loss(DILOptions(variant='erm'), seeded(network), nn.functional.l1_loss)
        params, query = loss.parameters(), meta_batch(1).query
        for _ in range(4):
            grads = ERM()(loss, params, MetaBatch((), query)).grads
            with torch.no_grad():
                torch._foreach_sub_(list(params.values()), grads, alpha=0.1)
        weights.append([p.detach() for p in params.values()])
    assert equal(*weights)


def test_watch_for_divergence() -> None:
    batch, found = meta_batch(), []
    for network in (Twin, InPlace):
        loss = NetworkLoss(seeded(network), nn.functional.l1_loss)
        taken = VARIANTS['ps'](loss.parameters())(loss, loss.parameters(), batch)
        found.append(growth(loss, loss.parameters(), batch, taken))
    assert found[0] == found[1]
    assert found[0] is not None


def test_a_network_that_returns_its_input() -> None:
    """What comes out does not lie in the memory of the batch."""

    class Same(nn.Module):

        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            x *= self.gain.detach()
            return x

    outputs: list[Tensor] = []

    def keeping(output: Tensor, target: Tensor) -> Tensor:
        outputs.append(output)
        return (output - target).abs().mean()

    pair = meta_batch(1).confounders[0]
    NetworkLoss(Same().double(), keeping)({}, pair)
    assert torch.equal(outputs[0], pair.lq)
    assert outputs[0].untyped_storage().data_ptr() != pair.lq.untyped_storage().data_ptr()
