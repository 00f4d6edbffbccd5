"""One process of ``scaling.py``: times all-reduces and the steps of every variant, and counts what is sent."""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER.parent), str(FOLDER)]

import dil_plugin.basicsr  # noqa: E402, F401  BasicSR needs its shims

# isort: split
import torch  # noqa: E402
from torch import distributed, nn  # noqa: E402

from dil_plugin.basicsr.archs.rrdb_no_upsample_arch import RRDBNetNoUpsample  # noqa: E402
from dil_plugin.learning import MetaBatch, NetworkLoss, Pair, average_over_ranks, build_variant  # noqa: E402
from dil_plugin.learning.options import parse_dil_options  # noqa: E402
from dil_plugin.learning.virtual_update import identity  # noqa: E402


class Settings(NamedTuple):
    """Of a run.

    Attributes:
        network: Options of the RRDB.
        n: Confounders.
        images: Of each process in a batch.
        side: Of the patches.
        steps: Timed of each variant, after one that is not counted.
        sizes: Bytes of the all-reduces that are timed.
        repeats: Of each of them.
    """

    network: dict[str, int]
    n: int = 4
    images: int = 1
    side: int = 32
    steps: int = 5
    sizes: tuple[int, ...] = (4, 1 << 16, 1 << 20, 1 << 22, 1 << 24)
    repeats: int = 15


class Counter:
    """Counts the calls of ``torch.distributed.all_reduce`` and their bytes while it is in place."""

    def __init__(self) -> None:
        self.calls, self.bytes = 0, 0
        self._original = distributed.all_reduce

    def __enter__(self) -> 'Counter':
        distributed.all_reduce = self._counted
        return self

    def __exit__(self, *_: object) -> None:
        distributed.all_reduce = self._original

    def _counted(self, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        self.bytes += tensor.numel() * tensor.element_size()
        return self._original(tensor, *args, **kwargs)


def work(rank: int, world: int, meeting: str, folder: str, settings: Settings) -> None:
    """Measures as one of ``world`` processes and saves what it found."""
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=meeting, rank=rank, world_size=world)
    found = {'all_reduce': {size: _all_reduce(size, settings.repeats) for size in settings.sizes} if world > 1 else {},
             'variants': {name: _variant(name, rank, settings) for name in ('erm', 'sf', 'pf', 'ss', 'ps')}}
    grads = [torch.ones_like(p) for p in RRDBNetNoUpsample(**settings.network).parameters()]
    found['parameters'] = sum(grad.numel() for grad in grads)
    if world > 1:
        found['average'] = _median(lambda: average_over_ranks(grads), settings.repeats)
    torch.save(found, Path(folder) / f'{rank}.pt')
    distributed.destroy_process_group()


def _slowest(run: Callable[[], object]) -> float:
    """Seconds until all ranks are done with it, from a common start."""
    distributed.barrier()
    start = time.perf_counter()
    run()
    seconds = torch.tensor(time.perf_counter() - start)
    distributed.all_reduce(seconds, distributed.ReduceOp.MAX)
    return float(seconds)


def _all_reduce(size: int, repeats: int) -> float:
    tensor = torch.ones(max(1, size // 4))
    return _median(lambda: distributed.all_reduce(tensor), repeats)


def _median(run: Callable[[], object], repeats: int) -> float:
    """Of the seconds; the first two are not counted."""
    return statistics.median([_slowest(run) for _ in range(repeats + 2)][2:])


def _variant(name: str, rank: int, settings: Settings) -> dict[str, Any]:
    """Median seconds of an iteration with averages and without, and what an iteration sends."""
    step, alone = (_iteration(name, rank, settings, average) for average in (average_over_ranks, identity))
    with Counter() as counter:
        step()
    alone()
    times: dict[str, list[float]] = {'step': [], 'compute': []}
    for _ in range(settings.steps):  # in turn, so that what disturbs the machine disturbs both
        times['compute'].append(_slowest(alone))
        times['step'].append(_slowest(step))
    return {**{key: statistics.median(values) for key, values in times.items()}, 'calls': counter.calls,
            'bytes': counter.bytes}


def _iteration(name: str, rank: int, settings: Settings, average: Any) -> Callable[[], None]:
    torch.manual_seed(0)
    loss = NetworkLoss(RRDBNetNoUpsample(**settings.network), nn.L1Loss())
    params = loss.parameters()
    outer = torch.optim.Adam(list(params.values()), lr=1e-4)
    variant = build_variant(parse_dil_options({'variant': name}), params, average=average)
    generator = torch.Generator().manual_seed(rank)
    shape = (settings.images, 3, settings.side, settings.side)
    clean = torch.rand(shape, generator=generator)
    pairs = [Pair(clean + 0.05 * torch.randn(shape, generator=generator), clean) for _ in range(settings.n + 1)]
    batches = [MetaBatch((), pair) for pair in pairs[1:]] if name == 'erm' else [MetaBatch(pairs[1:], pairs[0])]

    def iteration() -> None:
        for batch in batches:
            for param, grad in zip(params.values(), variant(loss, params, batch).grads, strict=True):
                param.grad = grad
            outer.step()

    return iteration
