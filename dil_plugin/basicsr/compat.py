"""The one place that adapts BasicSR 1.4.2 and torchvision to today's torch, to CPU and to gloo.

``adapt_imports`` makes ``import basicsr`` work; ``adapt_basicsr`` replaces the few functions that need a GPU or that
would leave our options unchecked. Both may be called any number of times. Everything else that BasicSR gets wrong is
gone around by our own subclasses.
"""

import contextlib
import functools
import importlib
import logging
import os
import re
import sys
import types
from typing import Any

import torch

from dil_plugin.basicsr.resuming.stop_signals import noting_signals
from dil_plugin.basicsr.resuming.training_states import DrawnSeed, load_resume_state
from dil_plugin.basicsr.slurm import init_slurm
from dil_plugin.errors import OptionError
from dil_plugin.torchvision_operators import import_torchvision
from dil_plugin.yaml_files import ordered_yaml


def adapt_imports() -> None:
    """Makes torchvision load beside a CPU build of torch, and restores the module that BasicSR imports from it."""
    import_torchvision()
    name = 'torchvision.transforms.functional_tensor'
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:  # removed in torchvision 0.17
        from torchvision.transforms.functional import rgb_to_grayscale
        module = types.ModuleType(name)
        module.rgb_to_grayscale = rgb_to_grayscale  # type: ignore[attr-defined]
        sys.modules[name] = module


def adapt_basicsr() -> None:
    """Replaces what fails without a GPU, and has every parsed YAML checked before training starts."""
    from basicsr.data import prefetch_dataloader
    from basicsr.data.paired_image_dataset import PairedImageDataset
    from basicsr.models.base_model import BaseModel
    from basicsr.models.sr_model import SRModel
    from basicsr.utils import FileClient

    from dil_plugin.basicsr.data.cpu_prefetcher import RaisingPrefetchGenerator
    from dil_plugin.basicsr.data.cuda_prefetcher import SafeCUDAPrefetcher
    from dil_plugin.basicsr.data.draw_sampler import DrawSampler
    from dil_plugin.basicsr.data.numbered_samples import numbering_samples
    from dil_plugin.basicsr.data.reading_pairs import SharedLmdbBackend, decode_whole, naming_bad_images
    from dil_plugin.basicsr.data.skipping import NotingCPUPrefetcher, reporting_skipped
    from dil_plugin.basicsr.log_lines import LogLines

    # by name: the package also exports functions of these names
    train, test, options, dist_util = (
        importlib.import_module(f'basicsr.{name}') for name in ('train', 'test', 'utils.options', 'utils.dist_util'))
    options.ordered_yaml = ordered_yaml
    parse = _checked(options.parse_options)
    for module in (options, train, test):
        module.parse_options = parse
    train.load_resume_state = load_resume_state
    train.EnlargedSampler, train.MessageLogger = DrawSampler, LogLines
    train.build_dataloader = numbering_samples(train.build_dataloader)
    train.CPUPrefetcher, train.CUDAPrefetcher = NotingCPUPrefetcher, SafeCUDAPrefetcher
    train.train_pipeline = noting_signals(reporting_skipped(train.train_pipeline))
    prefetch_dataloader.PrefetchGenerator = RaisingPrefetchGenerator
    train.create_train_val_dataloader = _with_enough_epochs(train.create_train_val_dataloader)
    options.set_random_seed = _seeding_where_it_can(options.set_random_seed)
    options.init_dist = dist_util.init_dist = _with_gloo(dist_util.init_dist)
    BaseModel.model_to_device = _on_cpu_too(BaseModel.model_to_device)
    SRModel.test = _on_bare_network(SRModel.test)
    PairedImageDataset.__getitem__ = naming_bad_images(PairedImageDataset.__getitem__)
    importlib.import_module('basicsr.data.paired_image_dataset').imfrombytes = decode_whole
    FileClient._backends['lmdb'] = SharedLmdbBackend
    logger = logging.getLogger('basicsr')
    if _not_about_several_sets not in logger.filters:
        logger.addFilter(_not_about_several_sets)


def _checked(parse_options: Any) -> Any:
    """BasicSR's ``parse_options``, after which the options are checked and completed."""
    if getattr(parse_options, 'checked_by_dil', False):
        return parse_options

    @functools.wraps(parse_options)
    def parse(root_path: str, is_train: bool = True) -> Any:
        from basicsr.utils import set_random_seed

        from dil_plugin.basicsr.options import complete_options
        from dil_plugin.basicsr.yaml_options.reading import check_forced_keys, read_yaml, reading_options
        with reading_options():
            opt, args = parse_options(root_path, is_train)
            opt['root_path'] = root_path
            raw = read_yaml(args.opt)
        check_forced_keys(raw, args.force_yml or [])
        if not opt['dist'] and 'TORCHELASTIC_RUN_ID' in os.environ and os.environ.get('WORLD_SIZE', '1') != '1':
            raise OptionError('--launcher: none, but torchrun has started several processes, each of which would run '
                              'the whole experiment; allowed: --launcher pytorch, or no torchrun')
        if raw.get('num_gpu') == 'auto' and not opt['dist']:
            opt['num_gpu'] = min(opt['num_gpu'], 1)  # one process drives one GPU; torchrun starts one for each
        forced = any(entry.startswith('manual_seed') for entry in args.force_yml or [])
        if raw.get('manual_seed') is None and not forced:
            opt['manual_seed'] = DrawnSeed(opt['manual_seed'])
        if opt['dist']:  # without a manual_seed each process drew one of its own; the confounders' order must agree
            seeds = [opt['manual_seed']]
            torch.distributed.broadcast_object_list(seeds, src=0)
            opt['manual_seed'] = seeds[0]
        complete_options(opt)
        # BasicSR seeds before it applies --force_yml: manual_seed given there would not reach the initialisation
        with reading_options():
            set_random_seed(opt['manual_seed'] + opt['rank'])
        return opt, args

    parse.checked_by_dil = True  # type: ignore[attr-defined]
    return parse


def _seeding_where_it_can(set_random_seed: Any) -> Any:
    """BasicSR's ``set_random_seed`` while it reads a YAML; a seed out of range is told with the other mistakes."""
    if getattr(set_random_seed, 'leaves_others', False):
        return set_random_seed

    @functools.wraps(set_random_seed)
    def seed(number: Any) -> None:
        with contextlib.suppress(ValueError):
            set_random_seed(number)

    seed.leaves_others = True  # type: ignore[attr-defined]
    return seed


def _with_enough_epochs(create: Any) -> Any:
    """BasicSR's data loaders; a run ends with its last iteration, whatever has changed since it was interrupted.

    BasicSR rounds the batches of an epoch up where the loader drops the rest. Its log has the true numbers.
    """
    if getattr(create, 'counts_whole_batches', False):
        return create

    @functools.wraps(create)
    def create_loaders(opt: dict[str, Any], logger: Any) -> Any:
        from dil_plugin.basicsr.data.draw_sampler import DrawSampler
        said: list[str] = []
        train_loader, sampler, val_loaders, _, total_iters = create(opt, types.SimpleNamespace(info=said.append))
        batches = len(train_loader)
        if batches == 0:
            train_opt = opt['datasets']['train']
            ratio, images = train_opt.get('dataset_enlarge_ratio', 1), len(train_loader.dataset)
            batch = train_opt['batch_size_per_gpu'] * opt['world_size']
            raise OptionError(f'datasets.train.dataset_enlarge_ratio: {ratio} times {images} images are less than one '
                              f'batch of {batch}; give at least {-(-batch // images)}')
        if DrawSampler.resumed is not None and DrawSampler.resumed['iter'] >= total_iters:
            logger.warning(f'train.total_iter: {total_iters}, but the training state is of iteration '
                           f'{DrawSampler.resumed["iter"]} already: nothing is left to train. The network is written '
                           'to net_g_latest.pth and validated; a larger total_iter goes on.')
        epochs = sampler.begin(train_loader.batch_size, total_iters)  # of all GPUs that this process has
        for text in said:
            text = re.sub(r'Require iter number per epoch: \d+', f'Require iter number per epoch: {batches}', text)
            logger.info(re.sub(r'Total epochs: \d+', f'Total epochs: {epochs}', text))
        return train_loader, sampler, val_loaders, epochs, total_iters

    create_loaders.counts_whole_batches = True  # type: ignore[attr-defined]
    return create_loaders


def _with_gloo(init_dist: Any) -> Any:
    """BasicSR's ``init_dist``; where there is no GPU the process group is gloo and no CUDA device is chosen.

    With slurm BasicSR takes whatever ``scontrol`` prints for an address, an error message too.
    """
    if getattr(init_dist, 'takes_gloo', False):
        return init_dist

    @functools.wraps(init_dist)
    def init(launcher: str, backend: str | None = None, **kwargs: Any) -> None:
        commands = {'pytorch': ('RANK', 'torchrun --nproc_per_node=N'), 'slurm': ('SLURM_PROCID', 'srun')}
        variable, command = commands[launcher]
        if variable not in os.environ:
            raise OptionError(f'--launcher: {launcher}, but {variable} is not set; start the tool by {command}')
        if launcher == 'slurm':
            return init_slurm((backend or 'nccl') if torch.cuda.is_available() else 'gloo', **kwargs)
        if torch.cuda.is_available():
            return init_dist(launcher, backend or 'nccl', **kwargs)
        torch.distributed.init_process_group(backend='gloo', **kwargs)

    init.takes_gloo = True  # type: ignore[attr-defined]
    return init


def _on_cpu_too(model_to_device: Any) -> Any:
    """``BaseModel.model_to_device``; on a CPU DistributedDataParallel is built without device ids."""
    if getattr(model_to_device, 'takes_cpu', False):
        return model_to_device

    @functools.wraps(model_to_device)
    def to_device(self: Any, net: torch.nn.Module) -> torch.nn.Module:
        if self.opt['dist'] and self.device.type == 'cpu':
            unused = self.opt.get('find_unused_parameters', False)
            return torch.nn.parallel.DistributedDataParallel(net.to(self.device), find_unused_parameters=unused)
        return model_to_device(self, net)

    to_device.takes_cpu = True  # type: ignore[attr-defined]
    return to_device


def _on_bare_network(test: Any) -> Any:
    """``SRModel.test``, which only rank 0 calls: a wrapped network with buffers would wait for the other ranks."""
    if getattr(test, 'on_bare_network', False):
        return test

    @functools.wraps(test)
    def bare(self: Any) -> None:
        wrapped = self.net_g
        self.net_g = self.get_bare_model(wrapped)
        try:
            test(self)
        finally:
            self.net_g = wrapped

    bare.on_bare_network = True  # type: ignore[attr-defined]
    return bare


def _not_about_several_sets(record: logging.LogRecord) -> bool:
    """Keeps a warning back that is not true: models derived from SRModel validate on several sets."""
    return 'Multiple validation datasets are *only* supported' not in record.getMessage()
