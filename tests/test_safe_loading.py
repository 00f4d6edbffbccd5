"""No ``torch.load`` of ours runs what a file says."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ('dil_plugin', 'tools', 'benchmarks') for path in sorted((ROOT / folder).rglob('*.py'))]
# what unpickles, or loads by unpickling, under whatever name it was imported
LOADERS = {'torch': {'load'}, 'pickle': {'load', 'loads', 'Unpickler'}, 'joblib': {'load'}, 'dill': {'load', 'loads'},
           'cloudpickle': {'load', 'loads'}, 'shelve': {'open'}}


def unsafe_loads(source: str) -> list[int]:
    """Lines of calls that may run code of a file: unpickling, and ``torch.load`` without ``weights_only=True``."""
    tree = ast.parse(source)
    modules: dict[str, str] = {}
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {(one.asname or one.name): one.name for one in node.names if one.name in LOADERS}
        elif isinstance(node, ast.ImportFrom) and node.module in LOADERS:
            names |= {(one.asname or one.name): node.module for one in node.names if one.name in LOADERS[node.module]}
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function, module = node.func, None
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            module = modules.get(function.value.id)
            module = module if module and function.attr in LOADERS[module] else None
        elif isinstance(function, ast.Name):
            module = names.get(function.id)
        safe = module == 'torch' and any(
            word.arg == 'weights_only' and isinstance(word.value, ast.Constant) and word.value.value is True
            for word in node.keywords)
        if module and not safe:
            found.append(node.lineno)
    return found


@pytest.mark.parametrize(('source', 'lines'), [
    ('import torch\ntorch.load("x", weights_only=True)', []),
    ('import torch\ntorch.load("x")', [2]),
    ('import torch\ntorch.load("x", weights_only=False)', [2]),
    ('import torch\ntorch.load("x", weights_only=flag)', [2]),
    ('import torch as t\nt.load("x", map_location="cpu")', [2]),
    ('from torch import load as read\nread("x")', [2]),
    ('import pickle\npickle.load(open("x", "rb"))', [2]),
    ('import json\njson.load(open("x"))', []),
])
def test_the_check_sees_what_is_unsafe(source, lines):
    assert unsafe_loads(source) == lines


def test_no_file_is_loaded_unsafely():
    assert len(SOURCES) > 100
    found = {str(path.relative_to(ROOT)): lines for path in SOURCES if (lines := unsafe_loads(path.read_text()))}
    assert not found
    assert 'weights_only=True' in (ROOT / 'dil_plugin/checkpoints.py').read_text()


def test_basicsrs_own_loading_is_replaced():
    """``BaseModel.load_network`` and ``load_resume_state`` of BasicSR leave weights_only to torch's default."""
    import basicsr.train

    import dil_plugin.basicsr  # noqa: F401
    from dil_plugin.basicsr.models.dil_model import DILModel
    assert DILModel.load_network.__module__.startswith('dil_plugin')
    assert basicsr.train.load_resume_state.__module__.startswith('dil_plugin')
