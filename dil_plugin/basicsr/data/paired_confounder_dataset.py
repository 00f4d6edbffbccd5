"""Confounders from paired data: each of n sets of pairs is one confounder."""

from typing import Any

import numpy as np
import torch
from basicsr.data.transforms import augment, paired_random_crop
from basicsr.utils.registry import DATASET_REGISTRY
from torch import Tensor
from torch.utils import data

from dil_plugin.basicsr.data.bad_images import MARKER, first_usable
from dil_plugin.basicsr.data.byte_images import byte_tensor
from dil_plugin.basicsr.data.distortion_augmented_dataset import python_random_seeded, to_tensor
from dil_plugin.basicsr.data.draw_sampler import Draw
from dil_plugin.basicsr.data.image_reader import ImageReader
from dil_plugin.basicsr.data.paired_layouts import PairPaths, list_pairs, misfit, too_small
from dil_plugin.basicsr.data.paired_options import parse_paired_options
from dil_plugin.errors import DataError, UnusableImage


@DATASET_REGISTRY.register()
class PairedConfounderDataset(data.Dataset):
    """n sets of pairs of inputs and targets, each of which is a confounder (the paper's deraining).

    The sets have different images, so there are no counterfactuals: every set has pairs of its own. In training a
    sample holds patches, cropped, flipped and rotated as BasicSR's PairedImageDataset does it, RGB. With ``pairs: all``
    (for ``DILModel``), uint8, it holds

    * ``confounder_lq``: ``(n, 3, gt_size / scale, gt_size / scale)`` and ``confounder_gt``: ``(n, 3, gt_size,
      gt_size)``, the pair of every set;

    and with ``pairs: one`` (all that ``SRModel`` needs), float32 in [0, 1],

    * ``lq`` and ``gt``: one of these n pairs, drawn uniformly for every sample, with ``lq_path`` and ``gt_path``. The
      others are not read.

    So sets of different size weigh the same. Draw number d of the run takes the pair ``p[d mod N]`` of a set of N
    pairs, where p is a permutation that depends on the seed, the set and its pass ``d // N``: every N draws give each
    pair of the set once. A sample depends on the seed and on the number of its draw, not on the number of workers.

    With ``on_bad_image: skip`` a pair of which an image cannot be used gives way to the next good pair of its set, in
    the order of names, and a sample also holds ``skipped``, a text (``bad_images.MARKER``).

    In validation and testing it takes one set and gives whole images, the target cropped to ``scale`` times the input.

    Args:
        opt: The data set's block of a BasicSR YAML; see ``PairedDatasetOptions``, ``PairedSetOptions`` and, for the
            published sets that are read as they come, ``LAYOUTS``.

    Raises:
        OptionError: An option is unknown or wrong.
        DataError: The data are missing or incomplete; while reading: an image cannot be decoded, or the sizes of a pair
            do not fit each other or ``gt_size``.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__()
        self.opt = opt
        self.options, self.sets = parse_paired_options(opt, f'datasets.{opt.get("phase", "train")}')
        self.pairs = [list_pairs(one, self.options) for one in self.sets]
        self._reader = ImageReader()
        self._orders: list[tuple[int, Tensor]] = [(-1, torch.empty(0))] * len(self.sets)

    def __len__(self) -> int:
        return self.options.length or max(len(pairs) for pairs in self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.options.phase != 'train':
            return self._whole(index)
        seeds = self._seeds(index)
        skipped: list[str] = []
        sample: dict[str, Any]
        if self.options.pairs == 'one':
            drawn = int(torch.randint(len(self.sets), (), generator=torch.Generator().manual_seed(seeds[-1])))
            pair, lq, gt = self._patch(drawn, index, seeds[drawn], skipped)
            sample = {'lq': to_tensor(lq), 'gt': to_tensor(gt), 'lq_path': pair.lq, 'gt_path': pair.gt}
        else:
            patches = [self._patch(i, index, seeds[i], skipped)[1:] for i in range(len(self.sets))]
            lqs, gts = (torch.stack([byte_tensor(image) for image in side]) for side in zip(*patches, strict=True))
            sample = {'confounder_lq': lqs, 'confounder_gt': gts}
        if self.options.on_bad_image == 'skip':
            sample[MARKER] = '\n'.join(skipped)
        return sample

    def _position(self, i: int, index: int) -> int:
        """Which pair of set i the draw takes."""
        count = len(self.pairs[i])
        if not isinstance(index, Draw):  # of someone else's sampler: it has no number, but each pair's turn comes
            return index % count
        number, place = divmod(index.draw, count)
        if self._orders[i][0] != number:
            seed = np.random.SeedSequence([self.options.seed, i, number]).generate_state(1)
            self._orders[i] = number, torch.randperm(count, generator=torch.Generator().manual_seed(int(seed[0])))
        return int(self._orders[i][1][place])

    def _seeds(self, index: int) -> list[int]:
        """Seeds of one draw: for the patch of each set, and for the choice among them."""
        numbered = isinstance(index, Draw)  # otherwise the worker's own random stream decides
        entropy = [self.options.seed, index.draw] if numbered else torch.randint(2**31, (2, )).tolist()
        return [int(s) for s in np.random.SeedSequence(entropy).generate_state(len(self.sets) + 1)]

    def _patch(self, i: int, index: int, seed: int, skipped: list[str]) -> tuple[PairPaths, np.ndarray, np.ndarray]:
        """The pair that a draw takes of set i, its input ``(h, w, 3)`` and target ``(H, W, 3)``, BGR, uint8."""

        def load(position: int) -> tuple[PairPaths, np.ndarray, np.ndarray]:
            pair = self.pairs[i][position]
            lq, gt = self._read(i, pair)
            where = f'{pair.lq} and {pair.gt}'
            reason = misfit(lq.shape[:2], gt.shape[:2], self.options)
            if reason:  # the pairing is wrong, not the image
                raise DataError(f'{self.sets[i].key}: {where}: {reason}')
            gt = gt[:lq.shape[0] * self.options.scale, :lq.shape[1] * self.options.scale]  # a few pixels less, or none
            reason = too_small(gt.shape[:2], self.options)
            if reason:
                raise UnusableImage(f'{self.sets[i].key}: {where}: {reason}', where, reason)
            return pair, lq, gt

        if self.options.on_bad_image == 'error':
            pair, lq, gt = load(self._position(i, index))
        else:
            (pair, lq, gt), lines = first_usable(load, self._position(i, index), len(self.pairs[i]), self.sets[i].key)
            skipped += lines
        with python_random_seeded(seed):
            gt, lq = paired_random_crop(gt, lq, self.options.gt_size, self.options.scale, pair.gt)
            gt, lq = augment([gt, lq], self.options.use_hflip, self.options.use_rot)
        return pair, lq, gt

    def _whole(self, index: int) -> dict[str, Any]:
        pair, scale = self.pairs[0][index], self.options.scale
        lq, gt = self._read(0, pair)
        height, width = lq.shape[0] * scale, lq.shape[1] * scale
        if gt.shape[0] < height or gt.shape[1] < width:
            raise DataError(f'{self.sets[0].key}: {pair.lq} and {pair.gt}: the target has {gt.shape[0]}x{gt.shape[1]} '
                            f'pixels, less than scale {scale} times the {lq.shape[0]}x{lq.shape[1]} of the input')
        return {'lq': to_tensor(lq), 'gt': to_tensor(gt[:height, :width]), 'lq_path': pair.lq, 'gt_path': pair.gt}

    def _read(self, i: int, pair: PairPaths) -> tuple[np.ndarray, np.ndarray]:
        """The images of a pair, ``(H, W, 3)``, BGR, uint8."""
        one = self.sets[i]
        lq = self._reader.read(pair.lq, one.lq_root, one.io_backend, one.key)
        if one.order is None:
            return lq, self._reader.read(pair.gt, one.gt_root, one.io_backend, one.key)
        if lq.shape[1] % 2:
            raise DataError(f'{one.key}: {pair.lq} in {one.lq_root} is {lq.shape[1]} pixels wide, which are no two '
                            'halves side by side')
        left, right = np.split(lq, 2, axis=1)
        return (left, right) if one.order == 'lq_gt' else (right, left)
