"""Makes ``import torchvision`` work beside a CPU build of torch, where its CUDA build finds no operators of its own."""

import torch

_definitions: torch.library.Library | None = None


def import_torchvision() -> None:
    """Imports torchvision; beside a CPU torch its CUDA operators cannot load, and their fake kernels lack schemas.

    Nothing changes where torchvision imports by itself.
    """
    global _definitions
    try:
        import torchvision
    except RuntimeError as error:
        if 'operator torchvision::nms does not exist' not in str(error):
            raise
        library = torch.library.Library('torchvision', 'FRAGMENT')
        library.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        library.define('qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        _definitions = library  # they live as long as the object
        import torchvision  # noqa: F401
