"""The cells of a study: one training each, with its own options and as many iterations as the budget pays for."""

import copy
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dil_plugin.basicsr.options import parse_training_options
from dil_plugin.errors import OptionError
from dil_plugin.evaluation.output_files import file_stem
from dil_plugin.learning.options import SECOND_ORDER
from dil_plugin.mistakes import prefixed
from dil_plugin.options import did_you_mean
from dil_plugin.study.image_gradients import StepCost, batch_size_for, step_cost
from dil_plugin.study.options import Study
from dil_plugin.study.overrides import axis_values, merged, nested, product
from dil_plugin.yaml_files import read_yaml

ROOT = Path(__file__).resolve().parents[2]
MOST_OFF = 0.01
"""How far the image gradients of a cell may be from the budget, as a fraction of it."""

_PLACE = ('num_gpu', 'root_path', 'name')  # say where a training runs, not what it is
_NO_OPTIONS = ('grid', 'budget_factor')  # of an arm: not of its training
_MEMORY = ('recompute', 'micro_batch', 'checkpointing')  # of train.dil: the same gradient in less memory


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One training of a study.

    Attributes:
        name: Of its folder.
        arm: With the values of the arm's own axes.
        group: The values of the axes of the whole study; arms of one group are compared with each other.
        seed: Of the training.
        options: The YAML of the training.
        alphas: Of the virtual updates before the test.
        cost: Image gradients of one iteration: inner, query, hessian.
        outer_steps: Steps of the outer optimiser in one iteration.
        iterations: Of the whole training.
        budget: Image gradients that it shall take.
        points: How often it is tested.
        digest: Tells it from a cell of other settings; where data and devices are is no setting, nor is
            what saves memory.
    """

    name: str
    arm: str
    group: str
    seed: int
    options: dict[str, Any]
    alphas: list[float]
    cost: dict[str, int]
    outer_steps: int
    iterations: int
    budget: float
    points: int
    digest: str

    @property
    def image_gradients(self) -> list[int]:
        """At every point."""
        step = sum(self.cost.values()) * (self.iterations // self.points)
        return [step * (k + 1) for k in range(self.points)]


def make_cells(study: Study, train_data: str | None = None) -> list[Cell]:
    """All cells, seed by seed, so that an interrupted study has every arm.

    Args:
        study: The study.
        train_data: LMDB or folder of training images; None: as the options say.

    Raises:
        OptionError: Options of a cell are wrong, or the budget does not divide.
    """
    base = merged(_base(study.base), nested(study.options, 'options'))
    if train_data is not None:
        backend = {'type': 'lmdb' if train_data.rstrip('/').endswith('.lmdb') else 'disk'}
        base = merged(base, nested({'datasets.train.dataroot_gt': train_data,
                                    'datasets.train.io_backend': backend}, 'train_data'))
    cells = [_cell(study, arm, group, seed, budget, options) for seed in study.seeds
             for group, arm, budget, options in _variations(study, base)]
    names = [cell.name for cell in cells]
    if twice := [name for k, name in enumerate(names) if name in names[:k]]:
        raise OptionError(f'arms: two of them have the same file name, {twice[0]}; give them other names')
    _check_budget(study, cells)
    arms = list(dict.fromkeys(cell.arm for cell in cells))
    if study.baseline is not None and study.baseline not in arms:
        raise OptionError(f"baseline: there is no arm '{study.baseline}'; {did_you_mean(study.baseline, arms)}")
    return cells


def baseline_of(study: Study, cells: list[Cell]) -> str:
    """The arm that others are compared with."""
    return study.baseline or cells[0].arm


def _base(base: str | dict[str, Any]) -> dict[str, Any]:
    if not isinstance(base, str):
        return base
    path = Path(base) if Path(base).is_file() else ROOT / base
    options = read_yaml(path, 'base')
    if not isinstance(options, dict):
        raise OptionError(f'base: {base} is not an options file of a training')
    return options


def _variations(study: Study, base: dict[str, Any]) -> Iterator[tuple[str, str, float, dict[str, Any]]]:
    """Group, arm, budget and options of everything that is trained, once per seed."""
    common = {option: axis_values(values, f'grid.{option}') for option, values in study.grid.items()}
    for group, of_group in product(common):
        for name, arm in study.arms.items():
            key = f'arms.{name}'
            overrides = {option: value for option, value in arm.items() if option not in _NO_OPTIONS}
            budget = study.budget * _budget_factor(arm, key)
            own = arm.get('grid', {})
            if not isinstance(own, Mapping):
                raise OptionError(f'{key}.grid: expected dotted options and their values, got {own!r}')
            axes = {option: axis_values(values, f'{key}.grid.{option}') for option, values in own.items()}
            for label, of_arm in product(axes):
                given = merged(merged(nested(of_group, key), nested(overrides, key)), nested(of_arm, key))
                options = merged(base, given)
                own_size = 'batch_size_per_gpu' in given.get('datasets', {}).get('train', {})
                if study.batch is not None and not own_size:
                    _size_batch(options, study.batch, key)
                yield group, ', '.join(filter(None, (name, label))), budget, options


def _budget_factor(arm: Mapping[str, Any], key: str) -> float:
    """How many times the budget of the study an arm has."""
    factor = arm.get('budget_factor', 1)
    if not isinstance(factor, int | float) or isinstance(factor, bool) or not 0 < factor < math.inf:
        raise OptionError(f'{key}.budget_factor: expected a number above 0, got {factor!r}')
    return factor


def _size_batch(options: dict[str, Any], rows: int, key: str) -> None:
    """Sets the batch size with which every gradient step sees so many images."""
    try:
        size = batch_size_for(options, rows)
        options['datasets'] = merged(options['datasets'], {'train': {'batch_size_per_gpu': size}})
    except OptionError as error:
        raise prefixed(error, key) from None


def _cell(study: Study, arm: str, group: str, seed: int, budget: float, options: dict[str, Any]) -> Cell:
    where = ', '.join(filter(None, (arm, group)))
    options = copy.deepcopy(options)
    try:
        cost = step_cost(options)
        alphas = _alphas(study, options)
    except (KeyError, TypeError) as error:
        raise OptionError(f'arms.{where}: the options of the training lack the block {error}') from None
    except OptionError as error:
        raise prefixed(error, f'arms.{where}') from None
    if 'ema' in study.evaluate and not options['train'].get('ema_decay'):
        raise OptionError(f'arms.{where}: evaluate has ema, but train.ema_decay is 0; allowed: a number above 0')
    if study.evaluate == ['phi'] and not alphas:
        raise OptionError(f'arms.{where}: evaluate is [phi] alone, which is tested of variants of second order or at '
                          'given phi.alphas; allowed: theta beside it, or phi.alphas')
    iterations = _iterations(budget, study.points, cost)
    _scale_schedule(options['train'], iterations)
    options['manual_seed'] = seed
    frequency = iterations // study.points
    options['logger'] = {'print_freq': frequency, 'save_checkpoint_freq': frequency, 'use_tb_logger': False}
    options['datasets'] = {'train': options['datasets']['train']}
    options.pop('val', None)
    parts = {'inner': cost.inner, 'query': cost.query, 'hessian': cost.hessian}
    return Cell(name=file_stem(*filter(None, (arm, group)), f'seed{seed}'), arm=arm, group=group, seed=seed,
                options=options, alphas=alphas, cost=parts, outer_steps=cost.outer_steps, iterations=iterations,
                budget=budget, points=study.points, digest=_digest(study, options, alphas))


def _alphas(study: Study, options: dict[str, Any]) -> list[float]:
    if 'phi' not in study.evaluate:
        return []
    if study.phi.alphas is not None:
        return list(study.phi.alphas)
    dil, _ = parse_training_options(options)
    return [dil.inner_or_default.lr] if dil.variant in SECOND_ORDER else []


def _iterations(budget: float, points: int, cost: StepCost) -> int:
    """As many as the budget pays for, divided evenly by the points."""
    return max(1, round(budget / (cost.total * points))) * points


def _check_budget(study: Study, cells: Sequence[Cell]) -> None:
    """Raises OptionError unless every cell spends its budget, to within ``MOST_OFF``."""
    steps = {cell.arm: sum(cell.cost.values()) for cell in cells}
    unit = math.lcm(*steps.values()) * study.points
    for cell in cells:
        spent = cell.image_gradients[-1]
        if abs(spent - cell.budget) > MOST_OFF * cell.budget:
            own = cell.budget != study.budget
            asked = f'{cell.budget:g} (by budget_factor)' if own else str(study.budget)
            allowed = (f'factors with which it is a multiple of {steps[cell.arm] * study.points}' if own else
                       f'multiples of {unit}, which suit all arms')
            raise OptionError(f'budget: {asked} image gradients at {study.points} points; an iteration of arm '
                              f'{cell.arm} takes {steps[cell.arm]}, so that it would spend {spent}; '
                              f'allowed: {allowed}, or fewer points')


def _scale_schedule(train: dict[str, Any], iterations: int) -> None:
    """Gives the training its length, and its learning rate schedule the same shape as before."""
    factor = iterations / int(train['total_iter'])
    train['total_iter'] = iterations
    scheduler = train.get('scheduler') or {}
    for name in ('milestones', 'periods', 'restarts'):
        if isinstance(scheduler.get(name), list):
            least = 0 if name == 'restarts' else 1
            scheduler[name] = [max(least, round(k * factor)) for k in scheduler[name]]
    if scheduler.get('periods'):  # together at least as long as the training
        scheduler['periods'][-1] += max(0, iterations - sum(scheduler['periods']))
    if train.get('warmup_iter', -1) > 0:
        train['warmup_iter'] = max(1, round(train['warmup_iter'] * factor))


def _digest(study: Study, options: dict[str, Any], alphas: list[float]) -> str:
    what = merged({key: value for key, value in options.items() if key not in _PLACE}, {'train': {}})
    what['train']['dil'] = {key: value for key, value in what['train']['dil'].items() if key not in _MEMORY}
    where = ('dataroot_gt', 'io_backend')
    train = {key: value for key, value in options['datasets']['train'].items() if key not in where}
    test = {key: value for key, value in msgspec.to_builtins(study.test).items() if key != 'images'}
    settings = {**what, 'datasets': train, 'test': test, 'evaluate': study.evaluate, 'alphas': alphas,
                'patches': study.phi.patches, 'invariance': study.invariance, 'points': study.points}
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]
