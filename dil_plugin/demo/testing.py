"""Testing: restored photographs and their scores at every noise level."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from basicsr.data import build_dataloader, build_dataset
from basicsr.metrics import calculate_metric
from basicsr.models import build_model
from basicsr.utils import get_root_logger, imwrite, tensor2img
from tqdm import tqdm

from dil_plugin.demo import settings
from dil_plugin.demo.settings import Score, Scores, load, result_path

METRICS = {
    'psnr': {'type': 'calculate_psnr', 'crop_border': 0, 'test_y_channel': False},
    'ssim': {'type': 'calculate_ssim', 'crop_border': 0, 'test_y_channel': False},
}


def evaluate(options: Mapping[str, Path], out: Path) -> Scores:
    """Scores the trained networks, and the noisy photographs, at every level; images land in ``out/results``."""
    scores: Scores = {'noisy': [], **{method: [] for method in options}}
    with one_thread(), basicsr_logs_to(out / 'test.log'):
        models = {method: load_model(method, path, out) for method, path in options.items()}
        for level in tqdm(settings.SEEN + settings.UNSEEN, desc='     test', unit='level', dynamic_ncols=True):
            test_set = build_dataset(test_options(level, out))
            loader = build_dataloader(test_set, test_set.opt)
            scores['noisy'].append(score_noisy(test_set, level, out))
            for method, model in models.items():
                model.validation(loader, level, None, save_img=True)
                scores[method].append(Score(**model.metric_results))
    return scores


def test_options(level: float, out: Path) -> dict[str, Any]:
    """The data set of the test photographs with noise of one level."""
    return {
        'name': f'sigma{level}', 'type': 'DistortionAugmentedDataset', 'phase': 'test', 'scale': 1,
        'dataroot_gt': str(out / 'photographs' / 'test'), 'io_backend': {'type': 'disk'},
        'distortions': [{'type': 'GaussianNoise', 'sigma': level}],
    }


def load_model(method: str, options: Path, out: Path) -> Any:
    """A ``DILModel`` for testing with a method's averaged weights."""
    trained = load(options)
    checkpoint = out / 'experiments' / trained['name'] / 'models' / 'net_g_latest.pth'
    return build_model({
        'name': trained['name'], 'model_type': 'DILModel', 'scale': 1, 'num_gpu': trained['num_gpu'], 'dist': False,
        'rank': 0, 'is_train': False, 'network_g': trained['network_g'],
        'path': {'pretrain_network_g': str(checkpoint), 'param_key_g': 'params_ema', 'strict_load_g': True,
                 'visualization': str(out / 'results')},
        'val': {'save_img': True, 'suffix': method, 'metrics': METRICS},
    })


def score_noisy(test_set: Any, level: float, out: Path) -> Score:
    """The metrics of the noisy photographs, rounded to 8 bits as the restored ones are."""
    totals = dict.fromkeys(METRICS, 0.0)
    for sample in test_set:
        noisy, clean = tensor2img(sample['lq']), tensor2img(sample['gt'])
        imwrite(noisy, str(result_path(out, level, Path(sample['gt_path']).stem, 'noisy')))
        for name, metric in METRICS.items():
            totals[name] += float(calculate_metric({'img': noisy, 'img2': clean}, metric))
    return Score(**{name: total / len(test_set) for name, total in totals.items()})


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch meanwhile: on a busy machine more make these small networks many times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def basicsr_logs_to(path: Path) -> Iterator[None]:
    """What BasicSR logs in this process goes to a file alone meanwhile."""
    logger = get_root_logger()
    handlers, level = logger.handlers, logger.level
    with open(path, 'w', encoding='utf-8') as file:
        logger.handlers = [logging.StreamHandler(file)]
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.handlers = handlers
            logger.setLevel(level)
