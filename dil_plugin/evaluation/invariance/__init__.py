"""How much a network's output depends on the distortion of its input; docs/invariance.md has the definitions."""

from dil_plugin.evaluation.invariance.measuring import Invariance, measure_invariance

__all__ = ['Invariance', 'measure_invariance']
