"""Golden vectors: reading, recomputing, comparing.

The network in both files is RRDB without up-sampling; its size follows from the arrays. Parameters are numbered in the
order of the forward pass.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dil_plugin.errors import DataError
from dil_plugin.learning import MetaBatch, NetworkLoss, Pair, build_variant
from dil_plugin.learning.options import SGD, Adam, DILOptions

PACKAGED = Path(__file__).parent / 'vectors'
TOLERANCES = {'variants': 1e-9, 'released_sf': 1e-6}
"""Largest relative error allowed: meta-gradients in float64, the released float32 training."""

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    'l1': nn.functional.l1_loss,
    'mse': nn.functional.mse_loss,
    'charbonnier': lambda output, gt: ((output - gt).square() + 1e-6).sqrt().mean(),
}


class Check(NamedTuple):
    """One comparison: what, its largest relative error, and the error allowed."""

    name: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """False for NaN too."""
        return self.error <= self.tolerance


def verify_folder(folder: Path | str = PACKAGED, device: torch.device | str = 'cpu') -> list[Check]:
    """Recomputes ``variants.npz`` and ``released_sf.npz``, whichever of them the folder holds.

    The relative error of a list of tensors is the largest ``||a_k - b_k|| / ||b_k||`` over its tensors (2-norms), of a
    scalar ``|a - b| / |b|``.

    Args:
        folder: Where the files are.
        device: Where to compute. On CUDA, TF32 is switched off meanwhile.

    Raises:
        DataError: The folder has neither file, or a file is not in the format of the packaged ones.
    """
    known = {'variants.npz': check_variants, 'released_sf.npz': check_released}
    paths = [path for path in (Path(folder) / name for name in known) if path.is_file()]
    if not paths:
        raise DataError(f'--vectors: {folder} holds none of {", ".join(known)}')
    tf32, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        return [check for path in paths for check in known[path.name](Vectors(path, device))]
    finally:
        torch.backends.cudnn.allow_tf32 = tf32


class Vectors(Mapping[str, Tensor]):
    """The arrays of one file as tensors on a device; a missing array is an error that names the file."""

    def __init__(self, path: Path, device: torch.device | str) -> None:
        self.path = path
        self.device = device
        try:
            with np.load(path, allow_pickle=False) as arrays:
                self.arrays = {name: arrays[name] for name in arrays.files}
        except Exception as error:  # numpy raises many kinds for a file that is no archive of arrays
            raise DataError(f'{path}: cannot be read as an .npz file of arrays ({error})') from None

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.arrays:
            raise DataError(f"{self.path}: has no array '{name}'")
        return torch.from_numpy(np.ascontiguousarray(self.arrays[name])).to(self.device)

    def __contains__(self, name: object) -> bool:
        return name in self.arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def numbered(self, prefix: str) -> list[Tensor]:
        """``prefix_00``, ``prefix_01``, …"""
        count = sum(re.fullmatch(rf'{re.escape(prefix)}_\d+', name) is not None for name in self.arrays)
        return [self[f'{prefix}_{k:02d}'] for k in range(count)]


def check_variants(vectors: Vectors) -> list[Check]:
    """The four meta-gradients for every loss in the file, and the objectives where the file has them."""
    network = rrdb(vectors, 'param')
    alpha, clean = float(vectors['alpha']), vectors['clean']
    batch = MetaBatch([Pair(lq, clean) for lq in vectors['counterfactuals']], Pair(vectors['query'], clean))
    pattern = re.compile(r'(ss|ps|sf|pf)_(.+)_\d+')
    checks = []
    for variant, loss_name in sorted({m.groups() for m in map(pattern.fullmatch, vectors) if m}):
        if loss_name not in LOSSES:
            raise DataError(f"{vectors.path}: unknown loss '{loss_name}'; allowed: {', '.join(LOSSES)}")
        loss = NetworkLoss(network, LOSSES[loss_name])
        options = DILOptions(variant=variant, inner=SGD(lr=alpha), order='fixed' if variant == 'sf' else 'shuffled')
        result = build_variant(options, loss.parameters())(loss, loss.parameters(), batch)
        name = f'{variant}_{loss_name}'
        checks.append(Check(name, relative_error(result.grads, vectors.numbered(name), vectors.path),
                            TOLERANCES['variants']))
        if f'{name}_loss' in vectors and result.outer_loss is not None:
            error = relative_error([result.outer_loss], [vectors[f'{name}_loss'].reshape(())], vectors.path)
            checks.append(Check(f'{name} objective', error, TOLERANCES['variants']))
    if not checks:
        raise DataError(f'{vectors.path}: holds no meta-gradients (arrays named VARIANT_LOSS_00 …)')
    return checks


def check_released(vectors: Vectors) -> list[Check]:
    """The authors' released serial first-order training, meta-step by meta-step."""
    network = rrdb(vectors, 'init')
    loss = NetworkLoss(network, LOSSES['l1'])
    params = loss.parameters()
    with torch.no_grad():
        forward = relative_error([network(vectors['distorted'][0, 0])], [vectors['forward_output']], vectors.path)
    variant = build_variant(DILOptions(variant='sf', inner=Adam(lr=1e-4, betas=(0.0, 0.999)), order='fixed'), params)
    outer = torch.optim.Adam(network.parameters(), lr=1e-4)
    losses = []
    for clean, distorted, order in zip(vectors['clean'], vectors['distorted'], vectors['order'].tolist(), strict=True):
        result = variant(loss, params, MetaBatch([Pair(distorted[level], clean[level]) for level in order]))
        for param, grad in zip(params.values(), result.grads, strict=True):
            param.grad = grad
        outer.step()
        losses.append(result.inner_losses)
    inner = relative_error([torch.stack(losses)], [vectors['inner_losses']], vectors.path)  # type: ignore[arg-type]
    final = relative_error(list(params.values()), vectors.numbered('final'), vectors.path)
    return [Check(f'released sf, {what}', error, TOLERANCES['released_sf'])
            for what, error in (('forward pass', forward), ('inner losses', inner), ('final parameters', final))]


def rrdb(vectors: Vectors, prefix: str) -> nn.Module:
    """The network of a file, with the parameters ``prefix_00 …``."""
    from dil_plugin.basicsr.archs.rrdb_no_upsample_arch import RRDBNetNoUpsample
    values = vectors.numbered(prefix)
    blocks, rest = divmod(len(values) - 8, 30)
    if blocks < 1 or rest or values[0].ndim != 4:
        raise DataError(f"{vectors.path}: {len(values)} arrays named '{prefix}_00 …' are not the parameters of an RRDB "
                        'network (8 and 30 for each block)')
    network = RRDBNetNoUpsample(values[0].shape[1], values[-1].shape[0], values[0].shape[0], blocks, values[2].shape[0])
    network = network.to(vectors.device, values[0].dtype)
    for k, (param, value) in enumerate(zip(network.parameters(), values, strict=True)):
        if param.shape != value.shape:
            raise DataError(f'{vectors.path}: {prefix}_{k:02d} has shape {tuple(value.shape)}, expected '
                            f'{tuple(param.shape)}')
        param.data.copy_(value)
    return network


def relative_error(computed: Sequence[Tensor], expected: Sequence[Tensor], path: Path) -> float:
    """The largest ``||a_k - b_k|| / ||b_k||``; infinite where a tensor that should vanish does not."""
    if [c.shape for c in computed] != [e.shape for e in expected]:
        shapes = [[tuple(t.shape) for t in tensors[:3]] for tensors in (computed, expected)]
        raise DataError(f'{path}: expected {len(computed)} arrays of shapes {shapes[0]} …, the file has '
                        f'{len(expected)} of {shapes[1]} …')
    errors = []
    for a, b in zip(computed, expected, strict=True):
        difference, norm = float((a.detach() - b).norm()), float(b.norm())
        errors.append(difference / norm if norm > 0 else (0.0 if difference == 0 else float('inf')))
    return float(np.max(errors))  # NaN if any is
