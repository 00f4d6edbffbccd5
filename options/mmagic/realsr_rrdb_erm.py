# ERM, the baseline of realsr_rrdb_ps.py: the same patches, distortions and number of image gradients, in plain steps.
#   python tools/train_mmagic.py options/mmagic/realsr_rrdb_erm.py
_base_ = ['realsr_rrdb_ps.py']

model = dict(dil=dict(_delete_=True, variant='erm', patches='fresh'))
train_dataloader = dict(batch_size=48)  # four batches of 12, one plain step each
train_cfg = dict(max_iters=250000)
param_scheduler = dict(milestones=[125000, 200000])
# an iteration takes several optimiser steps, which needs this in a distributed run
model_wrapper_cfg = dict(type='DILDistributedDataParallel')
