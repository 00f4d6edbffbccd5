"""Between the images that the network sees and those that the confounders distort."""

from mmagic.models.data_preprocessors import DataPreprocessor
from torch import Tensor

from dil_plugin.errors import OptionError

_WHITE = 255.0


class ImageSpace:
    """The normalisation of a ``DataPreprocessor``, there and back.

    The network sees ``y = (255 p(x) - mean) / std``, where ``x`` is RGB in [0, 1] and ``p`` puts the channels into the
    order of the network. With mean 0, std 255 and RGB both are the same, and nothing is computed.

    Args:
        preprocessor: The model's.
        order: Of the channels that the network sees, ``RGB``, ``BGR`` or ``single``.
    """

    def __init__(self, preprocessor: DataPreprocessor, order: str) -> None:
        # in double precision, so that mean 0 and std 255 are seen to be exactly that
        self.offset = preprocessor.mean.double() / _WHITE
        self.gain = preprocessor.std.double() / _WHITE
        self.swaps = order.upper() == 'BGR'
        self.scales = bool((self.offset != 0).any() or (self.gain != 1).any())

    def to_unit(self, images: Tensor) -> Tensor:
        """What the network sees, ``(…, C, H, W)``, as RGB in [0, 1]."""
        if self.scales:  # rounding must not leave [0, 1]: Poisson noise has no negative intensities
            images = (images * self.gain.to(images) + self.offset.to(images)).clamp_(0, 1)
        return images.flip(-3) if self.swaps else images

    def to_network(self, images: Tensor) -> Tensor:
        """RGB in [0, 1], ``(…, C, H, W)``, as the network is to see it."""
        images = images.flip(-3) if self.swaps else images
        return (images - self.offset.to(images)) / self.gain.to(images) if self.scales else images

    @property
    def same(self) -> bool:
        """Whether both are the same."""
        return not self.scales and not self.swaps


def bytes_to_unit(images: Tensor, order: str) -> Tensor:
    """Images of the pipeline, ``(…, C, H, W)`` from 0 to 255 in the given order of channels, as RGB in [0, 1]."""
    images = images.float() / _WHITE
    return images.flip(-3) if order.upper() == 'BGR' and images.shape[-3] == 3 else images


def check_preprocessor(preprocessor: object) -> None:
    """Raises OptionError unless the clean images can be had from it as the network sees them."""
    key = 'model.data_preprocessor'
    if not isinstance(preprocessor, DataPreprocessor):
        raise OptionError(f"{key}: got {type(preprocessor).__name__}; allowed: DataPreprocessor, as in dict(type="
                          "'DataPreprocessor', mean=[0., 0., 0.], std=[255., 255., 255.])")
    if not hasattr(preprocessor, 'mean'):
        raise OptionError(f'{key}.mean: None; give mean=[0., 0., 0.] and std=[255., 255., 255.] for images in [0, 1]')
    keys = preprocessor.data_keys or []
    if 'gt_img' not in keys or 'counterfactuals' in keys:
        raise OptionError(f"{key}.data_keys: got {keys!r}; it must hold 'gt_img', and not 'counterfactuals', which the "
                          'model normalises itself')
    if not preprocessor.stack_data_sample:
        raise OptionError(f'{key}.stack_data_sample: got False; allowed: True')
