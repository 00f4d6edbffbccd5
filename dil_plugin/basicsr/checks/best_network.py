"""``val.keep_best``, as it stands in the YAML."""

from collections.abc import Mapping
from typing import Any

from dil_plugin.errors import OptionError
from dil_plugin.options import did_you_mean


def check_kept_best(opt: Mapping[str, Any]) -> None:
    """Raises OptionError where ``val.keep_best`` names no metric, or there is nothing to validate on."""
    metric = (opt.get('val') or {}).get('keep_best')
    if metric is None:
        return
    metrics = list(opt['val'].get('metrics') or {})
    if metric not in metrics:
        known = did_you_mean(metric, metrics) if metrics else 'there are none'
        raise OptionError(f"val.keep_best: {metric!r} is none of val.metrics; {known}")
    if not any(name.split('_')[0] == 'val' for name in opt['datasets']):
        raise OptionError(f'val.keep_best: {metric!r}, but datasets has no val_1, val_2, … to measure it on')
