"""What is shown of a result: tables and figures, by pure functions on numbers and arrays (no BasicSR, no torch)."""

from dil_plugin.evaluation.plots import Panel, degree_curve, save_png, side_by_side
from dil_plugin.evaluation.tables import Column, markdown_table

__all__ = ['Column', 'Panel', 'degree_curve', 'markdown_table', 'save_png', 'side_by_side']
