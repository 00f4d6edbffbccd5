# Some minutes on two CPU cores: a small RRDB learns to denoise photographs that ship inside scikit-image, and is
# validated on another one, at a seen and at an unseen level. Needs scikit-image.
#   python tools/train_mmagic.py options/mmagic/quick_cpu.py
_base_ = ['_base_/runtime.py']  # before the imports, by which mmengine would take the file for its other format

from importlib.util import find_spec as _find_spec  # noqa: E402
from os.path import dirname as _dirname  # noqa: E402

photographs = _dirname(_find_spec('skimage').origin) + '/data'

train_dataloader = dict(
    num_workers=0,
    batch_size=16,  # four fresh batches of 4, one per inner step
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='BasicImageDataset',
        data_root=photographs,
        ann_file='{{ fileDirname }}/_base_/photographs.txt',
        data_prefix=dict(gt=''),
        pipeline=[
            dict(type='LoadImageFromFile', key='gt', use_cache=True),
            dict(type='SetValues', dictionary=dict(scale=1)),
            dict(type='Crop', keys=['gt'], crop_size=(32, 32), random_crop=True),
            dict(type='Flip', keys=['gt'], flip_ratio=0.5, direction='horizontal'),
            dict(type='RandomTransposeHW', keys=['gt'], transpose_ratio=0.5),
            dict(type='PackInputs'),
        ]))

val_dataloader = [
    dict(
        num_workers=0,
        batch_size=1,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='BasicImageDataset',
            metainfo=dict(dataset_type=f'sigma{_sigma}', task_name='denoising'),
            data_root=photographs,
            ann_file='{{ fileDirname }}/_base_/validation.txt',
            data_prefix=dict(gt=''),
            pipeline=[
                dict(type='LoadImageFromFile', key='gt'),
                dict(type='Crop', keys=['gt'], crop_size=(128, 128), random_crop=False),
                dict(
                    type='CounterfactualDistortions',
                    mode='fixed',
                    distortions=[dict(type='GaussianNoise', sigma=_sigma)]),
                dict(type='PackInputs'),
            ])) for _sigma in (20, 30)
]
val_evaluator = [
    dict(
        type='Evaluator',
        metrics=[dict(type='PSNR', prefix=f'sigma{_sigma}'), dict(type='SSIM', prefix=f'sigma{_sigma}')])
    for _sigma in (20, 30)
]

model = dict(
    type='DILEditModel',
    generator=dict(type='RRDBNetNoUpsample', mid_channels=16, num_blocks=1, growth_channels=8),
    pixel_loss=_base_.pixel_loss,
    distortions=[dict(type='GaussianNoise', sigma=[5, 10, 15, 20])],
    dil=dict(variant='sf', patches='fresh', inner=dict(type='Adam', lr=1e-3, betas=(0.0, 0.999))),
    data_preprocessor=_base_.data_preprocessor)

train_cfg = dict(type='IterBasedTrainLoop', max_iters=600, val_interval=200)
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor',
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=1e-3, betas=(0.9, 0.999)))
param_scheduler = dict(type='MultiStepLR', by_epoch=False, milestones=[400], gamma=0.5)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=200))
