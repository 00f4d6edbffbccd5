"""Test images: the same in any order, beside other sets, and as tools/test.py sees them."""

import cv2
import numpy as np
import pytest
import torch

from dil_plugin.distortions import Downsample, GaussianBlur, GaussianNoise
from dil_plugin.errors import DataError
from dil_plugin.evaluation.benchmark_sets import open_benchmark
from dil_plugin.evaluation.inputs import DistortedSet, enlarged, to_image, to_tensor, write_input


def test_noise_does_not_depend_on_order_or_scale_of_the_evaluation(data):
    first = DistortedSet(open_benchmark('Set5', data), GaussianNoise(sigma=30))
    forward = {name: first.load(name).lq for name in first.benchmark.names}
    second = DistortedSet(open_benchmark('Set5', data), GaussianNoise(sigma=30))
    backward = {name: second.load(name).lq for name in reversed(second.benchmark.names)}
    assert all(torch.equal(forward[name], backward[name]) for name in forward)


def test_noise_depends_on_seed_set_image_and_level(data):
    (data / 'Set14' / 'img_0.png').write_bytes((data / 'Set5' / 'img_0.png').read_bytes())
    (data / 'Set5' / 'img_2.png').write_bytes((data / 'Set5' / 'img_0.png').read_bytes())
    residuals = []
    for name, image, sigma, seed in (('Set5', 'img_0', 5, 0), ('Set5', 'img_0', 5, 1), ('Set14', 'img_0', 5, 0),
                                     ('Set5', 'img_2', 5, 0), ('Set5', 'img_0', 10, 0)):
        item = DistortedSet(open_benchmark(name, data), GaussianNoise(sigma=sigma), seed=seed).load(image)
        residuals.append(((item.lq - to_tensor(item.gt)) / sigma)[:, 10:30, 10:30].flatten())
    correlation = torch.corrcoef(torch.stack(residuals))
    assert (correlation - torch.eye(5)).abs().max() < 0.15


def test_noise_is_that_of_the_basicsr_data_set(data):
    """tools/test.py and tools/reproduce.py measure the same images."""
    from dil_plugin.basicsr.data.distortion_augmented_dataset import DistortionAugmentedDataset
    other = DistortionAugmentedDataset({
        'name': 'any', 'type': 'DistortionAugmentedDataset', 'phase': 'test', 'scale': 1,
        'dataroot_gt': str(data / 'Set5'), 'io_backend': {'type': 'disk'},
        'distortions': [{'type': 'GaussianNoise', 'sigma': 30}]})
    ours = DistortedSet(open_benchmark('Set5', data), GaussianNoise(sigma=30))
    for k, name in enumerate(ours.benchmark.names):
        torch.testing.assert_close(other[k]['lq'], ours.load(name).lq, rtol=0, atol=0)
        assert np.array_equal(to_image(other[k]['gt']), ours.load(name).gt)


def test_clean_images_are_cropped_to_the_scale(data):
    item = DistortedSet(open_benchmark('Set14', data), Downsample(scale=4), 4).load('img_0')
    assert item.gt.shape == (36, 40, 3)
    assert item.lq.shape == (3, 9, 10)


def test_an_image_too_small_for_the_distortion(data):
    inputs = DistortedSet(open_benchmark('Set5', data), GaussianBlur(sigma=30))
    with pytest.raises(DataError, match='Set5: img_0: GaussianBlur.*needs images of at least'):
        inputs.load('img_0')


def test_written_inputs_are_fine_enough(data, tmp_path):
    lq = DistortedSet(open_benchmark('Set5', data), GaussianNoise(sigma=30)).load('img_0').lq
    write_input(lq, tmp_path / 'a' / 'x.png')
    stored = cv2.imread(str(tmp_path / 'a' / 'x.png'), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    back = torch.from_numpy(stored[:, :, ::-1].astype(np.float64) / 65535).permute(2, 0, 1)
    assert (back - lq).abs().max() <= 0.5001 / 65535
    assert len(np.unique(stored % 257)) > 200


def test_rounding_is_that_of_basicsr():
    from basicsr.utils import tensor2img
    tensor = torch.linspace(-0.1, 1.1, 3 * 40 * 50).reshape(3, 40, 50)
    tensor[0, 0, :3] = torch.tensor([0.5, 1.5, 2.5]) / 255
    assert np.array_equal(to_image(tensor), tensor2img(tensor))


def test_enlarging_is_matlabs_bicubic():
    def keys(x):
        x = np.abs(x)
        return np.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))

    lq = torch.rand(3, 9, 11, generator=torch.Generator().manual_seed(0))
    matrices = []
    for side in (9, 11):
        centres = (np.arange(4 * side) + 0.5) / 4 - 0.5
        matrix = np.zeros((4 * side, side))
        for row, centre in enumerate(centres):
            for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
                mirrored = tap if 0 <= tap < side else (-1 - tap if tap < 0 else 2 * side - 1 - tap)
                matrix[row, mirrored] += keys(centre - tap)
        matrices.append(matrix)
    expected = np.einsum('yh,chw,xw->cyx', matrices[0], lq.numpy(), matrices[1])
    np.testing.assert_allclose(enlarged(lq, 4).numpy(), expected, atol=1e-5)
    assert enlarged(lq, 1) is lq
