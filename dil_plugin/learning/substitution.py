"""A network with other parameters and buffers in the place of its own, for as long as a function runs."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.func import functional_call

from dil_plugin.errors import OptionError
from dil_plugin.learning.containers import containers, items, replaced
from dil_plugin.learning.graphs import nodes
from dil_plugin.learning.types import Params

T = TypeVar('T')


class Substitution:
    """Runs functions while a network holds given tensors; afterwards it has its own again.

    A forward pass with its backward pass belongs into one such function: what a network computes anew in the backward
    pass (``torch.utils.checkpoint``) it computes with the parameters that it holds then. Parameters that modules keep
    in lists, tuples or dictionaries beside their attributes are substituted there too.

    Args:
        network: The module.
    """

    def __init__(self, network: nn.Module) -> None:
        self._host = _Host(network)
        self._own = {id(p): (name, p) for name, p in network.named_parameters()}
        self._kept = [(module, name) for _, module, name, value in containers(network)
                      if any(id(item) in self._own for _, item in items(value))]
        self._looked = False

    def __call__(self, tensors: Params, run: Callable[[], T]) -> T:
        """``run()`` while the network holds ``tensors``, by name; what they do not name is its own.

        Buffers that the network assigns anew are put into ``tensors``.
        """
        given = {f'network.{name}': tensor for name, tensor in tensors.items()}
        with self._in_containers(tensors):
            result: T = call_with(self._host, given, (run, ))
        tensors.update({name: given[f'network.{name}'] for name in tensors})
        return result

    @contextlib.contextmanager
    def _in_containers(self, tensors: Params) -> Iterator[None]:
        before = [vars(module)[name] for module, name in self._kept]
        new = {key: tensors[name] for key, (name, _) in self._own.items() if name in tensors} if before else {}
        for (module, name), value in zip(self._kept, before, strict=True):
            vars(module)[name] = replaced(value, new)
        try:
            yield
        finally:
            for (module, name), value in zip(self._kept, before, strict=True):
                vars(module)[name] = value

    def require_reached(self, value: Tensor, tensors: Params) -> None:
        """Raises OptionError where a value computed with ``tensors`` depends on parameters that they should replace.

        It looks once, at the first value of other tensors than the network's own, which are no functions of these.
        """
        if self._looked or value.grad_fn is None or not all(tensor.is_leaf for tensor in tensors.values()):
            return
        others = {id(p) for name, p in self._own.values() if tensors.get(name, p) is not p}
        if not others:
            return
        self._looked = True
        leaves = {id(node.variable) for node in nodes([value]) if hasattr(node, 'variable')}
        missed = [self._own[key][0] for key in leaves & others]
        if missed:
            raise OptionError(f'network_g: it uses {", ".join(sorted(missed))} from another place than its modules\' '
                              'attributes (a closure, or an object that is no nn.Module), where virtual parameters '
                              'cannot take their place; allowed: use them as attributes of an nn.Module, or variant '
                              'erm')


def call_with(module: nn.Module, tensors: Params, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
    """``torch.func.functional_call``, after which a module that stands in several places has its own tensors again.

    torch substitutes once for each name, and puts back in the order in which it substituted, so that a module with two
    names keeps what was substituted. Here each module is looked at once.

    Args:
        module: The module.
        tensors: As ``named_parameters()`` and ``named_buffers()`` name them; what is tied to one of them is substituted
            too. Buffers that the module assigns anew are put here.
        args: Of the module.
        kwargs: Of the module.
    """
    places: dict[int, list[str]] = {}
    for prefix, part in module.named_modules():
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None:
                places.setdefault(id(tensor), []).append(f'{prefix}.{name}' if prefix else name)
    tied = {names[0]: names for names in places.values()}
    everywhere = {place: tensor for name, tensor in tensors.items() for place in tied.get(name, [name])}
    result = functional_call(module, everywhere, args, kwargs, tie_weights=False)
    tensors.update({name: everywhere[name] for name in tensors})
    return result


class _Host(nn.Module):
    """Has ``functional_call`` run any function."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, run: Callable[[], Any]) -> Any:
        return run()
