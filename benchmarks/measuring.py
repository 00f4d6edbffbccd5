"""How long several ways to the same result take, measured side by side."""

import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch

Contender = Callable[[int], object]  # called with the seed of the call


class Timing(NamedTuple):
    """Milliseconds of one call, the mean over the seeds.

    Attributes:
        least: Of each seed's minimum over the repeats.
        median: Of each seed's median over the repeats.
    """

    least: float
    median: float


def measure(contenders: Mapping[str, Contender], repeats: int, seeds: int, device: str) -> dict[str, Timing]:
    """Times contenders in turn, A B C A B C …, so that what disturbs the machine disturbs all of them.

    What is random has the same seeds in every repeat; so repeats do equal work, and their minimum is that work without
    disturbance. A first repeat is not counted.

    Args:
        contenders: Functions by name; before each call the global generators of random, numpy and torch are seeded.
        repeats: How often each seed is timed.
        seeds: How many seeds, 0 … seeds - 1.
        device: cuda: wait for the device before and after each call.
    """
    times = {name: [[] for _ in range(seeds)] for name in contenders}
    for repeat in range(-1, repeats):
        for seed in range(seeds):
            for name, run in contenders.items():
                elapsed = _time_once(run, seed, device)
                if repeat >= 0:
                    times[name][seed].append(elapsed * 1000)
    return {name: Timing(*(statistics.fmean(of(sample) for sample in samples) for of in (min, statistics.median)))
            for name, samples in times.items()}


def _time_once(run: Contender, seed: int, device: str) -> float:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  what BasicSR draws from
    torch.manual_seed(seed)
    if device == 'cuda':
        torch.cuda.synchronize()
    start = time.perf_counter()
    run(seed)
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - start
