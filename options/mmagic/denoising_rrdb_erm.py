# ERM, the baseline: RRDB without up-sampling, denoising (Table 1).
# Data: _base_/denoising.py says how to make it. BasicSR's half has the same as options/train/denoising_erm.yml.
#   python tools/train_mmagic.py options/mmagic/denoising_rrdb_erm.py
_base_ = ['_base_/runtime.py', '_base_/denoising.py']

model = dict(
    type='DILEditModel',
    generator=dict(type='RRDBNetNoUpsample', mid_channels=64, num_blocks=23, growth_channels=32),
    pixel_loss=_base_.pixel_loss,
    distortions=_base_.distortions,
    dil=dict(variant='erm', patches='fresh'),
    data_preprocessor=_base_.data_preprocessor)

# an iteration takes several optimiser steps, which needs this in a distributed run
model_wrapper_cfg = dict(type='DILDistributedDataParallel')
