"""The model wrapper for distributed runs whose iterations take more than one optimiser step."""

from typing import Any

from mmagic.registry import MODEL_WRAPPERS
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from torch import Tensor


@MODEL_WRAPPERS.register_module()
class DILDistributedDataParallel(MMDistributedDataParallel):
    """``MMDistributedDataParallel`` that leaves the training step to the model.

    The model averages its gradients itself. mmengine's default wrapper, which calls ``forward`` and steps once, trains
    a ``DILEditModel`` just as well, except for ERM with more than one step per iteration and for float16.
    """

    def train_step(self, data: Any, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """``module.train_step``."""
        losses: dict[str, Tensor] = self.module.train_step(data, optim_wrapper)
        return losses
