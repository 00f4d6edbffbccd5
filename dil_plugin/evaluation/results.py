"""What was measured: one score per image, with all that a report needs to know about how."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import msgspec

from dil_plugin.evaluation.protocols import Protocol

INPUT = 'input'
"""The name of the run that restores nothing: the distorted image itself, enlarged by MATLAB's bicubic for x2 to x8."""

CLEAN = 'clean'
"""The name of the clean image beside the runs."""


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """The metrics of one image under one run and one condition; or why there are none.

    Attributes:
        run: The run's name, or ``input``.
        dataset: The data set's name.
        condition: The condition's name.
        image: The image's name in its set.
        metrics: By name; ``psnr`` in dB, ``ssim`` in [0, 1], and what else was asked for. Infinite PSNR is None.
        error: Why the image has none.
    """

    run: str
    dataset: str
    condition: str
    image: str
    metrics: dict[str, float | None] = {}
    error: str | None = None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One method.

    Attributes:
        name: As given on the command line; ``GROUP/METHOD`` where the protocol has groups.
        checkpoint: The file.
        sha256: Of the file.
        network: The architecture's name.
        parameters: How many there are.
        param_key: Which of its parameters: ``params`` or ``params_ema``.
        iteration: Training iterations, where the checkpoint says so.
        trained_on: The confounders' labels, where the checkpoint says so.
        variant: Of ``train.dil``, where the checkpoint says so.
    """

    name: str
    checkpoint: str
    sha256: str
    network: str
    parameters: int
    param_key: str = 'params'
    iteration: int | None = None
    trained_on: list[str] = []
    variant: str | None = None

    @property
    def group(self) -> str | None:
        """``RRDB`` of ``RRDB/ERM``."""
        return self.name.rpartition('/')[0] or None

    @property
    def method(self) -> str:
        """``ERM`` of ``RRDB/ERM``."""
        return self.name.rpartition('/')[2]


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """A data set that was not evaluated, and why."""

    dataset: str
    reason: str


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """One image whose versions were kept: files of 8-bit PNG, all of the clean image's size.

    Attributes:
        dataset: The data set's name.
        condition: The condition's name.
        image: The image's name in its set.
        files: By name, relative to the folder of the results: ``input``, each run's, ``clean`` last.
    """

    dataset: str
    condition: str
    image: str
    files: dict[str, str]


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """All of one evaluation.

    Attributes:
        protocol: How it was measured.
        runs: The methods, in the order given; the first, or the one named ERM, is what others are compared with.
        baseline: That run's name.
        scores: One per run (and ``input``), data set, condition and image.
        skipped: Data sets that were not evaluated.
        remarks: By data set, what sets the copy that was used apart from the one that the paper's numbers are of.
        pictures: Images that were kept.
        metrics: Names of the metrics, in the order of columns; ``psnr`` and ``ssim`` first.
        lower_is_better: Those of them.
        seed: Seeds the test distortions.
        limit: Images per set, where they were limited.
        settings: What else was set, for the record: command, device, tile, versions, date.
    """

    protocol: Protocol
    runs: list[Run]
    baseline: str
    scores: list[Score]
    skipped: list[Skipped] = []
    remarks: dict[str, str] = {}
    pictures: list[Picture] = []
    metrics: list[str] = msgspec.field(default_factory=lambda: ['psnr', 'ssim'])
    lower_is_better: list[str] = []
    seed: int = 0
    limit: int | None = None
    settings: dict[str, str] = {}

    @property
    def task(self) -> str:
        """The task whose published numbers belong beside; none for a protocol of one's own, whatever its name."""
        return self.protocol.name if self.protocol.paper_table is not None else ''

    @property
    def baseline_text(self) -> str:
        """What runs are compared with, in words."""
        method = self.baseline.rpartition('/')[2]
        return f'{method} of the same group' if self.protocol.groups else self.baseline

    @property
    def datasets(self) -> list[str]:
        """Sets with scores, in the protocol's order."""
        there = {score.dataset for score in self.scores}
        return [name for name in self.protocol.datasets if name in there]

    @property
    def conditions(self) -> list[str]:
        """Conditions with scores, in the protocol's order."""
        there = {score.condition for score in self.scores}
        return [condition.name for condition in self.protocol.conditions if condition.name in there]

    @property
    def failures(self) -> list[Score]:
        """Images without scores."""
        return [score for score in self.scores if score.error is not None]

    @property
    def failures_in_words(self) -> list[str]:
        """Every error once, with the first image that has it and how many more have."""
        images: dict[str, dict[str, None]] = defaultdict(dict)
        for score in self.failures:
            images[score.error or ''][f'{score.dataset}: {score.image}'] = None
        return [f'{error} ({next(iter(found))}{f" and {len(found) - 1} more" if len(found) > 1 else ""})'
                for error, found in images.items()]

    def values(self, run: str, dataset: str, condition: str, metric: str) -> dict[str, float]:
        """A metric by image name, of the images that have it."""
        found = {}
        for score in self.scores:
            if (score.run, score.dataset, score.condition) == (run, dataset, condition):
                value = score.metrics.get(metric)
                if value is not None:
                    found[score.image] = value
        return found


def write_results(results: Results, path: Path) -> None:
    """Writes ``results.json``."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b'\n')


def read_results(path: Path) -> Results:
    """Reads what ``write_results`` wrote; raises msgspec.ValidationError or OSError."""
    return msgspec.json.decode(path.read_bytes(), type=Results)


def choose_baseline(names: Sequence[str], wanted: str | None = None) -> str:
    """The run that others are compared with: the one asked for, else the one called ERM, else the first."""
    if wanted is not None:
        return wanted
    return next((name for name in names if name.rpartition('/')[2].upper() == 'ERM'), names[0])
