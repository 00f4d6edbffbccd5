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

It can then be named in the ``distortions`` block of a YAML: ``{type: Darken, factor: [0.5, 0.8]}``. A degree declared
as ``float | Uniform`` can be a range, ``factor: {uniform: [0.5, 0.8]}``, of which ``draw(self.factor, clean,
generator)`` takes one value per sample (``degrees.py``). A distortion that divides the resolution by s has a property
or field ``scale`` of that value; one that needs a least image size has ``min_size``.

``noise``, ``blur``, ``mixed_blur``, ``jpeg``, ``resize``, ``hybrid``, ``real_esrgan``, ``camera`` and ``rain`` hold the
confounders of the paper, ``composition`` what makes new ones of them in YAML alone. The functions that they stand on
(``filtering``, ``kernels``, ``jpeg_codec``, ``resize_matrices``, ``isp``) take one parameter per sample.
"""

from dil_plugin.distortions.base import DISTORTION_REGISTRY, Distortion
from dil_plugin.distortions.blur import (
    AnisotropicGaussianBlur,
    GaussianBlur,
    GeneralizedGaussianBlur,
    PlateauBlur,
    SincBlur,
)
from dil_plugin.distortions.camera import CameraNoise
from dil_plugin.distortions.composition import Compose, OneOf
from dil_plugin.distortions.degrees import Uniform, draw, per_sample
from dil_plugin.distortions.distortion_set import DistortionSet, parse_distortions
from dil_plugin.distortions.filtering import usm_sharpen
from dil_plugin.distortions.hybrid import Hybrid
from dil_plugin.distortions.jpeg import JPEG
from dil_plugin.distortions.mixed_blur import MixedBlur
from dil_plugin.distortions.noise import GaussianNoise, PoissonNoise
from dil_plugin.distortions.rain import HeavyRain, RainStreaks
from dil_plugin.distortions.real_esrgan import RealESRGAN
from dil_plugin.distortions.resize import Downsample, Resize
from dil_plugin.distortions.scaling import scaling_entry

__all__ = [
    'DISTORTION_REGISTRY',
    'AnisotropicGaussianBlur',
    'CameraNoise',
    'Compose',
    'Distortion',
    'DistortionSet',
    'Downsample',
    'GaussianBlur',
    'GaussianNoise',
    'GeneralizedGaussianBlur',
    'HeavyRain',
    'Hybrid',
    'JPEG',
    'MixedBlur',
    'OneOf',
    'PlateauBlur',
    'PoissonNoise',
    'RainStreaks',
    'RealESRGAN',
    'Resize',
    'SincBlur',
    'Uniform',
    'draw',
    'parse_distortions',
    'per_sample',
    'scaling_entry',
    'usm_sharpen',
]
