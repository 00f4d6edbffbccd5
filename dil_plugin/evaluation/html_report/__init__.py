"""One HTML file that shows a whole evaluation: tables, curves, images over one another, and how it was measured.

It needs no server and no network: figures are inline SVG, images are PNG in data URIs, and a content security policy
forbids everything that does not stand in the file itself.
"""

from dil_plugin.evaluation.html_report.report import write_html

__all__ = ['write_html']
