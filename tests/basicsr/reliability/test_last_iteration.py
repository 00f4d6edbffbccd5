"""A run ends with ``total_iter``, whatever has changed since it was interrupted, and what has changed is named."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from training_runs import TrainingRun

from dil_plugin.basicsr.compat import _with_enough_epochs
from dil_plugin.basicsr.data.draw_sampler import DrawSampler
from dil_plugin.basicsr.models.dil_model import DILModel
from dil_plugin.errors import OptionError


@pytest.fixture
def steps(monkeypatch):
    """The iterations that are computed in this process."""
    done = []
    optimize = DILModel.optimize_parameters
    monkeypatch.setattr(DILModel, 'optimize_parameters',
                        lambda model, current_iter: (done.append(current_iter), optimize(model, current_iter))[1])
    return done


def log_of(folder):
    return ''.join(path.read_text() for path in folder.glob('*.log'))


@pytest.fixture
def interrupted(base, pipeline, crops, tmp_path, steps):
    """A run of 6 iterations in epochs of 3, and its YAML with ``total_iter: 14``."""
    images = tmp_path / 'images'
    shutil.copytree(crops, images)
    base['datasets']['train'] |= {'dataroot_gt': str(images), 'dataset_enlarge_ratio': 2}
    base['train'].update(total_iter=6)
    base['logger'].update(print_freq=100, save_checkpoint_freq=6)
    pipeline(base)
    assert steps == [1, 2, 3, 4, 5, 6]
    steps.clear()
    base['train'].update(total_iter=14)
    return base


def more_images(train):
    for k in range(7):
        shutil.copy(Path(train['dataroot_gt'], 'coffee_0.png'), Path(train['dataroot_gt'], f'more_{k}.png'))


def fewer_images(train):
    for name in ('astronaut_0', 'coffee_0', 'coffee_1'):
        Path(train['dataroot_gt'], f'{name}.png').unlink()


@pytest.mark.parametrize(('change', 'told'), [
    (lambda train: train.update(dataset_enlarge_ratio=40), 'datasets.train.dataset_enlarge_ratio: 2 -> 40'),
    (lambda train: train.update(dataset_enlarge_ratio=1), 'datasets.train.dataset_enlarge_ratio: 2 -> 1'),
    (lambda train: train.update(batch_size_per_gpu=12), 'datasets.train.batch_size_per_gpu: 4 -> 12'),
    (more_images, 'images of datasets.train: 6 -> 13'),
    (fewer_images, 'images of datasets.train: 6 -> 3'),
], ids=['larger-ratio', 'smaller-ratio', 'batch', 'more', 'fewer'])
def test_a_run_ends_with_its_last_iteration(interrupted, pipeline, steps, change, told):
    change(interrupted['datasets']['train'])
    folder = pipeline(interrupted, 'train', '--auto_resume') / 'experiments/run'
    assert told in log_of(folder)
    assert steps == list(range(7, 15))
    assert torch.load(folder / 'training_states/12.state', weights_only=True)['iter'] == 12


def test_basicsr_itself_ends_with_its_last_iteration(interrupted, pipeline):
    """``SRModel`` says nothing of what has changed, but is trained to the end."""
    interrupted |= {'model_type': 'SRModel', 'name': 'plain'}
    interrupted['train'] |= {'total_iter': 6, 'dil': None}
    folder = pipeline(interrupted) / 'experiments/plain'
    interrupted['datasets']['train']['dataset_enlarge_ratio'] = 40
    interrupted['train']['total_iter'] = 14
    interrupted['logger'] |= {'print_freq': 1}
    pipeline(interrupted, 'train', '--auto_resume')
    assert 'iter:      14, lr' in log_of(folder)


@pytest.mark.parametrize('total', [6, 4])
def test_nothing_is_left_to_train(interrupted, pipeline, steps, total):
    """The state is of iteration 6: that is said, and the network is written and measured as of iteration 6."""
    interrupted['train']['total_iter'] = total
    interrupted['datasets']['val_1'] = {
        'name': 'val', 'type': 'DistortionAugmentedDataset', 'distortions': [{'type': 'GaussianNoise', 'sigma': 30}],
        'dataroot_gt': interrupted['datasets']['train']['dataroot_gt'], 'io_backend': {'type': 'disk'}}
    interrupted['val'] = {'val_freq': 100, 'save_img': False,
                          'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}}
    folder = pipeline(interrupted, 'train', '--auto_resume') / 'experiments/run'
    assert steps == []
    log = log_of(folder)
    assert f'train.total_iter: {total}, but the training state is of iteration 6 already' in log
    assert '@ 6 iter' in log
    latest, saved = (torch.load(folder / f'models/net_g_{name}.pth', weights_only=True) for name in ('latest', 6))
    assert latest['dil_plugin']['iteration'] == 6
    assert all(torch.equal(latest['params'][name], tensor) for name, tensor in saved['params'].items())


def test_a_cosine_does_not_go_beyond_its_end(base, pipeline):
    base['train'] |= {'scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [4]}}
    pipeline(base)
    base['train'] |= {'total_iter': 8, 'scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [8]}}
    with pytest.raises(OptionError, match=r'train\.total_iter: 8, .*4\.state .*ends at 4; allowed: at most 4'):
        pipeline(base, 'train', '--auto_resume')


def test_one_process_goes_on_as_two(interrupted, tmp_path):
    """Two halves of each epoch, of which 6 iterations were more than the state's two epochs."""
    run = TrainingRun(tmp_path / 'two', interrupted, 2)
    shutil.copytree(tmp_path / 'experiments/run', run.experiment)
    interrupted['logger']['print_freq'] = 1
    run.options.write_text(yaml.safe_dump(interrupted))
    run.finish('--auto_resume')
    assert 'processes: 1 -> 2' in run.log()
    assert sorted(run.losses()) == list(range(7, 15))


def test_the_last_validation_is_of_the_last_iteration(base, pipeline, crops):
    """Of 4 iterations in epochs of one, BasicSR says that it is of the sixth."""
    base['datasets']['train']['dataset_enlarge_ratio'] = 1
    base['datasets']['val_1'] = {
        'name': 'val', 'type': 'DistortionAugmentedDataset', 'distortions': [{'type': 'GaussianNoise', 'sigma': 30}],
        'dataroot_gt': str(crops), 'io_backend': {'type': 'disk'}}
    base['val'] = {'val_freq': 3, 'save_img': True, 'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}}
    for model in ('DILModel', 'SRModel'):
        base |= {'model_type': model, 'name': model}
        folder = pipeline(base) / 'experiments' / model
        names = [path.stem for path in (folder / 'visualization/coffee_0').iterdir()]
        assert sorted(names) == ['coffee_0_3', 'coffee_0_4']


@pytest.mark.parametrize('gpus', [1, 2, 3])
def test_epochs_are_of_what_the_loader_gives(gpus):
    """BasicSR's loader of one process has the batches of all its GPUs."""
    data = torch.utils.data.TensorDataset(torch.arange(13))
    sampler = DrawSampler(data, 1, 0, 1)
    loader = torch.utils.data.DataLoader(data, batch_size=2 * gpus, sampler=sampler, drop_last=True)
    opt = {'datasets': {'train': {'batch_size_per_gpu': 2}}, 'num_gpu': gpus, 'world_size': 1}
    epochs, total = _with_enough_epochs(lambda *_: (loader, sampler, [], 0, 20))(opt, None)[-2:]
    done = 0
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        done += sum(1 for _ in loader)
    assert done == total == 20
