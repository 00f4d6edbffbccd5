"""A training step on a GPU, with every option that says how it is computed; skipped where there is none."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dil_plugin.basicsr  # noqa: F401
from dil_plugin.basicsr.archs.rrdb_no_upsample_arch import RRDBNetNoUpsample
from dil_plugin.basicsr.models.mixed_precision import MixedPrecision
from dil_plugin.basicsr.models.outer_step import OuterStep
from dil_plugin.learning import MetaBatch, Pair, build_loss, build_variant
from dil_plugin.learning.finite import fused_on_gpus
from dil_plugin.learning.options import parse_dil_options

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')]

SGD = {'type': 'SGD', 'lr': 1e-3}
VARIANTS: dict[str, dict[str, Any]] = {
    'erm': {'variant': 'erm'},
    'sf': {'variant': 'sf', 'inner': SGD, 'order': 'fixed'},
    'sf, Adam': {'variant': 'sf', 'order': 'fixed'},
    'pf': {'variant': 'pf', 'inner': SGD},
    'ss': {'variant': 'ss', 'inner': SGD},
    'ps': {'variant': 'ps', 'inner': SGD},
    'ps, held': {'variant': 'ps', 'inner': SGD, 'recompute': False},
    'ps, finite difference': {'variant': 'ps', 'inner': SGD, 'hvp': 'finite_difference'},
}
HOW: dict[str, dict[str, Any]] = {
    'plain': {},
    'micro_batch': {'micro_batch': 3},
    'checkpointing': {'checkpointing': True},
    'channels_last': {'memory_format': torch.channels_last},
    'bf16': {'amp': 'bf16'},
    'bf16, channels_last': {'amp': 'bf16', 'memory_format': torch.channels_last},
    'compiled': {'compiled': True},
    'bf16, channels_last, compiled': {'amp': 'bf16', 'memory_format': torch.channels_last, 'compiled': True},
}


class Run:
    """A network, and its step."""

    def __init__(self, variant: str, device: str, amp: str | None = None, compiled: bool = False,
                 memory_format: torch.memory_format = torch.preserve_format, **dil: Any) -> None:
        torch.manual_seed(0)
        network = RRDBNetNoUpsample(num_feat=16, num_block=1, num_grow_ch=8).to(device, memory_format=memory_format)
        options = parse_dil_options({**VARIANTS[variant], **dil})
        self.loss = build_loss(options, network, nn.functional.l1_loss, compiled, memory_format)
        self.params = self.loss.parameters()
        self.precision = MixedPrecision(amp, options.variant, torch.device(device))
        self.variant = build_variant(options, self.params, 0, self.precision.guard)
        self.optimizer = torch.optim.Adam(list(self.params.values()), 1e-4, **fused_on_gpus(self.params.values()))
        self.outer = OuterStep(self.params, self.precision, clip_grad_norm=1.0)
        generator = torch.Generator().manual_seed(1)
        gt = torch.rand(4, 3, 32, 32, generator=generator)
        noisy = partial(self._noisy, gt, generator, device)
        self.batch = MetaBatch([noisy() for _ in range(3)], noisy())

    @staticmethod
    def _noisy(gt: Tensor, generator: torch.Generator, device: str) -> Pair:
        return Pair((gt + 0.1 * torch.randn(gt.shape, generator=generator)).to(device), gt.to(device))

    def gradient(self) -> list[Tensor]:
        """The meta-gradient."""
        return self.precision.gradient(self.variant, self.loss, self.params, self.batch).grads


def skip_what_cannot_be(variant: str, how: str) -> None:
    if 'compiled' in how and variant in ('ss', 'ps', 'ps, held'):
        pytest.skip('refused: the compiler has no double backward')


@pytest.mark.parametrize('how', HOW)
@pytest.mark.parametrize('variant', VARIANTS)
def test_gradient_is_that_of_the_cpu(variant: str, how: str) -> None:
    skip_what_cannot_be(variant, how)
    expected = Run(variant, 'cpu').gradient()
    found = Run(variant, 'cuda', **HOW[how]).gradient()
    one, other = (torch.cat([grad.cpu().double().flatten() for grad in grads]) for grads in (found, expected))
    tolerance = 0.1 if 'bf16' in how or variant in ('sf, Adam', 'ps, finite difference') else 5e-3  # TF32, kinks
    assert float((one - other).norm() / other.norm()) < tolerance


@pytest.mark.parametrize('how', HOW)
@pytest.mark.parametrize('variant', VARIANTS)
def test_no_step_waits_for_the_device(variant: str, how: str) -> None:
    skip_what_cannot_be(variant, how)
    run = Run(variant, 'cuda', **HOW[how])
    for _ in range(2):  # kernels are loaded and compiled
        run.outer.take(run.optimizer, run.gradient())
    torch.cuda.set_sync_debug_mode('error')
    try:
        run.outer.take(run.optimizer, run.gradient())
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert all(bool(torch.isfinite(p).all()) for p in run.params.values())


@pytest.mark.parametrize('variant', ['ss', 'ps', 'ps, finite difference'])
def test_memory_does_not_grow_with_the_confounders(variant: str) -> None:
    def peak(n: int) -> int:
        run = Run(variant, 'cuda')
        run.batch = MetaBatch(run.batch.confounders[:1] * n, run.batch.query)
        run.gradient()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        run.gradient()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()

    assert peak(6) <= 1.05 * peak(2)
