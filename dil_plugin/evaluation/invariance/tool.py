"""From checkpoints and a folder of images to the invariance report; behind ``tools/invariance.py``."""

import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from dil_plugin.data_preparation import find_images
from dil_plugin.distortions import DistortionSet, parse_distortions
from dil_plugin.errors import DataError, DILError, NumericalError, OptionError
from dil_plugin.evaluation.benchmark_sets.base import read_bgr
from dil_plugin.evaluation.devices import choose_device
from dil_plugin.evaluation.invariance.figure import invariance_figure
from dil_plugin.evaluation.invariance.measuring import check_measurable, measure_invariance
from dil_plugin.evaluation.invariance.report import InvarianceReport, MeasuredRun, to_json, to_markdown
from dil_plugin.evaluation.networks import RestorationNetwork, load_network
from dil_plugin.evaluation.plots import save_png
from dil_plugin.evaluation.preview import centre_crop, distortion_groups
from dil_plugin.evaluation.results import choose_baseline
from dil_plugin.evaluation.runs import check_runs
from dil_plugin.yaml_files import read_yaml

Image = npt.NDArray[np.uint8]


def write_invariance(runs: Mapping[str, Path],
                     data: Path,
                     output: Path,
                     *,
                     distortions: Path | None = None,
                     opt: Path | None = None,
                     param_key: str | None = None,
                     recursive: bool = False,
                     limit: int | None = None,
                     size: int = 128,
                     patch: int = 64,
                     patches: int = 4,
                     device: str = 'auto',
                     seed: int = 0) -> list[Path]:
    """Measures all runs and writes invariance.md, invariance.json and invariance.png.

    Args:
        runs: Checkpoints by name.
        data: A folder of clean images.
        output: The folder to write to, made where there is none.
        distortions: A YAML file with the confounders, options file or list; None: those that the first checkpoint was
            trained on, or those of ``opt``.
        opt: A BasicSR YAML for checkpoints that do not say what network they are of.
        param_key: Which of a checkpoint's parameters; see ``select_parameters``.
        recursive: Take images from folders below as well.
        limit: How many images, the first ones by name; None: all.
        size: Side of the crop from the middle of each image, in pixels; less where the image is smaller.
        patch: Side of the patches of the gradients, in pixels of the clean image.
        patches: How many of them each image gives.
        device: Where the networks run: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        seed: Of the draws.

    Returns:
        The files.

    Raises:
        OptionError: The confounders are not known or do not fit the networks, or the networks do not fit one another.
        DataError: A file cannot be read or written, or an image is too small.
        NumericalError: An output or a gradient of a network is not finite; no file is written.
    """
    check_runs(runs, slashes=True)
    place = torch.device(choose_device(device))
    networks = {name: load_network(path, opt, param_key, place) for name, path in runs.items()}
    sys.stderr.writelines(f'{name}: {runs[name]}: {network.selection}\n' for name, network in networks.items())
    _check_alike(networks)
    confounders, source = _confounders(distortions, opt, *next(iter(networks.items())))
    images = _read(data, recursive, limit, size)
    for network in networks.values():
        check_measurable(network, images, confounders, patch, patches)
    if distortions is None:
        sys.stderr.write(f'confounders: {", ".join(confounders.labels)} ({source})\n')
    output_files = [output / f'invariance.{ending}' for ending in ('md', 'json', 'png')]
    _make(output)  # before the work, so that a folder that cannot be made costs none
    measured = {}
    with tqdm(total=len(networks) * len(images), desc='invariance', unit='image', disable=None) as bar:
        for name, network in networks.items():
            bar.set_postfix_str(name)
            try:
                found = measure_invariance(network, images, confounders, seed, dataset=data.resolve().name, patch=patch,
                                           patches=patches, progress=bar.update)
            except NumericalError as error:
                raise NumericalError(f'--run {name}={runs[name]}: {error}, so that there is nothing to measure; leave '
                                     'this run out') from None
            except DILError:
                raise
            except Exception as error:  # networks raise many kinds
                raise DataError(f'--run {name}={runs[name]}: the network fails ({type(error).__name__}: '
                                f'{" ".join(str(error).split())[:240]})') from error
            measured[name] = MeasuredRun(
                checkpoint=str(runs[name]), param_key=network.param_key, network=network.name,
                parameters=network.parameters,
                trained_on=network.notes.confounders if network.notes else [], measured=found)
    settings = {
        'images': f'{len(images)} of {data}, the middle of each, at most {size}x{size} pixels',
        'confounders': f'{", ".join(confounders.labels)} ({source})',
        'patches of the gradients': f'{patches} of {patch}x{patch} pixels from each image',
        'seed': str(seed), 'device': str(place), 'torch': str(torch.__version__), 'date': date.today().isoformat(),
    }
    report = InvarianceReport(runs=measured, baseline=choose_baseline(list(runs)), settings=settings)
    _write(report, *output_files)
    return output_files


def _write(report: InvarianceReport, text: Path, numbers: Path, picture: Path) -> None:
    figure = invariance_figure({name: run.measured for name, run in report.runs.items()})
    try:
        numbers.write_bytes(to_json(report))
        save_png(figure, picture)
        text.write_text(to_markdown(report, picture.name), encoding='utf-8')
    except OSError as error:
        raise DataError(f'--output: {error.filename or text.parent} cannot be written ({error.strerror})') from None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f'--output: {folder} cannot be made ({error.strerror})') from None


def _check_alike(networks: Mapping[str, RestorationNetwork]) -> None:
    """Networks of another scale or number of channels get other inputs, and cannot be compared."""
    for what, values in (('scale', {name: network.scale for name, network in networks.items()}),
                         ('channels', {name: network.channels for name, network in networks.items()})):
        if len(set(values.values())) > 1:
            text = ', '.join(f'{name} {value}' for name, value in values.items())
            raise OptionError(f'--run: all networks must have the same {what}, got {text}')


def _confounders(distortions: Path | None, opt: Path | None, name: str,
                 network: RestorationNetwork) -> tuple[DistortionSet, str]:
    """The confounders, and where they are from."""
    if distortions is None and network.notes and network.notes.distortions:
        key = f'{name}: distortions in the checkpoint'
        confounders, source = parse_distortions(network.notes.distortions, key), f'those that {name} was trained on'
    elif file := distortions or opt:
        option = '--distortions' if distortions else '--opt'
        group = distortion_groups(read_yaml(file, option), f'{option}: {file}')[0]
        confounders, source = DistortionSet(group.distortions), f'{group.name} of {file}'
    else:
        raise OptionError(f'--distortions: none given, and the checkpoint of {name} does not say what it was trained '
                          'on; give a YAML file, as in - {type: GaussianNoise, sigma: [10, 20]}')
    if confounders.scale != network.scale:
        raise OptionError(f'--distortions: the confounders ({source}) are of scale {confounders.scale}, the networks '
                          f'of scale {network.scale}')
    return confounders, source


def _read(folder: Path, recursive: bool, limit: int | None, size: int) -> dict[str, Image]:
    images: dict[str, Image] = {}
    for path in find_images(folder, recursive)[:limit]:
        if path.stem in images:
            raise DataError(f'--data: {folder} holds two images called {path.stem}')
        images[path.stem] = centre_crop(read_bgr(path), size)
    return images
