"""What the demo compares: photographs, noise levels, methods, and the scores they get."""

import importlib.util
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from dil_plugin.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {'ERM': 'demo_erm', 'DIL': 'demo_sf'}  # files in options/train
SEEN, UNSEEN = (10, 20), (30, 40, 50)  # noise levels of the test, sigma on the 0-255 scale


class Photograph(NamedTuple):
    """A photograph inside an installed package.

    Attributes:
        name: Its name in the demo.
        package: The package that ships it.
        file: Where it lies in that package.
        credit: Who took it.
        crop: Upper left corner (y, x) of the part that ``crops.png`` shows, chosen beforehand.
    """

    name: str
    package: str
    file: str
    credit: str
    crop: tuple[int, int] = (0, 0)

    def path(self) -> Path:
        """The file; raises DataError where the package or the file is missing."""
        spec = importlib.util.find_spec(self.package)
        path = Path(spec.origin).parent / self.file if spec and spec.origin else None
        if path is None or not path.is_file():
            raise DataError(f'the photograph {self.file} of the package {self.package} is missing; '
                            'pip install -r requirements/demo.txt brings it')
        return path


TRAINING = (
    Photograph('astronaut', 'skimage', 'data/astronaut.png', 'NASA, public domain'),
    Photograph('coffee', 'skimage', 'data/coffee.png', 'Rachel Michetti, CC0'),
    Photograph('motorcycle', 'skimage', 'data/motorcycle_left.png', 'Middlebury 2014 stereo benchmark'),
    Photograph('rocket', 'skimage', 'data/rocket.jpg', 'SpaceX, public domain'),
    Photograph('china', 'sklearn', 'datasets/images/china.jpg', 'danielbuechele, CC BY 2.0'),
)
TEST = (
    Photograph('chelsea', 'skimage', 'data/chelsea.png', 'Stefan van der Walt, CC0', crop=(40, 90)),
    Photograph('flower', 'sklearn', 'datasets/images/flower.jpg', 'vultilion, CC BY 2.0', crop=(160, 245)),
)


class Score(NamedTuple):
    """Means over the test photographs: PSNR in dB, SSIM in [-1, 1], on 8-bit RGB."""

    psnr: float
    ssim: float


Scores = dict[str, list[Score]]  # 'noisy' and the methods, one score per level of SEEN + UNSEEN


def load(options: Path) -> dict[str, Any]:
    """The options in a YAML file."""
    content: dict[str, Any] = yaml.safe_load(options.read_text(encoding='utf-8'))
    return content


def training_levels(options: Path) -> list[float]:
    """The noise levels of the confounders, sigma on the 0-255 scale."""
    return [float(level) for level in load(options)['distortions'][0]['sigma']]


def result_path(out: Path, level: float, photograph: str, what: str) -> Path:
    """Where a noisy or restored photograph is stored (the names are those of BasicSR's validation)."""
    return out / 'results' / f'sigma{level}' / f'{photograph}_{what}.png'


def say(text: str) -> None:
    """Prints a line at once, even into a pipe."""
    sys.stdout.write(text + '\n')
    sys.stdout.flush()
