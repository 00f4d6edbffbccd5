"""The method: virtual updates, Hessian-vector products and the four meta-gradients, in plain PyTorch."""

from dil_plugin.learning.distributed import average_over_ranks
from dil_plugin.learning.mldg import MLDG
from dil_plugin.learning.objective import NetworkLoss
from dil_plugin.learning.options import DILOptions, build_loss, build_variant
from dil_plugin.learning.types import LossFunction, MetaBatch, MetaGradient, Pair, Params
from dil_plugin.learning.variants import (
                                          ERM,
                                          ParallelFirstOrder,
                                          ParallelSecondOrder,
                                          SerialFirstOrder,
                                          SerialSecondOrder,
                                          Variant,
)
from dil_plugin.learning.virtual_update import ReptileWalk, virtual_update

__all__ = [
    'ERM', 'MLDG', 'DILOptions', 'LossFunction', 'MetaBatch', 'MetaGradient', 'NetworkLoss', 'Pair',
    'ParallelFirstOrder', 'ParallelSecondOrder', 'Params', 'ReptileWalk', 'SerialFirstOrder', 'SerialSecondOrder',
    'Variant', 'average_over_ranks', 'build_loss', 'build_variant', 'virtual_update'
]
