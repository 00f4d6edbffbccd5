"""Checks a training before it is queued: options, data, network, a step at its size, memory, time and disk."""

import argparse
import importlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from basicsr.models import build_model
from basicsr.utils import get_root_logger

from dil_plugin.basicsr.checks.exact_product import product_line
from dil_plugin.basicsr.checks.network_check import image_channels, patch_side
from dil_plugin.basicsr.checks.saved_network import check_saved_network
from dil_plugin.basicsr.checks.trial_step import Trial, gibibytes, trial_steps
from dil_plugin.basicsr.checks.trial_validation import trial_validation
from dil_plugin.basicsr.data.bad_images import MARKER
from dil_plugin.basicsr.data.draw_sampler import DrawSampler
from dil_plugin.basicsr.models.dil_model import DILModel
from dil_plugin.checkpoints import load_checkpoint
from dil_plugin.errors import DataError, OptionError

SAMPLE = 32
"""Images of each data set that are read where ``--images`` says nothing else."""

_NAMED = 8  # unusable images in the summary


def number_of_images(text: str) -> int | None:
    """``--images``: an integer of at least 1, or None for ``all``."""
    if text == 'all':
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'got {text!r}; allowed: an integer >= 1, all')
    return int(text)


def parse_arguments(arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The tool's own options, and those that are handed to BasicSR (``--force_yml``, ``--auto_resume``)."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, epilog='Other options are those of tools/train.py, as --force_yml '
        'num_gpu=0. Nothing is written to experiments/.')
    parser.add_argument('-opt', required=True, metavar='FILE', help='the options file of the training')
    parser.add_argument('--images', type=number_of_images, default=SAMPLE, metavar='N',
                        help=f'images of each data set to read, spread over it, or "all" (default: {SAMPLE})')
    return parser.parse_known_args(arguments)


def check(root_path: str, arguments: Sequence[str] | None = None) -> Iterator[str]:
    """The lines of the summary, each when that part is found to be right.

    Args:
        root_path: The folder in which ``experiments/`` would be made; it is not.
        arguments: Of the command line (None: of this process).

    Raises:
        DILError: Something is wrong with the options, the data, the numbers, or what the training takes.
    """
    options, others = parse_arguments(arguments)
    get_root_logger(log_level=logging.WARNING)  # the first call decides; a summary stands here, not a log
    train = importlib.import_module('basicsr.train')
    before = sys.argv
    sys.argv = ['check', '-opt', options.opt, *others]
    try:
        opt, _ = train.parse_options(root_path, is_train=True)
    finally:
        sys.argv = before
    torch.backends.cudnn.benchmark = True
    yield _line('options', f'{options.opt} is valid')
    resumed = train.load_resume_state(opt)
    DrawSampler.resumed = None  # the batch to try is the first one
    experiments = _writable(opt['path']['experiments_root'])
    with tempfile.TemporaryDirectory() as folder:  # where this model writes
        loader, _, val_loaders, epochs, total = train.create_train_val_dataloader(opt, logging.getLogger('silent'))
        for dataset in (loader.dataset, *(one.dataset for one in val_loaders)):
            read, skipped = read_images(dataset, options.images)
            name = dataset.opt['name'] if dataset is not loader.dataset else 'train'
            yield _line('data', f'{name}: {len(dataset)} images, {read} of them read{_unusable(skipped)}')
        yield _line('', f'{len(loader)} iterations per epoch and process, {epochs} epochs')
        opt['path']['experiments_root'] = folder
        opt['logger']['pbar'] = False
        model = build_model(opt)
        model.opt['path'].update(models=folder, training_states=folder)  # now that the network is read
        val, model.opt['val'] = model.opt.get('val'), None  # a resumed run may repeat a validation first
        if resumed is not None:
            model.resume_training(resumed)
            yield _line('resume', f'{opt["path"]["resume_state"]}, iteration {resumed["iter"]}')
        parameters = sum(p.numel() for p in model.net_g.parameters())
        yield _line('network', f'{opt["network_g"]["type"]}, {parameters:,} parameters')
        batch_size = opt['datasets']['train']['batch_size_per_gpu']
        yield _line('step', f'some iterations with {batch_size} images on {model.device} …')
        trial = trial_steps(model, next(iter(loader)), batch_size)
        yield from _trial_lines(trial, str(model.device), total)
        for text in (model.idle.message(), product_line(model)) if isinstance(model, DILModel) else ():
            if text:
                yield _line('', text)
        model.save(0, 1)  # as a training does, after a step and before a validation
        size = sum(file.stat().st_size for file in Path(folder).iterdir() if file.is_file())
        image = torch.rand(1, image_channels(opt) or 3, *2 * [patch_side(opt) or 64], device=model.device)
        warning = check_saved_network(model.get_bare_model(model.net_g), opt['network_g'], f'{folder}/net_g_1.pth',
                                      image, getattr(model, 'outputs', 'all'))
        if warning:
            yield _line('', f'warning: {warning}')
        sets = [one.dataset for one in val_loaders] if val else []
        for text in trial_validation(model, sets, val or {}, os.path.join(folder, 'visualization')):
            yield _line('val', text)
        model.resume_training(load_checkpoint(os.path.join(folder, '1.state'), 'training state'))
        yield _line('save', 'network and training state are written and read')
    yield _line('disk', _disk(size, total, int(opt['logger']['save_checkpoint_freq']), experiments))


def read_images(dataset: Any, count: int | None) -> tuple[int, dict[str, str]]:
    """Reads images of a data set, as training does.

    Args:
        dataset: One of BasicSR or of ours.
        count: So many, spread evenly; None: all.

    Returns:
        How many were read; and those that ``on_bad_image: skip`` would leave out, with the reasons.

    Raises:
        DataError: Some cannot be read; it names the first.
    """
    number = len(dataset) if count is None else min(count, len(dataset))
    errors, skipped = [], {}
    for k in range(number):
        try:
            sample = dataset[k * len(dataset) // number]
            for line in (sample.get(MARKER) or '').splitlines() if isinstance(sample, dict) else ():
                image, _, skipped[image] = line.partition('\t')
        except DataError as error:
            errors.append(str(error))
    if errors:
        others = f' (and {len(errors) - 1} more of the {number} that were read)' if len(errors) > 1 else ''
        raise DataError(f'{errors[0]}{others}')
    return number, skipped


def _unusable(skipped: Mapping[str, str]) -> str:
    if not skipped:
        return ''
    named = [f'{image} ({reason})' for image, reason in list(skipped.items())[:_NAMED]]
    return (f'; {len(skipped)} cannot be used, others take their places (on_bad_image: skip): '
            f'{", ".join([*named, *["…"] * (len(skipped) > _NAMED)])}')


def duration(seconds: float) -> str:
    """A time span in the two largest of its units."""
    for unit, name, part, small in ((86400, 'd', 3600, 'h'), (3600, 'h', 60, 'min'), (60, 'min', 1, 's')):
        if seconds >= unit:
            return f'{int(seconds // unit)} {name} {int(seconds % unit // part)} {small}'
    return f'{seconds:.2g} s'


def _trial_lines(trial: Trial, device: str, total: int) -> Iterator[str]:
    losses = ', '.join(f'{name} {value:.4g}' for name, value in trial.log.items()
                       if name in ('l_inner', 'l_outer', 'l_pix'))
    yield _line('', f'{trial.seconds:.3g} s for the last one; {losses}')
    yield _line('', f'{total} iterations: {duration(total * trial.seconds)}, without data that come late and '
                'validation')
    if trial.peak is not None:
        whose = 'allocated' if device.startswith('cuda') else 'of this process, without data workers'
        yield _line('memory', f'{gibibytes(trial.peak)} at most ({whose}), {gibibytes(trial.available)} are there')


def _writable(folder: str) -> str:
    """The folder that is there already, to which the experiment's would be added."""
    there = os.path.abspath(folder)
    while not os.path.exists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there) or not os.access(there, os.W_OK):
        raise DataError(f'name: {folder} cannot be made, since {there} cannot be written to')
    return there


def _disk(size: int, total: int, frequency: int, folder: str) -> str:
    count = total // frequency + 1  # and the last one
    free = shutil.disk_usage(folder).free
    if count * size > free:
        room = free // size  # of which one is for the last checkpoint
        allowed = f'a number >= {total // room + 1}' if room else 'more room'
        raise OptionError(f'logger.save_checkpoint_freq: {frequency}, which makes {count} checkpoints with training '
                          f'states of {gibibytes(size)}, but {gibibytes(free)} are free on the disk of {folder}; '
                          f'allowed: {allowed}')
    return (f'{count} checkpoints with training states of {gibibytes(size)} are {gibibytes(count * size)}, '
            f'{gibibytes(free)} are free')


def _line(what: str, text: str) -> str:
    return f'{what:<9}{text}'
