# Data and schedule of Table 1: Gaussian noise of sigma 5 to 20 on sub-images of DF2K; CBSD68 at sigma 20, which is
# seen, and at 30, which is not.
#   python tools/prepare_data.py -i datasets/DF2K/HR -o datasets/DF2K_sub256.lmdb --size 256 --step 240
distortions = [dict(type='GaussianNoise', sigma=[5, 10, 15, 20])]  # one confounder per value

train_pipeline = [
    dict(type='LoadImageFromFile', key='gt', backend_args=dict(backend='lmdb', db_path='datasets/DF2K_sub256.lmdb')),
    dict(type='SetValues', dictionary=dict(scale=1)),
    dict(type='Crop', keys=['gt'], crop_size=(64, 64), random_crop=True),
    dict(type='Flip', keys=['gt'], flip_ratio=0.5, direction='horizontal'),
    dict(type='Flip', keys=['gt'], flip_ratio=0.5, direction='vertical'),
    dict(type='RandomTransposeHW', keys=['gt'], transpose_ratio=0.5),
    dict(type='PackInputs'),  # clean images alone: the model distorts whole batches on its device
]
train_dataloader = dict(
    num_workers=8,
    batch_size=32,  # four fresh batches of 8, one per inner step
    drop_last=True,
    pin_memory=True,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='BasicImageDataset',
        data_root='datasets/DF2K_sub256.lmdb',
        ann_file='meta_info.txt',
        data_prefix=dict(gt=''),
        pipeline=train_pipeline))

val_20_pipeline = [
    dict(type='LoadImageFromFile', key='gt'),
    dict(type='CounterfactualDistortions', mode='fixed', distortions=[dict(type='GaussianNoise', sigma=20)]),
    dict(type='PackInputs'),
]
val_30_pipeline = [
    dict(type='LoadImageFromFile', key='gt'),
    dict(type='CounterfactualDistortions', mode='fixed', distortions=[dict(type='GaussianNoise', sigma=30)]),
    dict(type='PackInputs'),
]
val_dataloader = [
    dict(
        num_workers=1,
        batch_size=1,
        persistent_workers=True,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='BasicImageDataset',
            metainfo=dict(dataset_type='CBSD68_sigma20', task_name='denoising'),
            data_root='datasets/CBSD68',
            data_prefix=dict(gt=''),
            pipeline=val_20_pipeline)),
    dict(
        num_workers=1,
        batch_size=1,
        persistent_workers=True,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='BasicImageDataset',
            metainfo=dict(dataset_type='CBSD68_sigma30', task_name='denoising'),
            data_root='datasets/CBSD68',
            data_prefix=dict(gt=''),
            pipeline=val_30_pipeline)),
]
val_evaluator = [
    dict(
        type='Evaluator',
        metrics=[dict(type='PSNR', prefix='CBSD68_sigma20'), dict(type='SSIM', prefix='CBSD68_sigma20')]),
    dict(
        type='Evaluator',
        metrics=[dict(type='PSNR', prefix='CBSD68_sigma30'), dict(type='SSIM', prefix='CBSD68_sigma30')]),
]

# 30 epochs of 118,101 sub-images on four GPUs, halved after 20
train_cfg = dict(type='IterBasedTrainLoop', max_iters=110730, val_interval=5000)
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor',
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=1e-4, betas=(0.9, 0.999)))
param_scheduler = dict(type='MultiStepLR', by_epoch=False, milestones=[73820], gamma=0.5)
