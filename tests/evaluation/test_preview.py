"""Contact sheets: what they hold, and the tool that draws them."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from dil_plugin.data_preparation import CutSettings, prepare_data
from dil_plugin.distortions import GaussianBlur, GaussianNoise, parse_distortions, usm_sharpen
from dil_plugin.errors import DataError, OptionError
from dil_plugin.evaluation.preview import Group, centre_crop, contact_sheet, distortion_groups
from dil_plugin.evaluation.preview_tool import write_previews

ROOT = Path(__file__).parents[2]
OPTIONS = sorted(path for folder in ('train', 'test') for path in (ROOT / 'options' / folder).glob('*.yml'))


def noise_image(size: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size + 8, 3), dtype=np.uint8)


def shown(path: Path, image: np.ndarray) -> bool:
    """Whether the picture holds the image, pixel by pixel."""
    picture = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    match = cv2.matchTemplate(picture, image, cv2.TM_SQDIFF)
    return bool(match.min() < 1e4)  # it sums squares by FFT in single precision; other images are 1e7 away


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / 'images').mkdir()
    for k in range(3):
        cv2.imwrite(str(tmp_path / f'images/{k}.png'), noise_image(seed=k)[:, :, ::-1])
    return tmp_path


def options_file(folder: Path, content: object) -> Path:
    path = folder / 'mine.yml'
    path.write_text(yaml.safe_dump(content))
    return path


class TestSheet:

    def test_holds_clean_and_distorted_images(self, folder: Path) -> None:
        opt = options_file(folder, [{'type': 'GaussianBlur', 'sigma': [1, 3]}])
        path, = write_previews(opt, folder / 'sheet.png', folder / 'images', size=40)
        for k in range(2):
            clean = noise_image(seed=k)[:, 4:44]
            batch = torch.from_numpy(np.ascontiguousarray(clean.transpose(2, 0, 1)))[None] / 255
            assert shown(path, clean)
            for sigma in (1, 3):
                blurred = (GaussianBlur(sigma)(batch)[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
                assert shown(path, blurred)
        assert not shown(path, noise_image(seed=2)[:, 4:44])

    def test_small_outputs_are_enlarged(self, folder: Path) -> None:
        opt = options_file(folder, [{'type': 'Downsample', 'scale': 4, 'mode': 'area'}])
        path, = write_previews(opt, folder / 'sheet.png', folder / 'images/0.png', size=40)
        small = cv2.resize(noise_image()[:, 4:44], None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        picture = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(int)
        match = cv2.matchTemplate(picture.astype(np.uint8), small.repeat(4, 0).repeat(4, 1), cv2.TM_SQDIFF)
        assert match.min() <= 40 * 40 * 3  # halves may be rounded either way

    def test_sharpened_target(self, folder: Path) -> None:
        opt = options_file(folder, {'gt_usm': True, 'distortions': [{'type': 'GaussianBlur', 'sigma': 1}]})
        path, = write_previews(opt, folder / 'sheet.png', folder / 'images/0.png', size=40)
        clean = noise_image()[:, 4:44]
        batch = torch.from_numpy(np.ascontiguousarray(clean.transpose(2, 0, 1)))[None] / 255
        sharp = (usm_sharpen(batch)[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        assert shown(path, sharp)
        assert not shown(path, clean)

    def test_number_of_panels_and_psnr(self) -> None:
        grey = np.full((160, 160), 128, np.uint8)
        groups = [Group('one', [GaussianNoise(10), GaussianBlur(1), GaussianBlur(2)]),
                  Group('two', [GaussianNoise(20)])]
        texts = [t.get_text() for t in contact_sheet([grey] * 2, groups, draws=3, columns=3).texts]
        assert sum(t.startswith('clean') for t in texts) == 2 * 3 * 2
        assert sum('GaussianNoise\nsigma=20' in t for t in texts) == 2 * 3
        assert sum('unchanged' in t or '140' in t for t in texts) >= 12  # blur leaves a flat image as it is
        found = [float(t.split('\n')[-1].split()[0]) for t in texts if 'sigma=10' in t]
        assert found == pytest.approx([20 * np.log10(25.5)] * 6, abs=0.4)

    def test_draws_differ_and_the_seed_decides(self, folder: Path) -> None:
        opt = options_file(folder, [{'type': 'GaussianNoise', 'sigma': {'uniform': [5, 50]}}])
        pictures = []
        for seed in (0, 0, 1):
            path, = write_previews(opt, folder / 'sheet.png', folder / 'images', draws=2, seed=seed)
            pictures.append(path.read_bytes())
        assert pictures[0] == pictures[1] != pictures[2]

    @pytest.mark.parametrize('shape', [(30, 50, 3), (9, 7), (5, 200, 3)])
    def test_centre_crop(self, shape: tuple[int, ...]) -> None:
        image = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
        crop = centre_crop(image, 10)
        top, left = max(0, (shape[0] - 10) // 2), max(0, (shape[1] - 10) // 2)
        assert np.array_equal(crop, image[top:top + 10, left:left + 10])


class TestSources:

    @pytest.mark.parametrize('path', OPTIONS, ids=lambda p: p.name)
    def test_every_shipped_options_file(self, path: Path) -> None:
        options = yaml.load(path.read_text(), Loader=yaml.FullLoader)
        if 'Paired' in options['datasets'].get('train', {}).get('type', ''):
            return  # test_pairs_of_a_file
        groups = distortion_groups(options, path.name)
        assert [g.name for g in groups] in (['distortions', 'validation'], ['validation'], ['distortions'])
        if options.get('distortions'):
            assert groups[0].distortions == list(parse_distortions(options['distortions']))

    def test_training_data_of_the_file(self, folder: Path) -> None:
        prepare_data(folder / 'images', folder / 'train.lmdb', CutSettings(), workers=1)
        for root in (folder / 'train.lmdb', folder / 'images'):
            opt = options_file(folder, {'datasets': {'train': {
                'dataroot_gt': str(root), 'distortions': [{'type': 'GaussianBlur', 'sigma': 1}]}}})
            path, = write_previews(opt, folder / 'sheet.png', size=40)
            assert shown(path, noise_image()[:, 4:44])

    def test_photographs_where_there_are_no_data(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        opt = options_file(folder, {'distortions': [{'type': 'GaussianBlur', 'sigma': 1}],
                                    'datasets': {'train': {'dataroot_gt': 'nowhere/DF2K.lmdb'}}})
        path, = write_previews(opt, folder / 'sheet.png')
        assert path.is_file()
        assert 'nowhere/DF2K.lmdb is not there' in capsys.readouterr().err

    def test_pairs_of_a_file(self, folder: Path) -> None:
        import dil_plugin.basicsr  # noqa: F401
        from dil_plugin.basicsr.preview import write_any_preview
        for k in range(3):
            cv2.imwrite(str(folder / f'images/{k}_d.png'), noise_image(seed=10 + k)[:, :, ::-1])
        one = {'name': 'A', 'dataroot_lq': str(folder / 'images'), 'dataroot_gt': str(folder / 'images'),
               'filename_tmpl': '{}'}
        train = {'name': 'x', 'type': 'PairedConfounderDataset', 'confounders': [one, {**one, 'name': 'B'}],
                 'gt_size': 40, 'use_hflip': False, 'use_rot': False, 'io_backend': {'type': 'disk'}}
        opt = options_file(folder, {'scale': 1, 'datasets': {'train': train}})
        path, = write_any_preview(opt, folder / 'sheet.png', images=1)
        picture = cv2.imread(str(path))
        assert picture.shape[1] == 4 * 88 + 8
        assert np.array_equal(picture[-88:-8, 8:88], picture[-88:-8, 96:176])  # input and target, here the same file
        with pytest.raises(OptionError, match='--input'):
            list(write_any_preview(opt, None, folder / 'images'))

    def test_document(self, folder: Path) -> None:
        document = folder / 'doc.md'
        document.write_text('# A\n\n```yaml\nother: block\n```\n\ntext\n\n'
                            '```yaml\n- {type: GaussianBlur, sigma: 1}\n```\n\n![x](pictures/blur.png)\n')
        assert list(write_previews(document, None, folder / 'images')) == [folder / 'pictures/blur.png']
        assert (folder / 'pictures/blur.png').is_file()

    @pytest.mark.parametrize(('content', 'words'), [
        ({'name': 'x'}, ['mine.yml', 'distortions block']),
        ([{'type': 'GausianBlur', 'sigma': 1}], ['distortions[0].type', 'GausianBlur']),
        ({'datasets': {'val': {'distortions': [{'type': 'JPEG', 'quality': 0}]}}},
         ['datasets.val.distortions[0].quality', '0', '>= 1']),
        ('text', ['mine.yml', "'text'"]),
    ])
    def test_mistakes(self, folder: Path, content: object, words: list[str]) -> None:
        with pytest.raises(OptionError) as error:
            list(write_previews(options_file(folder, content), folder / 'sheet.png'))
        assert all(word in str(error.value) for word in words), error.value

    def test_output_and_document_mistakes(self, folder: Path) -> None:
        opt = options_file(folder, [{'type': 'GaussianBlur', 'sigma': 1}])
        with pytest.raises(OptionError, match='out.jpg does not end in .png'):
            list(write_previews(opt, folder / 'out.jpg', folder / 'images'))
        document = folder / 'doc.md'
        block = '```yml\n- {type: GaussianBlur, sigma: 1}\n```\n'
        document.write_text(block + '\n![x](https://x.org/a.png)\n')
        with pytest.raises(OptionError, match='no YAML block is followed by an image of a file'):
            list(write_previews(document, None, folder / 'images'))
        document.write_text(block + '![x](a.png "title")\n')
        assert list(write_previews(document, None, folder / 'images')) == [folder / 'a.png']
        (folder / 'broken.yml').write_text('a: [1\nb: }')
        with pytest.raises(OptionError) as error:
            list(write_previews(folder / 'broken.yml'))
        assert '\n' not in str(error.value)

    def test_images_that_cannot_serve(self, folder: Path) -> None:
        blur = options_file(folder, [{'type': 'GaussianBlur', 'sigma': 20}])
        for source, words in ((folder / 'images', 'at least 61x61 pixels'), (folder / 'none', 'neither a folder'),
                              (folder, 'no image'), (folder / 'none.png', 'cannot be read')):
            with pytest.raises(DataError, match=words):
                list(write_previews(blur, folder / 'sheet.png', source))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(ROOT / 'tools/preview_distortions.py'), *arguments], capture_output=True,
                          text=True)


def test_command(folder: Path) -> None:
    opt = options_file(folder, [{'type': 'GaussianBlur', 'sigma': 1}])
    done = run('-opt', str(opt), '-o', str(folder / 'out.png'), '-i', str(folder / 'images'))
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(folder / 'out.png'), '')
    failed = run('-opt', str(folder / 'none.yml'))
    assert failed.returncode == 2
    assert failed.stderr.startswith('error: -opt: ')
    assert 'none.yml' in failed.stderr
    assert 'Traceback' not in failed.stderr
