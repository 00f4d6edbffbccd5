"""Results as files of tables: Markdown to read, LaTeX for a paper, CSV for other programs."""

from dil_plugin.evaluation.written_tables.csv_files import write_csv
from dil_plugin.evaluation.written_tables.latex import write_latex
from dil_plugin.evaluation.written_tables.markdown import write_markdown

__all__ = ['write_csv', 'write_latex', 'write_markdown']
