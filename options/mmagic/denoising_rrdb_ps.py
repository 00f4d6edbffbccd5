# DIL ps: RRDB without up-sampling, denoising (Table 1).
# Data: _base_/denoising.py says how to make it. BasicSR's half has the same as options/train/denoising_ps.yml.
#   python tools/train_mmagic.py options/mmagic/denoising_rrdb_ps.py
_base_ = ['_base_/runtime.py', '_base_/denoising.py']

model = dict(
    type='DILEditModel',
    generator=dict(type='RRDBNetNoUpsample', mid_channels=64, num_blocks=23, growth_channels=32),
    pixel_loss=_base_.pixel_loss,
    distortions=_base_.distortions,
    dil=dict(variant='ps', inner=dict(type='SGD', lr=1e-4)),
    data_preprocessor=_base_.data_preprocessor)

train_dataloader = dict(batch_size=8)  # every confounder and the query see the same 8 patches
