"""Lists the clean images of a data set, and finds out before training starts what is wrong with them."""

import os
import re

from PIL import Image

from dil_plugin.basicsr.data.folders import IMAGE_SUFFIXES, image_files, require_lmdb, require_records
from dil_plugin.basicsr.data.options import DatasetOptions
from dil_plugin.errors import DataError, OptionError
from dil_plugin.missing_files import no_such

HEADERS = 500  # of so many files of a folder the size is looked at before training starts
_ORIENTATION = 0x0112  # Exif
_META_LINE = re.compile(r'(?P<name>.+\.\w+) \((?P<height>\d+),(?P<width>\d+),\d+\) \d+')


def no_folder(root: str) -> str:
    """What to say of a data root that does not exist, in a message."""
    return no_such(root, 'folder') + ('; tools/prepare_data.py packs LMDBs' if root.endswith('.lmdb') else '')


def clean_images(options: DatasetOptions, key: str) -> list[str]:
    """LMDB keys or file paths of the clean images, sorted as BasicSR sorts them.

    Args:
        options: The data set's options.
        key: Where they stand in the YAML, for messages.

    Raises:
        DataError: The data are missing, incomplete, empty or smaller than ``gt_size``.
    """
    root = options.dataroot_gt
    if not os.path.isdir(root):
        raise DataError(f'{key}.dataroot_gt: {no_folder(root)}')
    if options.io_backend['type'] == 'lmdb':
        if options.listed_in:
            name = 'meta_info_file' if options.meta_info_file else 'meta_info'
            raise OptionError(f'{key}.{name}: only for io_backend type disk; an LMDB has its own meta_info.txt')
        paths = _lmdb_keys(options, key)
    else:
        paths = _files(options, key)
    if not paths:
        if os.path.isfile(os.path.join(root, 'data.mdb')):
            raise OptionError(f"{key}.io_backend.type: got '{options.io_backend['type']}', but {root} is an LMDB; "
                              'allowed: lmdb')
        raise DataError(f'{key}.dataroot_gt: {root} holds no images ({", ".join(IMAGE_SUFFIXES)})')
    return paths


def image_size(path: str) -> tuple[int, int] | None:
    """Height and width of an image file as its header says them, upright; None where it cannot be read."""
    if not os.path.isfile(path):
        return None
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
            return (image.width, image.height) if turned else (image.height, image.width)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None  # reading it will say what is wrong


def check_file_sizes(paths: list[str], least: int, key: str, needed_for: str) -> None:
    """Raises DataError if one of the first ``HEADERS`` files is less than ``least`` pixels high or wide.

    The rest are checked as they are read: a training set can have more files than a start should wait for.
    """
    for path in paths[:HEADERS]:
        size = image_size(path)
        if size is not None and min(size) < least:
            raise DataError(f"image '{path}' of {key}.dataroot_gt: {size[0]}x{size[1]} pixels are less than the "
                            f'{least} that {needed_for} needs')


def _files(options: DatasetOptions, key: str) -> list[str]:
    root = options.dataroot_gt
    listed_in = options.listed_in
    if not listed_in:
        return image_files(root, f'{key}.dataroot_gt', skip=options.on_bad_image == 'skip')
    option = f'{key}.{"meta_info_file" if options.meta_info_file else "meta_info"}'
    if not os.path.isfile(listed_in):
        raise DataError(f'{option}: {no_such(listed_in)}')
    paths = [os.path.join(root, line.split(' (')[0].strip()) for line in text_lines(listed_in, option)]
    if not paths:
        raise DataError(f'{option}: {listed_in} lists no images; expected the name of one in each line')
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise DataError(f'{option}: {listed_in} lists {len(missing)} files that are not in '
                        f'{root}, the first is {missing[0]}')
    return paths


def text_lines(path: str, key: str) -> list[str]:
    """The lines of a text file that are not empty."""
    try:
        with open(path, encoding='utf-8') as file:
            return [line.strip() for line in file if line.strip()]
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f'{key}: {path} cannot be read as a text file ({error})') from None


def _lmdb_keys(options: DatasetOptions, key: str) -> list[str]:
    root = options.dataroot_gt
    require_lmdb(root, f'{key}.dataroot_gt')
    lines = text_lines(os.path.join(root, 'meta_info.txt'), f'{key}.dataroot_gt')
    matches = []
    for number, line in enumerate(lines, 1):
        match = _META_LINE.fullmatch(line)
        if match is None:
            raise DataError(f'{root}/meta_info.txt, line {number}: expected NAME.png (height,width,channels) LEVEL, '
                            f'got {line!r}')
        matches.append(match)
    require_records(root, f'{key}.dataroot_gt', len(lines))
    if options.phase == 'train':
        small = [m for m in matches if min(int(m['height']), int(m['width'])) < options.gt_size]
        if small and (options.on_bad_image == 'error' or len(small) == len(matches)):
            raise DataError(f'{key}.gt_size: {options.gt_size} is more than the size of {len(small)} images in {root}, '
                            f'the first is {small[0]["name"]} with {small[0]["height"]}x{small[0]["width"]} pixels')
    return [m['name'].split('.')[0] for m in matches]
