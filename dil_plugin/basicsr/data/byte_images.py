"""Training patches travel as bytes, a quarter of float32, and become numbers in [0, 1] where the network is."""

import cv2
import numpy as np
import torch
from torch import Tensor


def byte_tensor(image: np.ndarray) -> Tensor:
    """``(H, W, 3)`` BGR uint8 to ``(3, H, W)`` RGB uint8, a copy of its own: nothing of a larger image stays alive."""
    return torch.from_numpy(np.stack(cv2.split(np.ascontiguousarray(image))[::-1]))


def on_device(images: Tensor, device: torch.device | str) -> Tensor:
    """Moves images to the device; bytes are moved as bytes and become float32 in [0, 1] there.

    Args:
        images: Of any shape; uint8 in 0 … 255, or numbers that stay as they are.
        device: Where to. From page-locked memory the copy does not hold the host up.

    Returns:
        ``images / 255`` where they are uint8, the same float32 values bit by bit on every device; otherwise ``images``.
    """
    moved = images.to(device, non_blocking=True)
    if moved.dtype != torch.uint8:
        return moved
    # by a tensor: by a number CUDA multiplies with a rounded 1 / 255, which is another float for some values
    return moved.to(torch.float32).div_(torch.full((), 255, dtype=torch.float32, device=device))
