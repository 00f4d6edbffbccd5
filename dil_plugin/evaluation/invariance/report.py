"""The invariance report as Markdown, and as JSON with the values of every image."""

from collections.abc import Sequence

import msgspec

from dil_plugin.evaluation.invariance.measuring import METRICS, Invariance, mean_of_pairs
from dil_plugin.evaluation.results import INPUT
from dil_plugin.evaluation.statistics import Difference, few_images, paired_difference
from dil_plugin.evaluation.tables import Cell, Column, markdown_table

_FORMATS = {'output dependence': '.2f', 'ratio': '.3f', 'error': '.2f', 'gradient cosine': '.3f'}
_GUIDE = """## How to read this

* **Output dependence** is the mean RMSE between the outputs of one image under two confounders; 0 is perfect
  invariance. **A network that returns grey reaches 0**: read it beside the **error**, the mean RMSE to the clean
  image. Two outputs differ by no more than the sum of their errors, so a better network is a more invariant one by
  itself; of two networks with the same error, the one with less dependence errs more alike whatever the distortion.
* **Ratio** is output dependence divided by that of the inputs.
* **Gradient cosine** says whether a step that helps one confounder helps the others, at these parameters. A random
  network has almost 1, since all gradients say the same, and at a minimum the gradients of the training confounders
  cancel. Two checkpoints of one training may differ more than two methods: compare several of each, at like loss.
* All runs got the same images, counterfactuals and patches. Intervals are of the mean difference over images, 95 %,
  and speak of other images, not of other trainings.

`docs/invariance.md` of dil_plugin has the formulas and more.
"""


class MeasuredRun(msgspec.Struct, frozen=True, kw_only=True):
    """One network of the report.

    Attributes:
        checkpoint: The file.
        param_key: Which of its parameters.
        network: The architecture's name.
        parameters: How many there are.
        trained_on: The confounders' labels, where the checkpoint says so.
        measured: What was measured.
    """

    checkpoint: str
    param_key: str
    network: str
    parameters: int
    trained_on: list[str] = []
    measured: Invariance


class InvarianceReport(msgspec.Struct, frozen=True, kw_only=True):
    """All of one report; what invariance.json holds.

    Attributes:
        runs: By name; all of the same images, confounders and draws.
        baseline: The run that the others are compared with.
        settings: What else there is to know about how it was measured.
    """

    runs: dict[str, MeasuredRun]
    baseline: str
    settings: dict[str, str]

    @property
    def labels(self) -> list[str]:
        """Of the confounders."""
        return self.runs[self.baseline].measured.labels


def to_json(report: InvarianceReport) -> bytes:
    """The report with every image's values, indented."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b'\n'


def from_json(content: bytes) -> InvarianceReport:
    """What ``to_json`` wrote; raises msgspec.ValidationError for anything else."""
    return msgspec.json.decode(content, type=InvarianceReport)


def to_markdown(report: InvarianceReport, picture: str) -> str:
    """The report in Markdown.

    Args:
        report: What was measured.
        picture: The file of the heat maps, relative to that of the report.
    """
    images = len(report.runs[report.baseline].measured.images)
    settings = [f'* {name}: {value}' for name, value in report.settings.items()]
    return '\n\n'.join([
        '# Invariance to the distortion', '\n'.join(settings), _runs(report),
        f'Means over {images} image{"s" * (images > 1)}; RMSE on the 0-255 scale.', _means(report),
        *_compared(report),
        '## By confounder', 'RMSE to the clean image:', _errors(report),
        'Norm of the gradient / L1 loss (images in [0, 1]), on the patches of all images together:', _gradients(report),
        '## Matrices', f'![Dependence of inputs and outputs, errors, cosines of gradients]({picture})', _GUIDE])


def _measured(report: InvarianceReport) -> dict[str, Invariance]:
    return {name: run.measured for name, run in report.runs.items()}


def _runs(report: InvarianceReport) -> str:
    columns = [Column('run', align='left'), Column('checkpoint', align='left'), Column('network', align='left'),
               Column('parameters', ','), Column('trained on', align='left')]
    return markdown_table(columns, [
        [name, f'{run.checkpoint}, {run.param_key}', run.network, run.parameters,
         ', '.join(run.trained_on) or 'the checkpoint does not say']
        for name, run in report.runs.items()])


def _means(report: InvarianceReport) -> str:
    columns = [Column('', align='left'), *(Column(metric, _FORMATS[metric]) for metric in METRICS[:-1]),
               Column('gradient cosine, all images', '.3f'), Column('of single images', '.3f')]
    base = report.runs[report.baseline].measured
    undone = base.input_errors
    rows: list[Sequence[Cell]] = [[INPUT, mean_of_pairs(base.inputs), None,
                                   sum(undone) / len(undone) if undone else None, None, None]]
    rows += [[name, *(run.mean(metric) for metric in METRICS[:-1]), run.gradients.mean_cosine,
              run.mean('gradient cosine')] for name, run in _measured(report).items()]
    return markdown_table(columns, rows)


def differences(report: InvarianceReport, run: str) -> dict[str, Difference]:
    """A run minus the baseline by metric, over the images that both have."""
    own, base = report.runs[run].measured, report.runs[report.baseline].measured
    found = {metric: paired_difference(own.per_image(metric), base.per_image(metric)) for metric in METRICS}
    return {metric: difference for metric, difference in found.items() if difference is not None}


def _compared(report: InvarianceReport) -> list[str]:
    others = [name for name in report.runs if name != report.baseline]
    if not others:
        return []
    columns = [Column(f'minus {report.baseline}', align='left'), *(Column(metric) for metric in METRICS[:-1]),
               Column('gradient cosine of single images')]
    rows: list[Sequence[Cell]] = []
    for name in others:
        found = differences(report, name)
        rows.append([name, *(_difference(found.get(metric), _FORMATS[metric]) for metric in METRICS)])
    warning = few_images([one for name in others for one in differences(report, name).values()])
    text = 'Differences, with the 95 % interval of the mean over images; bold where it leaves out zero.'
    return [f'{text} {warning}'.strip(), markdown_table(columns, rows)]


def _difference(difference: Difference | None, digits: str) -> str | None:
    if difference is None:
        return None
    text = f'{difference.mean:+{digits}}'
    if difference.images > 1:
        text += f' [{difference.low:+{digits}}, {difference.high:+{digits}}]'
    return f'**{text}**' if difference.significant else text


def _errors(report: InvarianceReport) -> str:
    columns = [Column('', align='left'), *(Column(label, '.2f') for label in report.labels)]
    undone = report.runs[report.baseline].measured.input_errors
    rows: list[Sequence[Cell]] = [[INPUT, *undone]] if undone else []
    rows += [[name, *run.errors] for name, run in _measured(report).items()]
    return markdown_table(columns, rows)


def _gradients(report: InvarianceReport) -> str:
    columns = [Column('', align='left'), *(Column(label) for label in report.labels)]
    return markdown_table(columns, [
        [name, *(f'{norm:.3g} / {loss:.4f}'
                 for norm, loss in zip(run.gradients.norms, run.gradients.losses, strict=True))]
        for name, run in _measured(report).items()])
