"""One process of ``test_distributed``: ``distributed_worker.py RANK WORLD INIT_METHOD RESULT``."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from learning_helpers import CRITERIA, NETWORKS, conv_network, meta_batch, seeded
from torch import Tensor, distributed, nn

from dil_plugin.learning import (
    ERM,
    MLDG,
    MetaBatch,
    NetworkLoss,
    Pair,
    ParallelFirstOrder,
    ParallelSecondOrder,
    ReptileWalk,
    SerialFirstOrder,
    SerialSecondOrder,
    Variant,
    average_over_ranks,
)
from dil_plugin.learning.distributed import CommonBuffers
from dil_plugin.learning.hessian import exact, exact_recomputed, finite_difference

BATCH = 4
STEPS = 3  # of those variants whose inner optimiser remembers
# large inner steps: in float32 theta - phi is rounded as theta is, whatever the number of processes
SGD = partial(torch.optim.SGD, lr=0.5)
ADAM = partial(torch.optim.Adam, lr=1e-2, betas=(0.0, 0.999))
UNEVEN = {1: [4], 2: [3, 1], 4: [2, 0, 1, 1]}


def _serial_walk(optimizer: Any, params: Any, average: Any) -> Variant:
    return SerialFirstOrder(ReptileWalk(params, optimizer, average), torch.Generator().manual_seed(2))


VARIANTS: dict[str, Callable[[Any, Any], Variant]] = {
    'erm': lambda params, average: ERM(average),
    'sf': partial(_serial_walk, SGD),
    'pf': lambda params, average: ParallelFirstOrder(ReptileWalk(params, SGD, average)),
    'ss': lambda params, average: SerialSecondOrder(0.05, exact, average),
    'ps': lambda params, average: ParallelSecondOrder(0.05, exact_recomputed, average),
    'ss, recomputed': lambda params, average: SerialSecondOrder(0.05, exact_recomputed, average),
    'ps, held': lambda params, average: ParallelSecondOrder(0.05, exact, average),
    'mldg': lambda params, average: MLDG(0.05, 1, 0.7, torch.Generator().manual_seed(2), average=average),
    # the default alpha: a difference knows only half of the digits, of a product that alpha makes small
    'ss, difference': lambda params, average: SerialSecondOrder(1e-4, finite_difference, average),
    'ps, difference': lambda params, average: ParallelSecondOrder(1e-4, finite_difference, average),
    'sf, Adam': partial(_serial_walk, ADAM),
    'pf, Adam': lambda params, average: ParallelFirstOrder(ReptileWalk(params, ADAM, average)),
}


class Case(NamedTuple):
    """A network in a precision, its batch shared out evenly or not."""

    network: str
    dtype: torch.dtype = torch.float64
    uneven: bool = False

    @property
    def criterion(self) -> str:
        """In float32 a loss that does not itself enlarge rounding errors, as Charbonnier's curvature of 1000 would."""
        return 'charbonnier' if self.dtype is torch.float64 else 'mse'


CASES = [
    *(Case(network, dtype) for network in NETWORKS for dtype in (torch.float64, torch.float32)),
    Case('conv', uneven=True), Case('rrdb', uneven=True),
]


def share(whole: MetaBatch, sizes: Sequence[int], rank: int) -> MetaBatch:
    """The images of one rank."""
    assert whole.query is not None
    mine = slice(sum(sizes[:rank]), sum(sizes[:rank + 1]))
    cut = [Pair(pair.lq[mine], pair.gt[mine]) for pair in (*whole.confounders, whole.query)]
    return MetaBatch(cut[:-1], cut[-1])


def meta_gradients(case: Case, rank: int, world: int, averaging: bool = True) -> dict[str, list[Tensor]]:
    """Every variant on this rank's share of one meta-batch; of several meta-steps their gradients in one list."""
    sizes = UNEVEN[world] if case.uneven else [BATCH // world] * world
    batches = [share(meta_batch(3, batch=BATCH, seed=1 + k, dtype=case.dtype), sizes, rank) for k in range(STEPS)]

    def average(grads: list[Tensor]) -> list[Tensor]:
        if not averaging:
            return grads
        return average_over_ranks(grads, sizes[rank]) if case.uneven else average_over_ranks(grads)

    results = {}
    for name, make in VARIANTS.items():
        loss = NetworkLoss(seeded(NETWORKS[case.network], dtype=case.dtype), CRITERIA[case.criterion])
        params = loss.parameters()
        variant = make(params, average)
        results[name] = []
        for batch in batches if 'Adam' in name else batches[:1]:
            grads = variant(loss, params, batch).grads
            with torch.no_grad():
                torch._foreach_sub_(list(params.values()), grads)
            results[name] += grads
    return results


def buffers(rank: int) -> dict[str, Any]:
    """Of a network with running statistics and a constant after two steps; and how many numbers travelled in each."""
    network = seeded(partial(conv_network, norm=True))
    network.register_buffer('constant', torch.arange(1000))
    common, sent = CommonBuffers(network), []
    original = distributed.broadcast

    def counting(tensor: Tensor, **where: Any) -> Any:
        sent[-1] += tensor.numel()
        return original(tensor, **where)

    distributed.broadcast = counting
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    for step in range(2):
        batch = meta_batch(1, seed=10 * rank + step)
        ERM(average_over_ranks)(NetworkLoss(network, nn.functional.l1_loss), dict(network.named_parameters()), batch)
        own = {name: buffer.clone() for name, buffer in network.named_buffers()}
        sent.append(0)
        common()
    distributed.broadcast = original
    return {'before': before, 'own': own, 'after': dict(network.named_buffers()), 'sent': sent}


def averages(rank: int) -> dict[str, list[Tensor]]:
    """Of known tensors: several dtypes, shapes and weights."""
    mixed = [torch.full((2, 3), 1. + rank), torch.tensor(2. + rank, dtype=torch.float64),
             torch.full((4, ), 60000. * (1 - rank), dtype=torch.float16), torch.empty(0), torch.tensor([7.]),
             torch.full((1, 2, 2, 2), 1. + rank).to(memory_format=torch.channels_last)]
    before = [tensor.clone() for tensor in mixed]
    noise = torch.randn(1000, generator=torch.Generator().manual_seed(rank))
    plain, equal = (average_over_ranks([noise], weight) for weight in (1, 8))
    return {
        'mixed': average_over_ranks(mixed, 3 - 2 * rank), 'before': before, 'given': mixed,
        'ignored': average_over_ranks([torch.tensor([torch.nan, 1.]) if rank else torch.tensor([3., 4.])], 1 - rank),
        'plain': plain, 'equal': equal, 'noise': [noise],
    }


def main(rank: int, world: int, init_method: str, result: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=init_method, rank=rank, world_size=world)
    content: dict[str, Any] = {'averaged': {case: meta_gradients(case, rank, world) for case in CASES}}
    if world == 2:
        content.update(local=meta_gradients(CASES[0], rank, world, averaging=False), buffers=buffers(rank),
                       averages=averages(rank))
    torch.save({**content, 'averaged': {tuple(case): grads for case, grads in content['averaged'].items()}}, result)
    distributed.destroy_process_group()


if __name__ == '__main__':
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:5])
