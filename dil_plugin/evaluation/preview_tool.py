"""Where the previews' images come from and where the pictures go; behind ``tools/preview_distortions.py``."""

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dil_plugin.data_preparation import find_images, read_image
from dil_plugin.data_preparation.images import IMAGE_SUFFIXES
from dil_plugin.data_preparation.storage import open_store, read_meta
from dil_plugin.errors import DataError, OptionError
from dil_plugin.evaluation.output_files import write_figure
from dil_plugin.evaluation.preview import Group, centre_crop, contact_sheet, distortion_groups, document_sheets
from dil_plugin.yaml_files import read_yaml

Image = npt.NDArray[np.uint8]

# Photographs of scikit-image, and the upper left corner of what is shown of them where the crop is small.
PHOTOGRAPHS = (('astronaut.png', (10, 140)), ('coffee.png', (120, 190)))


def write_previews(opt: Path,
                   output: Path | None = None,
                   source: Path | None = None,
                   *,
                   images: int = 2,
                   size: int = 160,
                   draws: int = 1,
                   columns: int = 6,
                   seed: int = 0) -> Iterator[Path]:
    """Draws the contact sheets of a file, and gives the path of each as it is written.

    Args:
        opt: A BasicSR options file, a list of distortions in YAML, or a Markdown document, each of whose YAML blocks is
            drawn into the picture that follows it.
        output: The picture; None: ``preview_NAME.png`` in the current folder. Not for a document.
        source: An image, a folder of images or an LMDB; None: the training data of ``opt`` where they are, otherwise
            photographs of scikit-image.
        images: How many images.
        size: Side of the crop from the middle of each, in pixels.
        draws: See ``contact_sheet``, as for ``columns`` and ``seed``.

    Raises:
        OptionError: The file's distortions are wrong or missing.
        DataError: A file cannot be read or written, or the images are too small.
    """
    sheets: list[tuple[Path, list[Group]]]
    options: Any = None
    if opt.suffix == '.md':
        if output is not None:
            raise OptionError(f'--output: {output}, but {opt} itself names the pictures')
        sheets = [(opt.parent / path, groups) for path, groups in document_sheets(_text(opt), str(opt))]
    else:
        options = read_yaml(opt, '-opt')
        sheets = [(output or Path(f'preview_{opt.stem}.png'), distortion_groups(options, str(opt)))]
    block = options if isinstance(options, Mapping) else {}
    pictures = _pictures(source, block, images, size)
    for path, groups in sheets:
        try:
            figure = contact_sheet(pictures, groups, draws=draws, columns=columns, seed=seed,
                                   sharpen=bool(block.get('gt_usm')))
        except ValueError as error:  # an image is too small
            raise DataError(f'{path.name}: {error} (--size {size})') from None
        write_figure(figure, path)
        yield path


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'-opt: {path} cannot be read ({getattr(error, "strerror", None) or error})') from None


def _pictures(source: Path | None, options: Mapping[str, Any], count: int, size: int) -> list[Image]:
    datasets = options.get('datasets')
    train = datasets.get('train') if isinstance(datasets, Mapping) else None
    root = train.get('dataroot_gt') if isinstance(train, Mapping) else None
    if source is None and isinstance(root, str):
        if Path(root).is_dir():
            source = Path(root)
        else:
            sys.stderr.write(f'datasets.train.dataroot_gt: {root} is not there; the photographs are scikit-image\'s\n')
    if source is None:
        return [_photograph(name, corner, size) for name, corner in PHOTOGRAPHS[:count]]
    return [centre_crop(image, size) for image in _read(source, count)]


def _read(source: Path, count: int) -> list[Image]:
    """The first images of a folder or an LMDB, or one image file, as RGB."""
    if source.is_dir() and source.suffix == '.lmdb':
        with open_store(source, readonly=True) as store:
            contents = [(record.key, store.read(record.key)) for record in read_meta(source)[:count]]
        return [_decode(content, f'{source}, image {key}') for key, content in contents]
    if source.is_dir():
        return [_rgb(read_image(path)[0]) for path in find_images(source)[:count]]
    if source.suffix.lower() not in IMAGE_SUFFIXES:
        raise DataError(f'--input: {source} is neither a folder nor an image ({", ".join(IMAGE_SUFFIXES)})')
    return [_rgb(read_image(source)[0])]


def _decode(content: bytes | None, where: str) -> Image:
    image = None if content is None else cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f'{where}: cannot be decoded')
    return _rgb(image)


def _rgb(image: npt.NDArray[Any]) -> Image:
    eight = (image // 257).astype(np.uint8) if image.dtype == np.uint16 else image
    return eight if eight.ndim == 2 else np.ascontiguousarray(eight[:, :, ::-1])


def _photograph(name: str, corner: tuple[int, int], size: int) -> Image:
    spec = importlib.util.find_spec('skimage')
    path = Path(spec.origin).parent / 'data' / name if spec and spec.origin else None
    if path is None or not path.is_file():
        raise DataError('--input: none is given, and scikit-image, whose photographs would do, is not installed; give '
                        'an image, a folder or an LMDB')
    image = _rgb(read_image(path)[0])
    top, left = (min(start, max(0, side - size)) for start, side in zip(corner, image.shape[:2], strict=True))
    return image[top:top + size, left:left + size]
