"""The cures: each where it is needed, none where it is not, and nothing else of an import."""

import ast
import importlib
import importlib.machinery
import io
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from mmagic.registry import MODEL_WRAPPERS, MODELS, TRANSFORMS
from mmengine.logging import HistoryBuffer

from dil_plugin.mmagic import compat

ROOT = Path(__file__).parents[2]


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return file


def run(code):
    return subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_one_import_registers_everything():
    assert {'DILEditModel', 'RRDBNetNoUpsample'} <= set(MODELS.module_dict)
    assert 'CounterfactualDistortions' in TRANSFORMS.module_dict
    assert 'DILDistributedDataParallel' in MODEL_WRAPPERS.module_dict


@pytest.mark.parametrize(('wing', 'others'), [
    ('mmagic', {'basicsr', 'dil_plugin.basicsr'}),
    ('basicsr', {'mmagic', 'mmengine', 'mmcv', 'dil_plugin.mmagic'}),
])
def test_the_wings_do_not_import_each_other(wing, others):
    imported = set()
    for path in (ROOT / 'dil_plugin' / wing).rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported |= {str(node.module), *(f'{node.module}.{name.name}' for name in node.names)}
    assert f'dil_plugin.{wing}' in {'.'.join(name.split('.')[:2]) for name in imported}
    assert not [name for name in imported if any(f'{name}.'.startswith(f'{other}.') for other in others)]


def test_the_core_imports_no_framework():
    done = run('import sys, dil_plugin.sampling, dil_plugin.launch, dil_plugin.rrdb_no_upsample, '
               'dil_plugin.torchvision_operators; print(sorted({n.split(".")[0] for n in sys.modules} & '
               '{"mmagic", "mmengine", "mmcv", "basicsr", "torchvision"}))')
    assert done.stdout.strip() == '[]', done.stderr


def test_without_the_cures_mmagic_does_not_import():
    """The control. On numpy 1, or beside a compiled mmcv and a torchvision that loads, mmagic needs none."""
    done = run('import mmagic.models')
    if done.returncode == 0:
        pytest.skip('mmagic imports by itself in this environment')
    assert any(words in done.stderr for words in ('torchvision::nms', 'mmcv._ext', 'bool8'))


def test_adapting_twice_changes_nothing():
    before = list(sys.meta_path), np.bool8
    compat.adapt_imports()
    assert (sys.meta_path, np.bool8) == before
    assert np.bool8 is np.bool_


def test_missing_operators_fail_when_they_are_called():
    from mmcv.ops import ModulatedDeformConv2d
    from mmcv.utils import ext_loader
    operators = ext_loader.load_ext('_ext', ['nms', 'modulated_deform_conv_forward'])
    if Path(getattr(operators, '__file__', None) or '').suffix:
        pytest.skip('mmcv is compiled')
    with pytest.raises(RuntimeError, match='nms needs a compiled mmcv, and mmcv-lite is installed'):
        operators.nms(torch.zeros(1, 4), torch.zeros(1))
    layer = ModulatedDeformConv2d(1, 1, 3, padding=1)
    with pytest.raises(RuntimeError, match='needs a compiled mmcv'):
        layer(torch.zeros(1, 1, 4, 4), torch.zeros(1, 18, 4, 4), torch.zeros(1, 9, 4, 4))


def test_a_compiled_mmcv_is_found_first(tmp_path, monkeypatch):
    """The stand-in is asked last, and for no other module."""
    assert isinstance(sys.meta_path[-1], compat.MissingOperators)
    (tmp_path / '_ext.py').write_text('real = True\n')
    monkeypatch.setattr(sys.modules['mmcv'], '__path__', [str(tmp_path)])
    monkeypatch.delitem(sys.modules, 'mmcv._ext', raising=False)
    assert importlib.import_module('mmcv._ext').real is True
    monkeypatch.delitem(sys.modules, 'mmcv._ext')
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module('mmcv._other')
    assert compat.MissingOperators().find_spec('other._ext') is None


def test_history_of_the_logs_is_read():
    history = HistoryBuffer([1.0, 3.0], [1, 1])
    loaded = torch.load(saved({'history': history, 'best': np.float64(2.5), 'array': np.arange(3)}), weights_only=True)
    assert loaded['history'].mean() == 2.0
    assert loaded['best'] == 2.5
    assert loaded['array'].tolist() == [0, 1, 2]


class Attribute:
    """What a hostile file would hold: an attribute of something that it may name."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return getattr, self.arguments


class Call:

    def __reduce__(self):
        return print, ('code ran', )


@pytest.mark.parametrize('content', [Attribute(HistoryBuffer, '__init__'), Attribute(np.ndarray, 'tofile'),
                                     Attribute(HistoryBuffer, 'register_statistics'), Call()],
                         ids=['constructor', 'array', 'other method', 'call'])
def test_nothing_else_is_read(content, capsys):
    with pytest.raises(Exception, match='Weights only load failed'):
        torch.load(saved({'content': content}), weights_only=True)
    assert 'code ran' not in capsys.readouterr().out


def test_operators_are_functions_of_their_name():
    module = types.ModuleType('mmcv._ext')
    compat.MissingOperators().exec_module(module)
    assert callable(module.anything)
    assert not hasattr(module, '__wrapped__')
    assert importlib.machinery.PathFinder.find_spec('mmcv._ext') is None
