"""The confounders in the data pipeline."""

import os
from typing import Any

import numpy as np
import torch
from mmagic.registry import TRANSFORMS
from mmcv.transforms import BaseTransform
from mmengine.dist import get_rank
from torch import Tensor

from dil_plugin.distortions.fixed import fixed_generator
from dil_plugin.errors import DataError
from dil_plugin.mmagic.image_space import bytes_to_unit
from dil_plugin.mmagic.options import parse_transform_options
from dil_plugin.mmagic.wording import names_of_the_config


@TRANSFORMS.register_module()
class CounterfactualDistortions(BaseTransform):
    """Makes distorted versions of the clean image (counterfactual distortion augmentation).

    Required keys: the clean image ``key``, ``(H, W, C)`` from 0 to 255, uint8 or floating point, in the channel order
    that ``<key>_channel_order`` says (BGR where it is missing), and for mode ``fixed`` also ``<key>_path``.

    With mode ``random`` it adds

    * ``img``: the image under one confounder, drawn anew for every sample, ``(h, w, C)`` float32 from 0 to 255 in the
      same channel order (all that a plain ``BaseEditModel`` needs, which trains ERM with it);
    * ``counterfactuals``: ``(n, C, h, w)`` float32 likewise, the image under every confounder; to be packed by
      ``PackInputs(data_keys=['counterfactuals'])`` for ``DILEditModel``.

    The draws follow numpy's global generator, which mmengine seeds in every data worker, and ``seed``.

    With mode ``fixed`` it adds ``img`` under the one distortion. The randomness depends on ``seed``, the names of
    folder and image, and the distortion alone: it is that of ``tools/reproduce.py`` where the folder has the
    benchmark's name. The clean image is cropped to a multiple of the distortion's scale.

    Transforms that move pixels (flips, crops) belong before it: after it they must move all of its images alike, which
    a training and a validation look at before they begin (``alignment``).

    Args:
        distortions: The confounders, as those of ``DILEditModel``; with mode ``fixed`` one.
        options: See ``TransformOptions``: ``mode``, ``key``, ``seed``, ``counterfactuals``, ``dataset``.

    Raises:
        OptionError: An option is unknown or wrong.
    """

    @names_of_the_config()
    def __init__(self, distortions: Any, **options: Any) -> None:
        self.options, self.distortions = parse_transform_options({'distortions': distortions, **options})

    @names_of_the_config()
    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Adds the distorted versions to the results."""
        key = self.options.key
        if key not in results:
            raise DataError(f"CounterfactualDistortions: the pipeline has no '{key}' before it, only "
                            f'{", ".join(results)}')
        image = results[key]
        if np.issubdtype(image.dtype, np.floating) and image.max() <= 1 and (image % 1).any():
            raise DataError(f'CounterfactualDistortions: {key} lies in [0, 1]; expected 0 to 255: remove '
                            'RescaleToZeroOne or the like before it')
        order = str(results.get(f'{key}_channel_order', 'bgr'))
        results['img_channel_order'] = order
        if f'{key}_color_type' in results:
            results['img_color_type'] = results[f'{key}_color_type']
        try:
            (self._fixed if self.options.mode == 'fixed' else self._random)(results, order)
        except ValueError as error:  # the image is too small for a distortion, or no multiple of its scale
            raise DataError(f"image '{results.get(f'{key}_path', '')}': {error}") from None
        results['ori_img_shape'] = results['img'].shape
        return results

    def _random(self, results: dict[str, Any], order: str) -> None:
        clean = _to_unit(results[self.options.key], order)
        drawn = np.random.randint(2**31, size=2).tolist()  # noqa: NPY002  mmengine's stream of this worker
        entropy = [self.options.seed, get_rank(), *drawn]
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        confounder = self.distortions[int(self.distortions.draw(1, generator))]
        results['img'] = _image(confounder(clean, generator), order)
        if self.options.counterfactuals:
            versions = torch.cat(self.distortions.counterfactuals(clean, generator))
            results['counterfactuals'] = _to_bytes(versions, order).contiguous()

    def _fixed(self, results: dict[str, Any], order: str) -> None:
        key, distortion = self.options.key, self.distortions[0]
        height, width = (side - side % distortion.scale for side in results[key].shape[:2])
        results[key] = np.ascontiguousarray(results[key][:height, :width])
        folder, file = os.path.split(str(results[f'{key}_path']))
        dataset = self.options.dataset or os.path.basename(os.path.abspath(folder)).removesuffix('.lmdb')
        generator = fixed_generator(self.options.seed, dataset, os.path.splitext(file)[0], distortion.label)
        results['img'] = _image(distortion(_to_unit(results[key], order), generator), order)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.options.mode}: {", ".join(self.distortions.labels)})'


def _to_unit(image: np.ndarray, order: str) -> Tensor:
    """``(H, W, C)`` from 0 to 255 as ``(1, C, H, W)`` RGB in [0, 1]."""
    image = image[..., None] if image.ndim == 2 else image
    return bytes_to_unit(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None], order).contiguous()


def _image(images: Tensor, order: str) -> np.ndarray:
    """The first image, ``(H, W, C)`` float32 from 0 to 255, in memory of its own in that order, as OpenCV wants it."""
    return _to_bytes(images, order)[0].permute(1, 2, 0).contiguous().numpy()


def _to_bytes(images: Tensor, order: str) -> Tensor:
    """``(…, C, H, W)`` RGB in [0, 1] as float32 from 0 to 255 in the given order of channels."""
    images = images * 255
    return images.flip(-3) if order.upper() == 'BGR' and images.shape[-3] == 3 else images
