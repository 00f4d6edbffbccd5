"""Small networks, meta-batches and distances that several tests of the method share."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from dil_plugin.learning import LossFunction, MetaBatch, NetworkLoss, Pair, Params

DATA = Path(__file__).resolve().parent.parent / 'data'

Criterion = Callable[[Tensor, Tensor], Tensor]


def charbonnier(output: Tensor, target: Tensor) -> Tensor:
    """As in the golden vectors."""
    return ((output - target).square() + 1e-6).sqrt().mean()


CRITERIA: dict[str, Criterion] = {
    'l1': nn.functional.l1_loss,
    'mse': nn.functional.mse_loss,
    'charbonnier': charbonnier,
}


def conv_network(activation: Callable[[], nn.Module] = nn.LeakyReLU, norm: bool = False) -> nn.Module:
    middle = [nn.BatchNorm2d(6)] if norm else []
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), *middle, activation(), nn.Conv2d(6, 3, 3, padding=1))


def rrdb_network(num_feat: int = 6, num_grow_ch: int = 3) -> nn.Module:
    from dil_plugin.basicsr.archs.rrdb_no_upsample_arch import RRDBNetNoUpsample
    return RRDBNetNoUpsample(num_feat=num_feat, num_block=1, num_grow_ch=num_grow_ch)


def swinir_network(drop_path_rate: float = 0.0) -> nn.Module:
    importlib.import_module('dil_plugin.basicsr')  # before anything imports basicsr
    from basicsr.archs.swinir_arch import SwinIR
    return SwinIR(
        img_size=8,
        window_size=4,
        depths=[2],
        num_heads=[2],
        embed_dim=8,
        mlp_ratio=2,
        upscale=1,
        upsampler='',
        resi_connection='1conv',
        drop_path_rate=drop_path_rate)


NETWORKS: dict[str, Callable[[], nn.Module]] = {'conv': conv_network, 'rrdb': rrdb_network, 'swinir': swinir_network}


def seeded(make: Callable[[], nn.Module], seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The network with weights drawn from ``seed``, in the default float32 and then converted."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().to(dtype)


def meta_batch(n: int = 3,
               size: int = 8,
               batch: int = 2,
               seed: int = 1,
               dtype: torch.dtype = torch.float64) -> MetaBatch:
    """n noisy versions of one clean batch, and a query with another noise; the same values in every dtype."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(batch, 3, size, size, generator=generator, dtype=torch.float64)

    def noisy(sigma: float) -> Pair:
        noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
        return Pair((clean + sigma * noise).to(dtype), clean.to(dtype))

    return MetaBatch([noisy(0.05 * (i + 1)) for i in range(n)], noisy(0.1))


def relative_error(value: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """Norm of the difference of all tensors together over the norm of the reference, in double precision."""
    assert [v.shape for v in value] == [r.shape for r in reference]
    a, b = (torch.cat([t.detach().double().flatten() for t in ts]) for ts in (value, reference))
    return float((a - b).norm() / b.norm())


def equal(left: Sequence[Tensor], right: Sequence[Tensor]) -> bool:
    """Bit for bit."""
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def unrolled(loss: LossFunction, params: Params, batch: MetaBatch, alpha: float,
             serial: bool) -> tuple[list[Tensor], Tensor]:
    """Eq. 4 (serial, mean over the confounders) or Eq. 5 written down literally and left to autograd.

    Returns:
        Its gradient, and its value.
    """
    assert batch.query is not None

    def updated(value: Tensor) -> Params:
        grads = torch.autograd.grad(value, list(params.values()), create_graph=True, allow_unused=True)
        return {name: p if g is None else p - alpha * g for (name, p), g in zip(params.items(), grads, strict=True)}

    n = len(batch.confounders)
    if serial:
        objective = torch.stack([loss(updated(loss(params, p)), batch.query) for p in batch.confounders]).mean()
    else:
        mean = torch.stack([loss(params, pair) for pair in batch.confounders]).sum() / n
        objective = loss(updated(mean), batch.query)
    return list(torch.autograd.grad(objective, list(params.values()))), objective.detach()


def network_loss(name: str, criterion: str, dtype: torch.dtype = torch.float64) -> tuple[NetworkLoss, Params]:
    loss = NetworkLoss(seeded(NETWORKS[name], dtype=dtype), CRITERIA[criterion])
    return loss, loss.parameters()
