"""The options of ``train.dil`` and the variant they describe."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
import torch
from msgspec import UNSET, Meta, UnsetType
from torch import Tensor, nn

from dil_plugin.errors import OptionError
from dil_plugin.learning import hessian
from dil_plugin.learning.forward_passes import Checkpointed, Compiled, ForwardPass
from dil_plugin.learning.mldg import MLDG
from dil_plugin.learning.objective import NetworkLoss
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
    'mldg': MLDG,
}

SECOND_ORDER = ('ss', 'ps', 'mldg')
"""Variants that differentiate through a gradient step; the others take steps of an optimiser."""

Positive = Annotated[float, Meta(gt=0)]
Beta = Annotated[float, Meta(ge=0, lt=1)]


class SGD(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field='type', tag='SGD'):
    """Plain gradient steps, ``phi = theta - lr * grad`` (Eq. 3)."""

    lr: Annotated[Positive, Meta(description='The inner learning rate alpha.')] = 1e-4


class Adam(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field='type', tag='Adam'):
    """Adam; the defaults are those of the authors' released training."""

    lr: Annotated[Positive, Meta(description='The inner learning rate.')] = 1e-4
    betas: Annotated[tuple[Beta, Beta], Meta(description='Decay rates of the moments.')] = (0.0, 0.999)
    eps: Annotated[Positive, Meta(description='Added to the denominator.')] = 1e-8
    persistent: Annotated[bool, Meta(description='true: the moments persist from one meta-step to the next. false: '
                                     'they start anew with every walk, whose first step is then lr times the sign of '
                                     'the gradient.')] = True


class DILOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The block ``train.dil``."""

    variant: Annotated[Literal['sf', 'pf', 'ss', 'ps', 'erm', 'mldg'],
                       Meta(description='Serial or parallel sampling, first or second order; erm is the baseline, mldg '
                            'that of domain generalisation (Li et al., AAAI 2018).')]
    inner: Annotated[SGD | Adam | UnsetType,
                     Meta(description='The virtual update. Default: Adam as released for sf and pf, SGD for ss, ps '
                          'and mldg.')] = UNSET
    hvp: Annotated[Literal['exact', 'finite_difference'] | UnsetType,
                   Meta(description='Hessian-vector product of ss, ps and mldg. exact: double backward, as right as '
                        'that of every layer; tools/check.py compares it with differences on your network. '
                        'finite_difference: a forward difference of the gradient. Default: exact.')] = UNSET
    recompute: Annotated[bool | UnsetType,
                         Meta(description='hvp: exact. true: the graphs of the inner losses are computed anew for the '
                              'Hessian-vector product, one at a time: the least memory. false: they are held from the '
                              'inner losses on: the least time. Default: true for ps and mldg, which have many, '
                              'false for ss, which has one.')] = UNSET
    micro_batch: Annotated[Annotated[int, Meta(ge=1)] | None,
                           Meta(description='Images that go through the network at a time; every gradient is summed '
                                'over the parts of its batch. Less memory, the same gradient (but for BatchNorm, whose '
                                'statistics are those of a part). Default: the whole batch.')] = None
    checkpointing: Annotated[bool,
                             Meta(description="Keep the inputs of the network's repeated blocks alone, and compute the "
                                  'blocks anew in each backward pass (activation checkpointing): less memory, about a '
                                  'third more time, the same gradient.')] = False
    patches: Annotated[Literal['same', 'fresh'],
                       Meta(description='same: every inner step sees the same clean patches under another distortion; '
                            'fresh: the batch is divided, each step sees patches of its own.')] = 'same'
    order: Annotated[Literal['shuffled', 'fixed'] | UnsetType,
                     Meta(description='Order of the confounders in the walk of sf. Default: shuffled.')] = UNSET
    outputs: Annotated[Literal['all', 'first', 'last'],
                       Meta(description='Which outputs the loss takes when the network returns several; the last of '
                            'these is validated and restored. In a test (test.py, restore.py): default what the '
                            'checkpoint says.')] = 'all'
    erm_steps: Annotated[Annotated[int, Meta(ge=1)] | UnsetType,
                         Meta(description='Plain optimiser steps of erm per iteration. Default: the number of '
                              'confounders, so that erm sees as many image gradients as sf.')] = UNSET
    erm_sampling: Annotated[Literal['mixed', 'serial'] | UnsetType,
                            Meta(description='The distortions of a plain step of erm. mixed: one per sample, drawn. '
                                 'serial: one per step, all confounders in turn in shuffled order, as the inner steps '
                                 'of sf have them; not with pairs of unknown distortions. Default: mixed.')] = UNSET
    held_out: Annotated[Annotated[int, Meta(ge=1)] | UnsetType,
                        Meta(description='Confounders that mldg leaves for the meta-test loss, drawn in every step; '
                             'less than there are. Default: 1.')] = UNSET
    beta: Annotated[Positive | UnsetType,
                    Meta(description="The weight of mldg's meta-test loss beside the meta-train loss. Default: 1."
                         )] = UNSET
    deploy: Annotated[Literal['theta', 'phi'] | UnsetType,
                      Meta(description='Which network of ss and ps is validated and saved as params. phi: the '
                           'virtually updated one, whose loss they minimise, by one step of the inner lr on the mean '
                           'loss of deploy_patches under all confounders (of ss, too); the trained theta is saved as '
                           'params_theta, from which a resumed run goes on. Not with ema_decay, nor in mmagic. '
                           'Default: theta.')] = UNSET
    deploy_patches: Annotated[Annotated[int, Meta(ge=1)] | UnsetType,
                              Meta(description='deploy: phi. Training patches, drawn once at the start; those of '
                                   'training stay as they are. Default: 128.')] = UNSET
    max_skipped: Annotated[Annotated[int, Meta(ge=1)],
                           Meta(description='A step whose losses or gradient are not finite is skipped, and counted in '
                                'the log; after so many in a row the run ends, and the batch is kept in '
                                'experiments/NAME/skipped.')] = 10

    def __post_init__(self) -> None:
        if self.variant in SECOND_ORDER and isinstance(self.inner, Adam):
            raise ValueError(f'.inner.type: variant {self.variant} differentiates through a gradient step (Eq. 3); '
                             "got 'Adam', allowed: SGD")
        if self.deploy == 'phi' and self.variant not in ('ss', 'ps'):
            raise ValueError(f'.deploy: phi, but variant {self.variant} minimises no loss at virtually updated '
                             'parameters; allowed: theta, or variant ss or ps')
        if self.recompute is not UNSET and self.hvp == 'finite_difference':
            raise ValueError(f'.recompute: {str(self.recompute).lower()}, but hvp finite_difference holds no graphs; '
                             'allowed: with hvp exact')

    def unused(self) -> list[str]:
        """Options that were set and that this variant has no use for."""
        users = {'inner': ('sf', 'pf', *SECOND_ORDER), 'hvp': SECOND_ORDER, 'recompute': SECOND_ORDER,
                 'order': ('sf', ), 'held_out': ('mldg', ), 'beta': ('mldg', ),
                 'erm_steps': ('erm', ), 'erm_sampling': ('erm', ), 'deploy': ('ss', 'ps'),
                 'deploy_patches': ('ss', 'ps') if self.deploy == 'phi' else ()}
        return [name for name, variants in users.items()
                if getattr(self, name) is not UNSET and self.variant not in variants]

    @property
    def differentiates_twice(self) -> bool:
        """Whether the network's gradient is differentiated once more."""
        return self.variant in SECOND_ORDER and self.hvp != 'finite_difference'

    @property
    def patches_to_deploy(self) -> int | None:
        """How many patches the virtual update of the deployed network takes; None: ``theta`` is deployed."""
        if self.deploy != 'phi':
            return None
        return 128 if isinstance(self.deploy_patches, UnsetType) else self.deploy_patches

    @property
    def held_out_or_default(self) -> int:
        """Meta-test confounders of ``mldg``."""
        return 1 if isinstance(self.held_out, UnsetType) else self.held_out

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
        seed: Seeds the order of the confounders (``sf``, ``mldg``); must be the same on all ranks.
        average: Averages gradients over the processes of a distributed run.
        mark: Told when the inner steps are done, so that a step's time can be told by part.
    """
    inner = options.inner_or_default
    if options.variant == 'erm':
        return ERM(average)
    if options.variant == 'ss':
        return SerialSecondOrder(inner.lr, _inner_gradient(options), average, mark)
    if options.variant == 'ps':
        return ParallelSecondOrder(inner.lr, _inner_gradient(options), average, mark)
    if options.variant == 'mldg':
        beta = 1.0 if isinstance(options.beta, UnsetType) else options.beta
        split = torch.Generator().manual_seed(seed)
        return MLDG(inner.lr, options.held_out_or_default, beta, split, _inner_gradient(options), average, mark)
    if isinstance(inner, Adam):
        walk = ReptileWalk(params, partial(torch.optim.Adam, lr=inner.lr, betas=inner.betas, eps=inner.eps,
                                           **_at_once(params)), average, inner.persistent)
    else:
        walk = ReptileWalk(params, partial(torch.optim.SGD, lr=inner.lr, **_at_once(params)), average)
    if options.variant == 'pf':
        return ParallelFirstOrder(walk, mark)
    generator = None if options.order == 'fixed' else torch.Generator().manual_seed(seed)
    return SerialFirstOrder(walk, generator, mark)


def _at_once(params: Params) -> dict[str, Any]:
    """One pass over all parameters; PyTorch's choice where an optimiser has none for their device or dtype."""
    supported = all(p.is_floating_point() and p.device.type in ('cpu', 'cuda') for p in params.values())
    return {'fused': True} if supported else {}


def _inner_gradient(options: DILOptions) -> hessian.InnerGradientFunction:
    if not options.differentiates_twice:
        return hessian.finite_difference
    recompute = options.variant != 'ss' if options.recompute is UNSET else options.recompute
    return hessian.exact_recomputed if recompute else hessian.exact


def build_loss(options: DILOptions,
               network: nn.Module,
               criterion: Callable[[Tensor, Tensor], Tensor],
               compiled: bool = False,
               memory_format: torch.memory_format = torch.preserve_format) -> NetworkLoss:
    """The loss of the network, evaluated as the options describe.

    Args:
        options: The typed block.
        network: On its device.
        criterion: ``criterion(output, gt)``, a scalar; with ``micro_batch`` a mean over the images.
        compiled: Compile the network (``torch.compile``).
        memory_format: Layout of the images that the network gets.

    Raises:
        OptionError: The options cannot be had together, or not with this network.
    """
    forward: ForwardPass | None = None
    if compiled:
        check_compilation(options)
        forward = Compiled(network)
    elif options.checkpointing:
        forward = Checkpointed(network)
    return NetworkLoss(network, criterion, options.outputs, options.micro_batch, forward, memory_format)


def check_compilation(options: DILOptions, key: str = 'train.compile') -> None:
    """Raises OptionError where these options and a compiled network cannot be had together."""
    if options.differentiates_twice:
        raise OptionError(f'{key}: true, but variant {options.variant} with hvp exact differentiates the gradient once '
                          "more, which PyTorch's compiler cannot; allowed: false, or hvp: finite_difference")
    if options.checkpointing:
        raise OptionError(f'{key}: true, but train.dil.checkpointing is true; allowed: one of them')
