"""Gives every training step, and every sample, a seed of its own, so that a resumed run draws what it would have drawn.

Python, NumPy and torch have global generators, which dropout, stochastic depth and the augmentations of BasicSR's data
sets draw from. Their states when a checkpoint is written are not those of the next step: a validation in between, the
next epoch's data loader and each data worker draw from them, too. Numbers need no saved state, and hold for any number
of workers.
"""

import contextlib
import random
import threading
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import get_worker_info

_STEP, _SAMPLE = 0x5354, 0x5341  # keep the two kinds of numbers apart


def seed_step(seed: int, rank: int, iteration: int) -> None:
    """Seeds the global generators for one iteration of one rank; nobody waits for a GPU."""
    _seed_all(_seeds(_STEP, seed, rank, iteration))


@contextlib.contextmanager
def sample_seeded(seed: int, draw: int) -> Iterator[None]:
    """Seeds the global generators for one sample, and puts their states back afterwards.

    torch's stays as it is where a thread of the training process loads the sample (``prefetch_mode: cpu`` without
    workers): the network draws from it at the same time.
    """
    shared = get_worker_info() is None and threading.current_thread() is not threading.main_thread()
    python, torchs = random.getstate(), torch.get_rng_state()
    numpy = np.random.get_state()  # noqa: NPY002  (other people's data sets draw from it)
    seeds = _seeds(_SAMPLE, seed, draw)
    random.seed(seeds[0])
    np.random.seed(seeds[1])  # noqa: NPY002
    if not shared:
        torch.default_generator.manual_seed(seeds[2])
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        if not shared:
            torch.set_rng_state(torchs)


def _seeds(*numbers: int) -> list[int]:
    return [int(word) for word in np.random.SeedSequence(numbers).generate_state(3)]


def _seed_all(seeds: list[int]) -> None:
    random.seed(seeds[0])
    np.random.seed(seeds[1])  # noqa: NPY002
    torch.manual_seed(seeds[2])
