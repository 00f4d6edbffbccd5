# DIL sf: SwinIR, denoising (Table 6). That of SwinIR's colour denoising, but for img_size, the side of the patches.
# Data: _base_/denoising.py says how to make it. BasicSR's half has the same as options/train/backbones_SwinIR_sf.yml.
#   python tools/train_mmagic.py options/mmagic/denoising_swinir_sf.py
_base_ = ['_base_/runtime.py', '_base_/denoising.py']

model = dict(
    type='DILEditModel',
    generator=dict(
        type='SwinIRNet',
        upscale=1,
        in_chans=3,
        img_size=64,
        window_size=8,
        img_range=1.0,
        depths=[6, 6, 6, 6, 6, 6],
        embed_dim=180,
        num_heads=[6, 6, 6, 6, 6, 6],
        mlp_ratio=2,
        upsampler='',
        resi_connection='1conv'),
    pixel_loss=_base_.pixel_loss,
    distortions=_base_.distortions,
    dil=dict(variant='sf', patches='fresh', inner=dict(type='Adam', lr=1e-4, betas=(0.0, 0.999))),
    data_preprocessor=_base_.data_preprocessor)
