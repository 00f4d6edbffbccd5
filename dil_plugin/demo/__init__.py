"""The demo: ERM and DIL trained on a few photographs with some noise levels, tested on others with more noise.

The photographs ship inside scikit-image and scikit-learn; nothing is downloaded. Both methods have the same network,
start, photographs, noise levels, outer optimiser and image gradients; they train side by side, one thread each.
"""

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import dil_plugin.basicsr  # noqa: F401  (adapts BasicSR, so it comes before it)

# isort: split
from basicsr.utils import imwrite

from dil_plugin.data_preparation import CutSettings, prepare_data, read_image
from dil_plugin.demo.reporting import draw_crops, draw_curve, report
from dil_plugin.demo.settings import OPTIONS, TEST, TRAINING, Photograph, Scores, say
from dil_plugin.demo.testing import evaluate
from dil_plugin.demo.training import TrainingFailed, train, train_in, write_options
from dil_plugin.errors import OptionError

__all__ = ['TrainingFailed', 'run_demo', 'train_in']

_MARKER = '.made_by_the_demo'


def run_demo(out: Path, iterations: int | None = None) -> Scores:
    """Runs the whole demo and leaves all that it made in ``out``.

    Args:
        out: The folder, made anew; one that holds anything but an earlier demo is refused.
        iterations: Training iterations of each method, four image gradients each; None: as the YAML files say.

    Returns:
        What stands in the table.

    Raises:
        OptionError: An argument is wrong.
        DataError: A photograph is missing.
        TrainingFailed: A training process failed.
    """
    if iterations is not None and iterations < 1:
        raise OptionError(f'--iters: must be at least 1, not {iterations}')
    photographs = {photograph: photograph.path() for photograph in TRAINING + TEST}
    fresh_folder(out)
    with stage('1/4  photographs: '
               f'{", ".join(p.name for p in TRAINING)} to train on, {", ".join(p.name for p in TEST)} to test on'):
        prepare(photographs, out)
    options = {method: write_options(name, out, iterations) for method, name in OPTIONS.items()}
    with stage(f'2/4  training {" and ".join(options)} side by side'):
        train(options, out)
    with stage('3/4  testing on the photographs not trained on'):
        scores = evaluate(options, out)
    with stage('4/4  table and figures'):
        text = report(scores, options['ERM'])
        (out / 'table.md').write_text(text, encoding='utf-8')
        draw_curve(scores, options['ERM'], out)
        draw_crops(out)
    say(f'\n{text}\n{out}: table.md, curve.png, crops.png; restored photographs in results, logs in train_*.log')
    return scores


@contextlib.contextmanager
def stage(title: str) -> Iterator[None]:
    """Says what is done, and how long it took."""
    say(title)
    start = time.monotonic()
    yield
    say(f'     {time.monotonic() - start:.0f} s')


def fresh_folder(out: Path) -> None:
    """Makes ``out`` an empty folder; of one that exists only what an earlier demo left is removed.

    Raises:
        OptionError: It is no folder, holds anything else, or cannot be written.
    """
    try:
        if out.is_dir() and any(out.iterdir()) and not (out / _MARKER).is_file():
            raise OptionError(f'--out: {out} holds files that no demo has made; give a new or an empty folder')
        out.mkdir(parents=True, exist_ok=True)
        for entry in out.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        (out / _MARKER).touch()
    except OSError as error:
        raise OptionError(f'--out: {out} cannot be made a folder of the demo: {error.strerror}') from None


def prepare(photographs: Mapping[Photograph, Path], out: Path) -> None:
    """Writes the photographs as PNG and packs those for training into ``train.lmdb``, 128 x 128 pixels each."""
    for photograph, path in photographs.items():
        folder = out / 'photographs' / ('train' if photograph in TRAINING else 'test')
        imwrite(read_image(path)[0], str(folder / f'{photograph.name}.png'))
    settings = CutSettings(size=128, step=64)
    summary = prepare_data(out / 'photographs' / 'train', out / 'train.lmdb', settings, workers=1)
    say(f'     {summary.records} sub-images of {settings.size} x {settings.size} pixels')
