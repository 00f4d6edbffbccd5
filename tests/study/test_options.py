"""The file of a study: what is wrong in it is named, with its key, its value and what is allowed."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from dil_plugin.errors import DataError, OptionError
from dil_plugin.study.cells import make_cells
from dil_plugin.study.options import read_study
from dil_plugin.study.overrides import axis_values, merged, nested, product


def written(study: dict[str, Any], folder: Path) -> Path:
    path = folder / 'study.yml'
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


NOISE = {'type': 'GaussianNoise', 'sigma': 5}
MISTAKES = [
    ({'budgt': 5}, r"study.yml: unknown option 'budgt'; did you mean 'budget'\?"),
    ({'budget': 0}, r'budget: .*>= 1.*got 0'),
    ({'budget': 'much'}, r"budget: .*got 'much'"),
    ({'question': ''}, r'question: .*length >= 1'),
    ({'seeds': []}, r'seeds: .*length >= 1'),
    ({'seeds': [1, 1]}, r'seeds: got \[1, 1\]; each may stand there once'),
    ({'seeds': [-1]}, r'seeds\[0\]: .*>= 0.*got -1'),
    ({'evaluate': ['thetas']}, r"evaluate\[0\]: .*got 'thetas'; did you mean 'theta'\? allowed: theta, ema, phi"),
    ({'evaluate': ['ema']}, r'arms.erm: evaluate has ema, but train.ema_decay is 0'),
    ({'phi': {'alphas': [0]}}, r'phi.alphas\[0\]: .*> 0'),
    ({'phi': {'alpha': [1]}}, r"phi: unknown option 'alpha'; did you mean 'alphas'\?"),
    ({'arms': {}}, r'arms: .*length >= 1'),
    ({'arms': {'erm': {'train.dil': {'variant': 'emr'}}}}, r"arms.erm: .*variant: .*got 'emr'; did you mean 'erm'"),
    ({'arms': {'a': {'train.dil.variants': 'sf'}}}, r"arms.a: train.dil: unknown option 'variants'; did you mean"),
    ({'arms': {'a': {'grid': {'train.optim_g.lr': []}}}}, r'arms.a.grid.train.optim_g.lr: expected a list of values'),
    ({'arms': {'a': {'grid': 3}}}, r'arms.a.grid: expected dotted options and their values, got 3'),
    ({'arms': {'a': {'train..dil': {}}}}, r"arms.a: expected names of options, .*got 'train..dil'"),
    ({'arms': {'a b': {}, 'a_b': {}}}, r'arms: two of them have the same file name, a_b_seed0'),
    ({'grid': {'train.optim_g.lr': [1e-3, 1e-3]}}, r'grid.train.optim_g.lr: 0.001 stands there twice'),
    ({'baseline': 'emr'}, r"baseline: there is no arm 'emr'; did you mean 'erm'\?"),
    ({'budget': 100}, r'budget: 100 image gradients at 3 points; .* allowed: multiples of 60, which suit all arms'),
    ({'arms': {'a': {'budget_factor': 1.012}}}, r'budget: 485.76 \(by budget_factor\) .*factors .* of 12,'),
    ({'arms': {'a': {'budget_factor': 0}}}, r'arms.a.budget_factor: expected a number above 0, got 0'),
    ({'arms': {'a': {'budget_factor': 'long'}}}, r"arms.a.budget_factor: expected a number above 0, got 'long'"),
    ({'base': 'no/such.yml'}, r'base: .*there is no file .*no/such.yml'),
    ({'base': {'train': {}}}, r'arms.erm: '),
    ({'test': {'images': 'x'}}, r'test.seen: neither seen nor unseen conditions are given'),
    ({'test': {'seen': {'5': NOISE}}}, r'test.images: missing; condition 5 distorts the images'),
    ({'test': {'images': 'x', 'seen': {'5': NOISE}, 'unseen': {'5': NOISE}}}, r"test.unseen: '5' is also among"),
    ({'test': {'images': 'x', 'seen': {'5': {'type': 'Noise'}}}}, r"test.seen.5.*unknown distortion 'Noise'; did you"),
    ({'test': {'images': 'x', 'seen': {'5': {'type': 'GaussianNoise', 'sigma': [5, 6]}}}}, r'expected one distortion'),
    ({'test': {'images': 'x', 'seen': {'5': {'gt': 'x', 'qt': 'y'}}}}, r"test.seen.5: unknown option 'qt'"),
    ({'test': {'images': 'x', 'seen': {'5': NOISE}, 'metrics': ['ssim']}}, r'test.metrics: .*psnr must be among them'),
    ({'test': {'images': 'x', 'seen': {'5': NOISE}, 'crop': 4}}, r'test.crop: .*>= 16.*got 4'),
    ({'test': {'images': 'x', 'sean': {'5': NOISE}}}, r"test: unknown option 'sean'; did you mean 'seen'\?"),
]


@pytest.mark.parametrize(('change', 'message'), MISTAKES, ids=lambda value: str(value)[:60])
def test_mistakes_are_named(change: dict[str, Any], message: str, study: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises((OptionError, DataError), match=message):
        make_cells(read_study(written({**study, **change}, tmp_path)))


def test_no_study_at_all(tmp_path: Path) -> None:
    path = tmp_path / 'study.yml'
    path.write_text('- a list')
    with pytest.raises(OptionError, match='study.yml: expected a block of options'):
        read_study(path)
    with pytest.raises(DataError, match='-opt: there is no file'):
        read_study(tmp_path / 'none.yml')


def test_names_that_yaml_reads_as_numbers(study: dict[str, Any], tmp_path: Path) -> None:
    study['test']['seen'] = {5: NOISE}
    study['arms'] = {1: None}
    read = read_study(written(study, tmp_path))
    assert list(read.test.seen) == ['5']
    assert list(read.arms) == ['1']


def test_the_command_line_replaces_the_file(study: dict[str, Any], tmp_path: Path) -> None:
    read = read_study(written(study, tmp_path), {'seeds': [7], 'budget': 960}, test_data='elsewhere')
    assert (read.seeds, read.budget, read.test.images) == ([7], 960, 'elsewhere')


def test_blocks_are_merged_unless_their_type_differs() -> None:
    base = {'inner': {'type': 'Adam', 'betas': [0, 0.9]}, 'lr': 1}
    assert merged(base, {'inner': {'lr': 2}})['inner'] == {'type': 'Adam', 'betas': [0, 0.9], 'lr': 2}
    assert merged(base, {'inner': {'type': 'SGD'}})['inner'] == {'type': 'SGD'}
    assert merged(base, {'lr': [1]}) == {**base, 'lr': [1]}
    assert base == {'inner': {'type': 'Adam', 'betas': [0, 0.9]}, 'lr': 1}


def test_dotted_and_nested_names_are_the_same() -> None:
    assert nested({'a.b': {'c': 1}, 'a': {'d': 2}}, 'x') == {'a': {'b': {'c': 1}, 'd': 2}}


def test_product_of_axes() -> None:
    grid = {'train.dil.inner.lr': axis_values([1e-5, 0.1], 'x'), 'network_g': axis_values({'small': {'f': 1}}, 'x')}
    assert list(product(grid)) == [
        ('inner.lr=1e-05, network_g=small', {'train.dil.inner.lr': 1e-5, 'network_g': {'f': 1}}),
        ('inner.lr=0.1, network_g=small', {'train.dil.inner.lr': 0.1, 'network_g': {'f': 1}})]
    assert list(product({})) == [('', {})]
