"""Short runs of mmengine's Runner: validation, checkpoints, resuming, averages of the weights."""

import copy
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmagic.registry import MODELS

from .conftest import MODEL, NOISE, PACK, Recorder, build, relative_error, runner


def weights(trained):
    return {name: value.clone() for name, value in trained.model.state_dict().items()}


def in_the_pipeline(config):
    """The confounders made by the data loader and not by the model."""
    pipeline = config['train_dataloader']['dataset']['pipeline']
    pipeline[-1:] = [{'type': 'CounterfactualDistortions', 'distortions': NOISE}, PACK]


def killed_after(iterations, trained):
    """The run, killed in the iteration after that many."""
    step = trained.model.train_step

    def dying(*args, **kwargs):
        if trained.iter == iterations:
            raise KeyboardInterrupt
        return step(*args, **kwargs)

    trained.model.train_step = dying
    with pytest.raises(KeyboardInterrupt):
        trained.train()
    return trained


def test_run_validates_and_logs(run_config):
    """20 iterations, validated after 10 and 20; the PSNR is that of the images that the model restores."""
    trained = runner(run_config)
    trained.train()
    log = [json.loads(line) for path in Path(run_config['work_dir']).rglob('scalars.json')
           for line in path.read_text().splitlines()]
    validations = [entry for entry in log if 'PSNR' in entry]
    assert len(validations) == 2
    assert validations[1]['PSNR'] > validations[0]['PSNR'] + 0.5
    assert 0 < validations[1]['SSIM'] < 1
    assert all(f'l_inner_GaussianNoise(sigma={s})' in log[0] for s in (5, 10, 15, 20))

    errors = []
    model = trained.model.eval()
    with torch.no_grad():
        for batch in trained.val_loop.dataloaders[0]:
            [sample] = model.val_step(batch)
            gt = cv2.imread(sample.metainfo['gt_path']).astype(np.float64)
            restored = sample.output.pred_img.permute(1, 2, 0).double().numpy()
            errors.append(10 * math.log10(255**2 / np.square(restored - gt).mean()))
    assert validations[1]['PSNR'] == pytest.approx(np.mean(errors), abs=1e-3)


@pytest.mark.parametrize(('variant', 'where'), [('sf', 'device'), ('sf', 'pipeline'), ('pf', 'device'),
                                                ('ps', 'device'), ('erm', 'device')])
def test_a_resumed_run_ends_like_an_uninterrupted_one(variant, where, run_config, tmp_path):
    """Bit for bit: inner moments, order of the confounders, draws, outer optimiser, schedule, position in the data."""
    run_config['model'] = {**MODEL, 'dil': {'variant': variant}, 'queue_size': 8}
    run_config['val_dataloader'] = run_config['val_cfg'] = run_config['val_evaluator'] = None
    run_config['train_cfg'].pop('val_interval')
    if where == 'pipeline':
        in_the_pipeline(run_config)
    whole = runner(run_config, work_dir=str(tmp_path / 'whole'))
    whole.train()
    half = killed_after(13, runner(run_config, work_dir=str(tmp_path / 'halves')))  # the checkpoint is of 10
    assert not all(map(torch.equal, weights(whole).values(), weights(half).values()))
    rest = runner(run_config, work_dir=str(tmp_path / 'halves'), resume=True)
    rest.train()
    assert rest.iter == 20
    for name, value in weights(whole).items():
        assert torch.equal(weights(rest)[name], value), name


def test_without_the_saved_state_a_resumed_run_differs(run_config, tmp_path):
    """The control: what is saved with the logs matters."""
    run_config['val_dataloader'] = run_config['val_cfg'] = run_config['val_evaluator'] = None
    run_config['train_cfg'].pop('val_interval')
    whole = runner(run_config, work_dir=str(tmp_path / 'whole'))
    whole.train()
    path = tmp_path / 'whole' / 'iter_10.pth'
    content = torch.load(path)
    del content['message_hub']['runtime_info']['dil_plugin']
    torch.save(content, path)
    rest = runner(run_config, work_dir=str(tmp_path / 'rest'), resume=True, load_from=str(path))
    rest.train()
    assert not all(map(torch.equal, weights(whole).values(), weights(rest).values()))


def test_another_variant_goes_on_from_a_checkpoint(run_config, tmp_path, capfd):
    run_config['train_cfg']['max_iters'] = 10
    runner(run_config).train()
    run_config['model'] = {**MODEL, 'dil': {'variant': 'pf'}}
    runner(run_config, resume=True, **{'train_cfg.max_iters': 12}).train()
    assert 'inner state of variant pf starts anew' in capfd.readouterr().out


def test_checkpoint_is_that_of_a_plain_model(run_config):
    """The weights load strictly into mmagic's BaseEditModel, and the whole file without code."""
    run_config['train_cfg']['max_iters'] = 10
    trained = runner(run_config)
    trained.train()
    content = torch.load(Path(run_config['work_dir']) / 'iter_10.pth', weights_only=True)
    plain = MODELS.build(copy.deepcopy({**{k: v for k, v in MODEL.items() if k not in ('dil', 'distortions')},
                                        'type': 'BaseEditModel'}))
    plain.load_state_dict(content['state_dict'])
    assert all(torch.equal(value, weights(trained)[name]) for name, value in plain.state_dict().items())


def test_accumulating_run(run_config):
    """20 iterations with accumulative_counts 4 are 5 steps of the optimiser."""
    run_config['optim_wrapper']['accumulative_counts'] = 4
    trained = runner(run_config)
    wrapper = trained.optim_wrapper = trained.build_optim_wrapper(trained.optim_wrapper)
    recorder = Recorder(wrapper.optimizer, steps=True)
    trained.train()
    assert len(recorder.grads) == 5


def test_generator_ema(run_config):
    """mmagic's hook: the average of the weights after every iteration; validation restores with it."""
    run_config['model'] = {**MODEL, 'is_use_ema': True}
    run_config['custom_hooks'] = [{'type': 'ExponentialMovingAverageHook', 'module_keys': 'generator_ema',
                                   'interval': 1, 'interp_cfg': {'momentum': 0.1}}]
    trained = runner(run_config)
    history = []
    step = trained.model.train_step

    def kept(*args, **kwargs):
        if not history:
            history.append([p.detach().clone() for p in trained.model.generator.parameters()])
        losses = step(*args, **kwargs)
        history.append([p.detach().clone() for p in trained.model.generator.parameters()])
        return losses

    trained.model.train_step = kept
    trained.train()
    average = history[0]
    for now in history[1:]:
        average = [a + 0.1 * (b - a) for a, b in zip(average, now, strict=True)]
    assert relative_error(list(trained.model.generator_ema.parameters()), average) < 1e-5
    assert relative_error(average, history[-1]) > 1e-3
    assert 'generator_ema.conv_first.weight' in torch.load(Path(run_config['work_dir']) / 'iter_20.pth')['state_dict']


def test_ema_hook_of_mmengine(run_config):
    run_config['custom_hooks'] = [{'type': 'mmengine.EMAHook', 'momentum': 0.1}]
    trained = runner(run_config)
    trained.train()
    content = torch.load(Path(run_config['work_dir']) / 'iter_20.pth')
    assert set(content['state_dict']) == set(build().state_dict())
    assert any(name.endswith('generator.conv_first.weight') for name in content['ema_state_dict'])


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize(('sampler', 'killed_at'), [('InfiniteSampler', 7), ('DefaultSampler', 8)])
def test_a_run_killed_within_an_epoch_sees_the_same_images(sampler, killed_at, workers, run_config, tmp_path,
                                                                 monkeypatch):
    """IterBasedTrainLoop: weights and images of a resumed run are those of an uninterrupted one, in every iteration."""
    run_config['val_dataloader'] = run_config['val_cfg'] = run_config['val_evaluator'] = None
    run_config['train_cfg'] = {'type': 'IterBasedTrainLoop', 'max_iters': 10}
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda _: None)  # mmengine waits 2 s between two epochs
    run_config['train_dataloader'] |= {'batch_size': 2, 'num_workers': workers, 'drop_last': True,
                                       'sampler': {'type': sampler, 'shuffle': True}}
    run_config['default_hooks']['checkpoint']['interval'] = 5  # three iterations to a turn of the six images

    def watched(trained):
        seen, sample = [], trained.model.data_preprocessor.forward

        def forward(data, training=False):
            seen.append([s.metainfo['gt_path'] for s in data['data_samples']])
            return sample(data, training)

        trained.model.data_preprocessor.forward = forward
        return trained, seen

    whole, all_seen = watched(runner(run_config, work_dir=str(tmp_path / 'whole')))
    whole.train()
    killed_after(killed_at, runner(run_config, work_dir=str(tmp_path / 'halves')))
    rest, seen = watched(runner(run_config, work_dir=str(tmp_path / 'halves'), resume=True))
    rest.train()
    assert seen == all_seen[5:]
    assert len({tuple(images) for images in all_seen}) > 3
    for name, value in weights(whole).items():
        assert torch.equal(weights(rest)[name], value), name


def test_epochs_begin_with_the_same_images_and_other_crops(run_config, tmp_path):
    """EpochBasedTrainLoop resumed between two epochs: the order of the images is restored, random crops are not."""
    run_config['val_dataloader'] = run_config['val_cfg'] = run_config['val_evaluator'] = None
    run_config['train_cfg'] = {'type': 'EpochBasedTrainLoop', 'max_epochs': 3}
    run_config['train_dataloader'] |= {'batch_size': 2, 'sampler': {'type': 'DefaultSampler', 'shuffle': True}}
    run_config['default_hooks'] |= {'checkpoint': {'type': 'CheckpointHook', 'interval': 1},
                                    'sampler_seed': {'type': 'DistSamplerSeedHook'}}

    def watched(trained):
        seen, sample = [], trained.model.data_preprocessor.forward

        def forward(data, training=False):
            seen.extend((s.metainfo['gt_path'], s.gt_img.clone()) for s in data['data_samples'])
            return sample(data, training)

        trained.model.data_preprocessor.forward = forward
        return trained, seen

    whole, all_seen = watched(runner(run_config, work_dir=str(tmp_path / 'whole')))
    whole.train()
    rest, seen = watched(runner(run_config, work_dir=str(tmp_path / 'rest'), resume=True,
                                load_from=str(tmp_path / 'whole' / 'epoch_2.pth')))
    rest.train()
    assert [name for name, _ in seen] == [name for name, _ in all_seen[12:]] != [name for name, _ in all_seen[:6]]
    assert not all(torch.equal(ours, theirs) for (_, ours), (_, theirs) in zip(seen, all_seen[12:], strict=True))
