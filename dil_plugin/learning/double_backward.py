"""What a network computes with where its gradient is differentiated once more."""

import contextlib
from collections.abc import Iterator

from torch.nn.attention import SDPBackend, sdpa_kernel

from dil_plugin.errors import OptionError
from dil_plugin.learning.convolution import fast_double_backward
from dil_plugin.learning.graphs import nodes
from dil_plugin.learning.types import Grads


@contextlib.contextmanager
def differentiable_twice() -> Iterator[None]:
    """Within it, convolutions, weight norm and attention are computed in ways that have a right second derivative.

    See ``fast_double_backward`` and ``plain_attention``. It goes around the passes that are recorded and around the
    second backward pass, in which blocks may be computed anew.
    """
    with plain_attention(), fast_double_backward():
        yield


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Within it, ``scaled_dot_product_attention`` is a product, a softmax and a product (PyTorch's math kernel).

    Its fused kernels have no second derivative, and drop out other weights. ``nn.MultiheadAttention`` calls it too.
    """
    with sdpa_kernel(SDPBackend.MATH):
        yield


@contextlib.contextmanager
def refusing_in_one_line() -> Iterator[None]:
    """Raises OptionError for what PyTorch says of a network, or a loss, that has no gradient of the order wanted."""
    try:
        yield
    except RuntimeError as error:
        words = ' '.join(str(error).split())
        if 'use_reentrant' in words:
            raise OptionError('network_g: it uses torch.utils.checkpoint with use_reentrant=True, through which no '
                              'gradient of given parameters can be taken; allowed: use_reentrant=False there, or no '
                              'checkpointing in the network and train.dil.checkpointing: true') from error
        if 'derivative for' in words and 'not implemented' in words:
            raise OptionError(_no_second_derivative(words[:160])) from error
        raise


def require_second_derivative(grads: Grads) -> None:
    """Raises OptionError where a function marked ``once_differentiable`` stands in the graph of recorded gradients.

    Its error would not be heard: ``torch.autograd.grad`` leaves out the node that raises it, and takes the function's
    gradient for a constant.
    """
    if any(node.name().endswith('Error') for node in nodes(grads)):
        raise OptionError(_no_second_derivative('it is marked with @once_differentiable'))


def _no_second_derivative(reason: str) -> str:
    return (f'train.dil.hvp: exact, but an operation of network_g or of the loss has no second derivative ({reason}); '
            'allowed: hvp: finite_difference, or variant sf, pf or erm')
