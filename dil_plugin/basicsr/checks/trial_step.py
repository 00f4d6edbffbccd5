"""A training step to see whether it can be taken: what it takes of time and memory."""

import os
import resource
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dil_plugin.basicsr.checks.first_failure import in_one_line, lacks_memory
from dil_plugin.errors import NumericalError, OptionError

_STATUS = Path('/proc/self/status')
_LIMIT = Path('/sys/fs/cgroup/memory.max')  # of the container or the job
_RESET = Path('/proc/self/clear_refs')
_STEPS = 2  # at least; the first one also loads kernels, and makes what the optimisers keep


class Trial(NamedTuple):
    """What a step took.

    Attributes:
        seconds: Of the last iteration, without the wait for its data.
        peak: Bytes at the highest point: of the GPU's memory by PyTorch, or resident ones of this process; None where
            the system does not tell.
        available: Bytes of the GPU, or of this machine, container or process (``ulimit -v``).
        log: What ``get_current_log`` says of it.
    """

    seconds: float
    peak: int | None
    available: int
    log: dict[str, float]


def trial_steps(model: Any, data: dict[str, Any], batch_size: int) -> Trial:
    """Trains the model for two iterations on one batch; with ``accum_iter`` for as many as make a step.

    Args:
        model: A BasicSR model in training.
        data: The batch, from the data loader.
        batch_size: For messages.

    Raises:
        OptionError: The memory is too small, or a step fails for another reason.
        NumericalError: Losses or gradients are not finite.
    """
    device = model.device
    before = model.watch.read() if hasattr(model, 'watch') else 0  # a run that is resumed may have skipped some
    steps = max(_STEPS, model.opt['train'].get('accum_iter', 1))  # the optimiser's first step is among them
    _forget_peak(device)
    try:
        for iteration in range(1, steps + 1):
            start = time.perf_counter()
            with in_one_line('a training step', model.net_g):
                model.update_learning_rate(iteration, warmup_iter=model.opt['train'].get('warmup_iter', -1))
                model.feed_data(data)
                model.optimize_parameters(iteration)
            if device.type == 'cuda':
                torch.cuda.synchronize()
            seconds = time.perf_counter() - start
    except (RuntimeError, MemoryError) as error:
        if not lacks_memory(error):
            raise
        raise OptionError(f'datasets.train.batch_size_per_gpu: {batch_size} patches need more memory than the '
                          f'{gibibytes(_available(device))} of this {_name(device)}; allowed: fewer of them, '
                          'train.dil.micro_batch, train.dil.checkpointing: true or train.amp') from None
    log = dict(model.get_current_log())
    skipped = int(log.get('skipped', 0) - before)
    if skipped:
        losses = ', '.join(f'{name} {value:.4g}' for name, value in log.items() if name.startswith('l_'))
        raise NumericalError(f'{skipped} of the first steps are not finite ({losses}); lower '
                             'the learning rates (train.dil.inner.lr, train.optim_g.lr), or look at the images')
    return Trial(seconds, _peak(device), _available(device), log)


def gibibytes(size: float) -> str:
    """A number of bytes, readable."""
    return f'{size / 2**30:.1f} GiB' if size >= 2**30 else f'{size / 2**20:.1f} MiB'


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == 'cuda' else 'machine'


def _forget_peak(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    elif _RESET.exists():
        _RESET.write_text('5')  # the high-water mark falls to what is resident now


def _peak(device: torch.device) -> int | None:
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated()
    lines = _STATUS.read_text().splitlines() if _STATUS.exists() else []
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith('VmHWM:')]
    return found[0] if found else None


def _available(device: torch.device) -> int:
    if device.type == 'cuda':
        return torch.cuda.mem_get_info()[1]
    machine = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    container = _LIMIT.read_text().strip() if _LIMIT.exists() else ''
    process = resource.getrlimit(resource.RLIMIT_AS)[0]
    return min([machine, *([int(container)] if container.isdecimal() else []),
                *([process] if process != resource.RLIM_INFINITY else [])])
