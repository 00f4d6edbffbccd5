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


Count = Callable[[int, int, int], StepCost]

COUNTS: dict[str, Count] = {
    'erm': lambda n, rows, erm_steps: StepCost(0, erm_steps * rows, 0, erm_steps),
    'sf': lambda n, rows, _: StepCost(n * rows, 0, 0, 1),
    'pf': lambda n, rows, _: StepCost(n * rows, rows, 0, 1),
    'ss': lambda n, rows, _: StepCost(n * rows, n * rows, n * rows, 1),
    'ps': lambda n, rows, _: StepCost(n * rows, rows, n * rows, 1),
}
"""By variant: of n confounders, the images of one gradient step, and the plain steps of ERM."""


def step_cost(opt: dict[str, Any]) -> StepCost:
    """The cost of one iteration of a training.

    Args:
        opt: The options of a DILModel YAML.

    Raises:
        OptionError: They are wrong, or the variant has no count.
    """
    dil, confounders = parse_training_options(opt)
    count = _count_of(dil)
    sampler = build_sampler(dil, confounders)
    batch_size = opt['datasets']['train']['batch_size_per_gpu']
    sampler.check_batch_size(batch_size)
    return count(len(confounders), batch_size // sampler.parts, sampler.erm_steps)


def batch_size_for(opt: dict[str, Any], rows: int) -> int:
    """The ``batch_size_per_gpu`` with which every gradient step of a training sees ``rows`` images."""
    dil, confounders = parse_training_options(opt)
    _count_of(dil)
    return rows * build_sampler(dil, confounders).parts


def _count_of(dil: DILOptions) -> Count:
    if dil.variant not in COUNTS:
        raise OptionError(f"train.dil.variant: the image gradients of '{dil.variant}' are not counted yet "
                          f'(study/image_gradients.py); {did_you_mean(dil.variant, COUNTS)}')
    return COUNTS[dil.variant]
