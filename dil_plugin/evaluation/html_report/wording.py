"""How names and numbers are written in the report."""

import math

from dil_plugin.evaluation.results import CLEAN, INPUT
from dil_plugin.evaluation.written_tables.layout import MISSING


def write_number(value: float | None, decimals: int, signed: bool = False) -> str:
    """A number with a true minus sign; ``–`` for None and NaN."""
    if value is None or math.isnan(value):
        return MISSING
    return format(value, f'{"+" if signed else ""}.{decimals}f').replace('-', '−')


def run_label(name: str) -> str:
    """What a run, the input or the clean image is called."""
    return {INPUT: 'distorted input', CLEAN: 'clean original'}.get(name, name)
