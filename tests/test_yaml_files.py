"""YAML files: no code, no key twice, everything else as PyYAML's safe loader."""

import pytest
import yaml

from dil_plugin.errors import OptionError
from dil_plugin.yaml_files import StrictLoader, read_yaml


@pytest.mark.parametrize('text', [
    '{a: 1, b: [1, {c: 2}], d: !!float 1e-4, e: ~, f: {}}',
    'base: &base {a: 1, b: 2}\nother: {<<: *base, b: 3}\nmore: {<<: *base}\nlist: &l [1, 2]\nagain: *l',
    # the second base is flattened by its user before it is made itself
    'x: &x {a: 1}\ny: &y {<<: *x, a: 2}\nz: [{<<: *y, a: 3}, *y, {<<: [*x, *y]}]',
    '', 'text', '- 1',
])
def test_as_the_safe_loader(text):
    assert yaml.load(text, StrictLoader) == yaml.safe_load(text)


@pytest.mark.parametrize('text', ['a: 1\nb: 2\na: 3', 'x: {lr: 1, "lr": 2}', 'x: [{a: 1, a: 1}]',
                                  '&x {<<: {b: 1}, a: 1, a: 2}'])
def test_a_key_twice(text, tmp_path):
    (tmp_path / 'x.yml').write_text(text)
    words = r"-opt: .*x\.yml is not a YAML file: the key '(a|lr)' stands twice in a block"
    with pytest.raises(OptionError, match=words):
        read_yaml(tmp_path / 'x.yml', '-opt')


def test_no_code(tmp_path):
    path = tmp_path / 'x.yml'
    path.write_text(f'a: !!python/object/apply:os.mkdir ["{tmp_path / "made"}"]')
    with pytest.raises(OptionError, match='could not determine a constructor'):
        read_yaml(path, '-opt')
    assert not (tmp_path / 'made').exists()
