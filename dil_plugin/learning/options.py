"""The options of ``train.dil`` and the variant they describe."""

from functools import partial
from typing import Annotated, Any, Literal

import msgspec
import torch
from msgspec import UNSET, Meta, UnsetType

from dil_plugin.learning import hessian
from dil_plugin.learning.types import Average, Mark, Params
from dil_plugin.learning.variants import (
    ERM,
    ParallelFirstOrder,
    ParallelSecondOrder,
    SerialFirstOrder,
    SerialSecondOrder,
    Variant,
)
from dil_plugin.learning.virtual_update import ReptileWalk, identity, unmarked
from dil_plugin.options import convert

VARIANTS: dict[str, type[Variant]] = {
    'erm': ERM,
    'sf': SerialFirstOrder,
    'pf': ParallelFirstOrder,
    'ss': SerialSecondOrder,
    'ps': ParallelSecondOrder,
}

Positive = Annotated[float, Meta(gt=0)]
Beta = Annotated[float, Meta(ge=0, lt=1)]


class SGD(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field='type', tag='SGD'):
    """Plain gradient steps, ``phi = theta - lr * grad`` (Eq. 3)."""

    lr: Annotated[Positive, Meta(description='The inner learning rate alpha.')] = 1e-4


class Adam(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field='type', tag='Adam'):
    """Adam with moments that persist across meta-steps; the defaults are those of the authors' released training."""

    lr: Annotated[Positive, Meta(description='The inner learning rate.')] = 1e-4
    betas: Annotated[tuple[Beta, Beta], Meta(description='Decay rates of the moments.')] = (0.0, 0.999)
    eps: Annotated[Positive, Meta(description='Added to the denominator.')] = 1e-8


class DILOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The block ``train.dil``."""

    variant: Annotated[Literal['sf', 'pf', 'ss', 'ps', 'erm'],
                       Meta(description='Serial or parallel sampling, first or second order; erm is the baseline.')]
    inner: Annotated[SGD | Adam | UnsetType,
                     Meta(description='The virtual update. Default: Adam as released for sf and pf, SGD for ss and ps.'
                          )] = UNSET
    hvp: Annotated[Literal['exact', 'finite_difference'] | UnsetType,
                   Meta(description='Hessian-vector product of ss and ps. Default: exact.')] = UNSET
    patches: Annotated[Literal['same', 'fresh'],
                       Meta(description='same: every inner step sees the same clean patches under another distortion; '
                            'fresh: the batch is divided, each step sees patches of its own.')] = 'same'
    order: Annotated[Literal['shuffled', 'fixed'] | UnsetType,
                     Meta(description='Order of the confounders in the walk of sf. Default: shuffled.')] = UNSET
    outputs: Annotated[Literal['all', 'first', 'last'],
                       Meta(description='Which outputs the loss takes when the network returns several.')] = 'all'
    erm_steps: Annotated[Annotated[int, Meta(ge=1)] | UnsetType,
                         Meta(description='Plain optimiser steps of erm per iteration. Default: the number of '
                              'confounders, so that erm sees as many image gradients as sf.')] = UNSET

    def __post_init__(self) -> None:
        if self.variant in ('ss', 'ps') and isinstance(self.inner, Adam):
            raise ValueError(f'.inner.type: variant {self.variant} differentiates through a gradient step (Eq. 3); '
                             "got 'Adam', allowed: SGD")

    def unused(self) -> list[str]:
        """Options that were set and that this variant has no use for."""
        users = {'inner': ('sf', 'pf', 'ss', 'ps'), 'hvp': ('ss', 'ps'), 'order': ('sf', ), 'erm_steps': ('erm', )}
        return [name for name, variants in users.items()
                if getattr(self, name) is not UNSET and self.variant not in variants]

    @property
    def inner_or_default(self) -> SGD | Adam:
        """The inner optimiser, the variant's default where none is given."""
        if isinstance(self.inner, UnsetType):
            return Adam() if self.variant in ('sf', 'pf') else SGD()
        return self.inner


def parse_dil_options(raw: Any, key: str = 'train.dil') -> DILOptions:
    """The typed options of a ``train.dil`` block.

    Raises:
        OptionError: An option is unknown or wrong; the message names it, its value and what is allowed.
    """
    return convert(raw, DILOptions, key)


def build_variant(options: DILOptions,
                  params: Params,
                  seed: int = 0,
                  average: Average = identity,
                  mark: Mark = unmarked) -> Variant:
    """The variant that the options describe.

    Args:
        options: The typed block.
        params: ``theta``; Reptile walks allocate their fast weights like it.
        seed: Seeds the order of the confounders (``sf``); must be the same on all ranks.
        average: Averages gradients over the processes of a distributed run.
        mark: Told when the inner steps are done, so that a step's time can be told by part.
    """
    inner = options.inner_or_default
    difference = options.hvp == 'finite_difference'
    if options.variant == 'erm':
        return ERM(average)
    if options.variant == 'ss':
        return SerialSecondOrder(inner.lr, hessian.finite_difference if difference else hessian.exact, average,
                                 mark)
    if options.variant == 'ps':
        return ParallelSecondOrder(inner.lr, hessian.finite_difference if difference else hessian.exact_recomputed,
                                   average, mark)
    if isinstance(inner, Adam):
        walk = ReptileWalk(params, partial(torch.optim.Adam, lr=inner.lr, betas=inner.betas, eps=inner.eps), average)
    else:
        walk = ReptileWalk(params, partial(torch.optim.SGD, lr=inner.lr), average)
    if options.variant == 'pf':
        return ParallelFirstOrder(walk, mark)
    generator = None if options.order == 'fixed' else torch.Generator().manual_seed(seed)
    return SerialFirstOrder(walk, generator, mark)
