"""One process of ``test_distributed``: ``distributed_worker.py RANK WORLD INIT_METHOD RESULT``."""

import sys
from functools import partial

import torch
from learning_helpers import charbonnier, conv_network, meta_batch, seeded
from torch import Tensor, distributed

from dil_plugin.learning import (
    ERM,
    MetaBatch,
    NetworkLoss,
    Pair,
    ParallelFirstOrder,
    ParallelSecondOrder,
    ReptileWalk,
    SerialFirstOrder,
    SerialSecondOrder,
    average_over_ranks,
)

BATCH = 4


def meta_gradients(rank: int, world: int, average: bool = True) -> dict[str, list[Tensor]]:
    """Every variant on this rank's share of one meta-batch."""
    loss = NetworkLoss(seeded(conv_network), charbonnier)
    params = loss.parameters()
    mean = {'average': average_over_ranks} if average else {}
    sgd = partial(torch.optim.SGD, lr=0.05)
    variants = {
        'erm': ERM(**mean),
        'sf': SerialFirstOrder(ReptileWalk(params, sgd, **mean), torch.Generator().manual_seed(2)),
        'pf': ParallelFirstOrder(ReptileWalk(params, sgd, **mean)),
        'ss': SerialSecondOrder(0.05, **mean),
        'ps': ParallelSecondOrder(0.05, **mean),
    }
    whole = meta_batch(3, batch=BATCH)
    assert whole.query is not None
    mine = slice(rank * BATCH // world, (rank + 1) * BATCH // world)

    def share(pair: Pair) -> Pair:
        return Pair(pair.lq[mine], pair.gt[mine])

    batch = MetaBatch([share(pair) for pair in whole.confounders], share(whole.query))
    return {name: variant(loss, params, batch).grads for name, variant in variants.items()}


def main(rank: int, world: int, init_method: str, result: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=init_method, rank=rank, world_size=world)
    torch.save({'averaged': meta_gradients(rank, world), 'local': meta_gradients(rank, world, average=False)}, result)
    distributed.destroy_process_group()


if __name__ == '__main__':
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:5])
