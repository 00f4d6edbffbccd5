"""What a resumed run is told differently from the run that it goes on with."""

from collections.abc import Iterator, Mapping
from typing import Any

_BLOCKS = ('scale', 'gt_usm', 'queue_size', 'distortions', 'network_g', 'train')
_DATA = ('phase', 'seed', 'num_worker_per_gpu', 'prefetch_mode', 'num_prefetch_queue', 'pin_memory',
         'persistent_workers')
_SHOWN = 12


def recorded_options(opt: Mapping[str, Any]) -> dict[str, str]:
    """The options that say what is trained, by their keys; those that only say how fast are left out."""
    data = {name: value for name, value in opt['datasets'].get('train', {}).items() if name not in _DATA}
    blocks = {name: opt[name] for name in _BLOCKS if opt.get(name) is not None}
    return dict(_flat({**blocks, 'datasets': {'train': data}}))


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The options that differ, as ``KEY: BEFORE -> NOW``; '' where none does."""
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    told = [f'{key}: {before.get(key, "not given")} -> {now.get(key, "not given")}' for key in keys[:_SHOWN]]
    return '; '.join(told + ['…'] * (len(keys) > _SHOWN))


def _flat(value: Any, key: str = '') -> Iterator[tuple[str, str]]:
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield key, str(value)
        return
    for name, inner in items:
        yield from _flat(inner, f'{key}[{name}]' if isinstance(value, list) else f'{key}.{name}' if key else str(name))
