"""The cells of a study: equal budgets, schedules of the same shape, options of their own."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from dil_plugin.errors import OptionError
from dil_plugin.study.cells import MOST_OFF, ROOT, Cell, make_cells
from dil_plugin.study.options import parse_study, read_study

FILES = sorted((ROOT / 'options/study').glob('*.yml'))


def cells_of(study: dict[str, Any], **change: Any) -> list[Cell]:
    return make_cells(parse_study({**study, **change}))


def test_seed_by_seed_and_all_of_one_budget(study: dict[str, Any]) -> None:
    cells = cells_of(study)
    assert [cell.name for cell in cells] == ['erm_seed0', 'ps_seed0', 'erm_seed1', 'ps_seed1']
    assert {cell.image_gradients[-1] for cell in cells} == {480}
    erm, ps = cells[:2]
    assert (erm.cost, erm.outer_steps, erm.iterations) == ({'inner': 0, 'query': 4, 'hessian': 0}, 2, 120)
    assert (ps.cost, ps.outer_steps, ps.iterations) == ({'inner': 4, 'query': 2, 'hessian': 4}, 1, 48)
    assert erm.image_gradients == ps.image_gradients == [160, 320, 480]


def test_batch_sizes_follow_from_the_images_of_a_step(study: dict[str, Any]) -> None:
    arms = {'sf': {'train.dil': {'variant': 'sf'}}, 'own': {'datasets.train.batch_size_per_gpu': 20},
            'ps': {'train.dil': {'variant': 'ps', 'patches': 'same'}}}
    sizes = {cell.arm: cell.options['datasets']['train']['batch_size_per_gpu']
             for cell in cells_of(study, arms=arms, seeds=[0], budget=1800)}
    assert sizes == {'sf': 4, 'own': 20, 'ps': 2}


def test_schedules_keep_their_shape(study: dict[str, Any]) -> None:
    erm, ps = cells_of(study, seeds=[0])
    for cell in (erm, ps):
        train = cell.options['train']
        assert train['total_iter'] == cell.iterations
        assert train['scheduler']['milestones'] == [cell.iterations // 2, cell.iterations * 3 // 4]
        assert cell.options['logger']['save_checkpoint_freq'] == cell.iterations // 3
    cosine = {'train.scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [150, 251]}, 'train.warmup_iter': 40}
    train = cells_of(study, seeds=[0], options=cosine)[0].options['train']
    assert sum(train['scheduler']['periods']) >= train['total_iter'] == 120
    assert train['warmup_iter'] == 12


def test_axes_of_an_arm_and_of_the_study(study: dict[str, Any]) -> None:
    inner = {'slow': {'type': 'Adam', 'lr': 1e-5}, 'sgd': {'type': 'SGD'}}
    arms = {'erm': {}, 'sf': {'train.dil.variant': 'sf', 'grid': {'train.dil.inner': inner}}}
    grid = {'distortions': {'one': [{'type': 'GaussianNoise', 'sigma': 5}], 'two': study['base']['distortions']}}
    cells = cells_of(study, arms=arms, grid=grid, seeds=[3])
    assert [(cell.group, cell.arm) for cell in cells] == [
        ('distortions=one', 'erm'), ('distortions=one', 'sf, dil.inner=slow'), ('distortions=one', 'sf, dil.inner=sgd'),
        ('distortions=two', 'erm'), ('distortions=two', 'sf, dil.inner=slow'), ('distortions=two', 'sf, dil.inner=sgd')]
    assert cells[1].options['train']['dil']['inner'] == {'type': 'Adam', 'lr': 1e-5}
    assert [sum(cell.cost.values()) for cell in cells] == [2, 2, 2, 4, 4, 4]
    assert all(cell.options['manual_seed'] == 3 for cell in cells)


def test_an_arm_may_have_a_multiple_of_the_budget(study: dict[str, Any]) -> None:
    """For comparisons at equal time. The other cells stay what they are."""
    arms = {**study['arms'], 'longer': {**study['arms']['erm'], 'budget_factor': 1.5}}
    erm, ps, longer = cells_of(study, arms=arms, seeds=[0])
    assert (longer.iterations, longer.image_gradients) == (180, [240, 480, 720])
    assert longer.options['train']['scheduler']['milestones'] == [90, 135]
    assert 'budget_factor' not in longer.options
    assert [erm, ps] == cells_of(study, seeds=[0])
    assert longer.digest != erm.digest


def test_alphas_of_phi(study: dict[str, Any]) -> None:
    """By default only of the variants that optimise the loss at phi."""
    arms = {**study['arms'], 'sf': {'train.dil.variant': 'sf'}}
    cells = cells_of(study, evaluate=['theta', 'phi'], seeds=[0], arms=arms)
    assert [(cell.arm, cell.alphas) for cell in cells] == [('erm', []), ('ps', [0.01]), ('sf', [])]
    alphas = [cell.alphas for cell in cells_of(study, evaluate=['phi'], phi={'alphas': [0.1, 1]}, seeds=[0])]
    assert alphas == [[0.1, 1.0], [0.1, 1.0]]
    with pytest.raises(OptionError, match=r'arms.erm: evaluate is \[phi\] alone.*allowed: theta beside it'):
        cells_of(study, evaluate=['phi'])


def test_digests_tell_settings_apart_and_not_places(study: dict[str, Any], tmp_path: Path) -> None:
    def digests(**change: Any) -> list[str]:
        return [cell.digest for cell in cells_of(study, **change)]

    before = digests()
    assert len(set(before)) == 4
    moved = make_cells(parse_study({**study, 'test': {**study['test'], 'images': str(tmp_path)}}), 'other.lmdb')
    assert [cell.digest for cell in moved] == before
    assert moved[0].options['datasets']['train']['io_backend'] == {'type': 'lmdb'}
    for change in ({'budget': 960}, {'points': 4}, {'test': {**study['test'], 'crop': 48}},
                   {'options': {'train.optim_g.lr': 1e-4}}, {'invariance': True}):
        assert not set(digests(**change)) & set(before), change
    assert digests(question='Another?') == before
    assert digests(options={'train.dil.recompute': False, 'num_gpu': 1}) == before


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_studies_of_the_project(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They are valid, spend what they say, and say how they are run."""
    monkeypatch.chdir(tmp_path)  # the base is found in the project
    study = read_study(path)
    cells = make_cells(study)
    assert len(study.seeds) >= 3
    for cell in cells:
        budget = study.budget * study.arms.get(cell.arm, {}).get('budget_factor', 1)
        assert abs(cell.image_gradients[-1] - budget) <= MOST_OFF * budget
    assert f'python tools/study.py -opt options/study/{path.name}' in path.read_text()
    assert yaml.safe_load(path.read_text())['question'].endswith('?')
