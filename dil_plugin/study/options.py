"""The file of a study: what is compared, on what, how often."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from dil_plugin.distortions import Distortion, parse_distortions
from dil_plugin.errors import OptionError
from dil_plugin.mistakes import reworded
from dil_plugin.options import convert
from dil_plugin.study.overrides import axis_values
from dil_plugin.yaml_files import read_yaml

Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]


class PairFolders(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A test condition of pairs: images of the same names in two folders."""

    gt: Annotated[str, Meta(description='Folder of the clean images.')]
    lq: Annotated[str, Meta(description='Folder of the distorted images.')]


class TestOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every checkpoint is tested on: the same crops and the same noise for all cells."""

    __test__ = False

    images: Annotated[str | None, Meta(description='Folder of clean images, which the conditions distort.')] = None
    seen: Annotated[dict[str, Any], Meta(description='Conditions by name that are among the training distortions: a '
                                         'distortion {type: …}, or pairs {gt: FOLDER, lq: FOLDER}.')] = {}
    unseen: Annotated[dict[str, Any], Meta(description='The same of conditions that are not.')] = {}
    count: Annotated[Count, Meta(description='Images of each condition, spread evenly over the folder.')] = 24
    crop: Annotated[int, Meta(ge=16, description='Side of the crop from the middle of each, in clean pixels.')] = 64
    metrics: Annotated[list[Literal['psnr', 'ssim']], Meta(min_length=1, description='What is measured.')] \
        = msgspec.field(default_factory=lambda: ['psnr'])
    channel: Annotated[Literal['RGB', 'Y'], Meta(description='What it is measured on.')] = 'RGB'
    crop_border: Annotated[int, Meta(ge=0, description='Pixels left out along every border.')] = 0
    seed: Annotated[int, Meta(ge=0, description='Of the test distortions.')] = 0

    def __post_init__(self) -> None:
        """At least one condition, each once."""
        if not self.seen and not self.unseen:
            raise ValueError('.seen: neither seen nor unseen conditions are given; give at least one')
        if twice := sorted(self.seen.keys() & self.unseen.keys()):
            raise ValueError(f'.unseen: {twice[0]!r} is also among the seen conditions')
        if 'psnr' not in self.metrics:
            raise ValueError(f'.metrics: got {self.metrics}; psnr must be among them')

    @property
    def conditions(self) -> dict[str, Any]:
        """The seen conditions, then the unseen ones."""
        return {**self.seen, **self.unseen}


class PhiOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The virtual update before a test: ``phi = theta - alpha grad (1/n) sum_i L_i`` on training patches."""

    alphas: Annotated[list[Positive], Meta(min_length=1, description="Learning rates. Default: the cell's inner one; a "
                                           'cell of erm has none, and no phi then.')] | None = None
    patches: Annotated[Count, Meta(description='Clean training patches, each under every confounder; the same ones for '
                                   'all cells.')] = 32


class Study(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A study."""

    question: Annotated[str, Meta(min_length=1, description='What is asked, in a sentence.')]
    base: Annotated[str | dict[str, Any], Meta(description='The training that all cells are variations of: a YAML file '
                                               'of BasicSR, or what would stand in it.')]
    budget: Annotated[Count, Meta(description='Image gradients of every cell.')]
    arms: Annotated[dict[str, dict[str, Any]], Meta(min_length=1, description='What is compared: by name the options '
                                                    'that differ from the base, an own grid, and a budget_factor where '
                                                    'the budget is to be a multiple.')]
    test: Annotated[TestOptions, Meta(description='What is measured.')]
    options: Annotated[dict[str, Any], Meta(description='What all arms change in the base, nested or by dotted names.'
                                            )] = {}
    points: Annotated[Count, Meta(description='How often each training is tested, at equal distances.')] = 10
    batch: Annotated[Count | None, Meta(description='Images of one gradient step; the batch size follows from it. '
                                        'An arm that gives a batch size has its own. Default: that of the base.')] \
        = None
    grid: Annotated[dict[str, Any], Meta(description='Axes that all arms are crossed with: a dotted option and its '
                                         'values, a list or by name.')] = {}
    baseline: Annotated[str | None, Meta(description='The arm that others are compared with. Default: the first.')] \
        = None
    seeds: Annotated[list[Annotated[int, Meta(ge=0)]], Meta(min_length=1, description='Of the trainings.')] \
        = msgspec.field(default_factory=lambda: [0, 1, 2])
    evaluate: Annotated[list[Literal['theta', 'ema', 'phi']], Meta(min_length=1, description='Which parameters are '
                        'tested: the trained ones, their average, those after a virtual update.')] \
        = msgspec.field(default_factory=lambda: ['theta'])
    phi: Annotated[PhiOptions, Meta(description='That update.')] = PhiOptions()
    invariance: Annotated[bool, Meta(description='Measure at the end how much outputs depend on the confounder.')] \
        = False

    def __post_init__(self) -> None:
        """Nothing twice."""
        for name, values in (('seeds', self.seeds), ('evaluate', self.evaluate)):
            if len(set(values)) < len(values):
                raise ValueError(f'.{name}: got {values}; each may stand there once')


def read_study(path: Path, given: Mapping[str, Any] | None = None, test_data: str | None = None) -> Study:
    """The study of a file.

    Args:
        path: The file.
        given: Options that take the place of the file's; the command line's.
        test_data: Takes the place of ``test.images``.

    Raises:
        OptionError: An option is unknown, missing or wrong; the message names the file, the key, the value and what is
            allowed.
        DataError: The file cannot be read.
    """
    raw = read_yaml(path, '-opt')
    if not isinstance(raw, Mapping):
        raise OptionError(f'{path}: expected a block of options, such as question, base and arms; got {raw!r}')
    block = {**_named(raw), **(given or {})}
    if test_data is not None and isinstance(block.get('test'), Mapping):
        block['test'] = {**block['test'], 'images': test_data}
    try:
        return parse_study(block)
    except OptionError as error:
        raise reworded(error, lambda text: f'{path}: {text.removeprefix("study").lstrip(".: ")}') from None


def parse_study(raw: Any) -> Study:
    """A study from what stands in its file; raises OptionError as ``read_study`` does."""
    study = convert(raw, Study, 'study')
    for name, values in study.grid.items():
        axis_values(values, f'study.grid.{name}')
    for key in ('seen', 'unseen'):
        for name, condition in getattr(study.test, key).items():
            parsed = parse_condition(condition, f'study.test.{key}.{name}')
            if isinstance(parsed, Distortion) and study.test.images is None:
                raise OptionError(f'study.test.images: missing; condition {name} distorts the images of this folder')
    return study


def parse_condition(raw: Any, key: str) -> Distortion | PairFolders:
    """One test condition.

    Raises:
        OptionError: It is neither one distortion nor two folders of pairs.
    """
    if isinstance(raw, Mapping) and 'type' not in raw and {'gt', 'lq'} & set(raw):
        return convert(raw, PairFolders, key)
    found = parse_distortions([raw], key)
    if len(found) != 1:
        raise OptionError(f'{key}: expected one distortion, got {", ".join(found.labels)}')
    distortion: Distortion = found[0]
    return distortion


def _named(raw: Mapping[str, Any]) -> dict[str, Any]:
    """YAML reads the names 30 of a condition and of an arm as numbers."""
    block = dict(raw)
    if isinstance(block.get('arms'), Mapping):
        block['arms'] = {str(name): value if value is not None else {} for name, value in block['arms'].items()}
    if isinstance(block.get('test'), Mapping):
        block['test'] = {key: {str(name): one for name, one in value.items()}
                         if key in ('seen', 'unseen') and isinstance(value, Mapping) else value
                         for key, value in block['test'].items()}
    return block
