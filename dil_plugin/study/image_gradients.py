"""What one training iteration of each variant costs, counted in image gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

from dil_plugin.basicsr.options import parse_training_options
from dil_plugin.errors import OptionError
from dil_plugin.learning.options import DILOptions
from dil_plugin.options import did_you_mean
from dil_plugin.sampling import build_sampler


class StepCost(NamedTuple):
    """Image gradients of one training iteration.

    An image gradient is the gradient of the loss on one image with respect to all parameters. A Hessian-vector product
    on one image counts as one more, however it is computed: by finite differences it is one. What is computed a second
    time to save memory (``recompute``, ``checkpointing``) does not count, as it changes no result. An exact product
    takes the time of two to three gradients; whoever wants to count it so finds the parts here.

    Attributes:
        inner: Of the virtual updates.
        query: Of the outer loss; of ERM all there are.
        hessian: Hessian-vector products, by image.
        outer_steps: Steps of the outer optimiser.
    """

    inner: int
    query: int
    hessian: int
    outer_steps: int

    @property
    def total(self) -> int:
        """All image gradients."""
        return self.inner + self.query + self.hessian


class Step(NamedTuple):
    """What the cost depends on.

    Attributes:
        n: Confounders.
        rows: Images of one gradient step.
        erm_steps: Plain steps of ERM.
        held_out: Meta-test confounders of MLDG.
    """

    n: int
    rows: int
    erm_steps: int
    held_out: int


COUNTS: dict[str, Callable[[Step], StepCost]] = {
    'erm': lambda s: StepCost(0, s.erm_steps * s.rows, 0, s.erm_steps),
    'sf': lambda s: StepCost(s.n * s.rows, 0, 0, 1),
    'pf': lambda s: StepCost(s.n * s.rows, s.rows, 0, 1),
    'ss': lambda s: StepCost(s.n * s.rows, s.n * s.rows, s.n * s.rows, 1),
    'ps': lambda s: StepCost(s.n * s.rows, s.rows, s.n * s.rows, 1),
    'mldg': lambda s: StepCost((s.n - s.held_out) * s.rows, s.held_out * s.rows, (s.n - s.held_out) * s.rows, 1),
}
"""By variant."""


def step_cost(opt: dict[str, Any]) -> StepCost:
    """The cost of one iteration of a training.

    Args:
        opt: The options of a DILModel YAML.

    Raises:
        OptionError: They are wrong, or the variant has no count.
    """
    dil, confounders = parse_training_options(opt)
    _check_counted(dil)
    sampler = build_sampler(dil, confounders)
    batch_size = opt['datasets']['train']['batch_size_per_gpu']
    sampler.check_batch_size(batch_size)
    rows = batch_size // sampler.parts
    return COUNTS[dil.variant](Step(len(confounders), rows, sampler.erm_steps, dil.held_out_or_default))


def batch_size_for(opt: dict[str, Any], rows: int) -> int:
    """The ``batch_size_per_gpu`` with which every gradient step of a training sees ``rows`` images."""
    dil, confounders = parse_training_options(opt)
    return rows * build_sampler(dil, confounders).parts


def _check_counted(dil: DILOptions) -> None:
    if dil.variant not in COUNTS:
        raise OptionError(f"train.dil.variant: the image gradients of '{dil.variant}' are not counted yet "
                          f'(study/image_gradients.py); {did_you_mean(dil.variant, COUNTS)}')
