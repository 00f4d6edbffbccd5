"""Checkpoints as mmengine's Runner writes them, read without mmengine and without running what a file names."""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping
from typing import Any

import torch

from dil_plugin.checkpoints import load_checkpoint


class _Inert:
    """Stands for an object of any class (mmengine's log history, numpy's arrays); keeps and does nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def __new__(cls, *_: Any) -> _Inert:
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None:
        pass


def load_inert(path: str | os.PathLike[str], key: str) -> Any:
    """``load_checkpoint`` that puts an inert object wherever a file names a class or function of another package.

    ``weights_only`` stays in force: nothing of what the file names is imported or called.

    Raises:
        DataError: There is no such file, or it is truncated or no checkpoint.
    """
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(os.fspath(path))
    except Exception:  # no such file, not of torch's format since 1.6, torch before 2.6: load_checkpoint says what
        names = []
    if not names:
        return load_checkpoint(path, key)
    with torch.serialization.safe_globals([(_Inert, name) for name in names]):
        return load_checkpoint(path, key)


def model_of_config(text: str) -> dict[str, Any] | None:
    """``model`` of the config in a checkpoint of mmengine, tuples as lists; None where it is not there or not plain.

    The config is Python. It is parsed and not run: ``dict(...)`` calls, literals and nothing else.
    """
    try:
        assigned = {target.id: node.value for node in ast.parse(text).body if isinstance(node, ast.Assign)
                    for target in node.targets if isinstance(target, ast.Name)}
        model = _literal(assigned['model'])
    except (SyntaxError, ValueError, LookupError, TypeError):
        return None
    generator = model.get('generator') if isinstance(model, dict) else None
    return model if isinstance(generator, dict) and isinstance(generator.get('type'), str) else None


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id != 'dict' or node.args:
            raise ValueError('a call that is not dict(...)')
        if not all(keyword.arg for keyword in node.keywords):
            raise ValueError('dict(**...)')
        return {keyword.arg: _literal(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        items: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                raise ValueError('{**...}')
            items[ast.literal_eval(key)] = _literal(value)
        return items
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(element) for element in node.elts]
    return ast.literal_eval(node)


def split_by_module(state: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """A model's state dict by its children: ``generator.conv_first.weight`` is ``['generator']['conv_first.weight']``.

    Drops the ``module.`` that distributed wrappers put around the model or around its children.
    """
    children: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in state.items():
        child, _, rest = name.removeprefix('module.').partition('.')
        children.setdefault(child, {})[rest.removeprefix('module.')] = value
    return children
