"""What becomes of every kind of image: training, packing, benchmarks and restoring read the same pixels."""

import io
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from dil_plugin.data_preparation import CutSettings, prepare_data
from dil_plugin.data_preparation.cutting import cut_image
from dil_plugin.errors import DataError
from dil_plugin.evaluation.benchmark_sets.base import read_bgr
from dil_plugin.evaluation.image_files import read_restorable

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (6, 11, 3), dtype=np.uint8)
ALPHA = RANDOM.integers(0, 256, (6, 11, 1), dtype=np.uint8)
ALPHA[0, 0], ALPHA[0, 1] = 0, 255
DEEP = RANDOM.integers(0, 65536, (6, 11, 3), dtype=np.uint16)
DEEP[0, :8] = np.array([0, 128, 129, 256, 257, 65406, 65407, 65535])[:, None]  # where rounding and cutting differ
GREY = RGB[..., :1]
PALETTE = PIL.Image.fromarray(RGB).quantize(16)


def by_pillow(image, suffix, mode=None, **options):
    file = io.BytesIO()
    picture = image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image, mode)
    picture.save(file, PIL.Image.registered_extensions()[suffix], **options)
    return file.getvalue()


def by_opencv(image, suffix):
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[image.shape[2]]
    return cv2.imencode(suffix, np.ascontiguousarray(image[..., order]))[1].tobytes()


def rounded(deep):
    """To 8 bits: the nearest of v / 257, as MATLAB's im2uint8."""
    return np.rint(deep.astype(float) / 65535 * 255).astype(np.uint8)


def planes(grey):
    return np.repeat(grey, 3, axis=2)


KINDS = {
    'grey.png': (by_pillow(GREY[..., 0], '.png'), planes(GREY)),
    'grey.jpg': (by_pillow(GREY[..., 0], '.jpg', quality=100), None),
    'one_bit.png': (by_pillow(PIL.Image.fromarray(GREY[..., 0] > 99), '.png'), planes((GREY > 99) * np.uint8(255))),
    'grey_alpha.png': (by_pillow(np.dstack([GREY, ALPHA]), '.png'), planes(GREY)),
    'grey_alpha.tif': (by_pillow(np.dstack([GREY, ALPHA]), '.tif'), planes(GREY)),
    'rgb.png': (by_pillow(RGB, '.png'), RGB),
    'rgba.png': (by_pillow(np.dstack([RGB, ALPHA]), '.png'), RGB),
    'rgba.tif': (by_pillow(np.dstack([RGB, ALPHA]), '.tif'), RGB),
    'rgba.bmp': (by_opencv(np.dstack([RGB, ALPHA]), '.bmp'), RGB),
    'rgba.webp': (by_pillow(np.dstack([RGB, ALPHA]), '.webp', lossless=True, exact=True), RGB),
    'palette.png': (by_pillow(PALETTE, '.png'), np.array(PALETTE.convert('RGB'))),
    'palette_alpha.png': (by_pillow(PALETTE, '.png', transparency=3), np.array(PALETTE.convert('RGB'))),
    'deep.png': (by_opencv(DEEP, '.png'), rounded(DEEP)),
    'deep.tif': (by_opencv(DEEP, '.tif'), rounded(DEEP)),
    'deep.ppm': (by_opencv(DEEP, '.ppm'), rounded(DEEP)),
    'deep_grey.png': (by_opencv(DEEP[..., :1], '.png'), planes(rounded(DEEP[..., :1]))),
    'deep_grey.tif': (by_opencv(DEEP[..., :1], '.tif'), planes(rounded(DEEP[..., :1]))),
    'deep_alpha.png': (by_opencv(np.dstack([DEEP, DEEP[..., :1]]), '.png'), rounded(DEEP)),
    'deep_alpha.tif': (by_opencv(np.dstack([DEEP, DEEP[..., :1]]), '.tif'), rounded(DEEP)),
    'cmyk.jpg': (by_pillow(PIL.Image.fromarray(RGB).convert('CMYK'), '.jpg', quality=100, subsampling=0), None),
    'one_pixel.png': (by_pillow(RGB[:1, :1], '.png'), RGB[:1, :1]),
    'one_row.webp': (by_pillow(RGB[:1], '.webp', lossless=True), RGB[:1]),
}


SUFFIXES, ORIENTATIONS = ('.jpg', '.png', '.tif', '.webp'), (2, 3, 5, 6, 8)


def turned(suffix, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    options = {'.jpg': {'quality': 100, 'subsampling': 0}, '.webp': {'lossless': True}}.get(suffix, {})
    return by_pillow(np.kron(RGB, np.ones((4, 4, 1), np.uint8)), suffix, exif=exif, **options)


@pytest.fixture(scope='module')
def packed(tmp_path_factory) -> Path:
    """A folder of all of them, and beside it the LMDB of it."""
    folder = tmp_path_factory.mktemp('formats') / 'in'
    folder.mkdir()
    contents = {name: content for name, (content, _) in KINDS.items()}
    contents |= {f'turned{orientation}{suffix}': turned(suffix, orientation)
                 for suffix in SUFFIXES for orientation in ORIENTATIONS}
    for name, content in contents.items():
        stem, _, ending = name.partition('.')
        (folder / f'{stem}_{ending}.{ending}').write_bytes(content)  # keys must differ without the endings
    prepare_data(folder, folder.parent / 'out.lmdb', CutSettings(), workers=1)
    return folder


def readings(name: str, packed: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A file, and its image as (H, W, 3) RGB uint8, as every part of the project reads it."""
    import dil_plugin.basicsr  # noqa: F401
    from dil_plugin.basicsr.data.image_reader import ImageReader
    stem, _, ending = name.partition('.')
    path, reader = packed / f'{stem}_{ending}.{ending}', ImageReader()
    found = {
        'training, folder': reader.read(str(path), str(packed), {'type': 'disk'}, 'here'),
        'training, packed': reader.read(path.stem, str(packed.parent / 'out.lmdb'), {'type': 'lmdb'}, 'here'),
        'benchmark': read_bgr(path),
    }
    restored = np.rint(read_restorable(path).rgb[0].numpy().astype(float) * 255).astype(np.uint8).transpose(1, 2, 0)
    return path, {'restoring': restored, **{who: image[..., ::-1] for who, image in found.items()}}


@pytest.mark.parametrize('name', KINDS)
def test_one_reading_of_every_kind(name: str, packed: Path) -> None:
    expected = KINDS[name][1]
    path, found = readings(name, packed)
    for who, image in found.items():
        assert image.dtype == np.uint8, who
        if expected is not None:
            np.testing.assert_array_equal(image, expected, err_msg=who)
        else:  # JPEG: decoders differ by a level or two
            theirs = np.array(PIL.Image.open(path).convert('RGB')).astype(int)
            assert image.shape == theirs.shape
            assert abs(image - theirs).max() <= 3, who


@pytest.mark.parametrize('suffix', SUFFIXES)
@pytest.mark.parametrize('orientation', ORIENTATIONS)
def test_all_agree_on_what_is_up(suffix: str, orientation: int, packed: Path) -> None:
    path, found = readings(f'turned{orientation}{suffix}', packed)
    with PIL.Image.open(path) as picture:
        expected = np.array(PIL.ImageOps.exif_transpose(picture).convert('RGB')).astype(int)
    assert (expected.shape[:2] == (44, 24)) == (orientation >= 5)
    for who, image in found.items():
        assert image.shape == expected.shape, who
        assert abs(image - expected).max() <= (3 if suffix == '.jpg' else 0), who


REFUSED = {
    'float.tif': (cv2.imencode('.tif', RGB.astype(np.float32))[1].tobytes(), 'pixels are float32'),
    'cmyk.tif': (by_pillow(PIL.Image.fromarray(RGB).convert('CMYK'), '.tif'), 'photometric interpretation 5'),
    'lab.tif': (by_pillow(PIL.Image.fromarray(RGB, 'LAB'), '.tif'), 'photometric interpretation 8'),
    'text.png': (b'version https://example.org/pointer', 'not an image'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_all_refuse_the_same_kinds(name: str, tmp_path: Path) -> None:
    import dil_plugin.basicsr  # noqa: F401
    from dil_plugin.basicsr.data.image_reader import ImageReader
    content, words = REFUSED[name]
    (tmp_path / 'in').mkdir()
    path = tmp_path / 'in' / name
    path.write_bytes(content)
    for read in (
        lambda: ImageReader().read(str(path), str(path.parent), {'type': 'disk'}, 'here'),
        lambda: cut_image(path, name, path.stem, None, CutSettings()),
        lambda: read_bgr(path),
        lambda: read_restorable(path),
    ):
        with pytest.raises(DataError) as error:
            read()
        assert str(path) in str(error.value)
        assert words in str(error.value)
