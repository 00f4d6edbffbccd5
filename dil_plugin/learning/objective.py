"""The loss of a network as a pure function of its trainable parameters."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dil_plugin.errors import OptionError
from dil_plugin.learning.forward_passes import ForwardPass, Plain
from dil_plugin.learning.types import Pair, Params

OUTPUTS = ('all', 'first', 'last')


class NetworkLoss:
    """``L(f_theta(lq), gt)`` with the parameters ``theta`` as an argument (a ``LossFunction``).

    Frozen parameters (``requires_grad=False``) stay those of the network. Buffers are the network's own and are
    updated in place by every call, so the running statistics of a BatchNorm in training mode follow all inner and
    outer passes; ``probe`` is the same loss on copies of the buffers, for passes that only measure curvature.

    Args:
        network: Any module that maps ``(B, C, H, W)`` to one tensor or to a list or tuple of tensors.
        criterion: ``criterion(output, gt)``, a scalar.
        outputs: What counts when the network returns several tensors: ``all`` sums the criterion over them (deep
            supervision), ``first`` or ``last`` takes one.
        micro_batch: Images that go through the network at a time; the gradient of a batch is summed over its parts. The
            criterion must be a mean over the images. None: the whole batch.
        forward: How the network is evaluated; default: plainly (``forward_passes``).
        memory_format: Layout of the images that the network gets.

    Raises:
        ValueError: ``outputs`` is none of these, or ``micro_batch`` is less than 1.
        OptionError: An output's shape differs from the target's (raised by the call).
    """

    def __init__(self,
                 network: nn.Module,
                 criterion: Callable[[Tensor, Tensor], Tensor],
                 outputs: str = 'all',
                 micro_batch: int | None = None,
                 forward: ForwardPass | None = None,
                 memory_format: torch.memory_format = torch.preserve_format) -> None:
        if outputs not in OUTPUTS:
            raise ValueError(f'outputs: expected one of {", ".join(OUTPUTS)}, got {outputs!r}')
        if micro_batch is not None and micro_batch < 1:
            raise ValueError(f'micro_batch: expected at least 1, got {micro_batch}')
        self.network = network
        self.criterion = criterion
        self.outputs = outputs
        self.micro_batch = micro_batch
        self.forward = forward or Plain(network)
        self.memory_format = memory_format

    def parameters(self) -> Params:
        """The network's own trainable parameters, by name."""
        return {name: p for name, p in self.network.named_parameters() if p.requires_grad}

    def __call__(self, params: Params, pair: Pair) -> Tensor:
        """The loss of a batch at ``params``, a scalar."""
        return self._evaluate(params, pair)

    def probe(self, params: Params, pair: Pair) -> Tensor:
        """The same loss, leaving the network's buffers untouched."""
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        return self._evaluate({**params, **buffers}, pair)

    def _evaluate(self, tensors: Params, pair: Pair) -> Tensor:
        lq, gt = (image if self.memory_format is torch.preserve_format else
                  image.contiguous(memory_format=self.memory_format) for image in pair)
        return self._criterion(self.forward(tensors, lq), gt)

    def _criterion(self, outputs: Tensor | Sequence[Tensor], gt: Tensor) -> Tensor:
        chosen = select_outputs(outputs, self.outputs)
        for output in chosen:
            if output.shape != gt.shape:
                raise OptionError(f'the network returns {tuple(output.shape)} for a target of {tuple(gt.shape)}: '
                                  'check scale, network_g and train.dil.outputs')
        return torch.stack([self.criterion(output, gt) for output in chosen]).sum() if len(chosen) > 1 \
            else self.criterion(chosen[0], gt)


def select_outputs(outputs: Tensor | Sequence[Tensor], which: str) -> list[Tensor]:
    """The tensors that the loss is taken of, in the network's order; the last of them is the restored image.

    Args:
        outputs: What the network returned.
        which: ``all``, ``first`` or ``last``.

    Raises:
        ValueError: The network returned no tensor at all.
    """
    tensors = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    if not tensors or not all(isinstance(t, Tensor) for t in tensors):
        raise ValueError(f'the network must return a tensor or a list of tensors, got {type(outputs).__name__}')
    return {'all': tensors, 'first': tensors[:1], 'last': tensors[-1:]}[which]


class _Probe:

    def __init__(self, loss: Any) -> None:
        self.micro_batch: int | None = getattr(loss, 'micro_batch', None)
        self._probe = loss.probe

    def __call__(self, params: Params, pair: Pair) -> Tensor:
        value: Tensor = self._probe(params, pair)
        return value


def without_buffer_updates(loss: Callable[[Params, Pair], Tensor]) -> Callable[[Params, Pair], Tensor]:
    """``loss.probe`` where the loss has one, else the loss itself (a loss without buffers)."""
    return _Probe(loss) if hasattr(loss, 'probe') else loss
