"""Which device a tool runs on."""

import torch

from dil_plugin.errors import OptionError


def choose_device(name: str) -> str:
    """A device by its name; ``auto`` is a GPU where there is one.

    Raises:
        OptionError: There is no such device.
    """
    if name == 'auto':
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ('cpu', 'cuda'):
        raise OptionError(f"--device: got '{name}'; allowed: auto, cpu, cuda, cuda:N")
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise OptionError(f"--device: got '{name}', but there are {torch.cuda.device_count()} GPUs here")
    return name
