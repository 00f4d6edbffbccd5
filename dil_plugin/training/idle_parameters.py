"""Parameters that no gradient reaches, and those that no optimiser and no checkpoint knows of: named, once."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dil_plugin.learning.containers import unregistered
from dil_plugin.learning.types import Grads

FIRST_STEPS = 10
"""Of the optimiser. A layer that starts at zero, as many residual branches do, keeps gradients from the layers before
it for one step; this many leave room for several, one within the other."""

_NAMED = 8


class IdleParameters:
    """Watches whose gradient is zero in each of the first steps; no GPU is waited for before ``read`` has news.

    Args:
        names: Of the trainable parameters.
        steps: So many steps of the optimiser are watched.
    """

    def __init__(self, names: Sequence[str], steps: int = FIRST_STEPS) -> None:
        self.names, self.steps = list(names), steps
        self.taken = 0
        self._reached: Tensor | None = None
        self._said = False

    def took(self, grads: Grads) -> None:
        """A meta-gradient was computed, one tensor for each parameter."""
        if self.taken < self.steps:
            reached = torch.stack(torch._foreach_norm(grads)) != 0
            self._reached = reached if self._reached is None else self._reached | reached

    def stepped(self) -> None:
        """The optimiser took a step."""
        self.taken = min(self.taken + 1, self.steps)

    def idle(self) -> list[str]:
        """Whose gradient was zero in every step so far. Waits for the device."""
        if self._reached is None or not self.taken:
            return []
        return [name for name, reached in zip(self.names, self._reached.tolist(), strict=True) if not reached]

    def read(self) -> str:
        """What there is to say, once: after the first steps. '' before and afterwards."""
        if self._said or self.taken < self.steps:
            return ''
        self._said = True
        return self.message()

    def message(self) -> str:
        """Which parameters no gradient has reached so far; '' where there are none."""
        idle = self.idle()
        if not idle:
            return ''
        return (f'{len(idle)} of {len(self.names)} parameters had no gradient in the first {self.taken} steps, and '
                f'stay as they are: {_listed(idle)}. The loss does not depend on them, or its gradient is zero there.')


def note_on_unregistered(network: nn.Module) -> str:
    """That modules or parameters stand in Python containers alone; '' where none do."""
    found = unregistered(network)
    if not found:
        return ''
    return (f'{type(network).__name__} keeps {_listed(found)} in a Python list, tuple or dict: what stands there is '
            'neither trained nor saved. Use nn.ModuleList, nn.ModuleDict, nn.ParameterList or nn.ParameterDict.')


def _listed(names: Sequence[str]) -> str:
    return ', '.join(names[:_NAMED]) + (', …' if len(names) > _NAMED else '')
