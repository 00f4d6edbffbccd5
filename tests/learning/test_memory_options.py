"""``micro_batch``, ``checkpointing`` and ``recompute``: less memory, and the same meta-gradient."""

import contextlib
import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from learning_helpers import (
    CRITERIA,
    NETWORKS,
    conv_network,
    equal,
    meta_batch,
    network_loss,
    relative_error,
    seeded,
    swinir_network,
)
from test_memory import SavedBytes
from torch import Tensor, nn

from dil_plugin.errors import OptionError
from dil_plugin.learning import (
    ERM,
    MLDG,
    MetaGradient,
    NetworkLoss,
    ParallelFirstOrder,
    ParallelSecondOrder,
    ReptileWalk,
    SerialFirstOrder,
    SerialSecondOrder,
)
from dil_plugin.learning.checkpointing import repeated_blocks
from dil_plugin.learning.forward_passes import Checkpointed
from dil_plugin.learning.hessian import exact, exact_recomputed, finite_difference
from dil_plugin.learning.precision import AutocastLoss

SGD = partial(torch.optim.SGD, lr=0.05)
VARIANTS: dict[str, Callable[[Any], Any]] = {
    'erm': lambda params: ERM(),
    'sf': lambda params: SerialFirstOrder(ReptileWalk(params, SGD)),
    'pf': lambda params: ParallelFirstOrder(ReptileWalk(params, SGD)),
    'ss': lambda params: SerialSecondOrder(0.05, exact),
    'ss recomputed': lambda params: SerialSecondOrder(0.05, exact_recomputed),
    'ss finite difference': lambda params: SerialSecondOrder(0.05, finite_difference),
    'ps': lambda params: ParallelSecondOrder(0.05, exact_recomputed),
    'ps held': lambda params: ParallelSecondOrder(0.05, exact),
    'mldg': lambda params: MLDG(0.05, 2, 0.7, torch.Generator().manual_seed(2)),
    'ps finite difference': lambda params: ParallelSecondOrder(0.05, finite_difference),
}
variants = pytest.mark.parametrize('variant', VARIANTS)
networks = pytest.mark.parametrize('network', NETWORKS)


def result(variant: str, loss: Any, batch: int = 5) -> MetaGradient:
    params = loss.parameters()
    return VARIANTS[variant](params)(loss, params, meta_batch(batch=batch))


@variants
@networks
@pytest.mark.parametrize('size', [1, 2, 5, 7])
def test_micro_batches_give_the_gradient_of_the_batch(variant: str, network: str, size: int) -> None:
    """Five images in parts of 1, of 2 (the last one smaller), and at once."""
    loss, _ = network_loss(network, 'charbonnier')
    parts = NetworkLoss(loss.network, CRITERIA['charbonnier'], micro_batch=size)
    expected, found = result(variant, loss), result(variant, parts)
    # a difference of gradients that agree to 16 digits, over a displacement of 1e-8
    assert relative_error(found.grads, expected.grads) < (1e-7 if 'finite' in variant else 1e-13)
    for name in ('inner_losses', 'outer_loss'):
        if getattr(expected, name) is not None:
            torch.testing.assert_close(getattr(found, name), getattr(expected, name))


@variants
def test_micro_batches_are_of_that_size(variant: str) -> None:
    network, sizes = seeded(conv_network), []
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    result(variant, NetworkLoss(network, nn.functional.l1_loss, micro_batch=2))
    assert set(sizes) == {2, 1}


def test_micro_batches_under_autocast() -> None:
    network, sizes = seeded(conv_network, dtype=torch.float32), []
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    loss = AutocastLoss(NetworkLoss(network, nn.functional.l1_loss, micro_batch=2))
    params = loss.loss.parameters()
    with torch.autocast('cpu', torch.bfloat16):
        ParallelSecondOrder(0.05)(loss, params, meta_batch(batch=3, dtype=torch.float32))
    assert set(sizes) == {2, 1}


def peak(variant: str, loss: NetworkLoss, batch: int) -> int:
    count = SavedBytes()
    with torch.autograd.graph.saved_tensors_hooks(count.pack, lambda saved: saved.tensor):
        result(variant, loss, batch)
    assert count.live == 0, 'a graph outlives the call'
    return count.peak


@pytest.mark.parametrize('variant', [name for name in VARIANTS if name != 'ps held'])
def test_micro_batches_hold_the_graph_of_one_part(variant: str) -> None:
    loss, _ = network_loss('rrdb', 'l1')
    parts = NetworkLoss(loss.network, nn.functional.l1_loss, micro_batch=2)
    if variant == 'ss':  # holds all parts' graphs of one confounder, and the weights are saved with each
        assert peak(variant, parts, 8) < 1.5 * peak(variant, loss, 8)
    else:
        assert peak(variant, parts, 8) < 0.5 * peak(variant, loss, 8)


def test_micro_batch_must_have_an_image() -> None:
    with pytest.raises(ValueError, match='micro_batch: expected at least 1, got 0'):
        NetworkLoss(nn.Identity(), nn.functional.l1_loss, micro_batch=0)


@variants
@pytest.mark.parametrize('network', ['rrdb', 'swinir'])
def test_checkpointing_gives_the_same_gradient(variant: str, network: str) -> None:
    loss, _ = network_loss(network, 'charbonnier')
    again = NetworkLoss(loss.network, CRITERIA['charbonnier'], forward=Checkpointed(loss.network))
    assert relative_error(result(variant, again).grads, result(variant, loss).grads) < 1e-13


@pytest.mark.parametrize('variant', ['sf', 'ps', 'ps held', 'ps finite difference'])
def test_checkpointing_computes_blocks_again_and_leaves_the_network_as_it_was(variant: str) -> None:
    loss, _ = network_loss('rrdb', 'l1')
    block, calls = loss.network.body[0], []
    block.rdb1.conv1.register_forward_pre_hook(lambda *_: calls.append(1))
    result(variant, loss)
    once = len(calls)
    result(variant, NetworkLoss(loss.network, CRITERIA['l1'], forward=Checkpointed(loss.network)))
    assert len(calls) - once > 1.9 * once
    assert 'forward' not in vars(block)


def test_checkpointing_holds_less() -> None:
    """Counted where tensors are made, since checkpointing has hooks of its own for what is saved."""

    def peak_of_blocks(forward: Any) -> int:
        from torch.profiler import profile
        params = loss.parameters()
        batch = meta_batch(batch=4, size=16)
        with profile(profile_memory=True) as trace:
            ERM()(NetworkLoss(loss.network, CRITERIA['l1'], forward=forward), params, batch)
        live = most = 0
        for event in sorted((e for e in trace.profiler.kineto_results.events() if e.name() == '[memory]'),
                            key=lambda e: e.start_ns()):
            live += event.nbytes()
            most = max(most, live)
        return most

    from dil_plugin.basicsr.archs.rrdb_no_upsample_arch import RRDBNetNoUpsample
    loss = NetworkLoss(seeded(lambda: RRDBNetNoUpsample(num_feat=8, num_block=6, num_grow_ch=8)), CRITERIA['l1'])
    assert peak_of_blocks(Checkpointed(loss.network)) < 0.5 * peak_of_blocks(None)


def test_checkpointing_with_paths_dropped_at_random() -> None:
    network = seeded(lambda: swinir_network(drop_path_rate=0.5)).train()
    found = []
    for forward in (None, Checkpointed(network)):
        torch.manual_seed(3)
        found.append(result('ps', NetworkLoss(network, nn.functional.mse_loss, forward=forward)).grads)
    assert relative_error(found[1], found[0]) < 1e-13


@pytest.mark.parametrize('variant', ['erm', 'sf', 'ps'])
def test_checkpointing_updates_buffers_once(variant: str) -> None:
    def statistics(forward: Callable[[nn.Module], Any]) -> list[Tensor]:
        network = nn.Sequential(seeded(lambda: conv_network(norm=True)), seeded(lambda: conv_network(norm=True), 1))
        result(variant, NetworkLoss(network, nn.functional.l1_loss, forward=forward(network)))
        return list(network.buffers())

    assert equal(statistics(Checkpointed), statistics(lambda network: None))


def test_checkpointing_under_autocast() -> None:
    network = nn.Sequential(*(seeded(conv_network, i, torch.float32) for i in range(2)))

    def gradients(forward: Any) -> list[Tensor]:
        loss = AutocastLoss(NetworkLoss(network, nn.functional.l1_loss, forward=forward))
        with torch.autocast('cpu', torch.bfloat16):
            return ParallelSecondOrder(0.05)(loss, loss.loss.parameters(), meta_batch(dtype=torch.float32)).grads

    assert equal(gradients(Checkpointed(network)), gradients(None))


def test_blocks_of_known_networks() -> None:
    importlib.import_module('dil_plugin.basicsr')  # before anything imports basicsr
    from basicsr.archs.rrdbnet_arch import RRDBNet
    from basicsr.archs.srresnet_arch import MSRResNet
    assert list(repeated_blocks(RRDBNet(3, 3, num_feat=4, num_block=2, num_grow_ch=2))) == ['body.0', 'body.1']
    assert list(repeated_blocks(MSRResNet(3, 3, num_feat=4, num_block=2))) == ['body.0', 'body.1']
    assert list(repeated_blocks(swinir_network())) == ['layers.0']


def test_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(OptionError, match=r'train.dil.checkpointing: true, but network_g \(Sequential\) has no blocks'):
        Checkpointed(conv_network())


def test_a_block_that_works_in_place_is_refused() -> None:
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1)),
                            nn.Sequential(nn.LeakyReLU(inplace=True), nn.Conv2d(3, 3, 3, padding=1))).double()
    loss = NetworkLoss(network, nn.functional.l1_loss, forward=Checkpointed(network))
    with pytest.raises(OptionError, match='a Sequential of network_g changes its input in place'):
        result('erm', loss)


@pytest.mark.parametrize('grad', [True, False])
def test_checkpointed_network_can_be_used_without_gradients(grad: bool) -> None:
    loss, _ = network_loss('rrdb', 'l1')
    image = meta_batch().confounders[0].lq
    with contextlib.nullcontext() if grad else torch.no_grad():
        assert torch.equal(Checkpointed(loss.network)(image), loss.network(image))
