"""JPEG compression."""

from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from dil_plugin.distortions.base import DISTORTION_REGISTRY, Distortion
from dil_plugin.distortions.degrees import Uniform, draw
from dil_plugin.distortions.jpeg_codec import LIBJPEG, compress

Quality = Annotated[float, Meta(ge=1, le=100, description='Quality of the encoder, 1 to 100.')]


@DISTORTION_REGISTRY.register
class JPEG(Distortion, frozen=True):
    """JPEG compression and decompression with the tables, 4:2:0 chroma and 8-bit rounding of libjpeg's defaults.

    See ``jpeg_codec.py``; grey images are compressed as such.

    Attributes:
        quality: Of the encoder, 1 (worst) to 100, rounded to an integer.
    """

    quality: Quality | Uniform

    def apply(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
        """See the class."""
        return compress(clean, draw(self.quality, clean, generator), LIBJPEG)
