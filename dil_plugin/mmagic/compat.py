"""The one place that adapts mmagic 1.2.0 and mmengine 0.10.7 to today's torch and numpy, and to a CPU.

Each cure is applied only where it is needed, may be applied any number of times, and takes nothing away from an
environment that is whole: a compiled mmcv, a torchvision that loads and numpy 1 are used as they are.
"""

import functools
import importlib.machinery
import pickle
import sys
import types
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from typing import Any

import numpy as np
import torch

from dil_plugin.torchvision_operators import import_torchvision

_OPERATORS = 'mmcv._ext'


def adapt_imports() -> None:
    """Makes ``import mmagic.models`` work, and checkpoints of mmengine resume."""
    import_torchvision()
    if not _has_bool8():
        np.bool8 = np.bool_  # type: ignore[attr-defined]  # removed in numpy 2; mmagic.utils reads it at its import
    if not any(isinstance(finder, MissingOperators) for finder in sys.meta_path):
        sys.meta_path.append(MissingOperators())
    allow_log_history()


def _has_bool8() -> bool:
    return 'bool8' in vars(np) or int(np.__version__.split('.')[0]) < 2  # numpy 1 gives it with a warning


class MissingOperators(MetaPathFinder, Loader):
    """Stands in for the compiled operators of mmcv where there are none (mmcv-lite).

    It is the last in ``sys.meta_path``, so that a real build is found first. Five editors of mmagic import operators
    that RRDBNet, SwinIR, SRCNN, MSRResNet, EDSR or NAFNet never call; here an operator fails when it is called.
    """

    def find_spec(self, fullname: str, path: Sequence[str] | None = None,
                  target: types.ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        """A module for ``mmcv._ext`` alone."""
        return importlib.machinery.ModuleSpec(fullname, self) if fullname == _OPERATORS else None

    def exec_module(self, module: types.ModuleType) -> None:
        """Gives the module an attribute for every operator that is asked of it."""
        module.__getattr__ = _operator  # type: ignore[method-assign]


def _operator(name: str) -> Callable[..., Any]:
    if name.startswith('__'):
        raise AttributeError(f'module {_OPERATORS} has no attribute {name}')

    def missing(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f'the operator {name} needs a compiled mmcv, and mmcv-lite is installed; networks without '
                           'such operators (RRDBNet, SwinIR and others) run without it')

    return missing


def allow_log_history() -> None:
    """Lets ``torch.load`` read the history of the logs in a checkpoint, which mmengine keeps as objects of its own.

    Since torch 2.6 it reads tensors and plain containers alone, and mmengine cannot resume. What is missing is named as
    harmless: mmengine's ``HistoryBuffer``, the four functions of that class which it refers to, and numpy's arrays of
    numbers. Everything else in a file is refused as before.
    """
    if tuple(map(int, torch.__version__.split('.')[:2])) < (2, 6):
        return
    from mmengine.logging import HistoryBuffer

    kinds = {type(np.dtype(kind)) for kind in ('f8', 'i8', 'f4', 'i4', 'b1')}
    makers: list[Any] = [np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]]  # _reconstruct and scalar
    # numpy 1 and 2 have them in modules of different names, and a file may come from either
    functions = [(function, f'numpy.{core}.multiarray.{function.__name__}')
                 for function in makers for core in ('core', '_core')]
    torch.serialization.add_safe_globals([HistoryBuffer, np.ndarray, np.dtype, *kinds, *functions,
                                          (statistic_of_history, 'builtins.getattr')])


def statistic_of_history(owner: Any, name: str) -> Any:
    """``getattr`` for what is loaded: of ``HistoryBuffer`` and its ``min``, ``max``, ``mean`` and ``current`` alone.

    Raises:
        pickle.UnpicklingError: It is asked for anything else.
    """
    from mmengine.logging import HistoryBuffer
    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError(f'{name!r} of {owner!r} is not to be had from a checkpoint')
    return getattr(HistoryBuffer, name)


def join_every_run(hook: Callable[[], Any]) -> None:
    """Has every Runner register one more hook, after those of its config, as a config cannot forget to.

    Args:
        hook: Makes it.
    """
    from mmengine.runner import Runner
    theirs = Runner.register_hooks
    if hasattr(theirs, 'joined'):
        return

    @functools.wraps(theirs)
    def register_hooks(self: Any, *args: Any, **kwargs: Any) -> None:
        theirs(self, *args, **kwargs)
        self.register_hook(hook())

    register_hooks.joined = True  # type: ignore[attr-defined]
    Runner.register_hooks = register_hooks


def run_only_where(hook: Any, stage: str, condition: Callable[[], bool]) -> None:
    """Has a hook's method do nothing where ``condition()`` is False; of this hook alone, not of its class."""
    theirs = getattr(hook, stage)

    @functools.wraps(theirs)
    def guarded(*args: Any, **kwargs: Any) -> None:
        if condition():
            theirs(*args, **kwargs)

    setattr(hook, stage, guarded)
