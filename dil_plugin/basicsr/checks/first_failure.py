"""What fails when a run does something for the first time is one line, of what failed and where in the user's code."""

import contextlib
import functools
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn

from dil_plugin.basicsr.checks.unexpected import own_place
from dil_plugin.errors import DILError, OptionError

Method = TypeVar('Method', bound=Callable[..., Any])

_NO_SECOND_DERIVATIVE = re.compile(r'derivative for \S+ is not implemented|double backward', re.IGNORECASE)
_SECOND_ORDER = '; it has no second derivative: allowed: train.dil.hvp: finite_difference, or variant sf, pf or erm'
_DETACHED = '; the loss does not depend on the parameters through autograd: is the output detached, made by NumPy or ' \
            'under no_grad?'
_OURS = ('basicsr.', 'dil_plugin.', 'torch.')


@contextlib.contextmanager
def in_one_line(what: str, network: nn.Module) -> Iterator[None]:
    """Raises OptionError in the place of what PyTorch, BasicSR or a network of the user's raises inside.

    What says itself what is wrong, and a lack of memory, pass.

    Args:
        what: What is done, as in ``the first training step``.
        network: Named in the message.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, DILError) or lacks_memory(error):
            raise
        hint = _SECOND_ORDER if _NO_SECOND_DERIVATIVE.search(str(error)) else \
            _DETACHED if 'does not require grad' in str(error) else ''
        own = own_place(error) if type(network).__module__.startswith(_OURS) else None
        if own is not None:  # a loss of the user's own, say
            raise OptionError(f'{what} fails ({said(error, type(network))}, {own[0]} line {own[1]}){hint}') from error
        raise OptionError(f'network_g: {type(network).__name__}: {what} fails ({said(error, type(network))}){hint}'
                          ) from error


def lacks_memory(error: BaseException) -> bool:
    """Whether memory was not enough; a CPU's allocator has no error of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def first_in_one_line(what: str) -> Callable[[Method], Method]:
    """Decorates a method of a BasicSR model: until it has succeeded once, what fails in it is one line."""

    def decorate(method: Method) -> Method:

        @functools.wraps(method)
        def guarded(self: Any, *arguments: Any) -> Any:
            succeeded = self.__dict__.setdefault('_succeeded', set())
            if what in succeeded:
                return method(self, *arguments)
            with in_one_line(f'the first {what}', self.net_g):
                result = method(self, *arguments)
            succeeded.add(what)
            return result

        return guarded  # type: ignore[return-value]

    return decorate


def said(error: BaseException, network: type[nn.Module]) -> str:
    """An error in a few words; with a network of the user's own also the line of its files that it comes from."""
    words = ' '.join(str(error).split())
    text = f'{type(error).__name__}: {words[:240]}' if words else type(error).__name__
    file = getattr(sys.modules.get(network.__module__), '__file__', None)
    if network.__module__.startswith(_OURS) or file is None:
        return text
    frames = [frame for frame in traceback.extract_tb(error.__traceback__)
              if os.path.dirname(frame.filename) == os.path.dirname(file)]
    return f'{text}, {frames[-1].filename} line {frames[-1].lineno}' if frames else text
