"""One process of ``test_spread_validation``: ``validation_worker.py RANK WORLD INIT_METHOD RESULT OPTIONS [own]``.

OPTIONS is a YAML of a training run whose validation sets are validated by a ``DILModel`` after its first and its second
step. With one process it is BasicSR's own validation that runs. All ranks train on the same images, or on their own.
"""

import logging
import os
import sys
import tempfile
from pathlib import Path

import torch
import yaml

import dil_plugin.basicsr  # noqa: F401

# isort: split
from basicsr.data import build_dataloader, build_dataset
from basicsr.models import build_model
from basicsr.utils import get_root_logger
from basicsr.utils.registry import ARCH_REGISTRY, METRIC_REGISTRY
from torch import distributed, nn


@ARCH_REGISTRY.register()
class NormForTest(nn.Module):
    """A network with running statistics."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))

    def forward(self, x):
        return x + 0.1 * self.body(x)


@METRIC_REGISTRY.register()
def CountingForTest(img, img2):
    """Leaves a file for every call, in a folder that all ranks share."""
    tempfile.mkstemp(prefix=f'{distributed.get_rank()}_', dir=os.environ['DIL_TEST_COUNTS'])
    return 1.0


class Scalars:
    """In the place of TensorBoard's writer."""

    def __init__(self):
        self.values = {}

    def add_scalar(self, name, value, step):
        self.values[name, step] = value


class Lines(logging.Handler):
    """What the log says of validation."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines += [line for line in record.getMessage().splitlines() if '# ' in line]


def main(rank, world, init_method, result, options, own_images=''):
    torch.set_num_threads(1)
    if world > 1:
        distributed.init_process_group('gloo', init_method=init_method, rank=rank, world_size=world)
    heard = Lines()
    get_root_logger(log_file=f'{result}.log').addHandler(heard)  # before another call that has no file
    opt = yaml.safe_load(Path(options).read_text())
    folder = Path(options).parent / f'world_{world}'
    opt.update(is_train=True, dist=world > 1, rank=rank, world_size=world)
    opt['path'].update({name: str(folder / name) for name in ('experiments_root', 'models', 'training_states',
                                                              'visualization')})
    loaders = []
    for name, block in opt['datasets'].items():
        block.update(phase=name.split('_')[0], scale=1)
        if block['phase'] == 'val':
            loaders.append(build_dataloader(build_dataset(block), block, num_gpu=0, dist=world > 1, seed=0))
    torch.manual_seed(rank)
    model = build_model(opt)
    scalars = Scalars() if rank == 0 else None
    content = {'metrics': {}, 'scalars': scalars and scalars.values, 'lines': heard.lines}
    try:
        for step in (1, 2):
            # every rank the same images, and one process too: the weights must not depend on the number of processes
            seed = step + (100 * rank if own_images else 0)
            model.feed_data({'gt': torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed))})
            model.sampler = model._sampler(step) if world == 1 else _sampler_of_first_rank(model, step)
            model.optimize_parameters(step)
            for loader in loaders:
                model.validation(loader, step, scalars, opt['val']['save_img'])
                content['metrics'][loader.dataset.opt['name'], step] = dict(model.metric_results)
        content['best'] = model.best_metric_results
        content['buffers'] = dict(model.net_g.named_buffers())
    except Exception as error:
        content['error'] = f'{type(error).__name__}: {error}'
    torch.save(content, result)
    if world > 1:
        distributed.destroy_process_group()


def _sampler_of_first_rank(model, step):
    rank, model.opt['rank'] = model.opt['rank'], 0
    sampler = model._sampler(step)
    model.opt['rank'] = rank
    return sampler


if __name__ == '__main__':
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
