"""What a resumed run is told differently from the run that it goes on with."""

from collections.abc import Iterator, Mapping
from typing import Any

_BLOCKS = ('scale', 'gt_usm', 'queue_size', 'distortions', 'network_g', 'train')
_DATA = ('phase', 'seed', 'num_worker_per_gpu', 'prefetch_mode', 'num_prefetch_queue', 'pin_memory',
         'persistent_workers')
_SAVED = ('train.optim_g.', 'train.scheduler.')
_SHOWN = 12

PROCESSES, IMAGES = 'processes', 'images of datasets.train'
_LATER = (PROCESSES, IMAGES, 'train.optim_g.type', 'train.scheduler.type')


def recorded_options(opt: Mapping[str, Any], images: int | None = None) -> dict[str, str]:
    """What says what is trained: the number of processes and of images, options by their keys.

    Options that only say how fast it is are left out.

    Args:
        opt: The options, before BasicSR takes the types of optimiser and schedule out of them.
        images: Of the training set.
    """
    facts = {PROCESSES: opt.get('world_size', 1), IMAGES: images}
    data = {name: value for name, value in opt['datasets'].get('train', {}).items() if name not in _DATA}
    blocks = {name: opt[name] for name in _BLOCKS if opt.get(name) is not None}
    return dict(_flat({**facts, **blocks, 'datasets': {'train': data}}))


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The options that differ, as ``KEY: BEFORE -> NOW``; '' where none does.

    What states of earlier versions do not say counts as it is now.
    """
    before = _completed(before, now)
    keys = _changed(before, now)
    told = [f'{key}: {before.get(key, "not given")} -> {now.get(key, "not given")}' for key in keys[:_SHOWN]]
    return '; '.join(told + ['…'] * (len(keys) > _SHOWN))


def changes_without_effect(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether options differ that a resumed run takes from its training state: those of optimiser and schedule."""
    return any(key.startswith(_SAVED) for key in _changed(_completed(before, now), now))


def _completed(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    return {**{key: now[key] for key in _LATER if key in now}, **before}


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [key for key in {**before, **now} if before.get(key) != now.get(key)]


def _flat(value: Any, key: str = '') -> Iterator[tuple[str, str]]:
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield key, str(value)
        return
    for name, inner in items:
        yield from _flat(inner, f'{key}[{name}]' if isinstance(value, list) else f'{key}.{name}' if key else str(name))
