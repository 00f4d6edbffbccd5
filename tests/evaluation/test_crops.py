from pathlib import Path

import cv2
import matplotlib
import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from dil_plugin.errors import DataError
from dil_plugin.evaluation.crops import crop_figure, most_detailed_window, write_crops
from dil_plugin.evaluation.results import Picture, Results, Score

Image = npt.NDArray[np.uint8]


def image(height: int, width: int, seed: int = 0, low: int = 0, high: int = 256) -> Image:
    return np.random.default_rng(seed).integers(low, high, (height, width, 3), np.uint8)


def occurrences(canvas: Image, part: Image) -> list[tuple[int, int]]:
    """Every (y, x) at which ``part`` stands in ``canvas``, pixel by pixel."""
    height, width = part.shape[:2]
    starts = np.argwhere((canvas[:len(canvas) - height + 1, :canvas.shape[1] - width + 1] == part[0, 0]).all(2))
    return [(y, x) for y, x in starts.tolist() if np.array_equal(canvas[y:y + height, x:x + width], part)]


def enlarged(part: Image, zoom: int) -> Image:
    return part.repeat(zoom, 0).repeat(zoom, 1)


class TestWindow:

    @pytest.mark.parametrize(('shape', 'size'), [((20, 31), 7), ((31, 20), 12), ((9, 9), 9), ((16, 12), 1)])
    @pytest.mark.parametrize('seed', [0, 1])
    def test_every_window_tried(self, shape: tuple[int, int], size: int, seed: int) -> None:
        picture = image(*shape, seed)
        grey = picture.astype(int).sum(2)
        energy = np.zeros(shape, int)
        for y in range(shape[0]):
            for x in range(shape[1]):
                right = grey[y, x + 1] - grey[y, x] if x + 1 < shape[1] else 0
                down = grey[y + 1, x] - grey[y, x] if y + 1 < shape[0] else 0
                energy[y, x] = right**2 + down**2
        sums = {(y, x): energy[y:y + size, x:x + size].sum() for y in range(shape[0] - size + 1)
                for x in range(shape[1] - size + 1)}
        assert most_detailed_window(picture, size) == max(sums, key=sums.__getitem__)

    def test_finds_the_detail(self) -> None:
        picture = np.full((100, 120, 3), 90, np.uint8)
        picture[37:61, 71:95] = image(24, 24)
        top, left = most_detailed_window(picture, 25)
        assert (36 <= top <= 37, 70 <= left <= 71) == (True, True)

    def test_flat_image(self) -> None:
        assert most_detailed_window(np.zeros((30, 40, 3), np.uint8), 8) == (0, 0)

    @pytest.mark.parametrize(('shape', 'size'), [((10, 200), 50), ((200, 10), 50), ((10, 10), 50)])
    def test_narrow_image(self, shape: tuple[int, int], size: int) -> None:
        top, left = most_detailed_window(image(*shape), size)
        assert 0 <= top <= max(0, shape[0] - size)
        assert 0 <= left <= max(0, shape[1] - size)

    def test_order_of_channels_and_grey(self) -> None:
        picture = image(40, 50)
        assert most_detailed_window(picture, 16) == most_detailed_window(picture[:, :, ::-1], 16)
        grey = picture[:, :, 0]
        assert most_detailed_window(grey, 16) == most_detailed_window(np.dstack([grey] * 3), 16)

    def test_bright_and_large_sums_do_not_overflow(self) -> None:
        checker = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
        assert most_detailed_window(np.dstack([checker] * 3), 511) == (0, 0)


@pytest.fixture
def versions() -> dict[str, Image]:
    """Grey levels from 60 to 160, so that no error is clipped; RGB."""
    clean = image(150, 170, low=60, high=160)
    ramp = (np.arange(150)[:, None] % 20).astype(np.uint8)
    blue_only = clean.copy()
    blue_only[:, :, 2] += ramp
    return {'input': clean + 50, 'ERM': clean + ramp[:, :, None], 'DIL': blue_only, 'clean': clean}


def written(versions: dict[str, Image], folder: Path, name: str = 'a/img 1', condition: str = '30') -> Picture:
    folder.mkdir(parents=True, exist_ok=True)
    for version, pixels in versions.items():
        cv2.imwrite(str(folder / f'{version}.png'), pixels[:, :, ::-1])
    return Picture(dataset='CBSD68', condition=condition, image=name,
                   files={version: f'{folder.name}/{version}.png' for version in versions})


@pytest.fixture
def results(make_results, versions: dict[str, Image], tmp_path: Path) -> Results:
    scores = [Score(run=run, dataset='CBSD68', condition='30', image='a/img 1', metrics={'psnr': psnr, 'ssim': 0.5})
              for run, psnr in (('input', 20.126), ('ERM', 30.5), ('DIL', None))]
    return make_results({('ERM', 'CBSD68', '30'): [1], ('DIL', 'CBSD68', '30'): [1]}, scores=scores,
                        pictures=[written(versions, tmp_path / 'images')])


def test_every_version_and_its_errors(results: Results, versions: dict[str, Image], tmp_path: Path) -> None:
    path, = write_crops(results, tmp_path)
    assert path == tmp_path / 'crops' / 'CBSD68_30_a_img_1.png'
    canvas = cv2.imread(str(path))[:, :, ::-1]
    top, left = most_detailed_window(versions['clean'], 128)
    inferno = (np.array(matplotlib.colormaps['inferno'].colors) * 255).round()
    places = {}
    for name, pixels in versions.items():
        crop = pixels[top:top + 128, left:left + 128]
        places[name], = occurrences(canvas, enlarged(crop, 2))
        if name != 'clean':
            error = np.abs(crop.astype(int) - versions['clean'][top:top + 128, left:left + 128]).max(2)
            y, x = places[name][0] + 256, places[name][1]
            shown = canvas[y:, x:x + 256]
            start = next(k for k in range(len(shown)) if (shown[k:k + 200] != 255).any(2).all())
            coloured = shown[start:start + 256:2, ::2]
            expected = inferno[np.minimum((error / 24 * 256).astype(int), 255)]  # 19 at most: the scale ends at 24
            assert np.abs(coloured - expected).max() <= 1, name
    assert len({y for y, _ in places.values()}) == 1
    assert sorted(places, key=lambda name: places[name][1]) == list(versions)


def test_titles(versions: dict[str, Image], results: Results) -> None:
    scores = {score.run: score for score in results.scores}
    texts = [text.get_text() for text in crop_figure(results.pictures[0], versions, scores).texts]
    for expected in ('input\n20.13 / 0.500', 'ERM\n30.50 / 0.500', 'DIL\ninfinite / 0.500', 'clean', '|ERM - clean|',
                     '0 to 24 of 255'):
        assert texts.count(expected) == 1
    top, left = most_detailed_window(versions['clean'], 128)
    assert ' '.join(texts[0].split()).startswith(f'CBSD68, 30, a/img 1: 128x128 pixels at ({left}, {top})')


def test_image_without_score(versions: dict[str, Image], results: Results) -> None:
    failed = {'ERM': Score(run='ERM', dataset='CBSD68', condition='30', image='a/img 1', error='broken')}
    texts = [text.get_text() for text in crop_figure(results.pictures[0], versions, failed).texts]
    assert 'ERM' in texts
    assert 'input' in texts


def test_scale_is_that_of_the_methods(versions: dict[str, Image], results: Results) -> None:
    """The input's 50 do not darken the others; without methods they decide."""
    alone = {name: versions[name] for name in ('input', 'clean')}
    for shown, limit in ((versions, 24), (alone, 64)):
        texts = [text.get_text() for text in crop_figure(results.pictures[0], shown, {}).texts]
        assert f'0 to {limit} of 255' in texts


@pytest.mark.parametrize('constant', [0, 4, 5, 100, 255])
def test_scale_holds_the_errors(results: Results, constant: int) -> None:
    clean = np.zeros((20, 20, 3), np.uint8)
    shown = {'ERM': clean + np.uint8(constant), 'clean': clean}
    texts = [text.get_text() for text in crop_figure(results.pictures[0], shown, {}).texts]
    limit, = (int(text.split()[2]) for text in texts if text.endswith(' of 255'))
    assert constant <= limit <= max(4, 2 * constant)


def test_small_image_is_enlarged_more(results: Results, tmp_path: Path) -> None:
    small = {'ERM': image(20, 31, 1), 'clean': image(20, 31)}
    picture = written(small, tmp_path / 'small')
    path, = write_crops(msgspec.structs.replace(results, pictures=[picture]), tmp_path)
    canvas = cv2.imread(str(path))[:, :, ::-1]
    for pixels in small.values():
        assert len(occurrences(canvas, enlarged(pixels, 256 // 31))) == 1


def test_many_runs_wrap(results: Results, tmp_path: Path) -> None:
    many = {**{f'run {k}': image(40, 40, k) for k in range(8)}, 'clean': image(40, 40, 9)}
    path, = write_crops(msgspec.structs.replace(results, pictures=[written(many, tmp_path / 'many')]), tmp_path)
    canvas = cv2.imread(str(path))[:, :, ::-1]
    assert canvas.shape[1] == 5 * 240 + 6 * 8
    places = [occurrences(canvas, enlarged(pixels, 6))[0] for pixels in many.values()]
    assert [x for _, x in places] == [8 + 248 * (k % 5) for k in range(9)]
    assert len({y for y, _ in places}) == 2


def test_names_that_become_one_file_name(results: Results, versions: dict[str, Image], tmp_path: Path) -> None:
    pictures = [written(versions, tmp_path / str(k), name) for k, name in enumerate(['a b', 'a_b', 'a/b'])]
    paths = write_crops(msgspec.structs.replace(results, pictures=pictures), tmp_path)
    assert len(set(paths)) == 3
    assert all(path.is_file() for path in paths)


def test_clean_is_drawn_last(results: Results, versions: dict[str, Image], tmp_path: Path) -> None:
    turned = dict(reversed(versions.items()))
    path, = write_crops(msgspec.structs.replace(results, pictures=[written(turned, tmp_path / 'turned')]), tmp_path)
    canvas = cv2.imread(str(path))[:, :, ::-1]
    top, left = most_detailed_window(versions['clean'], 128)
    places = {name: occurrences(canvas, enlarged(pixels[top:top + 128, left:left + 128], 2))[0][1]
              for name, pixels in versions.items()}
    assert max(places, key=places.__getitem__) == 'clean'


def test_same_bytes(results: Results, tmp_path: Path) -> None:
    contents = [write_crops(results, tmp_path)[0].read_bytes() for _ in range(2)]
    assert contents[0] == contents[1]


def test_files_that_cannot_serve(results: Results, versions: dict[str, Image], tmp_path: Path) -> None:
    files = results.pictures[0].files
    wrong = {'missing': ({**files, 'ERM': 'images/none.png'}, 'none.png: cannot be read'),
             'no clean': ({'ERM': files['ERM']}, 'no clean version'),
             'other size': ({**files, 'ERM': 'images/small.png'}, 'small.png: 9x8 pixels, .*170x150'),
             'text': ({**files, 'ERM': 'images/text.png'}, 'text.png: is not an image'),
             'empty': ({**files, 'ERM': 'images/empty.png'}, 'empty.png: is not an image')}
    cv2.imwrite(str(tmp_path / 'images/small.png'), image(8, 9))
    (tmp_path / 'images/text.png').write_text('text')
    (tmp_path / 'images/empty.png').write_bytes(b'')
    for changed, words in wrong.values():
        picture = msgspec.structs.replace(results.pictures[0], files=changed)
        with pytest.raises(DataError, match=words):
            write_crops(msgspec.structs.replace(results, pictures=[picture]), tmp_path)
