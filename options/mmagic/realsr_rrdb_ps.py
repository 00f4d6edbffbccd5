# DIL ps: the generator of Real-ESRNet, real-world super-resolution x4 (Table 5), first-order degradation.
# Data: sub-images of DF2K, 400x400, and the test pairs of RealSR V3 for validation (docs/data.md), by
#   python tools/prepare_data.py --dataset DF2K --data datasets
#   python tools/prepare_data.py --dataset RealSR --data datasets
# BasicSR's half has the same as options/DIL_RealSR.yml.
#   python tools/train_mmagic.py options/mmagic/realsr_rrdb_ps.py
_base_ = ['_base_/runtime.py']

model = dict(
    type='DILEditModel',
    generator=dict(
        type='RRDBNet',
        in_channels=3,
        out_channels=3,
        mid_channels=64,
        num_blocks=23,
        growth_channels=32,
        upscale_factor=4),
    pixel_loss=_base_.pixel_loss,
    distortions=[dict(type='RealESRGAN', order=1, draws=4)],  # four draws of the whole chain on the same patches
    dil=dict(variant='ps', inner=dict(type='SGD', lr=1e-4)),
    gt_size=256,  # is cut from the crop of 400 after the distortion, as Real-ESRNet does it
    queue_size=180,  # training pair pool, as Real-ESRNet's; all versions of a patch stay together
    is_use_ema=True,
    data_preprocessor=_base_.data_preprocessor)

train_pipeline = [
    dict(type='LoadImageFromFile', key='gt', backend_args=dict(backend='lmdb', db_path='datasets/DF2K_sub400.lmdb')),
    dict(type='SetValues', dictionary=dict(scale=4)),
    dict(type='Crop', keys=['gt'], crop_size=(400, 400), random_crop=True),
    dict(type='Flip', keys=['gt'], flip_ratio=0.5, direction='horizontal'),
    dict(type='Flip', keys=['gt'], flip_ratio=0.5, direction='vertical'),
    dict(type='RandomTransposeHW', keys=['gt'], transpose_ratio=0.5),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    num_workers=8,
    batch_size=12,  # every confounder and the query see the same 12 patches
    drop_last=True,
    pin_memory=True,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='BasicImageDataset',
        data_root='datasets/DF2K_sub400.lmdb',
        ann_file='meta_info.txt',
        data_prefix=dict(gt=''),
        pipeline=train_pipeline))

val_pipeline = [
    dict(
        type='LoadImageFromFile',
        key='img',
        backend_args=dict(backend='lmdb', db_path='datasets/RealSR_V3_test_x4_LR.lmdb')),
    dict(
        type='LoadImageFromFile',
        key='gt',
        backend_args=dict(backend='lmdb', db_path='datasets/RealSR_V3_test_x4_HR.lmdb')),
    dict(type='PackInputs'),
]
val_dataloader = dict(
    num_workers=1,
    batch_size=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BasicImageDataset',
        metainfo=dict(dataset_type='RealSR_V3', task_name='real_sr'),
        data_root='datasets/RealSR_V3_test_x4_HR.lmdb',
        ann_file='meta_info.txt',
        data_prefix=dict(img='', gt=''),  # both have the same keys
        pipeline=val_pipeline))
val_evaluator = dict(
    type='Evaluator',
    metrics=[
        dict(type='PSNR', convert_to='Y', prefix='RealSR_V3'),
        dict(type='SSIM', convert_to='Y', prefix='RealSR_V3'),
    ])

# as many image gradients as Real-ESRNet's 1,000,000 plain steps; the paper does not say
train_cfg = dict(type='IterBasedTrainLoop', max_iters=200000, val_interval=5000)
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor',
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=2e-4, betas=(0.9, 0.99)))
param_scheduler = dict(type='MultiStepLR', by_epoch=False, milestones=[100000, 160000], gamma=0.5)
custom_hooks = [
    dict(
        type='ExponentialMovingAverageHook',
        module_keys='generator_ema',
        interval=1,
        interp_cfg=dict(momentum=0.001)),
]
