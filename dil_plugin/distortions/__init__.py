"""The confounders: distortions of clean images, batched, on any device, reproducible from a ``torch.Generator``.

A new confounder is a frozen struct with a decorator::

    from typing import Annotated
    from msgspec import Meta
    from dil_plugin.distortions import DISTORTION_REGISTRY, Distortion

    @DISTORTION_REGISTRY.register
    class Darken(Distortion, frozen=True):
        \"\"\"``g(x) = x * factor``.\"\"\"

        factor: Annotated[float, Meta(gt=0, le=1)]

        def apply(self, clean, generator):
            return clean * self.factor

It can then be named in the ``distortions`` block of a YAML: ``{type: Darken, factor: [0.5, 0.8]}``. One that divides
the resolution by s overrides the property ``scale`` to return s.
"""

from dil_plugin.distortions.base import DISTORTION_REGISTRY, Distortion
from dil_plugin.distortions.blur import GaussianBlur
from dil_plugin.distortions.distortion_set import DistortionSet, parse_distortions
from dil_plugin.distortions.noise import GaussianNoise

__all__ = ['DISTORTION_REGISTRY', 'Distortion', 'DistortionSet', 'GaussianBlur', 'GaussianNoise', 'parse_distortions']
