"""The four tools, one after the other in this process, on the options of a row of the table."""

import importlib
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import torch
import yaml
from basicsr.models.sr_model import SRModel

from dil_plugin.basicsr.checks.checking_tool import check
from dil_plugin.basicsr.data.draw_sampler import DrawSampler

ROOT = Path(__file__).parents[3]
TOTAL, KILLED = 5, 3


def training_options(tried: Any, dil: dict[str, Any], images: Path) -> dict[str, Any]:
    """Five iterations on tiny images with two confounders, in epochs of three; validation and a save after three."""
    noise = [{'type': 'GaussianNoise', 'sigma': sigma} for sigma in (10, 30)]
    if tried.scale > 1:
        noise = [{'type': 'Compose', 'distortions': [{'type': 'Downsample', 'scale': tried.scale, 'mode': 'area'}, one]}
                 for one in noise]
    return {
        'name': 'run', 'model_type': 'DILModel', 'scale': tried.scale, 'num_gpu': 0, 'manual_seed': 7,
        **({'custom_imports': [tried.own]} if tried.own else {}),
        'distortions': noise,
        'datasets': {
            'train': {
                'name': 'clean', 'type': 'DistortionAugmentedDataset', 'dataroot_gt': str(images / 'clean'),
                'io_backend': {'type': 'disk'}, 'gt_size': tried.gt_size or max(16, 8 * tried.scale),
                'use_hflip': True, 'use_rot': True, 'num_worker_per_gpu': 0, 'batch_size_per_gpu': 2,
                'dataset_enlarge_ratio': 2},
            'val_1': pairs(tried.scale, images)},
        'network_g': dict(tried.network),
        'path': {'pretrain_network_g': None, 'resume_state': None},
        'train': {
            'dil': {**dil, 'outputs': tried.outputs}, 'ema_decay': 0.5, 'total_iter': TOTAL, 'warmup_iter': -1,
            'optim_g': {'type': 'Adam', 'lr': 1e-3, 'betas': [0.9, 0.99], 'eps': 1e-5},
            'scheduler': {'type': 'MultiStepLR', 'milestones': [3], 'gamma': 0.5},
            'pixel_opt': {'type': 'CharbonnierLoss', 'eps': 1e-3}},
        'val': {'val_freq': KILLED, 'save_img': False,
                'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}},
        'logger': {'print_freq': 1, 'save_checkpoint_freq': KILLED},
    }


def pairs(scale: int, images: Path) -> dict[str, Any]:
    """The block of the validation set, one pair of odd size."""
    return {'name': 'odd', 'type': 'PairedImageDataset', 'dataroot_gt': str(images / f'gt{scale}'),
            'dataroot_lq': str(images / f'lq{scale}'), 'io_backend': {'type': 'disk'}}


class Tools:
    """Runs BasicSR's pipelines and our tools with ``experiments/`` and ``results/`` below a folder.

    Args:
        root: The folder.
        monkeypatch: Of pytest, for the command lines.
    """

    def __init__(self, root: Path, monkeypatch: Any) -> None:
        self.root, self.monkeypatch = root, monkeypatch
        self.run = root / 'experiments/run'
        self.psnr: list[float] = []
        record = SRModel._log_validation_metric_values

        def recorded(model: Any, *arguments: Any) -> None:
            self.psnr.append(float(model.metric_results['psnr']))
            record(model, *arguments)

        monkeypatch.setattr(SRModel, '_log_validation_metric_values', recorded)

    def _write(self, opt: dict[str, Any], name: str) -> str:
        path = self.root / name
        path.write_text(yaml.safe_dump(opt))
        return str(path)

    def check(self, opt: dict[str, Any]) -> list[str]:
        """The lines of check.py."""
        return list(check(str(self.root), ['-opt', self._write(opt, 'train.yml'), '--images', 'all']))

    def _pipeline(self, opt: dict[str, Any], kind: str, *arguments: str) -> None:
        import basicsr.utils.logger
        logging.getLogger('basicsr').handlers.clear()
        self.monkeypatch.setattr(sys, 'argv', [kind, '-opt', self._write(opt, f'{kind}.yml'), *arguments])
        self.monkeypatch.setattr(DrawSampler, 'resumed', None)
        basicsr.utils.logger.initialized_logger.clear()
        getattr(importlib.import_module(f'basicsr.{kind}'), f'{kind}_pipeline')(str(self.root))

    def train(self, opt: dict[str, Any], *arguments: str) -> dict[str, Any]:
        """What the last checkpoint holds."""
        self._pipeline(opt, 'train', *arguments)
        return torch.load(self.run / 'models/net_g_latest.pth', weights_only=True)

    def kill(self) -> None:
        """Leaves what a run that is killed after its first save leaves."""
        (self.run / 'models/net_g_latest.pth').unlink()
        assert [path.name for path in (self.run / 'training_states').iterdir()] == [f'{KILLED}.state']

    def test(self, opt: dict[str, Any]) -> Any:
        """The picture that test.py saves."""
        self._pipeline({
            **{name: opt[name] for name in ('model_type', 'scale', 'num_gpu', 'manual_seed', 'network_g')},
            **({'custom_imports': opt['custom_imports']} if 'custom_imports' in opt else {}),
            'name': 'tested', 'datasets': {'test_1': {**opt['datasets']['val_1'], 'name': 'odd'}},
            'path': {'pretrain_network_g': str(self.run / 'models/net_g_latest.pth')},
            'val': {**opt['val'], 'save_img': True, 'suffix': 'restored'}}, 'test')
        return cv2.imread(str(self.root / 'results/tested/visualization/odd/odd_restored.png'))

    def restore(self, opt: dict[str, Any]) -> Any:
        """The picture that restore.py makes of the same image."""
        tool = restore_tool()
        out = self.root / 'restored'
        shutil.rmtree(out, ignore_errors=True)
        own = ['--opt', str(self.root / 'train.yml')] if 'custom_imports' in opt else []
        self.monkeypatch.setattr(sys, 'argv', [
            'restore', '-i', opt['datasets']['val_1']['dataroot_lq'], '-o', str(out), '--checkpoint',
            str(self.run / 'models/net_g_latest.pth'), *own])
        assert tool.main() == 0
        return cv2.imread(str(out / 'odd.png'))


def restore_tool() -> Any:
    """``tools/restore.py`` as a module."""
    import importlib.util
    spec = importlib.util.spec_from_file_location('restore_tool', ROOT / 'tools/restore.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
