"""Benchmark protocols as data: which sets, which test distortions, which channel; one YAML file per table."""

from collections.abc import Mapping
from importlib import resources
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta

from dil_plugin.distortions import Distortion, parse_distortions
from dil_plugin.errors import OptionError
from dil_plugin.options import convert, did_you_mean


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One test distortion, a column of the table."""

    name: Annotated[str, Meta(min_length=1, description='As the table names it, such as 30 or severe.')]
    distortion: Annotated[dict[str, Any] | None,
                          Meta(description='As in a distortions block; none where the sets are of pairs.')] = None
    degree: Annotated[float | None, Meta(description='Its place on the axis of the degree curve.')] = None
    seen: Annotated[bool | None, Meta(description='Whether it was among the training distortions; none: not said.')] \
        = None
    table: Annotated[bool, Meta(description='Whether the paper tabulates it; if not it is for the curve.')] = True

    @property
    def seen_text(self) -> str:
        """``seen``, ``unseen``, or nothing where it is not said."""
        return '' if self.seen is None else 'seen' if self.seen else 'unseen'


class Degree(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The axis of the degree curve."""

    label: Annotated[str, Meta(description='What the degrees are, with their unit.')]
    training: Annotated[tuple[float, float], Meta(description='Lowest and highest degree in training.')]


class Protocol(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a table is measured."""

    name: Annotated[str, Meta(min_length=1, description='Its name on the command line.')]
    title: Annotated[str, Meta(description='What stands above the table.')]
    conditions: Annotated[list[Condition], Meta(min_length=1, description='The test distortions.')]
    datasets: Annotated[list[str], Meta(min_length=1, description='The test sets, by their names.')]
    paper_table: Annotated[str | None, Meta(description="The table's number in the paper.")] = None
    channel: Annotated[Literal['RGB', 'Y'], Meta(description='What PSNR and SSIM are measured on.')] = 'RGB'
    crop_border: Annotated[int, Meta(ge=0, description='Pixels left out along every border.')] = 0
    scale: Annotated[int, Meta(ge=1, description='Clean size divided by distorted size.')] = 1
    degree: Annotated[Degree | None, Meta(description='The axis of the degree curve, where there is one.')] = None
    groups: Annotated[list[str], Meta(description='What the table is divided by; runs are GROUP/METHOD then.')] = []
    notes: Annotated[str, Meta(description='What a reader of the table must know.')] = ''

    def __post_init__(self) -> None:
        """Names must differ, and a curve needs degrees."""
        names = [condition.name for condition in self.conditions]
        for key, values in (('conditions', names), ('datasets', self.datasets), ('groups', self.groups)):
            if twice := [value for k, value in enumerate(values) if value in values[:k]]:
                raise ValueError(f'.{key}: {twice[0]!r} stands there twice')
        if self.degree and any(condition.degree is None for condition in self.conditions):
            raise ValueError('.conditions: with a degree axis every condition needs its degree')

    def condition(self, name: str) -> Condition:
        """The condition of that name."""
        return next(condition for condition in self.conditions if condition.name == name)

    def distortion(self, condition: Condition) -> Distortion | None:
        """The condition's distortion, or None where the set's own distorted images are taken."""
        if condition.distortion is None:
            return None
        found = parse_distortions([condition.distortion], f'{self.name}.conditions[{condition.name}].distortion')
        if len(found) != 1 or found.scale != self.scale:
            raise OptionError(f'{self.name}.conditions[{condition.name}].distortion: expected one distortion of scale '
                              f'{self.scale}, got {", ".join(found.labels)} of scale {found.scale}')
        return found[0]


def table_names() -> list[str]:
    """The protocols that come with the package, in the order of the paper."""
    return ['denoising', 'deblurring', 'hybrid', 'real_denoising', 'deraining', 'realsr', 'backbones', 'augmentation']


def load_protocol(name: str) -> Protocol:
    """The protocol of a table of the paper.

    Raises:
        OptionError: There is none of that name.
    """
    if name not in table_names():
        raise OptionError(f"--table: unknown table '{name}'; {did_you_mean(name, table_names())}")
    text = resources.files(__name__).joinpath(f'{name}.yml').read_text(encoding='utf-8')
    return parse_protocol(yaml.safe_load(text), name)


def parse_protocol(raw: Any, key: str = 'protocol') -> Protocol:
    """A protocol from the block of a YAML file.

    Raises:
        OptionError: An option is unknown, missing or wrong, or a distortion is.
    """
    block = dict(raw) if isinstance(raw, Mapping) else raw
    if isinstance(raw, Mapping) and isinstance(raw.get('conditions'), list):  # YAML reads the name 30 as a number
        block['conditions'] = [{**one, 'name': str(one['name'])} if isinstance(one, Mapping)
                               and isinstance(one.get('name'), int | float) else one for one in raw['conditions']]
    protocol = convert(block, Protocol, key)
    for condition in protocol.conditions:
        protocol.distortion(condition)
    return protocol
