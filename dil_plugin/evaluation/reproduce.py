"""From checkpoints to the files of a report; behind ``tools/reproduce.py``."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import msgspec
import torch

import dil_plugin
from dil_plugin.errors import DataError
from dil_plugin.evaluation.crops import write_crops
from dil_plugin.evaluation.curves import degree_curves, write_curves
from dil_plugin.evaluation.html_report import write_html
from dil_plugin.evaluation.reproduce_options import Plan
from dil_plugin.evaluation.results import Results, write_results
from dil_plugin.evaluation.runner import Evaluation
from dil_plugin.evaluation.summary import summarise
from dil_plugin.evaluation.written_tables import write_csv, write_latex, write_markdown


def reproduce(plan: Plan, command: str = '') -> Results:
    """Evaluates the runs of a plan; what was computed before is kept.

    Args:
        plan: From ``make_plan``.
        command: How it was called, for the record.

    Raises:
        OptionError: See ``Evaluation``.
        DataError: See ``Evaluation``.
    """
    results = Evaluation(plan).evaluate()
    device = torch.cuda.get_device_name(plan.device) if plan.device.startswith('cuda') else 'CPU'
    record = {'command': command, 'date': date.today().isoformat(), 'device': device,
              'torch': str(torch.__version__), 'dil_plugin': dil_plugin.__version__, **results.settings}
    return msgspec.structs.replace(results, settings={name: text for name, text in record.items() if text})


def write_report(results: Results, folder: Path) -> Iterator[Path]:
    """Writes all files of a report, and gives the path of each.

    ``results.json``, ``table.md``, ``table.tex``, ``summary.csv``, ``images.csv``, ``curve_*.png`` and ``.pdf``,
    ``crops/*.png`` and ``report.html``.

    Raises:
        DataError: A file cannot be written.
    """
    try:
        write_results(results, folder / 'results.json')
    except OSError as error:
        raise DataError(f'--output: {folder} cannot be written ({error.strerror})') from None
    yield folder / 'results.json'
    cells = summarise(results)
    written: list[Path] = []
    yield write_markdown(results, folder, cells)
    yield write_latex(results, folder, cells)
    yield from write_csv(results, folder, cells)
    written += write_curves(results, folder, cells)
    written += write_crops(results, folder)
    yield from written
    for pattern in ('curve_*.png', 'curve_*.pdf', 'crops/*.png'):  # of runs, sets or conditions that are no more in it
        for path in set(folder.glob(pattern)) - set(written):
            path.unlink()
    yield write_html(results, folder, folder / 'report.html', degree_curves(results, cells), cells)
