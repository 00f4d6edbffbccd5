"""The loss of a network as a pure function of its trainable parameters."""

import copy
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dil_plugin.errors import OptionError
from dil_plugin.learning.double_backward import require_second_derivative
from dil_plugin.learning.forward_passes import ForwardPass
from dil_plugin.learning.substitution import Substitution
from dil_plugin.learning.types import Grads, Pair, Params

OUTPUTS = ('all', 'first', 'last')

T = TypeVar('T')


class NetworkLoss:
    """``L(f_theta(lq), gt)`` with the parameters ``theta`` as an argument (a ``LossFunction``).

    Frozen parameters (``requires_grad=False``) stay those of the network. Buffers are the network's own and are
    updated in place by every call, so the running statistics of a BatchNorm in training mode follow all inner and
    outer passes; ``on_copies`` is the same loss on copies of the buffers, for passes that only measure curvature.

    Network and criterion get copies of the images: one that works on its input in place spoils nothing.

    Args:
        network: Any module that maps ``(B, C, H, W)`` to one tensor or to a list or tuple of tensors.
        criterion: ``criterion(output, gt)``, a scalar.
        outputs: What counts when the network returns several tensors: ``all`` sums the criterion over them (deep
            supervision), ``first`` or ``last`` takes one.
        micro_batch: Images that go through the network at a time; the gradient of a batch is summed over its parts. The
            criterion must be a mean over the images. None: the whole batch.
        forward: How the network is evaluated; default: as it is (``forward_passes``).
        memory_format: Layout of the images that the network gets.

    Raises:
        ValueError: ``outputs`` is none of these, or ``micro_batch`` is less than 1.
        OptionError: The network has lazy modules; or an output's shape differs from the target's (raised by the call).
    """

    def __init__(self,
                 network: nn.Module,
                 criterion: Callable[[Tensor, Tensor], Tensor],
                 outputs: str = 'all',
                 micro_batch: int | None = None,
                 forward: ForwardPass | None = None,
                 memory_format: torch.memory_format = torch.preserve_format) -> None:
        require_known_sizes(network)
        if outputs not in OUTPUTS:
            raise ValueError(f'outputs: expected one of {", ".join(OUTPUTS)}, got {outputs!r}')
        if micro_batch is not None and micro_batch < 1:
            raise ValueError(f'micro_batch: expected at least 1, got {micro_batch}')
        self.network = network
        self.criterion = criterion
        self.outputs = outputs
        self.micro_batch = micro_batch
        self.forward: ForwardPass = forward or network
        self.memory_format = memory_format
        self._substituted = Substitution(network)
        self._buffers: Params = {}
        self._held: Params | None = None
        self._once = {'recorded': False}

    def parameters(self) -> Params:
        """The network's own trainable parameters, by name."""
        return {name: p for name, p in self.network.named_parameters() if p.requires_grad}

    def __call__(self, params: Params, pair: Pair) -> Tensor:
        """The loss of a batch at ``params``, a scalar."""
        given = params if self._held is None else self._held
        value = self.at(params, lambda: self._evaluate(pair))
        self._substituted.require_reached(value, given)
        return value

    def at(self, params: Params, run: Callable[[], T]) -> T:
        """``run()`` while the network holds ``params``: a loss together with its gradient, see ``Substitution``."""
        if self._held is params:
            return run()
        before, self._held = self._held, params
        try:
            held = {**params, **self._buffers}
            result = self._substituted(held, run)
            self._buffers = {name: held[name] for name in self._buffers}
            return result
        finally:
            self._held = before

    def require_second_derivative(self, grads: Grads) -> None:
        """Raises OptionError where recorded gradients cannot be differentiated; it looks at the first ones alone."""
        if not self._once['recorded']:
            self._once['recorded'] = True
            require_second_derivative(grads)

    def on_copies(self, dtype: torch.dtype | None = None) -> 'NetworkLoss':
        """The same loss on copies of the network's buffers as they are now; its calls update the copies.

        Args:
            dtype: Of the copies, and of frozen parameters, for a loss at parameters of that dtype; None: their own.
        """
        other = copy.copy(self)
        held = {**dict(self.network.named_buffers()), **self._buffers}
        if dtype is not None:
            frozen = {name: p.detach() for name, p in self.network.named_parameters() if not p.requires_grad}
            held = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor
                    for name, tensor in {**held, **frozen}.items()}
        other._buffers = {name: tensor.clone() for name, tensor in held.items()}
        return other

    def _evaluate(self, pair: Pair) -> Tensor:
        lq, gt = (image.clone(memory_format=self.memory_format) for image in pair)
        return self._criterion(self.forward(lq), gt)

    def _criterion(self, outputs: Tensor | Sequence[Tensor], gt: Tensor) -> Tensor:
        chosen = select_outputs(outputs, self.outputs)
        for output in chosen:
            if output.shape != gt.shape:
                raise OptionError(f'the network returns {tuple(output.shape)} for a target of {tuple(gt.shape)}: '
                                  'check scale, network_g and train.dil.outputs')
        return torch.stack([self.criterion(output, gt) for output in chosen]).sum() if len(chosen) > 1 \
            else self.criterion(chosen[0], gt)


def require_known_sizes(network: nn.Module) -> None:
    """Raises OptionError for lazy modules, whose parameters have no size before the first image."""
    lazy = [name or type(network).__name__ for name, module in network.named_modules()
            if any(is_lazy(tensor) for tensor in (*module.parameters(False), *module.buffers(False)))]
    if lazy:
        raise OptionError(f'network_g: {type(network).__name__} has lazy modules ({", ".join(lazy[:4])}), whose '
                          'parameters have no size before the first image, so that nothing can be made like them; '
                          'allowed: modules with sizes, as nn.Conv2d in place of nn.LazyConv2d')


def select_outputs(outputs: Tensor | Sequence[Tensor], which: str) -> list[Tensor]:
    """The tensors that the loss is taken of, in the network's order; the last of them is the restored image.

    Args:
        outputs: What the network returned.
        which: ``all``, ``first`` or ``last``.

    Raises:
        ValueError: The network returned no tensor at all.
    """
    tensors = [outputs] if isinstance(outputs, Tensor) else list(outputs) if isinstance(outputs, list | tuple) else []
    if not tensors or not all(isinstance(t, Tensor) for t in tensors):
        raise ValueError(f'the network must return a tensor or a list of tensors, got {type(outputs).__name__}')
    return {'all': tensors, 'first': tensors[:1], 'last': tensors[-1:]}[which]


def without_buffer_updates(loss: Callable[[Params, Pair], Tensor]) -> Callable[[Params, Pair], Tensor]:
    """``loss.on_copies()`` where the loss has such, else the loss itself (a loss without buffers)."""
    copies: Callable[[Params, Pair], Tensor] = loss.on_copies() if hasattr(loss, 'on_copies') else loss
    return copies
