"""Image files of every kind, written and read back by Pillow, OpenCV and tifffile."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.ImageOps
import pytest
import tifffile
import torch

from dil_plugin.errors import DataError
from dil_plugin.evaluation.image_files import RestorableImage, losses, read_restorable, write_image

RANDOM = np.random.default_rng(0)
RGBA = RANDOM.integers(0, 256, (9, 14, 4), dtype=np.uint8)
RGBA[:3, :, 3] = 0  # transparent pixels keep their colours
RGB, GREY, GREY_ALPHA = RGBA[..., :3], RGBA[..., 0], RGBA[..., [0, 3]]
EIGHT = {'grey': GREY, 'grey and alpha': GREY_ALPHA, 'RGB': RGB, 'RGBA': RGBA}
SIXTEEN = {kind: RANDOM.integers(0, 65536, pixels.shape, dtype=np.uint16) for kind, pixels in EIGHT.items()}
ORIENTATION = 274


def pillow(path: Path, pixels: np.ndarray, **options: Any) -> None:
    PIL.Image.fromarray(pixels).save(path, **options)


def opencv(path: Path, pixels: np.ndarray) -> None:
    cv2.imwrite(str(path), pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][:pixels.shape[2]]])


def tiff(path: Path, pixels: np.ndarray, **options: Any) -> None:
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    tifffile.imwrite(path, pixels, **{'photometric': 'rgb' if channels > 2 else 'minisblack',
                                      'extrasamples': ['unassalpha'] if channels in (2, 4) else None,
                                      'planarconfig': 'contig' if channels > 1 else None, **options})


def as_read(pixels: np.ndarray) -> np.ndarray:
    """What ``read_restorable`` should hold of it: RGB, and alpha where there is one."""
    planes = np.atleast_3d(pixels)
    colours = planes[..., :-1] if planes.shape[2] in (2, 4) else planes
    parts = [np.broadcast_to(colours, (*colours.shape[:2], 3))]
    return np.dstack(parts + ([planes[..., -1:]] if planes.shape[2] in (2, 4) else []))


def as_pixels(image: RestorableImage) -> np.ndarray:
    planes = [*image.rgb[0].numpy()] + ([] if image.alpha is None else [image.alpha])
    return (np.stack(planes, 2).astype(np.float64) * (2**image.bits - 1)).round().astype(int)


CASES: dict[str, tuple[str, Callable[..., None], np.ndarray]] = {
    **{f'PNG {kind}': ('a.png', pillow, pixels) for kind, pixels in EIGHT.items()},
    **{f'TIFF {kind}': ('a.tif', tiff, pixels) for kind, pixels in EIGHT.items()},
    **{f'TIFF {kind} 16': ('a.tiff', tiff, pixels) for kind, pixels in SIXTEEN.items() if kind != 'grey and alpha'},
    **{f'PNG {kind} 16': ('a.png', opencv, pixels) for kind, pixels in SIXTEEN.items() if kind != 'grey and alpha'},
    **{f'BMP {kind}': ('a.BMP', opencv, pixels) for kind, pixels in EIGHT.items() if kind != 'grey and alpha'},
    'BigTIFF RGBA': ('a.tif', lambda path, pixels: tiff(path, pixels, bigtiff=True), RGBA),
    'WebP RGB': ('a.webp', lambda path, pixels: pillow(path, pixels, lossless=True), RGB),
    'WebP RGBA': ('a.webp', lambda path, pixels: pillow(path, pixels, lossless=True, exact=True), RGBA),
    'PPM RGB 16': ('a.ppm', opencv, SIXTEEN['RGB']),
}


@pytest.mark.parametrize('case', CASES)
class TestKinds:

    def test_read(self, case: str, tmp_path: Path) -> None:
        name, write, pixels = CASES[case]
        write(tmp_path / name, pixels)
        image = read_restorable(tmp_path / name)
        assert np.array_equal(as_pixels(image), as_read(pixels))
        assert image.bits == (16 if '16' in case else 8)
        assert image.grey == ('grey' in case)
        assert (image.alpha is not None) == (pixels.ndim == 3 and pixels.shape[2] in (2, 4))
        assert image.rgb.dtype == torch.float32
        assert image.rgb.shape == (1, 3, 9, 14)

    def test_unchanged_when_written(self, case: str, tmp_path: Path) -> None:
        name, write, pixels = CASES[case]
        write(tmp_path / name, pixels)
        first = read_restorable(tmp_path / name)
        write_image(tmp_path / f'again{name}', first)
        second = read_restorable(tmp_path / f'again{name}')
        assert np.array_equal(as_pixels(first), as_pixels(second))
        assert (first.bits, first.grey) == (second.bits, second.grey)
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith('.')] == []


def test_grey_alpha_of_16_bits_becomes_equal_planes(tmp_path: Path) -> None:
    pixels = SIXTEEN['grey and alpha']
    rgb = torch.from_numpy(pixels[..., 0].astype(np.float32) / 65535).expand(1, 3, -1, -1)
    alpha = pixels[..., 1].astype(np.float32) / 65535
    write_image(tmp_path / 'a.png', RestorableImage(rgb, alpha, 16, grey=True))
    found = cv2.imread(str(tmp_path / 'a.png'), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(found, pixels[..., [0, 0, 0, 1]])


@pytest.mark.parametrize('transparent', [False, True])
def test_palette(transparent: bool, tmp_path: Path) -> None:
    picture = PIL.Image.fromarray(RGB).quantize(16)
    options: dict[str, Any] = {'transparency': bytes(range(0, 160, 10))} if transparent else {}
    picture.save(tmp_path / 'a.png', **options)
    expected = np.array(PIL.Image.open(tmp_path / 'a.png').convert('RGBA' if transparent else 'RGB'))
    assert np.array_equal(as_pixels(read_restorable(tmp_path / 'a.png')), expected)


def test_one_bit(tmp_path: Path) -> None:
    pillow(tmp_path / 'a.png', GREY > 128)
    image = read_restorable(tmp_path / 'a.png')
    assert np.array_equal(as_pixels(image)[..., 0], 255 * (GREY > 128))
    assert image.grey


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_tiff_where_white_is_zero(dtype: type, tmp_path: Path) -> None:
    pixels = GREY.astype(dtype)
    tiff(tmp_path / 'a.tif', pixels, photometric='miniswhite')
    assert np.array_equal(as_pixels(read_restorable(tmp_path / 'a.tif'))[..., 0], int(np.iinfo(dtype).max) - pixels)


class TestOrientation:

    @pytest.mark.parametrize('orientation', range(1, 9))
    @pytest.mark.parametrize('name', ['a.png', 'a.jpg', 'a.tif', 'a.webp'])
    @pytest.mark.parametrize('kind', ['grey', 'RGB', 'RGBA'])
    def test_applied_once(self, orientation: int, name: str, kind: str, tmp_path: Path) -> None:
        if (name, kind) == ('a.jpg', 'RGBA'):
            return  # there is no such file
        exif = PIL.Image.Exif()
        exif[ORIENTATION] = orientation
        pillow(tmp_path / name, EIGHT[kind], exif=exif, **({'lossless': True, 'exact': True} if 'webp' in name else {}))
        with PIL.Image.open(io.BytesIO((tmp_path / name).read_bytes())) as picture:  # a mapped file it does not turn
            expected = as_read(np.array(PIL.ImageOps.exif_transpose(picture)))
        image = read_restorable(tmp_path / name)
        assert image.rgb.shape[-2:] == ((9, 14) if orientation < 5 else (14, 9))
        assert np.abs(as_pixels(image) - expected).max() <= (4 if 'jpg' in name else 0)  # two decoders
        write_image(tmp_path / 'upright.png', image)
        with PIL.Image.open(tmp_path / 'upright.png') as picture:
            assert picture.getexif().get(ORIENTATION) is None
        assert np.array_equal(as_pixels(read_restorable(tmp_path / 'upright.png')), as_pixels(image))

    @pytest.mark.parametrize('kind', ['grey', 'RGB', 'RGBA'])
    def test_tiff_of_16_bits(self, kind: str, tmp_path: Path) -> None:
        tiff(tmp_path / 'a.tif', SIXTEEN[kind], extratags=[(ORIENTATION, 'H', 1, 6, True)])
        expected = np.rot90(as_read(SIXTEEN[kind]), -1)
        assert np.array_equal(as_pixels(read_restorable(tmp_path / 'a.tif')), expected)


class TestProfile:

    SRGB = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile('sRGB')).tobytes()

    @pytest.mark.parametrize('name', ['a.png', 'a.jpg', 'a.tif', 'a.webp'])
    def test_kept(self, name: str, tmp_path: Path) -> None:
        pillow(tmp_path / 'from.png', RGB, icc_profile=self.SRGB)
        write_image(tmp_path / name, read_restorable(tmp_path / 'from.png'))
        with PIL.Image.open(tmp_path / name) as picture:
            assert picture.info['icc_profile'] == self.SRGB
        write_image(tmp_path / 'back.png', read_restorable(tmp_path / name))
        with PIL.Image.open(tmp_path / 'back.png') as picture:
            assert picture.info['icc_profile'] == self.SRGB

    def test_kept_with_16_bits(self, tmp_path: Path) -> None:
        tiff(tmp_path / 'a.tif', SIXTEEN['RGB'], iccprofile=self.SRGB)
        write_image(tmp_path / 'a.png', read_restorable(tmp_path / 'a.tif'))
        with PIL.Image.open(tmp_path / 'a.png') as picture:
            assert picture.info['icc_profile'] == self.SRGB
            picture.load()
        assert np.array_equal(cv2.imread(str(tmp_path / 'a.png'), -1)[..., ::-1], SIXTEEN['RGB'])

    def test_of_another_colour_space_is_left(self, tmp_path: Path) -> None:
        cmyk = self.SRGB[:16] + b'CMYK' + self.SRGB[20:]
        PIL.Image.fromarray(RGB).convert('CMYK').save(tmp_path / 'a.jpg', icc_profile=cmyk)
        assert read_restorable(tmp_path / 'a.jpg').profile is None


class TestWriting:

    def test_rounding_and_clamping(self, tmp_path: Path) -> None:
        values = torch.tensor([-0.3, 0.0, 0.49 / 255, 0.51 / 255, 254.6 / 255, 1.0, 7.0])
        write_image(tmp_path / 'a.png', RestorableImage(values.expand(1, 3, 1, -1)))
        assert np.array(PIL.Image.open(tmp_path / 'a.png'))[0, :, 1].tolist() == [0, 0, 0, 1, 255, 255, 255]

    def test_grey_is_the_mean(self, tmp_path: Path) -> None:
        rgb = torch.tensor([30.0, 60.0, 120.0]).reshape(1, 3, 1, 1) / 255
        write_image(tmp_path / 'a.png', RestorableImage(rgb, grey=True))
        assert np.array(PIL.Image.open(tmp_path / 'a.png')).tolist() == [[70]]

    @pytest.mark.parametrize('ending', ['jpg', 'bmp', 'webp'])
    def test_16_bits_where_there_are_8(self, ending: str, tmp_path: Path) -> None:
        levels = torch.arange(256).div(255).reshape(1, 1, 16, 16).expand(1, 3, -1, -1)
        write_image(tmp_path / f'a.{ending}', RestorableImage(levels, bits=16))
        found = np.array(PIL.Image.open(tmp_path / f'a.{ending}'))
        assert found.dtype == np.uint8
        assert np.abs(found[..., 0] - np.arange(256.0).reshape(16, 16)).max() <= (3 if ending == 'jpg' else 0)

    def test_colour_survives_in_jpeg(self, tmp_path: Path) -> None:
        red_blue = np.zeros((16, 16, 3), np.float32)
        red_blue[:, ::2, 0] = red_blue[:, 1::2, 2] = 1
        write_image(tmp_path / 'a.jpg', RestorableImage(torch.from_numpy(red_blue).permute(2, 0, 1)[None]))
        found = np.array(PIL.Image.open(tmp_path / 'a.jpg')) / 255
        assert np.abs(found - red_blue).max() < 0.1  # with halved chroma it is 0.5

    def test_alpha_at_another_scale(self, tmp_path: Path) -> None:
        pillow(tmp_path / 'a.png', RGBA)
        image = read_restorable(tmp_path / 'a.png').with_restored(torch.zeros(1, 3, 36, 56))
        alpha = RGBA[..., 3].astype(np.float32) / 255
        expected = cv2.resize(alpha, (56, 36), interpolation=cv2.INTER_CUBIC)
        assert expected.min() < 0
        assert np.array_equal(image.alpha, expected.clip(0, 1))

    @pytest.mark.parametrize(('bits', 'alpha', 'suffix', 'expected'), [
        (16, True, '.jpg', ['16 bits', 'alpha']), (16, True, '.PNG', []), (16, False, '.webp', ['16 bits']),
        (8, True, '.ppm', ['alpha']), (8, True, '.tiff', []), (8, False, '.jpg', [])])
    def test_losses(self, bits: int, alpha: bool, suffix: str, expected: list[str]) -> None:
        image = RestorableImage(torch.zeros(1, 3, 2, 2), np.zeros((2, 2), np.float32) if alpha else None, bits)
        assert losses(image, suffix) == expected

    def test_too_large_for_the_format(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r'a\.webp: 1x16384 pixels .* cannot be written as \.webp'):
            write_image(tmp_path / 'a.webp', RestorableImage(torch.zeros(1, 3, 1, 16384)))
        assert not list(tmp_path.iterdir())

    def test_absent_where_writing_breaks_off(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pillow(tmp_path / 'a.png', RGB)
        before = (tmp_path / 'a.png').read_bytes()

        def full(*_: object) -> None:
            raise OSError(28, 'No space left on device')

        monkeypatch.setattr('os.fsync', full)
        with pytest.raises(DataError, match=r'a\.png: cannot be written \(No space left on device\)'):
            write_image(tmp_path / 'a.png', RestorableImage(torch.zeros(1, 3, 2, 2)))
        assert [path.name for path in tmp_path.iterdir()] == ['a.png']
        assert (tmp_path / 'a.png').read_bytes() == before


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


class TestRefused:

    @pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'TIFF', 'BMP', 'WEBP'])
    @pytest.mark.parametrize('part', [0, 0.1, 0.5, 0.9])
    def test_truncated(self, kind: str, part: float, tmp_path: Path) -> None:
        content = encoded(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8), kind)
        (tmp_path / 'a').write_bytes(content[:int(part * len(content))])
        with pytest.raises(DataError, match='a: '):
            read_restorable(tmp_path / 'a')

    def test_truncated_tiff_with_alpha(self, tmp_path: Path) -> None:
        tiff(tmp_path / 'a.tif', RGBA)
        content = (tmp_path / 'a.tif').read_bytes()
        (tmp_path / 'a.tif').write_bytes(content[:-40])
        with pytest.raises(DataError, match=r'a\.tif: '):
            read_restorable(tmp_path / 'a.tif')

    @pytest.mark.parametrize(('pixels', 'options', 'message'), [
        (RGB.astype(np.float32), {}, 'pixels are float32; allowed: uint8, uint16'),
        (RGBA, {'photometric': 'separated', 'extrasamples': None}, 'photometric interpretation 5'),
        (SIXTEEN['grey and alpha'], {}, 'convert it to PNG')])
    def test_tiff_of_other_kinds(self, pixels: np.ndarray, options: dict[str, Any], message: str,
                                 tmp_path: Path) -> None:
        tiff(tmp_path / 'a.tif', pixels, **options)
        with pytest.raises(DataError, match=message):
            read_restorable(tmp_path / 'a.tif')

    def test_no_image_and_no_file(self, tmp_path: Path) -> None:
        (tmp_path / 'a.png').write_text('no image')
        with pytest.raises(DataError, match=r'a\.png: not an image'):
            read_restorable(tmp_path / 'a.png')
        with pytest.raises(DataError, match=r'b\.png: cannot be read \(No such file'):
            read_restorable(tmp_path / 'b.png')


def test_more_pixels_than_pillow_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL.Image, 'MAX_IMAGE_PIXELS', 10)
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = 6
    pillow(tmp_path / 'a.png', RGB, exif=exif)
    assert np.array_equal(as_pixels(read_restorable(tmp_path / 'a.png')), np.rot90(RGB, -1))
    assert PIL.Image.MAX_IMAGE_PIXELS == 10
