"""Contact sheets of confounders: what a YAML file does to images, before anybody trains on it."""

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import yaml
from matplotlib.figure import Figure
from torch import Tensor

from dil_plugin.distortions import Distortion, parse_distortions, usm_sharpen
from dil_plugin.errors import OptionError
from dil_plugin.evaluation.plots import Panel, side_by_side

_LETTER = 8  # pixels that a letter of a caption takes


class Group(NamedTuple):
    """Distortions that stand together in a YAML file.

    Attributes:
        name: Where: ``distortions``, ``datasets.train``, or ``validation`` for the other data sets together.
        distortions: One per panel.
    """

    name: str
    distortions: list[Distortion]


def distortion_groups(options: Any, source: str) -> list[Group]:
    """The distortions of a YAML file.

    Args:
        options: What the file holds: a BasicSR options file with a ``distortions`` block at the top or in its data
            sets, or such a block alone (a list).
        source: The file's name, for messages.

    Raises:
        OptionError: There are none, or they are wrong.
    """
    if isinstance(options, list):
        return [Group('distortions', list(parse_distortions(options)))]
    if not isinstance(options, Mapping):
        raise OptionError(f'{source}: expected a BasicSR options file or a list of distortions, got {options!r}')
    datasets = options.get('datasets')
    own = {f'datasets.{name}': dataset['distortions']
           for name, dataset in (datasets.items() if isinstance(datasets, Mapping) else ())
           if isinstance(dataset, Mapping) and dataset.get('distortions') is not None}
    training = {'distortions': options['distortions']} if options.get('distortions') is not None else {}
    training.update((name, own.pop(name)) for name in ('datasets.train', ) if name in own)
    groups = [_group(name, {name: block}) for name, block in training.items()]
    groups += [_group('validation', own)] if own else []
    if not groups:
        raise OptionError(f'{source}: neither the top level nor a data set has a distortions block')
    return groups


def _group(name: str, blocks: Mapping[str, Any]) -> Group:
    """The distortions of some blocks, each once."""
    found: list[Distortion] = []
    for key, block in blocks.items():
        parsed = parse_distortions(block, key if key.endswith('distortions') else f'{key}.distortions')
        found += parsed if len(blocks) == 1 else [d for d in parsed if d not in found]
    return Group(name, found)


def contact_sheet(images: Sequence[npt.NDArray[np.uint8]],
                  groups: Sequence[Group],
                  *,
                  draws: int = 1,
                  columns: int = 6,
                  seed: int = 0,
                  sharpen: bool = False,
                  title: str = '') -> Figure:
    """Every distortion of every group beside the clean image, with its PSNR where sizes agree.

    Args:
        images: Clean images, uint8, ``(h, w, 3)`` in RGB order or ``(h, w)``; cropped to a multiple of the scale.
        groups: From ``distortion_groups``.
        draws: How often each distortion is drawn anew for each image.
        columns: Panels beside each other, at least 2.
        seed: Seeds the randomness.
        sharpen: Whether the clean image is sharpened first, as ``gt_usm`` does.
        title: What stands above all.

    Returns:
        The figure, one image pixel to a pixel; what a distortion made smaller is enlarged to its clean image's size.

    Raises:
        ValueError: An image is too small for a distortion, or ``draws`` or ``columns`` is.
    """
    if draws < 1 or columns < 2:
        raise ValueError(f'expected draws >= 1 and columns >= 2, got {draws} and {columns}')
    generator = torch.Generator().manual_seed(seed)
    rows: list[list[Panel]] = []
    for group in groups:
        for image in images:
            clean = _to_batch(image, math.lcm(*(d.scale for d in group.distortions)))
            clean = usm_sharpen(clean) if sharpen else clean
            for _ in range(draws):
                panels = [_panel(d, clean, generator) for d in group.distortions]
                heading = f'clean{", sharpened" if sharpen else ""}' + (f'\n({group.name})' if len(groups) > 1 else '')
                panels = [Panel(_to_image(clean), _wrap(heading, clean.shape[-1])), *panels]
                rows += [panels[k:k + columns] for k in range(0, len(panels), columns)]
    return side_by_side(rows, title=title)


def centre_crop(image: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """The middle of an image, ``size`` pixels high and wide, or less where the image is smaller."""
    height, width = image.shape[:2]
    top, left = max(0, (height - size) // 2), max(0, (width - size) // 2)
    return image[top:top + size, left:left + size]


def _panel(distortion: Distortion, clean: Tensor, generator: torch.Generator) -> Panel:
    distorted = distortion(clean, generator)
    text = _wrap(_caption(distortion.label), clean.shape[-1])
    if distortion.scale == 1:
        error = (distorted - clean).square().mean()
        text += f'\n{float(-10 * torch.log10(error)):.1f} dB' if error > 0 else '\nunchanged'
    image = _to_image(distorted)
    return Panel(image.repeat(distortion.scale, 0).repeat(distortion.scale, 1), text)


def _caption(label: str) -> str:
    if label.count('(') == 1:
        return label.removesuffix(')').replace('(', '\n')
    return label.replace(' > ', ' >\n').replace(' | ', ' |\n').replace('OneOf(', 'OneOf(\n')


def _wrap(text: str, width: int) -> str:
    return '\n'.join(line for part in text.split('\n') for line in textwrap.wrap(part, max(8, int(width / _LETTER))))


def _to_batch(image: npt.NDArray[np.uint8], scale: int) -> Tensor:
    height, width = (side // scale * scale for side in image.shape[:2])
    cut = image[:height, :width].reshape(height, width, -1)
    return torch.from_numpy(np.ascontiguousarray(cut.transpose(2, 0, 1)))[None] / 255


def _to_image(batch: Tensor) -> npt.NDArray[np.uint8]:
    pixels = (batch[0].float() * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    return np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def document_sheets(text: str, source: str) -> list[tuple[Path, list[Group]]]:
    """The pictures of a Markdown document: every YAML block that an image follows, with that image's path.

    Args:
        text: The document.
        source: Its name, for messages.

    Raises:
        OptionError: A block is no list of distortions, or there is none.
    """
    block, image = r'```ya?ml\n((?:(?!```).)*)```\n\s*', r'!\[[^\]]*\]\(([^)\s:]+)(?:\s[^)]*)?\)'
    found = re.findall(block + image, text, flags=re.DOTALL)
    if not found:
        raise OptionError(f'{source}: no YAML block is followed by an image of a file, as in ![x](pictures/x.png)')
    try:
        blocks = [(path, yaml.safe_load(block)) for block, path in found]
    except yaml.YAMLError as error:
        raise OptionError(f'{source}: a block is not YAML: {" ".join(str(error).split())}') from None
    return [(Path(path), distortion_groups(block, f'{source}, the block of {path}')) for path, block in blocks]
