# What all files of this folder have in common.
default_scope = 'mmagic'
custom_imports = dict(imports=['dil_plugin.mmagic'], allow_failed_imports=False)

randomness = dict(seed=0)
log_level = 'INFO'
log_processor = dict(type='LogProcessor', window_size=100, by_epoch=False)
load_from = None
resume = False

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=5000, by_epoch=False, max_keep_ckpts=10),
    sampler_seed=dict(type='DistSamplerSeedHook'))
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=1),
    dist_cfg=dict(backend='nccl'))

val_cfg = dict(type='MultiValLoop')  # mmengine's own ValLoop does not go with mmagic's metrics

# [0, 1] in RGB is what the network sees
data_preprocessor = dict(type='DataPreprocessor', mean=[0., 0., 0.], std=[255., 255., 255.], output_channel_order='RGB')
pixel_loss = dict(type='L1Loss', loss_weight=1.0, reduction='mean')
