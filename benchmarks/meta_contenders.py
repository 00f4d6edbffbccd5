"""Ways to take a step of training: ours, those of meta-learning libraries, and those of plain scripts."""

import copy
import functools
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dil_plugin.basicsr  # noqa: F401  BasicSR needs its shims

# isort: split
import torch
from basicsr.archs import build_network
from basicsr.models import build_model
from torch import Tensor, nn

from dil_plugin.learning import MetaBatch, Pair, build_loss, build_variant
from dil_plugin.learning.options import parse_dil_options
from dil_plugin.learning.precision import AutocastLoss

ALPHA = 1e-4  # inner learning rate
OUTER = 1e-5  # outer learning rate: the weights hardly move, so that all steps are of equal work
BETAS = (0.0, 0.999)

Step = Callable[[int], object]


@dataclass(frozen=True)
class Setting:
    """What all contenders are given.

    Attributes:
        network_g: The network, as in a YAML.
        confounders: n.
        patches: B, of each confounder's batch and of the query.
        side: Of a patch, in pixels.
        scale: Clean size over distorted size.
        device: cpu or cuda.
        channels: Of the images.
    """

    network_g: Mapping[str, Any]
    confounders: int
    patches: int
    side: int
    scale: int = 1
    device: str = 'cpu'
    channels: int = 3
    batch: MetaBatch = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, 'batch', self._batch())

    def _batch(self) -> MetaBatch:
        generator = torch.Generator().manual_seed(0)
        large = self.side * self.scale
        gt = torch.rand(self.patches, self.channels, large, large, generator=generator)

        def pair() -> Pair:
            lq = nn.functional.interpolate(gt, size=(self.side, self.side))
            noisy = lq + 0.1 * torch.randn(lq.shape, generator=generator)
            return Pair(noisy.to(self.device), gt.to(self.device))

        return MetaBatch([pair() for _ in range(self.confounders)], pair())

    def network(self) -> nn.Module:
        """The network, the same weights for all."""
        torch.manual_seed(0)
        return build_network(dict(self.network_g)).to(self.device).train()

    def together(self) -> Pair:
        """The batches of all confounders as one."""
        return Pair(*(torch.cat(images) for images in zip(*self.batch.confounders, strict=True)))


def _outer(params: list[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, lr=OUTER, betas=(0.9, 0.99))


def _plain_step(network: nn.Module, optimizer: torch.optim.Optimizer, pair: Pair) -> None:
    optimizer.zero_grad()
    nn.functional.l1_loss(network(pair.lq), pair.gt).backward()
    optimizer.step()


def erm(setting: Setting) -> Step:
    """A plain step on one batch of B patches, as ``SRModel`` takes it: the unit."""
    network = setting.network()
    optimizer = _outer(list(network.parameters()))
    return lambda _: _plain_step(network, optimizer, setting.batch.confounders[0])


def erm_all(setting: Setting) -> Step:
    """A plain step on all n * B patches."""
    network, pair = setting.network(), setting.together()
    optimizer = _outer(list(network.parameters()))
    return lambda _: _plain_step(network, optimizer, pair)


def ours(options: dict[str, Any], setting: Setting, amp: torch.dtype | None = None, channels_last: bool = False,
         compiled: bool = False) -> Step:
    """The variant that ``train.dil`` describes, and the outer step."""
    layout = torch.channels_last if channels_last else torch.preserve_format
    network = setting.network().to(memory_format=layout)
    dil = parse_dil_options(options)
    plain = build_loss(dil, network, nn.functional.l1_loss, compiled, layout)
    loss = plain if amp is None else AutocastLoss(plain)
    params = plain.parameters()
    variant = build_variant(dil, params)
    optimizer = _outer(list(params.values()))

    def step(_: int) -> None:
        with torch.autocast(setting.device, amp or torch.bfloat16, enabled=amp is not None):
            grads = variant(loss, params, setting.batch).grads
        for param, grad in zip(params.values(), grads, strict=True):
            param.grad = grad
        optimizer.step()
        optimizer.zero_grad()

    return step


def with_higher(setting: Setting) -> Step:
    """``ps`` with the library higher."""
    import higher
    network, query = setting.network(), setting.batch.query
    optimizer = _outer(list(network.parameters()))

    def step(_: int) -> None:
        inner = torch.optim.SGD(network.parameters(), lr=ALPHA)
        with higher.innerloop_ctx(network, inner, copy_initial_weights=False) as (fast, unrolled):
            unrolled.step(_mean_loss(fast, setting.batch))
            optimizer.zero_grad()
            nn.functional.l1_loss(fast(query.lq), query.gt).backward()
        optimizer.step()

    return step


def with_torchopt(setting: Setting) -> Step:
    """``ps`` with TorchOpt's MetaSGD."""
    import torchopt
    network, query = setting.network(), setting.batch.query
    optimizer = _outer(list(network.parameters()))

    def step(_: int) -> None:
        state = torchopt.extract_state_dict(network, by='reference')
        inner = torchopt.MetaSGD(network, lr=ALPHA)
        inner.step(_mean_loss(network, setting.batch))
        optimizer.zero_grad()
        nn.functional.l1_loss(network(query.lq), query.gt).backward()
        torchopt.recover_state_dict(network, state)
        optimizer.step()

    return step


def _mean_loss(network: Any, batch: MetaBatch) -> Tensor:
    """One confounder after the other, as our variants have it, so that their losses can be logged."""
    return torch.stack([nn.functional.l1_loss(network(lq), gt) for lq, gt in batch.confounders]).mean()


def deep_copy(setting: Setting) -> Step:
    """``sf`` by a deep copy of the module in every step, with an inner optimiser of its own (Reptile as in tutorials).
    """
    network = setting.network()
    optimizer = _outer(list(network.parameters()))

    def step(_: int) -> None:
        fast = copy.deepcopy(network)
        inner = torch.optim.SGD(fast.parameters(), lr=ALPHA)
        for pair in setting.batch.confounders:
            _plain_step(fast, inner, pair)
        _take_displacement(network, fast, optimizer)

    return step


def two_models(setting: Setting) -> Step:
    """``sf`` as research scripts have it: two full models that exchange ``state_dict``s, two Adams."""
    network, fast = setting.network(), setting.network()
    optimizer = _outer(list(network.parameters()))
    inner = torch.optim.Adam(fast.parameters(), lr=ALPHA, betas=BETAS)

    def step(_: int) -> None:
        fast.load_state_dict(network.state_dict())
        for pair in setting.batch.confounders:
            _plain_step(fast, inner, pair)
        _take_displacement(network, fast, optimizer)

    return step


def _take_displacement(network: nn.Module, fast: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for param, moved in zip(network.parameters(), fast.parameters(), strict=True):
        param.grad = param.data - moved.data
    optimizer.step()
    optimizer.zero_grad()


def in_basicsr(model_type: str, setting: Setting) -> Step:
    """A plain step of one of BasicSR's models on real pairs, of its method ``optimize_parameters``."""
    options: dict[str, Any] = {
        'name': 'benchmark', 'model_type': model_type, 'scale': setting.scale, 'is_train': True, 'dist': False,
        'num_gpu': int(setting.device == 'cuda'), 'rank': 0, 'world_size': 1, 'manual_seed': 0,
        'distortions': [{'type': 'GaussianNoise', 'sigma': 10} if setting.scale == 1 else
                        {'type': 'Downsample', 'scale': setting.scale}],  # needed, and not used: there are pairs
        'datasets': {'train': {'phase': 'train', 'scale': setting.scale, 'gt_size': setting.side * setting.scale}},
        'network_g': dict(setting.network_g),
        'path': {'pretrain_network_g': None, 'experiments_root': tempfile.gettempdir()},
        'train': {'dil': {'variant': 'erm', 'erm_steps': 1}, 'ema_decay': 0,
                  'optim_g': {'type': 'Adam', 'lr': OUTER, 'betas': [0.9, 0.99]},
                  'scheduler': {'type': 'MultiStepLR', 'milestones': [10**9]}, 'total_iter': 10**9,
                  'pixel_opt': {'type': 'L1Loss', 'loss_weight': 1.0, 'reduction': 'mean'}},
        'logger': {},
    }
    torch.manual_seed(0)
    model = build_model(options)
    pair = setting.batch.confounders[0]

    def step(_: int) -> None:
        model.feed_data({'lq': pair.lq, 'gt': pair.gt})
        model.optimize_parameters(1)

    return step


_SGD = {'type': 'SGD', 'lr': ALPHA}
_ADAM = {'type': 'Adam', 'lr': ALPHA, 'betas': BETAS}

OURS: dict[str, dict[str, Any]] = {
    'ours: erm': {'variant': 'erm'},
    'ours: sf': {'variant': 'sf', 'inner': _ADAM, 'order': 'fixed'},
    'ours: pf': {'variant': 'pf', 'inner': _ADAM},
    'ours: ps, fast': {'variant': 'ps', 'inner': _SGD, 'recompute': False},
    'ours: ps, frugal': {'variant': 'ps', 'inner': _SGD, 'recompute': True},
    'ours: ps, frugal, checkpointing': {'variant': 'ps', 'inner': _SGD, 'recompute': True, 'checkpointing': True},
    'ours: ps, finite difference': {'variant': 'ps', 'inner': _SGD, 'hvp': 'finite_difference'},
    'ours: ss': {'variant': 'ss', 'inner': _SGD},
}

CONTENDERS: dict[str, Callable[[Setting], Step]] = {
    'SRModel': functools.partial(in_basicsr, 'SRModel'),
    'DILModel: erm': functools.partial(in_basicsr, 'DILModel'),
    'plain step': erm,
    'plain step, n batches': erm_all,
    **{name: functools.partial(ours, options) for name, options in OURS.items()},
    'ours: ps, fast, channels_last': functools.partial(ours, OURS['ours: ps, fast'], channels_last=True),
    'ours: sf, bf16, channels_last': functools.partial(ours, OURS['ours: sf'], amp=torch.bfloat16, channels_last=True),
    'higher: ps': with_higher,
    'TorchOpt: ps': with_torchopt,
    'deep copy: sf': deep_copy,
    'two models: sf': two_models,
}

ON_GPUS: dict[str, Callable[[Setting], Step]] = {
    'ours: sf, bf16, channels_last, compiled': functools.partial(ours, OURS['ours: sf'], amp=torch.bfloat16,
                                                                 channels_last=True, compiled=True),
}
"""On a CPU the compiler takes minutes."""
