"""Paired statistics: how much better one method is than another on the same images."""

import warnings
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 9999
FEW_IMAGES = 10
CONFIDENCE = 0.95
_BATCH = 1000  # resamples at a time; all of them would be 100 MB for a thousand images


class Difference(NamedTuple):
    """A mean difference over images.

    Attributes:
        mean: Of (method - baseline), over the images that both have.
        low: Lower end of the 95 % bootstrap interval of the mean; NaN with fewer than two images.
        high: Upper end.
        images: How many there are.
    """

    mean: float
    low: float
    high: float
    images: int

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def paired_difference(method: Mapping[str, float], baseline: Mapping[str, float], seed: int = 0) -> Difference | None:
    """Mean of the differences of pairs, with a bootstrap interval over images.

    The images are drawn with replacement 9999 times and the interval is the bias-corrected and accelerated one (BCa,
    Efron 1987), by ``scipy.stats.bootstrap``. It speaks of other images from the same source, not of other trainings:
    for those, train with several seeds.

    Args:
        method: A metric by image name.
        baseline: The same of the method to compare with.
        seed: Seeds the resampling.

    Returns:
        The difference, or None if they have no image in common.
    """
    common = sorted(method.keys() & baseline.keys())
    if not common:
        return None
    differences = np.array([method[name] - baseline[name] for name in common])
    mean = float(differences.mean())
    if len(common) < 2:
        return Difference(mean, float('nan'), float('nan'), len(common))
    if np.ptp(differences) == 0:
        return Difference(mean, mean, mean, len(common))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', stats.DegenerateDataWarning)
        interval = stats.bootstrap((differences, ), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE,
                                   batch=_BATCH, rng=np.random.default_rng(seed)).confidence_interval
    return Difference(mean, float(interval.low), float(interval.high), len(common))


def few_images(differences: Iterable[Difference]) -> str:
    """A warning where intervals are of too few images to be relied on, else nothing."""
    fewest = min((one.images for one in differences), default=FEW_IMAGES)
    if fewest >= FEW_IMAGES:
        return ''
    return f'Intervals over fewer than {FEW_IMAGES} images are too narrow to rely on; the fewest here are {fewest}.'
