"""Dependence of outputs on the distortion, agreement of gradients, against closed forms; the report and its tool."""

import copy
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from dil_plugin.checkpoints import NOTES, NetworkNotes
from dil_plugin.distortions import Distortion, DistortionSet, parse_distortions
from dil_plugin.distortions.fixed import fixed_generator
from dil_plugin.errors import DataError, NumericalError, OptionError
from dil_plugin.evaluation.invariance.figure import invariance_figure, short_labels
from dil_plugin.evaluation.invariance.gradient_agreement import compare_gradients
from dil_plugin.evaluation.invariance.measuring import METRICS, Invariance, measure_invariance
from dil_plugin.evaluation.invariance.report import InvarianceReport, MeasuredRun, differences, from_json, to_markdown
from dil_plugin.evaluation.invariance.tool import write_invariance
from dil_plugin.evaluation.networks import RestorationNetwork, build_module

ROOT = Path(__file__).parents[2]
NOISE = parse_distortions([{'type': 'GaussianNoise', 'sigma': [5, 20]}, {'type': 'GaussianBlur', 'sigma': 2}])
SIDE = 32


def photographs(count: int = 2, height: int = 40, width: int = 48) -> dict[str, np.ndarray]:
    """Smooth random images whose values stay clear of 0 and 255."""
    rng = np.random.default_rng(0)
    return {f'image{k}': cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), (0, 0), 1.5)
            for k in range(count)}


def linear(weight: np.ndarray | float, bias: float = 0.0) -> RestorationNetwork:
    """``y = W x + b`` at every pixel; a number for W stands for that multiple of the identity."""
    module = nn.Conv2d(3, 3, 1)
    matrix = weight * np.eye(3) if isinstance(weight, float) else weight
    module.weight.data = torch.tensor(matrix, dtype=torch.float32)[:, :, None, None]
    nn.init.constant_(module.bias, bias)
    return RestorationNetwork(module, {'type': 'Linear'})


def convolutional(seed: int = 0) -> RestorationNetwork:
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 3, 3, padding=1)
    return RestorationNetwork(nn.Sequential(*layers), {})


def rgb(image: np.ndarray) -> np.ndarray:
    """(3, H, W) float64 in [0, 1]."""
    return image[:, :, ::-1].transpose(2, 0, 1) / 255


def counterfactuals(image: np.ndarray, name: str) -> list[np.ndarray]:
    clean = torch.tensor(rgb(image).copy(), dtype=torch.float32)[None]
    return [d(clean, fixed_generator(0, 'images', name, label))[0].double().numpy()
            for d, label in zip(NOISE, NOISE.labels, strict=True)]


def rmse(a: np.ndarray, b: np.ndarray) -> float:
    return float(255 * np.sqrt(np.mean((a - b)**2)))


def measure(network: RestorationNetwork, images: dict[str, np.ndarray] | None = None,
            distortions: DistortionSet = NOISE, **options: int) -> Invariance:
    return measure_invariance(network, photographs() if images is None else images, distortions,
                              **{'patch': SIDE, **options})


class TestDependence:

    def test_identity_network_shows_its_inputs(self) -> None:
        found = measure(linear(1.0))
        for name, image in photographs().items():
            inputs, one = counterfactuals(image, name), found.images[name]
            expected = [[rmse(a, b) for b in inputs] for a in inputs]
            np.testing.assert_allclose(one.inputs, expected, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(one.outputs, expected, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(one.errors, [rmse(x, rgb(image)) for x in inputs], rtol=1e-4)
            np.testing.assert_allclose(one.input_errors, one.errors, rtol=1e-6)
            assert one.ratio == pytest.approx(1, rel=1e-6)
            pairs = expected[0][1], expected[0][2], expected[1][2]
            assert one.output_dependence == pytest.approx(np.mean(pairs), rel=1e-4)

    def test_linear_network(self) -> None:
        weight = np.array([[0.4, 0.2, 0.1], [0.0, 0.7, 0.1], [0.3, 0.1, 0.2]])
        found = measure(linear(weight, 0.05))
        for name, image in photographs().items():
            outputs = [np.tensordot(weight, x, 1) + 0.05 for x in counterfactuals(image, name)]
            expected = [[rmse(a, b) for b in outputs] for a in outputs]
            np.testing.assert_allclose(found.images[name].outputs, expected, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(found.images[name].errors, [rmse(y, rgb(image)) for y in outputs], rtol=1e-4)

    def test_constant_network_is_invariant_and_wrong(self) -> None:
        found = measure(linear(0.0, 0.4))
        assert np.array_equal(found.outputs, np.zeros((3, 3)))
        assert found.mean('output dependence') == found.mean('ratio') == 0
        expected = np.mean([rmse(np.full_like(rgb(image), 0.4), rgb(image)) for image in photographs().values()])
        assert found.mean('error') == pytest.approx(expected, rel=1e-5)
        assert found.mean('error') > 20

    def test_outputs_are_clamped_as_a_picture(self) -> None:
        found = measure(linear(1.0, 3.0))
        assert np.array_equal(found.outputs, np.zeros((3, 3)))
        assert found.errors[0] == pytest.approx(np.mean([rmse(1, rgb(i)) for i in photographs().values()]), rel=1e-5)

    def test_noise_of_two_levels(self) -> None:
        sigmas = (4, 10, 20)
        grey = {'grey': np.full((256, 256, 3), 128, np.uint8)}
        noise = parse_distortions([{'type': 'GaussianNoise', 'sigma': list(sigmas)}])
        expected = [[0 if a == b else np.hypot(a, b) for b in sigmas] for a in sigmas]
        np.testing.assert_allclose(measure(linear(1.0), grey, noise).inputs, expected, rtol=0.01)

    def test_draws_of_one_confounder_are_independent(self) -> None:
        grey = {'grey': np.full((256, 256, 3), 128, np.uint8)}
        found = measure(linear(1.0), grey, parse_distortions([{'type': 'GaussianNoise', 'sigma': 10, 'draws': 2}]))
        assert found.labels == ['GaussianNoise(sigma=10)', 'GaussianNoise(sigma=10)#2']
        assert found.inputs[0][1] == pytest.approx(10 * np.sqrt(2), rel=0.01)

    def test_inputs_that_do_not_differ_have_no_ratio(self) -> None:
        flat = {'flat': np.full((SIDE, SIDE, 3), 90, np.uint8), **photographs(1)}
        found = measure(linear(1.0), flat, parse_distortions([{'type': 'GaussianBlur', 'sigma': [2, 2]}]))
        assert found.images['flat'].ratio is None
        assert found.per_image('ratio') == {}
        assert found.mean('ratio') is None

    def test_grey_network(self) -> None:
        module = nn.Conv2d(1, 1, 1)
        nn.init.ones_(module.weight)
        nn.init.constant_(module.bias, 0.1)
        blur = parse_distortions([{'type': 'GaussianBlur', 'sigma': [0.5, 2]}])
        found = measure(RestorationNetwork(module, {'num_in_ch': 1}), distortions=blur)
        for name, image in photographs().items():
            grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) / 255
            outputs = [blur[k](torch.tensor(grey)[None, None])[0, 0].numpy() + 0.1 for k in range(2)]
            assert found.images[name].outputs[0][1] == pytest.approx(rmse(*outputs), rel=1e-4)
            assert found.images[name].errors == pytest.approx([rmse(y, grey) for y in outputs], rel=1e-4)


class TestDraws:

    def test_all_networks_get_the_same_inputs_and_patches(self) -> None:
        first, second = measure(convolutional(0)), measure(linear(1.0))
        assert {name: one.inputs for name, one in first.images.items()} == \
            {name: one.inputs for name, one in second.images.items()}
        assert first.outputs != second.outputs
        assert measure(convolutional(0)) == first

    def test_draws_depend_on_the_name_alone(self) -> None:
        images = photographs(3)
        one = measure(convolutional(), {'image2': images['image2'], 'image0': images['image0']})
        full = measure(convolutional(), images)
        assert all(one.images[name] == full.images[name] for name in one.images)

    @pytest.mark.parametrize('other', [{'seed': 1}, {'dataset': 'others'}])
    def test_seed_and_data_set_decide(self, other: dict) -> None:
        assert measure(linear(1.0), **other).inputs != measure(linear(1.0)).inputs

    def test_order_of_confounders_permutes_the_matrices(self) -> None:
        order = [2, 0, 1]
        found = measure(convolutional())
        permuted = measure(convolutional(), distortions=DistortionSet([NOISE[k] for k in order]))
        for name in ('inputs', 'outputs'):
            np.testing.assert_array_equal(getattr(permuted, name), np.array(getattr(found, name))[np.ix_(order, order)])
        np.testing.assert_allclose(permuted.gradients.cosines, np.array(found.gradients.cosines)[np.ix_(order, order)])
        assert permuted.errors == [found.errors[k] for k in order]
        assert permuted.gradients.norms == pytest.approx([found.gradients.norms[k] for k in order])

    def test_matrices_are_symmetric(self) -> None:
        found = measure(convolutional())
        for matrix in (found.inputs, found.outputs, found.gradients.cosines):
            np.testing.assert_allclose(matrix, np.transpose(matrix), rtol=1e-12)
        assert np.diag(found.inputs).tolist() == np.diag(found.outputs).tolist() == [0, 0, 0]
        np.testing.assert_allclose(np.diag(found.gradients.cosines), 1, rtol=1e-12)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


class TestGradients:
    """Images of just the patches' size: every patch is the whole image."""

    images = photographs(2, SIDE, SIDE)

    def expected(self, gradient: Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]) -> list:
        """For each image, then each confounder: the loss and the gradient as one vector."""
        return [[gradient(x, rgb(image)) for x in counterfactuals(image, name)] for name, image in self.images.items()]

    def check(self, network: RestorationNetwork, expected: list) -> None:
        found = measure(network, self.images, patches=2)
        together = [(np.mean([own[k][0] for own in expected]), np.mean([own[k][1] for own in expected], axis=0))
                    for k in range(len(NOISE))]
        for agreement, own in ((found.gradients, together),
                               *zip((one.gradients for one in found.images.values()), expected, strict=True)):
            np.testing.assert_allclose(agreement.losses, [loss for loss, _ in own], rtol=1e-4)
            np.testing.assert_allclose(agreement.norms, [np.linalg.norm(grad) for _, grad in own], rtol=2e-3)
            np.testing.assert_allclose(agreement.cosines, [[cosine(a, b) for _, a in own] for _, b in own], atol=2e-3)
        pairs = [cosine(together[i][1], together[j][1]) for i, j in ((0, 1), (0, 2), (1, 2))]
        assert found.gradients.mean_cosine == pytest.approx(np.mean(pairs), abs=2e-3)

    def test_linear_network_in_closed_form(self) -> None:
        weight = np.array([[0.8, 0.1, 0.1], [0.0, 0.9, 0.1], [0.3, 0.1, 0.6]])

        def gradient(x: np.ndarray, clean: np.ndarray) -> tuple[float, np.ndarray]:
            error = (np.tensordot(weight, x, 1) - clean).reshape(3, -1)
            signs = np.sign(error) / error.size
            return np.abs(error).mean(), np.concatenate([(signs @ x.reshape(3, -1).T).ravel(), signs.sum(1)])

        self.check(linear(weight), self.expected(gradient))

    def test_nonlinear_network_by_autograd_in_float64(self) -> None:
        network = convolutional()
        module = copy.deepcopy(network.module).double().requires_grad_()

        def gradient(x: np.ndarray, clean: np.ndarray) -> tuple[float, np.ndarray]:
            module.zero_grad()
            loss = (module(torch.tensor(x)[None]) - torch.tensor(clean.copy())).abs().mean()
            loss.backward()
            return loss.item(), torch.cat([p.grad.flatten() for p in module.parameters()]).numpy()

        self.check(network, self.expected(gradient))

    def test_known_vectors(self) -> None:
        vectors = ([1., 0, 0], [3., 4, 0], [-2., 0, 0], [0., 0, 0])
        gradients = [[torch.tensor(v[:1]), torch.tensor([v[1:]])] for v in vectors]
        found = compare_gradients(gradients, [torch.tensor(0.5)] * 4)
        assert found.norms == pytest.approx([1, 5, 2, 0])
        assert [row[:3] for row in found.cosines[:3]] == [pytest.approx(row) for row in
                                                          ([1, 0.6, -1], [0.6, 1, -0.6], [-1, -0.6, 1])]
        assert [row[3] for row in found.cosines] == found.cosines[3] == [None] * 4
        assert found.mean_cosine == pytest.approx(-1 / 3)

    def test_gradients_that_cancel(self) -> None:
        """What docs/invariance.md says of a minimum: n gradients of one norm with sum 0 have mean cosine -1/(n - 1)."""
        vectors = np.eye(4) - 0.25
        found = compare_gradients([[torch.tensor(v)] for v in vectors], [torch.tensor(0.)] * 4)
        assert found.mean_cosine == pytest.approx(-1 / 3)

    def test_network_is_left_as_it_was(self) -> None:
        module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))
        network = RestorationNetwork(module, {})
        before = copy.deepcopy(module.state_dict())
        norms = measure(network).gradients.norms
        assert min(norms) > 0
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
        assert all(p.grad is None and not p.requires_grad for p in module.parameters())

    def test_parameters_without_influence_count_as_zero(self) -> None:
        plain, padded = convolutional(), convolutional()
        padded.module.register_parameter('unused', nn.Parameter(torch.ones(7)))
        assert measure(padded).gradients == measure(plain).gradients


class Enlarge(nn.Module):
    """Every pixel becomes a block of 2 x 2, times a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x.repeat_interleave(2, 2).repeat_interleave(2, 3)


class TestSuperResolution:

    distortions = parse_distortions([{'type': 'Downsample', 'scale': 2, 'mode': ['area', 'bicubic']}])
    network = RestorationNetwork(Enlarge(), {}, scale=2)

    def test_dependence_and_error(self) -> None:
        images = {'odd': photographs(1, 45, 51)['image0']}
        found = measure(self.network, images, self.distortions).images['odd']
        clean = rgb(images['odd'])[:, :44, :50]
        small = [d(torch.tensor(clean.copy())[None])[0].numpy() for d in self.distortions]
        large = [np.repeat(np.repeat(x, 2, 1), 2, 2) for x in small]
        assert found.inputs[0][1] == pytest.approx(rmse(*small), rel=1e-4)
        assert found.outputs[0][1] == pytest.approx(rmse(*large), rel=1e-4)
        assert found.errors == pytest.approx([rmse(y, clean) for y in large], rel=1e-4)
        assert found.input_errors is None

    def test_patches_lie_where_their_targets_lie(self) -> None:
        """Blocks of 2 x 2 survive averaging and come back, so the loss is zero wherever the patches are."""
        blocks = {'blocks': photographs(1, 40, 40)['image0'].repeat(2, 0).repeat(2, 1)}
        averaging = parse_distortions([{'type': 'Downsample', 'scale': 2, 'mode': ['area', 'bilinear']}])
        found = measure(self.network, blocks, averaging, patches=8)
        assert found.gradients.losses == pytest.approx([0, 0], abs=1e-6)
        assert found.errors == pytest.approx([0, 0], abs=1e-3)


class TestErrors:

    @pytest.mark.parametrize(('options', 'message'), [
        ({'distortions': DistortionSet(NOISE[:1])}, r'two confounders, got GaussianNoise\(sigma=5\) alone'),
        ({'distortions': TestSuperResolution.distortions}, 'their scale is 2, that of the network .* is 1'),
        ({'patches': 0}, 'patches: expected at least 1, got 0'),
    ])
    def test_options(self, options: dict, message: str) -> None:
        with pytest.raises(OptionError, match=message):
            measure(linear(1.0), **options)

    @pytest.mark.parametrize('patch', [4, 20])
    def test_patch_that_is_no_multiple(self, patch: int) -> None:
        network = RestorationNetwork(nn.Conv2d(3, 3, 1), {'type': 'Windows', 'window_size': 8})
        with pytest.raises(OptionError, match=f'patch: {patch} is no multiple of 8, as Windows needs it'):
            measure(network, patch=patch)

    def test_no_images(self) -> None:
        with pytest.raises(DataError, match='no images'):
            measure(linear(1.0), {})

    def test_image_smaller_than_its_patches(self) -> None:
        with pytest.raises(DataError, match='image image0: 31x50 pixels are less than the patches of 32'):
            measure(linear(1.0), photographs(1, 50, 31))

    def test_image_too_small_for_a_distortion(self) -> None:
        blur = parse_distortions([{'type': 'GaussianBlur', 'sigma': [1, 5]}])
        with pytest.raises(DataError, match='image0: 12x12 pixels are less than the 16 that the distortions need'):
            measure(linear(1.0), photographs(1, 12, 12), blur, patch=8)

    def test_distortion_that_refuses_an_image(self) -> None:
        class Square(Distortion, frozen=True):

            def apply(self, clean: Tensor, generator: torch.Generator | None) -> Tensor:
                raise ValueError('Square: wants square images')

        with pytest.raises(DataError, match='image image0: Square: wants square images'):
            measure(linear(1.0), distortions=DistortionSet([NOISE[0], Square()]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two checkpoints that know their training, one that does not, one of another scale, and four images."""
    for k, image in enumerate(photographs(4, 70, 90).values()):
        (tmp_path / 'images').mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f'images/{k}.png'), image)
    network_g = {'type': 'RRDBNetNoUpsample', 'num_feat': 4, 'num_block': 1, 'num_grow_ch': 2}
    notes = NetworkNotes(network_g=network_g, distortions=[{'type': 'GaussianNoise', 'sigma': [5, 15]}],
                         confounders=['GaussianNoise(sigma=5)', 'GaussianNoise(sigma=15)'])
    large = NetworkNotes(network_g={'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'scale': 4, 'num_feat': 4,
                                    'num_block': 1, 'num_grow_ch': 2}, scale=4)
    for seed, (name, note) in enumerate({'a': notes, 'b': notes, 'large': large, 'silent': None}.items()):
        torch.manual_seed(seed)
        content = {'params': build_module(note.network_g if note else network_g, 'test').state_dict()}
        torch.save({**content, NOTES: msgspec.to_builtins(note)} if note else content, tmp_path / f'{name}.pth')
    (tmp_path / 'options.yml').write_text(yaml.safe_dump(
        {'network_g': network_g, 'scale': 1, 'distortions': [{'type': 'GaussianBlur', 'sigma': [1, 2]}]}))
    (tmp_path / 'list.yml').write_text('- {type: GaussianNoise, sigma: [10, 20, 30]}')
    return tmp_path


class TestTool:

    def run(self, folder: Path, *names: str, **options: object) -> InvarianceReport:
        runs = {name.upper(): folder / f'{name}.pth' for name in names}
        text, numbers, picture = write_invariance(runs, folder / 'images', folder / 'out', patch=SIDE, patches=1,
                                                  **options)
        assert text.read_text().count(f'({picture.name})') == 1
        assert cv2.imread(str(picture)).std() > 10
        return from_json(numbers.read_bytes())

    def test_confounders_of_the_first_checkpoint(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        report = self.run(folder, 'a', 'b', limit=3, size=40)
        assert report.labels == ['GaussianNoise(sigma=5)', 'GaussianNoise(sigma=15)']
        assert 'those that A was trained on' in report.settings['confounders']
        assert 'those that A was trained on' in capfd.readouterr().err
        assert report.runs['A'].trained_on == report.labels
        assert list(report.runs['B'].measured.images) == ['0', '1', '2']
        image = cv2.imread(str(folder / 'images/0.png'))[15:55, 25:65]
        clean = torch.tensor(rgb(image).copy(), dtype=torch.float32)[None]
        noisy = [d(clean, fixed_generator(0, 'images', '0', d.label)).double().numpy()
                 for d in parse_distortions([{'type': 'GaussianNoise', 'sigma': [5, 15]}])]
        for run in report.runs.values():
            assert run.measured.images['0'].inputs[0][1] == pytest.approx(rmse(*noisy), rel=1e-4)

    @pytest.mark.parametrize(('options', 'count', 'source'), [
        ({'distortions': 'list.yml'}, 3, 'distortions of '), ({'distortions': 'options.yml'}, 2, 'options.yml'),
    ])
    def test_confounders_of_a_file(self, folder: Path, options: dict, count: int, source: str) -> None:
        report = self.run(folder, 'a', limit=1, **{key: folder / value for key, value in options.items()})
        assert len(report.labels) == count
        assert source in report.settings['confounders']

    def test_checkpoint_that_says_nothing(self, folder: Path) -> None:
        report = self.run(folder, 'silent', limit=1, opt=folder / 'options.yml')
        assert report.labels == ['GaussianBlur(sigma=1)', 'GaussianBlur(sigma=2)']
        assert report.runs['SILENT'].trained_on == []

    def test_super_resolution(self, folder: Path) -> None:
        (folder / 'list.yml').write_text('- {type: Downsample, scale: 4, mode: [area, bicubic]}')
        report = self.run(folder, 'large', limit=2, distortions=folder / 'list.yml')
        assert report.runs['LARGE'].measured.input_errors is None
        assert min(report.runs['LARGE'].measured.gradients.norms) > 0

    def test_text_has_the_numbers(self, folder: Path) -> None:
        report = self.run(folder, 'a', 'b')
        text = (folder / 'out/invariance.md').read_text()
        for run in report.runs.values():
            assert f'{run.measured.mean("output dependence"):.2f}' in text
            assert f'{run.measured.mean("error"):.2f}' in text
            assert f'{run.measured.gradients.mean_cosine:.3f}' in text
        for metric in METRICS:
            values = [np.array(list(run.measured.per_image(metric).values())) for run in report.runs.values()]
            difference = differences(report, 'B')[metric]
            assert difference.mean == pytest.approx(np.mean(values[1] - values[0]))
            assert difference.low <= difference.mean <= difference.high
        assert 'returns grey' in text

    @pytest.mark.parametrize(('names', 'options', 'message'), [
        (['a', 'large'], {}, 'the same scale, got A 1, LARGE 4'),
        (['large'], {}, 'LARGE does not say what it was trained on'),
        (['large'], {'distortions': 'list.yml'}, 'of scale 1, the networks of scale 4'),
        (['silent'], {}, 'does not say what network it is of'),
        (['a'], {'distortions': 'absent.yml'}, r'--distortions: there is no file .*absent.yml'),
        (['a'], {'distortions': 'images/0.png'}, '--distortions: .*0.png cannot be read'),
        (['a'], {'device': 'abacus'}, "--device: got 'abacus'; allowed: auto, cpu"),
        (['a'], {'size': 20}, '20x20 pixels are less than the patches of 32'),
        (['a'], {'param_key': 'params_ema'}, "has no 'params_ema'"),
    ])
    def test_mistakes(self, folder: Path, names: list, options: dict, message: str) -> None:
        given = {key: folder / value if key == 'distortions' else value for key, value in options.items()}
        with pytest.raises((OptionError, DataError), match=message):
            self.run(folder, *names, **given)

    @pytest.mark.parametrize(('parameter', 'value', 'message'), [
        ('conv_first.bias', float('nan'), r'--run B=.*b.pth: image 0: the output is not finite'),
        ('conv_last.bias', float('inf'), r'--run B=.*b.pth: image 0: the output is not finite'),
    ])
    def test_a_network_that_is_not_finite(self, folder: Path, parameter: str, value: float, message: str) -> None:
        """Nothing is written, least of all a file that is no JSON; infinite values would have been clamped."""
        content = torch.load(folder / 'b.pth', weights_only=False)
        content['params'][parameter][:] = value
        torch.save(content, folder / 'b.pth')
        with pytest.raises(NumericalError, match=message):
            self.run(folder, 'a', 'b')
        assert list((folder / 'out').iterdir()) == []

    def test_a_gradient_that_is_not_finite(self) -> None:
        """The root's derivative at zero is infinite, and zero times that is none."""

        class Root(nn.Conv2d):

            def forward(self, x: Tensor) -> Tensor:
                return x + (super().forward(x) * 0).square().sqrt()

        with pytest.raises(NumericalError, match='image image0: the gradient of the loss is not finite'):
            measure(RestorationNetwork(Root(3, 3, 1), {}))

    @pytest.mark.parametrize('kind', [AssertionError, ValueError, ZeroDivisionError])
    def test_a_network_that_fails(self, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:

        def fail(*_: object, **__: object) -> None:
            raise kind('sides must be multiples of 4')

        monkeypatch.setattr('dil_plugin.evaluation.invariance.tool.measure_invariance', fail)
        with pytest.raises(DataError, match=rf'--run A=.*a.pth: the network fails \({kind.__name__}: sides must be'):
            self.run(folder, 'a')

    def test_a_mistake_keeps_its_words(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:

        def fail(*_: object, **__: object) -> None:
            raise OptionError('Net: takes images of 1 channels')

        monkeypatch.setattr('dil_plugin.evaluation.invariance.tool.measure_invariance', fail)
        with pytest.raises(OptionError, match='^Net: takes images of 1 channels$'):
            self.run(folder, 'a')

    def test_refused_before_any_work(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr('dil_plugin.evaluation.invariance.tool.measure_invariance', None)
        cv2.imwrite(str(folder / 'images/3.png'), photographs(1, 31, 90)['image0'])
        with pytest.raises(DataError, match='image 3: 90x31 pixels'):
            self.run(folder, 'a')

    def test_two_images_of_one_name(self, folder: Path) -> None:
        cv2.imwrite(str(folder / 'images/0.bmp'), photographs(1)['image0'])
        with pytest.raises(DataError, match='two images called 0'):
            self.run(folder, 'a')

    def test_grey_and_16_bit_files(self, folder: Path) -> None:
        grey = photographs(1)['image0'][:, :, 0]
        for path in (folder / 'images').iterdir():
            path.unlink()
        cv2.imwrite(str(folder / 'images/x.png'), grey.astype(np.uint16) * 257)
        cv2.imwrite(str(folder / 'images/y.png'), grey[:, :, None].repeat(3, 2))
        blur = {'distortions': folder / 'options.yml'}
        x, y = self.run(folder, 'a', **blur).runs['A'].measured.images.values()
        assert x.inputs == y.inputs

    def test_folder_that_cannot_be_made(self, folder: Path) -> None:
        (folder / 'out').write_text('a file')
        with pytest.raises(DataError, match='--output: .*out cannot be made'):
            self.run(folder, 'a')


class TestCommand:

    def main(self, monkeypatch: pytest.MonkeyPatch, folder: Path, *runs: str) -> int:
        spec = importlib.util.spec_from_file_location('invariance_command', ROOT / 'tools/invariance.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        arguments = ['--data', f'{folder}/images', '-o', f'{folder}/out', '--limit', '1', '--patch', '32']
        monkeypatch.setattr(sys, 'argv', ['invariance.py', *(f'--run={run}' for run in runs), *arguments])
        return module.main()

    def test_writes_three_files(self, folder: Path, monkeypatch: pytest.MonkeyPatch,
                                capsys: pytest.CaptureFixture[str]) -> None:
        assert self.main(monkeypatch, folder, f'ERM={folder}/a.pth', f'DIL={folder}/b.pth') == 0
        told = capsys.readouterr()
        assert '.pth: params\n' in told.err  # which of the checkpoint's parameters were measured
        names = [Path(line).name for line in told.out.split()]
        assert names == ['invariance.md', 'invariance.json', 'invariance.png']
        assert list(json.loads((folder / 'out/invariance.json').read_text())['runs']) == ['ERM', 'DIL']

    def test_mistake(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.main(monkeypatch, folder, 'ERM') == 2
        assert capsys.readouterr().err.startswith('error: --run ERM: expected NAME=PATH')

    def test_interruption(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt
        monkeypatch.setattr('dil_plugin.evaluation.invariance.tool.write_invariance', interrupted)
        assert self.main(monkeypatch, folder, f'ERM={folder}/a.pth') == 130


class TestFigure:

    @pytest.mark.parametrize(('labels', 'short', 'meaning'), [
        (['GaussianNoise(sigma=5)', 'GaussianNoise(sigma=7.5)'], ['5', '7.5'], 'GaussianNoise, sigma'),
        (['GaussianNoise(sigma=5)', 'GaussianBlur(sigma=5)'], ['d1', 'd2'], ''),
        (['GaussianNoise(sigma=5)', 'GaussianNoise(sigma=5)#2'], ['d1', 'd2'], ''),
        (['RealESRGAN', 'RealESRGAN#2', 'RealESRGAN#3'], ['d1', 'd2', 'd3'], ''),
    ])
    def test_short_labels(self, labels: list, short: list, meaning: str) -> None:
        assert short_labels(labels) == (short, meaning)

    def test_numbers_of_all_matrices(self) -> None:
        runs = {'one': measure(convolutional(0)), 'two': measure(convolutional(1))}
        figure = invariance_figure(runs)
        inputs, errors, *panels = figure.axes
        shown = [[text.get_text() for text in axes.texts] for axes in figure.axes]
        assert shown[0] == [f'{v:.1f}' for row in runs['one'].inputs for v in row]
        assert shown[1] == [f'{v:.1f}' for row in (runs['one'].input_errors, runs['one'].errors, runs['two'].errors)
                            for v in row]
        for k, run in enumerate(runs.values()):
            assert shown[2 + 2 * k] == [f'{v:.1f}' for row in run.outputs for v in row]
            assert shown[3 + 2 * k] == [f'{v:.2f}' for row in run.gradients.cosines for v in row]
        scales = [axes.images[0].get_clim() for axes in panels]
        assert scales[0] == scales[2] == (0, max(np.max(run.outputs) for run in runs.values()))
        assert scales[1] == scales[3] == (-1, 1)
        assert [text.get_text().split(' = ')[0] for text in figure.texts[1:]] == ['d3', 'd2', 'd1']

    def test_zeros_everywhere(self) -> None:
        """The right constant: no difference, no error, no gradient, so no cosine."""
        flat = {'flat': np.zeros((SIDE, SIDE, 3), np.uint8)}
        still = parse_distortions([{'type': 'GaussianBlur', 'sigma': [2, 3]}])
        run = measure(linear(0.0), flat, still)
        assert run.errors == run.gradients.norms == [0, 0]
        assert run.gradients.mean_cosine is None
        *_, outputs, cosines = invariance_figure({'still': run}).axes
        assert outputs.images[0].get_clim() == (0, 1)
        assert [text.get_text() for text in cosines.texts] == ['–'] * 4
        report = InvarianceReport(baseline='still', settings={}, runs={'still': MeasuredRun(
            checkpoint='x.pth', param_key='params', network='Linear', parameters=12, measured=run)})
        row, = (line for line in to_markdown(report, 'x.png').split('\n') if line.startswith('| still | ') and 'x.pth'
                not in line and ' / ' not in line and line.count('|') == 7)
        assert [cell.strip() for cell in row.strip('|').split('|')] == ['still', '0.00', '–', '0.00', '–', '–']


def test_a_network_that_works_in_place() -> None:
    """All numbers are those of the out-of-place twin, input errors and gradient cosines too."""

    class Twin(nn.Conv2d):

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.tanh(x - 0.45)) + 0.45

    class InPlace(Twin):

        def forward(self, x: Tensor) -> Tensor:
            x -= 0.45
            return nn.Conv2d.forward(self, torch.tanh(x)) + 0.45

    found = []
    for kind in (Twin, InPlace):
        torch.manual_seed(0)
        found.append(measure(RestorationNetwork(kind(3, 3, 3, padding=1), {'type': 'Twin'})))
    assert found[0] == found[1]
