"""What a distortion is, and the registry by whose names a YAML file finds it."""

from typing import TypeVar

import msgspec
import torch
from torch import Tensor

from dil_plugin.errors import OptionError
from dil_plugin.options import did_you_mean


class Distortion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One confounder ``d``: a random map ``I_d = g(I_c, d)`` of clean images at a fixed degree (or range of degrees).

    Subclasses declare their degrees as typed fields and write ``apply``; they may override ``scale`` and ``min_size``.
    They are called, not applied, so that the input is checked once and in one place.
    """

    def apply(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
        """The distorted batch; ``clean`` is ``(B, C, H, W)`` floating point in [0, 1] and is not to be changed.

        All randomness comes from ``generator``, which lives on the device of ``clean``.
        """
        raise TypeError(f'{type(self).__name__} does not define apply')

    @property
    def scale(self) -> int:
        """The clean image's size divided by the distorted one's: 1, or s for confounders of super-resolution."""
        return 1

    @property
    def min_size(self) -> int:
        """The least height and width of a clean image that the distortion can be applied to, in pixels."""
        return 1

    @property
    def label(self) -> str:
        """Type and degrees, as in ``GaussianNoise(sigma=20)``; names the confounder in logs and tables."""
        degrees = ', '.join(f'{name}={_short(value)}' for name, value in msgspec.structs.asdict(self).items())
        return f'{type(self).__name__}({degrees})'

    def __call__(self, clean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Distorts a batch.

        Args:
            clean: ``(B, C, H, W)``, floating point, values in [0, 1], any device.
            generator: Source of randomness on that device; None takes torch's global one.

        Returns:
            ``(B, C, H / scale, W / scale)``, same dtype and device, values in [0, 1].

        Raises:
            ValueError: The shape or dtype is another, or the image is too small for this distortion.
        """
        if clean.ndim != 4 or not clean.is_floating_point():
            raise ValueError(f'{self.label}: expected a floating point tensor (B, C, H, W), got {clean.dtype} '
                             f'{tuple(clean.shape)}')
        height, width = clean.shape[-2:]
        if min(height, width) < self.min_size:
            raise ValueError(f'{self.label}: needs images of at least {self.min_size}x{self.min_size} pixels, '
                             f'got {height}x{width}')
        if height % self.scale or width % self.scale:
            raise ValueError(f'{self.label}: image size {height}x{width} is not a multiple of its scale {self.scale}')
        return self.apply(clean, generator)


def _short(value: object) -> str:
    return f'{value:g}' if isinstance(value, float) else str(value)


D = TypeVar('D', bound=type[Distortion])


class DistortionRegistry:
    """Distortion classes by their names."""

    def __init__(self) -> None:
        self._classes: dict[str, type[Distortion]] = {}

    def register(self, cls: D) -> D:
        """Class decorator. Raises ValueError if the name is taken or the class is not a Distortion."""
        if not issubclass(cls, Distortion):
            raise ValueError(f'{cls.__name__} is not a Distortion')
        if cls.__name__ in self._classes:
            raise ValueError(f'a distortion named {cls.__name__} is registered already')
        self._classes[cls.__name__] = cls
        return cls

    def get(self, name: object, key: str = 'type') -> type[Distortion]:
        """The class of that name. Raises OptionError, naming the registered ones, if there is none."""
        if not isinstance(name, str) or name not in self._classes:
            raise OptionError(f"{key}: unknown distortion '{name}'; {did_you_mean(str(name), self._classes)}")
        return self._classes[name]

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(self._classes)


DISTORTION_REGISTRY = DistortionRegistry()
