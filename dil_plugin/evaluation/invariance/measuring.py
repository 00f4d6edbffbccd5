"""How much a network's output depends on the distortion of its input."""

from collections.abc import Callable, Mapping, Sequence

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dil_plugin.distortions import DistortionSet
from dil_plugin.distortions.fixed import fixed_generator
from dil_plugin.errors import DataError, NumericalError, OptionError
from dil_plugin.evaluation.invariance.gradient_agreement import GradientAgreement, GradientSum
from dil_plugin.evaluation.networks import RestorationNetwork
from dil_plugin.learning.types import Pair

Image = npt.NDArray[np.uint8]
Matrix = list[list[float]]

METRICS = ('output dependence', 'ratio', 'error', 'gradient cosine')
"""What ``Invariance.per_image`` knows."""


class ImageInvariance(msgspec.Struct, frozen=True, kw_only=True):
    """One clean image x, its counterfactuals ``x_i = g(x, d_i)`` and the outputs ``y_i = f(x_i)``.

    ``RMSE(a, b) = 255 sqrt(mean (a - b)^2)`` over pixels and channels. Outputs are clamped to [0, 1], as a picture
    would be, and not rounded.

    Attributes:
        outputs: ``RMSE(y_i, y_j)``, n x n.
        inputs: ``RMSE(x_i, x_j)``, n x n; for super-resolution at the size of the inputs.
        errors: ``RMSE(y_i, x)`` for each confounder.
        input_errors: ``RMSE(x_i, x)``; None for super-resolution, where the sizes differ.
        gradients: Of the loss on this image's patches alone.
    """

    outputs: Matrix
    inputs: Matrix
    errors: list[float]
    input_errors: list[float] | None
    gradients: GradientAgreement

    @property
    def output_dependence(self) -> float:
        """``2 / (n (n - 1)) sum_{i < j} RMSE(y_i, y_j)``; 0 for outputs that do not depend on the distortion."""
        return mean_of_pairs(self.outputs)

    @property
    def input_dependence(self) -> float:
        """The same of the inputs: what the network has to remove."""
        return mean_of_pairs(self.inputs)

    @property
    def ratio(self) -> float | None:
        """Output dependence divided by input dependence; None where the inputs do not differ."""
        return self.output_dependence / self.input_dependence if self.input_dependence > 0 else None

    @property
    def error(self) -> float:
        """``1/n sum_i RMSE(y_i, x)``."""
        return sum(self.errors) / len(self.errors)


class Invariance(msgspec.Struct, frozen=True, kw_only=True):
    """One network on one set of images under one set of confounders.

    Attributes:
        labels: Of the confounders; of equal ones the second is marked ``#2`` and so on.
        dataset: What the draws are of, beside the seed.
        seed: Of the draws.
        patch: Side of the patches of the gradients, in pixels of the clean image.
        patches: How many each image gave.
        images: By name.
        gradients: Of the loss on the patches of all images together.
    """

    labels: list[str]
    dataset: str
    seed: int
    patch: int
    patches: int
    images: dict[str, ImageInvariance]
    gradients: GradientAgreement

    @property
    def outputs(self) -> Matrix:
        """Mean over images of ``RMSE(y_i, y_j)``."""
        return np.mean([image.outputs for image in self.images.values()], axis=0).tolist()

    @property
    def inputs(self) -> Matrix:
        """Mean over images of ``RMSE(x_i, x_j)``."""
        return np.mean([image.inputs for image in self.images.values()], axis=0).tolist()

    @property
    def errors(self) -> list[float]:
        """Mean over images of ``RMSE(y_i, x)``, by confounder."""
        return np.mean([image.errors for image in self.images.values()], axis=0).tolist()

    @property
    def input_errors(self) -> list[float] | None:
        """Mean over images of ``RMSE(x_i, x)``, by confounder; None for super-resolution."""
        found = [image.input_errors for image in self.images.values() if image.input_errors is not None]
        return np.mean(found, axis=0).tolist() if found else None

    def per_image(self, metric: str) -> dict[str, float]:
        """One of ``METRICS`` by image name, of the images that have it."""
        read: Callable[[ImageInvariance], float | None] = {
            'output dependence': lambda image: image.output_dependence,
            'ratio': lambda image: image.ratio,
            'error': lambda image: image.error,
            'gradient cosine': lambda image: image.gradients.mean_cosine,
        }[metric]
        found = {name: read(image) for name, image in self.images.items()}
        return {name: value for name, value in found.items() if value is not None}

    def mean(self, metric: str) -> float | None:
        """One of ``METRICS``, its mean over images."""
        values = self.per_image(metric).values()
        return sum(values) / len(values) if values else None


def mean_of_pairs(matrix: Sequence[Sequence[float]]) -> float:
    """Mean of what stands above the diagonal."""
    values = [matrix[i][j] for i in range(len(matrix)) for j in range(i + 1, len(matrix))]
    return sum(values) / len(values)


def measure_invariance(network: RestorationNetwork,
                       images: Mapping[str, Image],
                       distortions: DistortionSet,
                       seed: int = 0,
                       *,
                       dataset: str = 'images',
                       patch: int = 64,
                       patches: int = 4,
                       progress: Callable[[], object] = lambda: None) -> Invariance:
    """Measures the dependence of outputs on the confounder, and the agreement of the confounders' gradients.

    Every draw depends on ``seed``, ``dataset``, the image's name and the confounder's label alone, so all networks get
    the same counterfactuals and the same patches. Patches are cut out of the counterfactuals, at places drawn once for
    each image.

    Args:
        network: What is measured.
        images: Clean images by name, uint8, ``(H, W, 3)`` in BGR order; cut to a multiple of the scale below and on the
            right, and made grey for a network of one channel.
        distortions: At least two confounders, of the network's scale.
        seed: Of the draws.
        dataset: The set's name; two sets may hold images of the same name.
        patch: Side of the patches, in pixels of the clean image: a multiple of ``scale * network.multiple``.
        patches: How many patches each image gives.
        progress: Called after every image.

    Raises:
        OptionError: There are fewer than two confounders, scales differ, ``patch`` is no such multiple or
            ``patches`` is below 1.
        DataError: There are no images, or one is too small.
        NumericalError: An output or a gradient is not finite.
    """
    check_measurable(network, images, distortions, patch, patches)
    gradients, measured = GradientSum(), {}
    for name, image in images.items():
        clean = _to_batch(image, distortions.scale, network.channels)
        try:
            inputs = [distort(clean, fixed_generator(seed, dataset, name, label)).to(network.device)
                      for distort, label in zip(distortions, distortions.labels, strict=True)]
        except ValueError as error:  # of a distortion of the user's own that wants other images
            raise DataError(f'image {name}: {error}') from None
        corners = _corners(inputs[0], patch // distortions.scale, patches,
                           fixed_generator(seed, dataset, name, 'patches'))
        try:
            measured[name] = _measure_image(network, clean.to(network.device), inputs, corners, patch, gradients)
        except NumericalError as error:
            raise NumericalError(f'image {name}: {error}') from None
        progress()
    return Invariance(labels=distortions.labels, dataset=dataset, seed=seed, patch=patch, patches=patches,
                      images=measured, gradients=gradients.mean())


def check_measurable(network: RestorationNetwork, images: Mapping[str, Image], distortions: DistortionSet, patch: int,
                     patches: int) -> None:
    """Raises what ``measure_invariance`` raises for these arguments, before any work."""
    if len(distortions) < 2:
        raise OptionError(f'distortions: dependence needs at least two confounders, got {distortions.labels[0]} alone')
    if distortions.scale != network.scale:
        raise OptionError(f'distortions: their scale is {distortions.scale}, that of the network ({network.name}) is '
                          f'{network.scale}')
    unit = network.scale * network.multiple
    if patch < unit or patch % unit:
        raise OptionError(f'patch: {patch} is no multiple of {unit}, as {network.name} needs it')
    if patches < 1:
        raise OptionError(f'patches: expected at least 1, got {patches}')
    if not images:
        raise DataError('there are no images to measure on')
    for name, image in images.items():
        height, width = (side // distortions.scale * distortions.scale for side in image.shape[:2])
        if min(height, width) < patch:
            raise DataError(f'image {name}: {width}x{height} pixels are less than the patches of {patch} for the '
                            'gradients (--size, --patch)')
        if min(height, width) < distortions.min_size:
            raise DataError(f'image {name}: {width}x{height} pixels are less than the {distortions.min_size} that the '
                            'distortions need')


def _measure_image(network: RestorationNetwork, clean: Tensor, inputs: Sequence[Tensor],
                   corners: Sequence[tuple[int, int]], patch: int, gradients: GradientSum) -> ImageInvariance:
    # one by one: n whole images at once may be more than a device holds
    restored = torch.cat([network(batch) for batch in inputs])
    if not bool(restored.isfinite().all()):
        raise NumericalError('the output is not finite')
    outputs = restored.clamp(0, 1)
    distorted, scale = torch.cat(list(inputs)), network.scale
    gt = _patches(clean, [(top * scale, left * scale) for top, left in corners], patch)
    pairs = [Pair(_patches(batch, corners, patch // scale), gt) for batch in inputs]
    return ImageInvariance(
        outputs=[_rmse(outputs, one).tolist() for one in outputs],
        inputs=[_rmse(distorted, one).tolist() for one in distorted],
        errors=_rmse(outputs, clean[0]).tolist(),
        input_errors=_rmse(distorted, clean[0]).tolist() if scale == 1 else None,
        gradients=_finite(gradients.add(network, pairs)))


def _finite(agreement: GradientAgreement) -> GradientAgreement:
    """The agreement; raises NumericalError where a loss or a gradient of it is not finite."""
    if not np.isfinite([*agreement.losses, *agreement.norms]).all():
        raise NumericalError('the gradient of the loss is not finite')
    return agreement


def _rmse(batch: Tensor, image: Tensor) -> Tensor:
    """``(n,)``: of each image of a batch to another one, on the 0-255 scale."""
    return 255 * (batch - image).double().square().mean(dim=(1, 2, 3)).sqrt()


def _corners(batch: Tensor, side: int, count: int, generator: torch.Generator) -> list[tuple[int, int]]:
    height, width = batch.shape[-2:]
    tops = torch.randint(height - side + 1, (count, ), generator=generator).tolist()
    lefts = torch.randint(width - side + 1, (count, ), generator=generator).tolist()
    return list(zip(tops, lefts, strict=True))


def _patches(batch: Tensor, corners: Sequence[tuple[int, int]], side: int) -> Tensor:
    return torch.cat([batch[:, :, top:top + side, left:left + side] for top, left in corners])


def _to_batch(image: Image, scale: int, channels: int) -> Tensor:
    height, width = (side // scale * scale for side in image.shape[:2])
    code = cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGR2GRAY
    pixels = cv2.cvtColor(np.ascontiguousarray(image[:height, :width]), code).reshape(height, width, channels)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None] / 255
