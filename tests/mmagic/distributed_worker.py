"""One process of ``test_distributed``: ``distributed_worker.py RANK WORLD INIT_METHOD RESULT``."""

import sys
from pathlib import Path

import torch
from torch import distributed

sys.path.insert(0, str(Path(__file__).parent))

from conftest import batch_of, build, recorded
from mmagic.registry import MODEL_WRAPPERS
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope

from dil_plugin.errors import NumericalError, OptionError

DIL = {
    'sf': {'variant': 'sf', 'inner': {'type': 'SGD', 'lr': 0.01}},
    'pf': {'variant': 'pf', 'inner': {'type': 'SGD', 'lr': 0.01}},
    'ss': {'variant': 'ss', 'inner': {'type': 'SGD', 'lr': 0.01}},
    'ps': {'variant': 'ps', 'inner': {'type': 'SGD', 'lr': 0.01}},
    'mldg': {'variant': 'mldg', 'inner': {'type': 'SGD', 'lr': 0.01}, 'held_out': 2},
    'erm serial': {'variant': 'erm', 'erm_steps': 1, 'erm_sampling': 'serial'},
    'erm 1': {'variant': 'erm', 'erm_steps': 1},
    'erm 2': {'variant': 'erm', 'erm_steps': 2},
}
BATCH = 4


def share(rank, world):
    """This rank's part of a batch whose distorted versions are all given, so that no rank draws any."""
    generator = torch.Generator().manual_seed(0)
    gt = torch.randint(0, 256, (BATCH, 16, 16, 3), generator=generator).byte()
    noise = torch.randn(BATCH, 4, 3, 16, 16, generator=generator) * torch.tensor([5., 10., 15., 20.]).view(4, 1, 1, 1)
    versions = (gt.permute(0, 3, 1, 2)[:, None] + noise).clamp(0, 255)
    mine = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
    return gt[mine].numpy(), versions[mine]


def step(wrapper, name, rank, world):
    """The gradients that the optimiser gets, or why there are none."""
    model = build(seed=0, dil=DIL[name])
    wrapped = MODEL_WRAPPERS.build({'type': wrapper, 'module': model, 'device_ids': None, 'broadcast_buffers': False})
    result = {'names': list(wrapped.module.state_dict())}
    optim_wrapper, recorder = recorded(model)
    images, versions = share(rank, world)
    img = versions[:, 1].permute(0, 2, 3, 1).numpy()
    # erm draws among versions, unless it takes them in turn, so it gets its pairs alone
    given = {} if name in ('erm 1', 'erm 2') else {'counterfactuals': versions}
    batch = batch_of(images, img=img, **given)
    try:
        wrapped.train_step(batch, optim_wrapper)
    except OptionError as error:
        result['error'] = str(error)
    result['grads'] = recorder.grads
    return result


def spoiled(wrapper, rank, world, folder):
    """Three steps of ``sf`` through mmengine's wrappers; the second has a version that is no image, on rank 1 alone."""
    model = build(seed=0, dil={**DIL['sf'], 'max_skipped': 2})
    wrapped = MODEL_WRAPPERS.build({'type': wrapper, 'module': model, 'device_ids': None, 'broadcast_buffers': False})
    optim_wrapper = OptimWrapper(torch.optim.Adam(model.generator.parameters(), lr=1e-3))
    model.prepare_training(optim_wrapper, folder)
    images, versions = share(rank, world)
    bad = versions.clone()
    bad[0, 2, 0, 3, 3] = float('nan') if rank == 1 else 0
    weights, error = [], ''
    for counterfactuals in (versions, bad, versions, bad, bad):
        try:
            wrapped.train_step(batch_of(images, counterfactuals=counterfactuals), optim_wrapper)
            model.finish_iteration(optim_wrapper)
        except NumericalError as raised:
            error = str(raised)
        weights.append([p.detach().clone() for p in model.generator.parameters()])
    return {'weights': weights, 'skipped': model.skipped_steps(), 'error': error}


def main(rank, world, init_method, path):
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=init_method, rank=rank, world_size=world)
    init_default_scope('mmagic')
    result = {}
    for name in DIL:
        result['DILDistributedDataParallel', name] = step('DILDistributedDataParallel', name, rank, world)
        if world > 1:
            result['MMDistributedDataParallel', name] = step('MMDistributedDataParallel', name, rank, world)
    if world > 1:
        result['MMSeparateDistributedDataParallel', 'sf'] = step('MMSeparateDistributedDataParallel', 'sf', rank, world)
        for wrapper in ('DILDistributedDataParallel', 'MMDistributedDataParallel'):
            result[wrapper, 'spoiled'] = spoiled(wrapper, rank, world, str(Path(path).parent / wrapper))
    model = build(seed=rank)
    result['start'] = float(model.generator.conv_first.weight.detach().sum())
    wrapped = MODEL_WRAPPERS.build({'type': 'MMDistributedDataParallel', 'module': model, 'broadcast_buffers': False})
    result['wrapped'] = float(model.generator.conv_first.weight.detach().sum())
    wrapped.train_step(batch_of(share(0, 1)[0]), recorded(model)[0])
    training = model._training
    result['noise'] = torch.randn(8, generator=training.sampler.noise)
    result['order'] = torch.randperm(100, generator=training.variant.generator)
    torch.save(result, path)
    distributed.destroy_process_group()


if __name__ == '__main__':
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:5])
