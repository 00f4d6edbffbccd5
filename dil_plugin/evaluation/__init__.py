"""From trained networks to what is shown of them.

* What is measured: ``protocols`` (a YAML file per table), ``published`` (the paper's numbers), ``benchmark_sets``
  (readers), ``inputs`` (test distortions).
* Measuring: ``networks`` (from checkpoints), ``tiling``, ``metrics``, ``runner``, ``score_store``; ``reproduce`` and
  ``reproduce_options`` put them together.
* Results: ``results`` (scores of images), ``statistics`` (paired bootstrap), ``summary`` (means and differences).
* Shown: ``written_tables`` (Markdown, LaTeX, CSV), ``curves``, ``crops``, ``html_report``; below them ``tables`` and
  ``plots``, pure functions on numbers and arrays, which are all that this package imports at once.
* ``restore`` and ``image_files`` for one's own images, ``invariance``, ``preview`` (contact sheets of confounders).
"""

from dil_plugin.evaluation.plots import Panel, degree_curve, save_png, side_by_side
from dil_plugin.evaluation.tables import Column, markdown_table

__all__ = ['Column', 'Panel', 'degree_curve', 'markdown_table', 'save_png', 'side_by_side']
