# DIL sf: RRDB without up-sampling, the authors' released training (Table 1).
# Data: _base_/denoising.py says how to make it. BasicSR's half has the same as options/train/denoising_sf.yml.
#   python tools/train_mmagic.py options/mmagic/denoising_rrdb_sf.py
_base_ = ['_base_/runtime.py', '_base_/denoising.py']

model = dict(
    type='DILEditModel',
    generator=dict(type='RRDBNetNoUpsample', mid_channels=64, num_blocks=23, growth_channels=32),
    pixel_loss=_base_.pixel_loss,
    distortions=_base_.distortions,
    dil=dict(variant='sf', patches='fresh', inner=dict(type='Adam', lr=1e-4, betas=(0.0, 0.999))),
    data_preprocessor=_base_.data_preprocessor)
