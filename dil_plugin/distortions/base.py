"""What a distortion is, and the registry by whose names a YAML file finds it."""

import itertools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import torch
from torch import Tensor
from typing_extensions import Self

from dil_plugin.distortions.degrees import Uniform
from dil_plugin.errors import OptionError
from dil_plugin.options import convert, did_you_mean, explain, in_words

_HALF = (torch.float16, torch.bfloat16)
_TOLERANCE = 0.05  # for what interpolation overshoots; another scale is far beyond it


class Distortion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One confounder ``d``: a random map ``I_d = g(I_c, d)`` of clean images at a fixed degree (or range of degrees).

    Subclasses declare their degrees as typed fields and write ``apply``; they may override ``scale`` and ``min_size``.
    They are called, not applied, so that the input is checked once and in one place.
    """

    def __post_init__(self) -> None:
        """Holds every field to its annotation, and both ends of a ``Uniform`` to the limits of a number."""
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Uniform):
                for index, end in enumerate(value.uniform):
                    _check_number(end, field.type, f'{field.encode_name}.uniform[{index}]')
            elif isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f'.{field.encode_name}: Expected a finite number; got {value!r}')
            try:
                msgspec.convert(value, field.type)
            except msgspec.ValidationError as error:
                name = field.encode_name
                raise ValueError(explain(f'{error} - at `$.{name}`', {name: value}, type(self), '')) from None

    def apply(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
        """The distorted batch; ``clean`` is ``(B, C, H, W)`` float32 or float64 in [0, 1] and is not to be changed.

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
        """Type and degrees, without those at their defaults, as in ``GaussianNoise(sigma=20)``; for logs and tables."""
        degrees = [f'{field.encode_name}={_short(getattr(self, field.name))}'
                   for field in msgspec.structs.fields(self) if getattr(self, field.name) != field.default]
        return f'{type(self).__name__}({", ".join(degrees)})' if degrees else type(self).__name__

    def apply_together(self, cleans: Sequence[Tensor], generator: torch.Generator | None) -> list[Tensor]:
        """``[apply(clean, generator) for clean in cleans]``, every one with draws of its own.

        To be overridden where part of the work can be done for all at once; the batches have one size of image.
        """
        return [self.apply(clean, generator) for clean in cleans]

    @torch.no_grad()
    def together(self, cleans: Sequence[Tensor], generator: torch.Generator | None = None) -> list[Tensor]:
        """Distorts several batches, each as a call of its own would, with the work that they share done once.

        Args:
            cleans: Batches as ``__call__`` takes them, of equal height and width, dtype and device.
            generator: Source of randomness on that device; None takes torch's global one.

        Returns:
            The distorted batches. What is drawn per call is drawn for each batch.

        Raises:
            ValueError: As ``__call__``, or the batches differ in size.
        """
        for clean in cleans:
            self._check(clean, generator)
        if len({(clean.shape[1:], clean.dtype, clean.device) for clean in cleans}) > 1:
            raise ValueError(f'{self.label}: batches that are distorted together must be alike, got '
                             f'{", ".join(f"{clean.dtype} {tuple(clean.shape)}" for clean in cleans)}')
        if not cleans:
            return []
        if cleans[0].dtype in _HALF:
            distorted = self.apply_together([clean.float() for clean in cleans], generator)
            return [images.to(cleans[0].dtype) for images in distorted]
        return self.apply_together(cleans, generator)

    @torch.no_grad()
    def __call__(self, clean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Distorts a batch; no gradient flows through it.

        Args:
            clean: ``(B, C, H, W)``, floating point, values in [0, 1], any device. Half precision is computed in
                float32.
            generator: Source of randomness on that device; None takes torch's global one.

        Returns:
            ``(B, C, H / scale, W / scale)``, same dtype and device, values in [0, 1].

        Raises:
            ValueError: The shape or dtype is another, or the image is too small for this distortion; on the CPU also
                where the values are on another scale, such as 0 to 255.
        """
        self._check(clean, generator)
        if clean.dtype in _HALF:
            return self.apply(clean.float(), generator).to(clean.dtype)
        return self.apply(clean, generator)

    def _check(self, clean: Tensor, generator: torch.Generator | None) -> None:
        if not isinstance(clean, Tensor) or not isinstance(generator, torch.Generator | None):
            raise ValueError(f'{self.label}: expected a tensor, and a torch.Generator or None, got '
                             f'{type(clean).__name__} and {type(generator).__name__}')
        if clean.ndim != 4 or not clean.is_floating_point():
            raise ValueError(f'{self.label}: expected a floating point tensor (B, C, H, W), got {clean.dtype} '
                             f'{tuple(clean.shape)}')
        height, width = clean.shape[-2:]
        if min(height, width) < self.min_size:
            raise ValueError(f'{self.label}: needs images of at least {self.min_size}x{self.min_size} pixels, '
                             f'got {height}x{width}')
        if height % self.scale or width % self.scale:
            raise ValueError(f'{self.label}: image size {height}x{width} is not a multiple of its scale {self.scale}')
        if clean.device.type == 'cpu' and clean.numel():  # elsewhere the host would have to wait for the device
            _check_range(clean, self.label)

    @classmethod
    def expand(cls, options: Mapping[str, Any], key: str) -> list[Self]:
        """The confounders of one YAML block: a list where a single value is expected makes one per value.

        Several lists make their product, the last running fastest.

        Args:
            options: The block without its ``type``.
            key: Where it stands, for messages.

        Raises:
            OptionError: An option is unknown or wrong.
        """
        fields = {field.encode_name for field in msgspec.structs.fields(cls)}
        many = [name for name, value in options.items()
                if isinstance(value, list) and name in fields and not _holds_lists(cls, name)]
        for name in many:
            if not options[name]:
                raise OptionError(f'{key}.{name}: the list is empty; give at least one value')
        return [
            convert({**options, **dict(zip(many, values, strict=True))}, cls, key)
            for values in itertools.product(*(options[name] for name in many))
        ]


def _members(hint: Any) -> list[Any]:
    """The alternatives of a field's type; ``Annotated`` stays around them."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [member for part in typing.get_args(hint) for member in _members(part)]
    return [hint]


def _bare(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def _holds_lists(cls: type[Distortion], name: str) -> bool:
    """Whether the field is itself a list or tuple, so that a list in the YAML is one value."""
    hints = {field.encode_name: field.type for field in msgspec.structs.fields(cls)}
    return any(typing.get_origin(_bare(member)) in (list, tuple) for member in _members(_bare(hints.get(name))))


def _check_number(number: float, hint: Any, where: str) -> None:
    for member in _members(hint):
        if _bare(member) in (int, float):
            try:
                msgspec.convert(number, member)
            except msgspec.ValidationError as error:
                raise ValueError(f'.{where}: {in_words(str(error))}; got {number!r}') from None
            return


def _check_range(clean: Tensor, label: str) -> None:
    low, high = (float(end) for end in clean.detach().aminmax())
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        raise ValueError(f'{label}: expected values in [0, 1], got {low:g} to {high:g}')


def _short(value: object) -> str:
    if isinstance(value, tuple | list):
        return f'({", ".join(map(_short, value))})'
    if isinstance(value, Distortion):
        return value.label
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

    def parse(self, raw: Any, key: str) -> list[Distortion]:
        """The confounders of one block ``{type: NAME, DEGREE: VALUE or [VALUES]}``.

        Raises:
            OptionError: It is no block, or the type or an option is unknown or wrong.
        """
        if not isinstance(raw, Mapping) or 'type' not in raw:
            raise OptionError(f'{key}: expected a block with type, one of {", ".join(self.names())}; got {raw!r}')
        options = {name: value for name, value in raw.items() if name != 'type'}
        return list(self.get(raw['type'], f'{key}.type').expand(options, key))


DISTORTION_REGISTRY = DistortionRegistry()
