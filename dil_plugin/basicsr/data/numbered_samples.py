"""BasicSR's training data loader, whose samples depend on their numbers and whose workers outlive a signal to all."""

import atexit
import functools
import os
import signal
from collections.abc import Callable
from multiprocessing.sharedctypes import RawValue
from typing import Any

from torch.utils import data

from dil_plugin.basicsr.data.draw_sampler import Draw
from dil_plugin.basicsr.resuming.numbered_steps import sample_seeded

GRACE = 60  # seconds


class NumberedSamples(data.Dataset):
    """A data set whose samples draw from the global generators, each of them with a seed of its own.

    BasicSR seeds those generators once per worker, alike in every epoch. Here a sample depends on the seed and on the
    number of its draw, not on the number of workers nor on where a run was interrupted.

    Args:
        dataset: Any; what it gives is not changed.
        seed: ``manual_seed``.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if not isinstance(index, Draw):
            return self.dataset[index]
        with sample_seeded(self.seed, index.draw):
            return self.dataset[index]

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # not there yet while a data worker unpickles it
            raise AttributeError(name)
        return getattr(self.dataset, name)


def numbering_samples(build_dataloader: Callable[..., Any]) -> Callable[..., Any]:
    """BasicSR's ``build_dataloader``; training sets are read through ``NumberedSamples``."""
    if getattr(build_dataloader, 'numbers_samples', False):
        return build_dataloader

    @functools.wraps(build_dataloader)
    def build(dataset: Any, dataset_opt: dict[str, Any], *args: Any, seed: int | None = None, **kwargs: Any) -> Any:
        if dataset_opt['phase'] == 'train' and seed is not None:
            dataset = NumberedSamples(dataset, seed)
        loader = build_dataloader(dataset, dataset_opt, *args, seed=seed, **kwargs)
        loader.worker_init_fn = _OutlivingSignals(loader.worker_init_fn)
        return loader

    build.numbers_samples = True  # type: ignore[attr-defined]
    return build


class _OutlivingSignals:
    """What a data worker does first: Ctrl-C in a terminal, and torchrun, send their signal to the workers as well.

    The training process needs them until it has saved, however long a validation under way takes. SIGTERM ends them
    once it leaves, which is looked at every ``GRACE`` seconds.
    """

    def __init__(self, init: Callable[[int], None] | None) -> None:
        self.init = init
        self.leaving = RawValue('b', 0)  # in memory that the processes share
        atexit.register(self._leave)  # before the one of multiprocessing, which sends SIGTERM and waits

    def _leave(self) -> None:
        self.leaving.value = 1

    def __call__(self, worker: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.parent = os.getppid()
        signal.signal(signal.SIGALRM, self._terminate)
        signal.signal(signal.SIGTERM, self._terminate)
        if self.init is not None:
            self.init(worker)

    def _terminate(self, *_: object) -> None:
        if self.leaving.value or os.getppid() != self.parent:
            os._exit(0)  # anything else is an error to torch's data loader
        signal.alarm(GRACE)
