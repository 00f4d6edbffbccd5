"""The most memory that a function needs at a time, above what there was before."""

import gc
from collections.abc import Callable
from pathlib import Path

import torch

_STATUS = Path('/proc/self/status')
_RESET = Path('/proc/self/clear_refs')


def measurable(device: str) -> bool:
    """Whether this machine tells: of the CPU's memory Linux does."""
    return device == 'cuda' or (_STATUS.exists() and _RESET.exists())


def peak(run: Callable[[], object], device: str) -> int:
    """Bytes at the highest point of the call, less those at its start.

    On a CPU it is resident memory: run it in a process of its own, in which libraries are warm, with
    ``MALLOC_MMAP_THRESHOLD_`` so small that freed tensors go back to the system.
    """
    gc.collect()
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    _RESET.write_text('5')  # the high-water mark falls to what is resident now
    before = _kibibytes('VmRSS')
    run()
    return 1024 * (_kibibytes('VmHWM') - before)


def _kibibytes(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f'{name}:'))
    return int(line.split()[1])
