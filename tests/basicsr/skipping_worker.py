"""One process of ``test_skipped_steps``: ``skipping_worker.py RANK WORLD INIT_METHOD RESULT``."""

import sys

import torch
from torch import distributed, nn

import dil_plugin.basicsr  # noqa: F401
from dil_plugin.basicsr.models.mixed_precision import MixedPrecision
from dil_plugin.basicsr.models.outer_step import OuterStep
from dil_plugin.learning import MetaBatch, NetworkLoss, Pair, build_variant
from dil_plugin.learning.options import parse_dil_options
from dil_plugin.training.skipped_batch import SkippedBatch
from dil_plugin.training.skipped_steps import SkippedSteps


def three_steps(variant, rank):
    """Of which the patches of the second are bad on rank 1."""
    torch.manual_seed(0)
    loss = NetworkLoss(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 1)),
                       nn.functional.mse_loss)
    params = loss.parameters()
    precision = MixedPrecision(None, variant, torch.device('cpu'))
    outer = OuterStep(params, precision)
    optimizer = torch.optim.Adam(list(params.values()), 0.01)
    step = build_variant(parse_dil_options({'variant': variant}), params, 0, precision.guard)
    skipped = SkippedSteps(['a', 'b'], 5, torch.device('cpu'))
    torch.manual_seed(rank + 1)
    result = {'counts': [], 'weights': [], 'named': False}
    for number in range(3):
        pairs = [Pair(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)) for _ in range(3)]
        if number == 1 and rank == 1:
            (pairs[2] if variant == 'erm' else pairs[0]).lq[0, 0, 0, 0] = float('nan')
        batch = MetaBatch(pairs[:2] if variant != 'erm' else (), pairs[2])
        found = precision.gradient(step, loss, params, batch)
        finite, faulty = outer.take(optimizer, found.grads)
        skipped.count(found, faulty)
        result['counts'].append(skipped.read()[0])
        result['weights'].append(torch.cat([p.detach().flatten() for p in params.values()]))
        if number == 1:
            reason = SkippedBatch(2, ['a', 'b'], [batch], [found], []).reason()
            result['named'] = 'of another process' not in reason
    return result


if __name__ == '__main__':
    rank, world, meet, path = sys.argv[1:]
    distributed.init_process_group('gloo', init_method=meet, rank=int(rank), world_size=int(world))
    torch.save({variant: three_steps(variant, int(rank)) for variant in ('erm', 'sf', 'pf', 'ss', 'ps')}, path)
    distributed.destroy_process_group()
