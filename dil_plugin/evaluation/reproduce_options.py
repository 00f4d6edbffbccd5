"""The options of ``tools/reproduce.py``: a YAML file of ``options/benchmark/``, the command line, or both."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from dil_plugin.errors import DataError, OptionError
from dil_plugin.evaluation.benchmark_sets import BENCHMARKS
from dil_plugin.evaluation.devices import choose_device
from dil_plugin.evaluation.output_files import file_stem
from dil_plugin.evaluation.protocols import Protocol, load_protocol, parse_protocol
from dil_plugin.evaluation.results import choose_baseline
from dil_plugin.evaluation.runs import check_runs
from dil_plugin.missing_files import no_such
from dil_plugin.mistakes import reworded
from dil_plugin.options import convert, did_you_mean
from dil_plugin.yaml_files import read_yaml


class ReproduceOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is evaluated, and how."""

    data: Annotated[str, Meta(description='Folder of the test sets, each in a folder of its own.')]
    runs: Annotated[dict[str, str], Meta(min_length=1, description='Checkpoints by the names of their methods.')]
    table: Annotated[str | None, Meta(description='A table of the paper.')] = None
    protocol: Annotated[dict[str, Any] | None, Meta(description="In place of table: a protocol of one's own.")] = None
    output: Annotated[str | None, Meta(description='Folder of what is written. Default: results/TABLE.')] = None
    datasets: Annotated[list[str], Meta(min_length=1, description="Test sets. Default: the table's.")] | None = None
    conditions: Annotated[list[str], Meta(min_length=1, description="Degrees or levels, by name. Default: the "
                                          "table's.")] | None = None
    baseline: Annotated[str | None, Meta(description='The run that others are compared with. Default: ERM, or the '
                                         'first.')] = None
    limit: Annotated[int, Meta(ge=1, description='The first N images of each set.')] | None = None
    seed: Annotated[int, Meta(ge=0, description='Seeds the test distortions.')] = 0
    batch: Annotated[int, Meta(ge=1, description='Images of equal size that are restored together. Default: 8 on a '
                               'GPU, 1 on a CPU.')] | None = None
    tile: Annotated[int, Meta(ge=0, description='Larger images are restored in tiles of this side; 0: never.')] = 768
    overlap: Annotated[int, Meta(ge=0, description='Margin of a tile, in input pixels.')] = 64
    device: Annotated[str, Meta(description='auto | cpu | cuda | cuda:N.')] = 'auto'
    metrics: Annotated[list[str], Meta(description='Metrics of pyiqa beside PSNR and SSIM, such as lpips.')] = []
    channel: Annotated[str | None, Meta(description="RGB | Y. Default: the table's.")] = None
    crop_border: Annotated[int, Meta(ge=0, description="Border pixels left out. Default: the table's.")] | None = None
    pictures: Annotated[int, Meta(ge=0, description='Images of each set that are kept and shown.')] = 2
    save_inputs: Annotated[bool, Meta(description='Also write the distorted images, as 16-bit PNG.')] = False
    param_key: Annotated[str | None, Meta(description='params | params_ema. Default: params_ema where it is there.')] \
        = None
    opt: Annotated[str | None, Meta(description='YAML whose network_g serves checkpoints that do not say theirs.')] \
        = None
    overwrite: Annotated[bool, Meta(description='Measure all anew.')] = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The options, checked.

    Attributes:
        protocol: With the sets, channel and border that were asked for.
        conditions: Names of the conditions to measure.
        runs: Checkpoints by name.
        baseline: The run that others are compared with.
        data: Folder of the test sets.
        output: Folder of what is written.
        device: Of the networks.
        options: The rest.
    """

    protocol: Protocol
    conditions: list[str]
    runs: dict[str, Path]
    baseline: str
    data: Path
    output: Path
    device: str
    options: ReproduceOptions


def read_options(path: Path | None, given: Mapping[str, Any]) -> ReproduceOptions:
    """The options of a YAML file, replaced by those of the command line.

    Args:
        path: A file of ``options/benchmark/``, or None.
        given: Options by the names of ``ReproduceOptions``; the command line's.

    Raises:
        OptionError: An option is unknown, missing or wrong.
        DataError: The file cannot be read.
    """
    raw: dict[str, Any] = {}
    if path is not None:
        raw = read_yaml(path, '-opt')
        if not isinstance(raw, dict):
            raise OptionError(f'-opt: {path}: expected a block of options such as table, data and runs')
    merged = {**raw, **given}
    if 'table' in given:
        merged.pop('protocol', None)
    known = [field.encode_name for field in msgspec.structs.fields(ReproduceOptions)]
    for name in raw:
        if name not in known:
            raise OptionError(f"{path}: unknown option '{name}'; {did_you_mean(str(name), known)}")
    for name, flag in (('data', '--data DIR'), ('runs', '--run NAME=PATH')):
        if name not in merged:
            raise OptionError(f'{flag}: missing; give it, or -opt FILE with {name}')
    if isinstance(merged.get('conditions'), list):  # YAML reads 4.2 as a number
        merged['conditions'] = [str(one) if isinstance(one, int | float) else one for one in merged['conditions']]
    try:
        return convert(merged, ReproduceOptions, str(path) if path else 'options')
    except OptionError as error:
        key = str(path) if path else 'options'
        raise reworded(error, lambda text: _with_flags(text, key, given)) from None


def _with_flags(message: str, key: str, given: Mapping[str, Any]) -> str:
    """The message with the command line's name of an option that stood there."""
    flags = {'runs': 'run', 'datasets': 'dataset', 'conditions': 'condition', 'metrics': 'metric'}
    for name in given:
        if message.startswith((f'{key}.{name}:', f'{key}.{name}[', f'{key}.{name}.')):
            return f'--{flags.get(name, name).replace("_", "-")}' + message[len(f'{key}.{name}'):]
    return message


_SHORT = {'RealSR': 'RealSR V3'}  # as a folder it would be another set, without the published numbers


def make_plan(options: ReproduceOptions) -> Plan:
    """Checks the options against each other and the machine.

    Raises:
        OptionError: Something is unknown or cannot be.
        DataError: A file or folder is not there.
    """
    if (options.table is None) == (options.protocol is None):
        raise OptionError('--table: missing; give the name of a table, or -opt FILE with a protocol of your own'
                          if options.table is None else 'table, protocol: both are given; allowed: one')
    protocol = load_protocol(options.table) if options.table is not None else parse_protocol(options.protocol)
    own = options.table is None
    data = Path(options.data).expanduser()
    if not data.is_dir():
        raise DataError(f'--data: {no_such(data, "folder")}')
    if options.save_inputs and all(condition.distortion is None for condition in protocol.conditions):
        raise OptionError(f'--save-inputs: {protocol.name} takes the distorted images of the sets; there are none to '
                          'write')
    for name in options.datasets or protocol.datasets:
        if name in _SHORT and options.datasets:
            raise OptionError(f"--dataset: '{name}' is called '{_SHORT[name]}' here")
        if name not in BENCHMARKS and not (data / name).is_dir():
            raise OptionError(f"--dataset: unknown data set '{name}', and no folder of that name in {data}; "
                              f'{did_you_mean(name, BENCHMARKS)}')
    names = [condition.name for condition in protocol.conditions]
    for name in options.conditions or []:
        if name not in names:
            raise OptionError(f"--condition: unknown condition '{name}'; allowed: {', '.join(names)}")
    if options.channel not in (None, 'RGB', 'Y'):
        raise OptionError(f"--channel: got '{options.channel}'; allowed: RGB, Y")
    if options.datasets:
        _check_names('--dataset', options.datasets)
    protocol = _changed(protocol, options)
    _check_names('protocol.datasets', protocol.datasets)
    _check_names('protocol.conditions', names)
    runs = {name: Path(path).expanduser() for name, path in options.runs.items()}
    check_runs(runs, '--run', protocol.groups)
    if options.baseline is not None and options.baseline not in runs:
        raise OptionError(f"--baseline: there is no run '{options.baseline}'; {did_you_mean(options.baseline, runs)}")
    output = Path(options.output or f'results/{"own" if own else protocol.name}').expanduser()
    return Plan(protocol=protocol, conditions=[name for name in names if name in (options.conditions or names)],
                runs=runs, baseline=choose_baseline(list(runs), options.baseline), data=data, output=output,
                device=choose_device(options.device), options=options)


def _check_names(option: str, names: Sequence[str]) -> None:
    """Raises OptionError where a name stands there twice, or two would share their files."""
    stems: dict[str, str] = {}
    for k, name in enumerate(names):
        if name in names[:k]:
            raise OptionError(f'{option}: {name!r} is given twice')
        if (other := stems.setdefault(file_stem(name), name)) != name:
            raise OptionError(f'{option}: {name!r} and {other!r} would share their files; rename one')


def _changed(protocol: Protocol, options: ReproduceOptions) -> Protocol:
    """The protocol with what the options replace in it; a note says where the paper measured otherwise."""
    changes = {'datasets': options.datasets, 'channel': options.channel, 'crop_border': options.crop_border}
    changed = msgspec.structs.replace(protocol, **{k: v for k, v in changes.items() if v is not None})
    measured = [(one.channel, one.crop_border) for one in (protocol, changed)]
    if measured[0] == measured[1] or protocol.paper_table is None:
        return changed
    words = [f'{channel} with {border} border pixels left out' for channel, border in measured]
    note = f'Measured on {words[1]}; the table of the paper is of {words[0]}.'
    return msgspec.structs.replace(changed, notes=f'{note} {changed.notes}'.strip())
