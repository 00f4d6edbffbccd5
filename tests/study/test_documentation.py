"""What docs/study.md says is so."""

import re
from pathlib import Path

import yaml

from dil_plugin.study.cells import make_cells
from dil_plugin.study.options import parse_study

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / 'docs/study.md').read_text()


def test_the_example_is_a_study() -> None:
    block, = re.findall(r'```yaml\n(.*?)```', TEXT, flags=re.DOTALL)
    raw = yaml.safe_load(block)
    raw['test'].update({key: {str(name): one for name, one in raw['test'][key].items()} for key in ('seen', 'unseen')})
    assert len(make_cells(parse_study(raw))) == 3 * 3 * 2


def test_every_study_is_named() -> None:
    files = {path.name for path in (ROOT / 'options/study').glob('*.yml')}
    assert files == set(re.findall(r'`(\w+\.yml)`', TEXT)) - {'train.yml'}


def test_the_costs_are_those_of_the_files() -> None:
    study = parse_study({**yaml.safe_load((ROOT / 'options/study/denoising_variants.yml').read_text()),
                         'test': {'images': 'x', 'seen': {'5': {'type': 'GaussianNoise', 'sigma': 5}}}})
    costs = {cell.options['train']['dil']['variant']: sum(cell.cost.values())
             for cell in make_cells(study) if 'batch' not in cell.arm}
    costs['mldg'] = 14
    rows = re.findall(r'\| `(\w+)`[^|]*\|.*\| (\d+) \| [^|]+ \|\n', TEXT)
    assert {name: int(cost) for name, cost in rows} == costs


def test_every_option_of_the_tool_is_documented() -> None:
    tool = (ROOT / 'tools/study.py').read_text()
    flags = set(re.findall(r"'(--[\w-]+)'", tool))
    assert flags <= set(re.findall(r'--[\w-]+', TEXT))
