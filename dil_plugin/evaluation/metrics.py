"""PSNR and SSIM as BasicSR computes them; LPIPS and others through pyiqa where it is installed."""

import importlib.util
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dil_plugin.errors import DataError, OptionError
from dil_plugin.options import did_you_mean

Image = npt.NDArray[np.uint8]

ALWAYS = ('psnr', 'ssim')


def psnr_ssim(restored: Image, clean: Image, channel: str = 'RGB', crop_border: int = 0) -> dict[str, float | None]:
    """PSNR in dB and SSIM in [0, 1], by BasicSR's ``calculate_psnr`` and ``calculate_ssim``.

    ``PSNR = 10 log10(255^2 / MSE)`` over all pixels and channels; SSIM of Wang et al. (2004), Gaussian window of 11
    with sigma 1.5, without padding, averaged over channels.

    Args:
        restored: ``(H, W, 3)`` uint8, BGR.
        clean: The same.
        channel: ``RGB``, or ``Y``: the luma of ITU-R BT.601 in its range 16 to 235, as MATLAB's ``rgb2ycbcr``, not
            rounded.
        crop_border: Pixels left out along every border.

    Returns:
        ``psnr``, None where the images are equal, and ``ssim``, None where what is left is smaller than its window.

    Raises:
        DataError: Nothing is left inside the border.
    """
    import dil_plugin.basicsr  # noqa: F401
    # isort: split
    from basicsr.metrics import calculate_psnr, calculate_ssim
    left = min(clean.shape[:2]) - 2 * crop_border
    if left < 1:
        raise DataError(f'an image of {clean.shape[1]}x{clean.shape[0]} pixels has nothing left inside a border of '
                        f'{crop_border}')
    settings = {'crop_border': crop_border, 'input_order': 'HWC', 'test_y_channel': channel == 'Y'}
    psnr = float(calculate_psnr(restored, clean, **settings)) if not np.array_equal(restored, clean) else math.inf
    large = left >= 11
    return {'psnr': psnr if math.isfinite(psnr) else None,
            'ssim': float(calculate_ssim(restored, clean, **settings)) if large else None}


class PyiqaMetrics:
    """Further metrics by their names in pyiqa, on RGB images rounded to 8 bits.

    Args:
        names: Such as ``lpips``, ``dists``, ``niqe``.
        device: Where they are computed.

    Raises:
        OptionError: pyiqa is not installed, does not know a name, or cannot build it (its weights are downloaded).
    """

    def __init__(self, names: Sequence[str], device: str | torch.device = 'cpu') -> None:
        self._metrics: dict[str, Callable[..., Any]] = {}
        self.lower_is_better: list[str] = []
        self.device = torch.device(device)
        if not names:
            return
        for k, name in enumerate(names):
            if name in ALWAYS or name in names[:k]:
                raise OptionError(f'--metric {name}: {"is always there" if name in ALWAYS else "given twice"}; '
                                  'allowed: other metrics of pyiqa, such as lpips')
        if importlib.util.find_spec('pyiqa') is None:
            raise OptionError(f'--metric {names[0]}: psnr and ssim are always there; others need pyiqa '
                              '(pip install pyiqa)')
        import dil_plugin.basicsr  # noqa: F401
        # isort: split
        import pyiqa
        for name in names:
            known = pyiqa.list_models()
            if name not in known:
                raise OptionError(f"--metric: unknown metric '{name}'; {did_you_mean(name, known)}")
            try:
                metric = pyiqa.create_metric(name, device=self.device)
            except Exception as error:  # a download that fails comes in many kinds
                raise OptionError(f'--metric {name}: pyiqa cannot build it: {" ".join(str(error).split())}') from None
            self._metrics[name] = metric
            if metric.lower_better:
                self.lower_is_better.append(name)

    @property
    def names(self) -> list[str]:
        """Their names, in the order given."""
        return list(self._metrics)

    def __call__(self, restored: Image, clean: Image) -> dict[str, float | None]:
        """The metrics of one image; both are ``(H, W, 3)`` uint8, BGR. None where a metric is not finite."""
        if not self._metrics:
            return {}
        pair = [self._tensor(image) for image in (restored, clean)]
        values = {}
        for name, metric in self._metrics.items():
            # no-reference metrics take the second image and leave it aside
            value = float(metric(*pair))
            values[name] = value if math.isfinite(value) else None
        return values

    def _tensor(self, image: Image) -> torch.Tensor:
        rgb = np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))
        return (torch.from_numpy(rgb).to(self.device, non_blocking=True).float() / 255)[None]
