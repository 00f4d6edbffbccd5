"""What ``tools/check.py`` says of ``train.dil.hvp: exact`` with the user's own network."""

from typing import Any

from torch import nn

from dil_plugin.basicsr.checks.first_failure import lacks_memory, said
from dil_plugin.learning import Pair
from dil_plugin.learning.product_check import TOLERANCE, check_product

_SIDE = 16  # pixels of the image, or the least that the network takes: half a minute for RRDB of 16.7 million weights


def product_line(model: Any) -> str:
    """How far the exact product is from a central difference on a training patch; '' where none is taken.

    Args:
        model: A ``DILModel`` that was given a batch.
    """
    if not model.dil.differentiates_twice:
        return ''
    try:
        found = check_product(model.net_g, model.cri_pix or nn.functional.mse_loss, _small_pair(model), model.outputs)
    except Exception as error:  # of any network, which may not do with float64
        if lacks_memory(error):
            raise
        return f'hvp: exact was not compared with differences in float64 ({said(error, type(model.net_g))})'
    if found.error <= TOLERANCE:
        return f'hvp: exact agrees with differences of the gradient in float64 (relative error {found.error:.1e})'
    fault = f'; at fault: {", ".join(found.layers)}' if found.layers else ''
    return (f'warning: hvp: exact differs by {100 * found.error:.2g} % from differences of the gradient in float64'
            f'{fault}; docs/performance.md says what that means; hvp: finite_difference has no such error')


def _small_pair(model: Any) -> Pair:
    """The middle of a patch under the first confounder."""
    lq, gt = (images[:1] for images in model._meta_batches()[0].confounders[0])
    scale = gt.shape[-1] // lq.shape[-1]
    side = model._size_needs(lq.shape[1]).padded(_SIDE)
    if min(lq.shape[-2:]) <= side:
        return Pair(lq, gt)
    top, left = ((length - side) // 2 for length in lq.shape[-2:])
    return Pair(lq[..., top:top + side, left:left + side],
                gt[..., top * scale:(top + side) * scale, left * scale:(left + side) * scale])
