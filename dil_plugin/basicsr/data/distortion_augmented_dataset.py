"""Clean images in, distorted and clean patches out."""

import contextlib
import os
import random
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import torch
from basicsr.data.transforms import augment, mod_crop, paired_random_crop
from basicsr.utils import img2tensor
from basicsr.utils.registry import DATASET_REGISTRY
from torch import Tensor
from torch.utils import data

from dil_plugin.basicsr.data.bad_images import MARKER, first_usable
from dil_plugin.basicsr.data.byte_images import byte_tensor
from dil_plugin.basicsr.data.draw_sampler import Draw
from dil_plugin.basicsr.data.image_list import clean_images
from dil_plugin.basicsr.data.image_reader import ImageReader
from dil_plugin.basicsr.data.options import parse_dataset_options
from dil_plugin.distortions import DistortionSet, parse_distortions, usm_sharpen
from dil_plugin.distortions.fixed import fixed_generator
from dil_plugin.errors import DataError, OptionError, UnusableImage


@DATASET_REGISTRY.register()
class DistortionAugmentedDataset(data.Dataset):
    """Clean images, distorted by the confounders of the ``distortions`` block (counterfactual augmentation).

    In training it gives random patches, flipped and rotated as BasicSR does. With ``distort_on: worker`` a sample holds

    * ``gt``: the clean patch, ``(3, gt_size, gt_size)``, RGB in [0, 1], float32, cut after distortion from one of
      ``crop_pad_size`` where that is given;
    * ``lq``: the patch under one confounder, drawn anew for every sample (all that ``SRModel`` needs);
    * ``counterfactuals``: ``(n, 3, h, w)``, the patch under every confounder (for ``DILModel``);

    with ``distort_on: device`` it holds ``gt`` alone, of ``crop_pad_size``, as uint8, and ``DILModel`` distorts whole
    batches on the GPU and cuts the patches. Either way an image is decoded once per sample. A sample depends on the
    seed and on the number of its draw, not on the number of workers. With ``on_bad_image: skip`` a sample also holds
    ``skipped``, a text (``bad_images.MARKER``), and with a bad image the patch of the next good one.

    In validation and testing it gives whole images, cropped to a multiple of ``scale``, with one fixed distortion whose
    randomness depends on ``seed``, the names of folder and image and the distortion alone: all methods see the same
    noise, and it is that of ``tools/reproduce.py`` where the folder has the benchmark's name.

    Args:
        opt: The data set's block of a BasicSR YAML; see ``DatasetOptions``.

    Raises:
        OptionError: An option is unknown or wrong.
        DataError: The data are missing, incomplete or too small.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__()
        self.opt = opt
        self.key = f'datasets.{opt.get("phase", "train")}'
        self.options = parse_dataset_options(opt, self.key)
        self.distortions: DistortionSet = parse_distortions(opt.get('distortions'), f'{self.key}.distortions')
        self.train = self.options.phase == 'train'
        if not self.train and len(self.distortions) != 1:
            raise OptionError(f'{self.key}.distortions: a validation or test set takes one distortion, got '
                              f'{", ".join(self.distortions.labels)}; give one data set per degree')
        self.paths = clean_images(self.options, self.key)
        self._reader = ImageReader()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not self.train:
            return self._whole_image(self.paths[index], self._read(self.paths[index]))
        if self.options.on_bad_image == 'error':
            return self._sample(*self._clean(index), index)
        (path, image), skipped = first_usable(self._clean, index, len(self.paths), self.key)
        return {**self._sample(path, image, index), MARKER: '\n'.join(skipped)}

    def _clean(self, index: int) -> tuple[str, np.ndarray]:
        """A training image and its path; raises UnusableImage."""
        path, size = self.paths[index], self.options.gt_size
        image = self._read(path)
        height, width = image.shape[:2]
        if min(height, width) < size:
            name, reason = f"image '{path}'", f'{height}x{width} pixels are less than {self.key}.gt_size {size}'
            where = f'of {self.key}.dataroot_gt {self.options.dataroot_gt}'
            raise UnusableImage(f'{name} {where}: {reason}', f'{name} {where}', reason)
        return path, image

    def _sample(self, path: str, image: np.ndarray, index: int) -> dict[str, Any]:
        """A training sample of draw ``index`` from an image."""
        seeds = self._seeds(index)
        with python_random_seeded(seeds[0]):
            patch = self._patch(image, path)
            corner = self._corner()
        if self.options.distort_on == 'device':  # DILModel does all that follows
            return {'gt': byte_tensor(patch), 'gt_path': path}
        gt = to_tensor(patch)
        if self.options.gt_usm:
            gt = usm_sharpen(gt[None])[0]
        generator = torch.Generator().manual_seed(seeds[1])
        drawn = self.distortions[int(self.distortions.draw(1, generator))]
        sample: dict[str, Any] = {'gt': gt, 'lq': drawn(gt[None], generator)[0], 'gt_path': path, 'lq_path': path}
        if self.options.counterfactuals:
            sample['counterfactuals'] = torch.cat(self.distortions.counterfactuals(gt[None], generator))
        self._cut(sample, corner)
        return sample

    def _whole_image(self, path: str, image: np.ndarray) -> dict[str, Any]:
        gt = to_tensor(mod_crop(image, self.options.scale))
        distortion = self.distortions[0]
        name = os.path.splitext(os.path.basename(path))[0]
        root = os.path.basename(os.path.normpath(self.options.dataroot_gt)).removesuffix('.lmdb')
        generator = fixed_generator(self.options.seed, root, name, distortion.label)
        try:
            lq = distortion(gt[None], generator)[0]
        except ValueError as error:  # the image is too small for the distortion
            raise DataError(f"image '{path}' of {self.key}.dataroot_gt: {error}") from None
        return {'gt': gt, 'lq': lq, 'gt_path': path, 'lq_path': path}

    def _read(self, path: str) -> np.ndarray:
        """The image, ``(H, W, 3)``, BGR, uint8."""
        return self._reader.read(path, self.options.dataroot_gt, self.options.io_backend, f'{self.key}.dataroot_gt')

    def _patch(self, image: np.ndarray, path: str) -> np.ndarray:
        size = self.options.synthesis_size
        height, width = image.shape[:2]
        if min(height, width) < size:  # larger than gt_size, smaller than crop_pad_size
            image = cv2.copyMakeBorder(image, 0, max(0, size - height), 0, max(0, size - width), cv2.BORDER_REFLECT_101)
        patch, _ = paired_random_crop(image, image, size, 1, path)
        return augment(patch, self.options.use_hflip, self.options.use_rot)

    def _corner(self) -> tuple[int, int]:
        """Where the patch of ``gt_size`` is cut from the distorted crop, in pixels of the distorted image."""
        room = (self.options.synthesis_size - self.options.gt_size) // self.options.scale
        return (random.randint(0, room), random.randint(0, room)) if room else (0, 0)

    def _cut(self, sample: dict[str, Any], corner: tuple[int, int]) -> None:
        """Cuts the patch of ``gt_size`` from the clean crop and its versions; DILModel does it for ``device``."""
        if self.options.synthesis_size == self.options.gt_size:
            return
        for name, scale in (('gt', self.options.scale), ('lq', 1), ('counterfactuals', 1)):
            if name in sample:
                side = self.options.gt_size // self.options.scale * scale
                top, left = (place * scale for place in corner)
                sample[name] = sample[name][..., top:top + side, left:left + side].contiguous()

    def _seeds(self, index: int) -> list[int]:
        """Seeds for the patch and for the distortions of one draw."""
        # an index of someone else's sampler has no number: the worker's own random stream decides
        numbered = isinstance(index, Draw)
        entropy = [self.options.seed, index.draw] if numbered else torch.randint(2**31, (2, )).tolist()
        return [int(s) for s in np.random.SeedSequence(entropy).generate_state(2)]


def to_tensor(image: np.ndarray) -> Tensor:
    """``(H, W, 3)`` BGR uint8 to ``(3, H, W)`` RGB float32 in [0, 1]."""
    return img2tensor(np.ascontiguousarray(image), bgr2rgb=True, float32=True) / 255


@contextlib.contextmanager
def python_random_seeded(seed: int) -> Iterator[None]:
    """Seeds Python's global generator, which BasicSR's transforms draw from, and puts its state back afterwards."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
