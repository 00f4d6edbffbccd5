"""Puts the report's parts together and writes the file."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import MappingProxyType

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from dil_plugin.evaluation.html_report.listing import listing
from dil_plugin.evaluation.html_report.overview import overviews
from dil_plugin.evaluation.html_report.pictures import views
from dil_plugin.evaluation.html_report.svg import inline_svg
from dil_plugin.evaluation.html_report.wording import run_label
from dil_plugin.evaluation.output_files import write_text
from dil_plugin.evaluation.published import PAPER, published_numbers
from dil_plugin.evaluation.results import Results
from dil_plugin.evaluation.summary import Cell, summarise
from dil_plugin.evaluation.written_tables.layout import metric_title

_NO_CURVES: Mapping[str, Figure] = MappingProxyType({})
_FAILURES = 20  # shown with their reasons; all of them stand in the table of every image


def write_html(results: Results,
               folder: Path,
               path: Path,
               curves: Mapping[str, Figure] = _NO_CURVES,
               cells: Sequence[Cell] | None = None) -> Path:
    """Writes the report: one file that opens by a double click, without a server and without a network.

    The same input gives the same bytes. Names and messages from outside are escaped.

    Args:
        results: What was measured. Of each picture the most detailed region of at most 320 x 320 pixels is embedded as
            PNG, up to 0.4 MB per version.
        folder: What the files of the pictures are relative to.
        path: The file to write.
        curves: Figures of matplotlib by name (that of the data set); they become SVG.
        cells: ``summarise(results)``, where it is at hand.

    Returns:
        The path.

    Raises:
        DataError: A picture cannot be read, its versions differ in size, or the report cannot be written.
    """
    style, *scripts = (_resource(name) for name in ('report.css', 'comparison.js', 'listing.js'))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.policies['json.dumps_kwargs'] = {'separators': (',', ':'), 'ensure_ascii': False}
    environment.filters.update(run_label=run_label, metric_title=metric_title, thousands='{:,}'.format)
    text = environment.from_string(_resource('report.html.j2')).render(
        results=results,
        protocol=results.protocol,
        paper=PAPER if published_numbers(results.task) else '',
        policy=_policy([style], scripts),
        style=Markup(style),
        scripts=[Markup(script) for script in scripts],
        overviews=overviews(results, summarise(results) if cells is None else cells),
        curves=[inline_svg(figure, f'curve{number}', f'{name}: a metric over the degree of distortion')
                for number, (name, figure) in enumerate(curves.items(), 1)],
        views=views(results, folder),
        listing=listing(results),
        failures_shown=_FAILURES,
        conditions=[(condition, _yaml(condition.distortion)) for condition in results.protocol.conditions
                    if condition.name in results.conditions],
    )
    return write_text(path, text)


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding='utf-8')


def _policy(styles: list[str], scripts: list[str]) -> str:
    """Forbids all but the embedded images and the very style sheet and scripts that come with the package."""
    return '; '.join(("default-src 'none'", 'img-src data:', f'style-src {_hashes(styles)}',
                      f'script-src {_hashes(scripts)}', "base-uri 'none'", "form-action 'none'"))


def _hashes(texts: list[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii') for text in texts)
    return ' '.join(f"'sha256-{digest}'" for digest in digests)


def _yaml(block: object) -> str:
    if block is None:
        return "the set's own distorted images"
    return str(yaml.safe_dump(block, default_flow_style=True, sort_keys=False, width=10_000)).strip()
