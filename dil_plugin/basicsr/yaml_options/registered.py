"""The blocks whose ``type`` is a class of BasicSR or torch: the classes that are known here, with their arguments.

Others may be registered with BasicSR and are left to their own constructors. A test holds names and defaults to those
of the classes.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta

from dil_plugin.basicsr.yaml_options.blocks import Block, Positive, Size

Rate = Annotated[float, Meta(ge=0, lt=1)]
Weight = Annotated[float, Meta(ge=0)]
Reduction = Literal['mean', 'sum']  # BasicSR's third, none, gives no number to minimise


class Adam(Block, frozen=True, kw_only=True):
    """torch.optim.Adam, the only optimiser that BasicSR knows itself."""

    lr: Annotated[Positive, Meta(description='Learning rate.')]
    betas: Annotated[tuple[Rate, Rate], Meta(description='Decay rates of the moments.')] = (0.9, 0.999)
    eps: Annotated[Positive, Meta(description='Added to the denominator.')] = 1e-8
    weight_decay: Annotated[Weight, Meta(description='L2 penalty.')] = 0
    amsgrad: Annotated[bool, Meta(description='The AMSGrad variant.')] = False


class SGD(Block, frozen=True, kw_only=True):
    """torch.optim.SGD. With sf the step is theta + lr (phi_n - theta): Reptile, and Fish where SGD is inside too."""

    lr: Annotated[Positive, Meta(description='Learning rate; with sf and pf the step length epsilon of the '
                                 'interpolation.')]
    momentum: Annotated[Rate, Meta(description='Decay rate of the velocity; 0: none.')] = 0
    dampening: Annotated[Rate, Meta(description='Takes so much off the share of a new gradient in the velocity.')] = 0
    weight_decay: Annotated[Weight, Meta(description='L2 penalty.')] = 0
    nesterov: Annotated[bool, Meta(description="Nesterov's momentum; with momentum and without dampening.")] = False

    def __post_init__(self) -> None:
        if self.nesterov and (not self.momentum or self.dampening):
            raise ValueError(f'.nesterov: true, with momentum {self.momentum:g} and dampening {self.dampening:g}; '
                             'allowed: with a momentum and no dampening')


class MultiStepLR(Block, frozen=True, kw_only=True):
    """Steps down at milestones; MultiStepRestartLR is the same."""

    milestones: Annotated[tuple[Size, ...], Meta(description='Iterations at which the rate is multiplied by gamma.')]
    gamma: Annotated[Positive, Meta(description='The factor.')] = 0.1
    restarts: Annotated[tuple[int, ...], Meta(description='Iterations at which the rate starts anew.')] = (0, )
    restart_weights: Annotated[tuple[float, ...], Meta(description='Its factor at each restart.')] = (1, )

    def __post_init__(self) -> None:
        _require_equal_numbers('restarts', self.restarts, self.restart_weights)
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError(f'.milestones: {list(self.milestones)}; expected iterations in rising order')


class CosineAnnealingRestartLR(Block, frozen=True, kw_only=True):
    """Half periods of a cosine."""

    periods: Annotated[tuple[Size, ...], Meta(description='Their lengths in iterations; together at least total_iter.')]
    restart_weights: Annotated[tuple[float, ...],
                               Meta(description='Factor of the rate in each, as many as periods.')] = (1, )
    eta_min: Annotated[Weight, Meta(description='The least rate.')] = 0

    def __post_init__(self) -> None:
        _require_equal_numbers('periods', self.periods, self.restart_weights)


def _require_equal_numbers(name: str, values: tuple[int, ...], weights: tuple[float, ...]) -> None:
    if len(values) != len(weights):
        raise ValueError(f'.restart_weights: {list(weights)}; expected as many as {name} {list(values)}')


class L1Loss(Block, frozen=True, kw_only=True):
    """Mean absolute error, the paper's loss."""

    loss_weight: Annotated[float, Meta(description='Factor.')] = 1.0
    reduction: Annotated[Reduction, Meta(description='Over pixels and samples.')] = 'mean'


class MSELoss(Block, frozen=True, kw_only=True):
    """Mean squared error."""

    loss_weight: Annotated[float, Meta(description='Factor.')] = 1.0
    reduction: Annotated[Reduction, Meta(description='Over pixels and samples.')] = 'mean'


class CharbonnierLoss(Block, frozen=True, kw_only=True):
    """The mean of sqrt((x - y)^2 + eps)."""

    loss_weight: Annotated[float, Meta(description='Factor.')] = 1.0
    reduction: Annotated[Reduction, Meta(description='Over pixels and samples.')] = 'mean'
    eps: Annotated[Positive, Meta(description='Keeps the root smooth at 0.')] = 1e-12


class PerceptualLoss(Block, frozen=True, kw_only=True):
    """Distance of VGG features; the weights of VGG are torchvision's."""

    layer_weights: Annotated[dict[str, float], Meta(description='Layers, as conv5_4, and their weights.')]
    vgg_type: Annotated[str, Meta(description='vgg11, …, vgg19.')] = 'vgg19'
    use_input_norm: Annotated[bool, Meta(description="Normalise as VGG's training did.")] = True
    range_norm: Annotated[bool, Meta(description='Images are in [-1, 1].')] = False
    perceptual_weight: Annotated[float, Meta(description='Factor; 0: none.')] = 1.0
    style_weight: Annotated[float, Meta(description='Factor of the style loss (Gram matrices); 0: none.')] = 0.0
    criterion: Annotated[Literal['l1', 'fro'], Meta(description='Distance of the features.')] = 'l1'


class PixelMetric(Block, frozen=True, kw_only=True):
    """PSNR in dB, and SSIM, on images rounded to 8 bits."""

    crop_border: Annotated[int, Meta(ge=0, description='Border pixels to leave out.')]
    input_order: Annotated[Literal['HWC', 'CHW'], Meta(description='Leave it: DILModel gives HWC.')] = 'HWC'
    test_y_channel: Annotated[bool, Meta(description='On luma (BT.601, as MATLAB) instead of RGB.')] = False
    better: Annotated[Literal['higher', 'lower'], Meta(description='Which value is remembered as the best.')] = 'higher'


class Niqe(Block, frozen=True, kw_only=True):
    """NIQE, without a reference; on images of at least two blocks of 96x96 pixels."""

    crop_border: Annotated[int, Meta(ge=0, description='Border pixels to leave out.')]
    input_order: Annotated[Literal['HWC', 'HW', 'CHW'], Meta(description='Leave it: DILModel gives HWC.')] = 'HWC'
    convert_to: Annotated[Literal['y', 'gray'], Meta(description='What it is computed on.')] = 'y'
    better: Annotated[Literal['higher', 'lower'], Meta(description='Set it to lower.')] = 'higher'


class RRDBNet(Block, frozen=True, kw_only=True):
    """The network of ESRGAN and Real-ESRNet."""

    num_in_ch: Annotated[Size, Meta(description='Channels of the input: 3.')]
    num_out_ch: Annotated[Size, Meta(description='Channels of the output: 3.')]
    scale: Annotated[Literal[1, 2, 4], Meta(description='Enlargement; that of the top level.')] = 4
    num_feat: Annotated[Size, Meta(description='Features.')] = 64
    num_block: Annotated[Size, Meta(description='Residual-in-residual dense blocks.')] = 23
    num_grow_ch: Annotated[Size, Meta(description='Channels that each convolution of a dense block adds.')] = 32


class RRDBNetNoUpsample(Block, frozen=True, kw_only=True):
    """RRDB without up-sampling and without a global skip: that of the paper's denoising."""

    num_in_ch: Annotated[Size, Meta(description="As RRDBNet's.")] = 3
    num_out_ch: Annotated[Size, Meta(description="As RRDBNet's.")] = 3
    num_feat: Annotated[Size, Meta(description="As RRDBNet's.")] = 64
    num_block: Annotated[Size, Meta(description="As RRDBNet's.")] = 23
    num_grow_ch: Annotated[Size, Meta(description="As RRDBNet's.")] = 32
    bias: Annotated[bool, Meta(description='Whether convolutions have biases. false: a bias-free network, f(a x) = a '
                               'f(x) for a > 0 (Mohan et al., ICLR 2020).')] = True


class MSRResNet(Block, frozen=True, kw_only=True):
    """SRResNet without batch normalisation."""

    num_in_ch: Annotated[Size, Meta(description='Channels of the input.')] = 3
    num_out_ch: Annotated[Size, Meta(description='Channels of the output.')] = 3
    num_feat: Annotated[Size, Meta(description='Features.')] = 64
    num_block: Annotated[Size, Meta(description='Residual blocks.')] = 16
    upscale: Annotated[Literal[2, 3, 4], Meta(description='Enlargement; that of the top level.')] = 4


class SwinIR(Block, frozen=True, kw_only=True):
    """SwinIR; images are padded to whole windows by reflection."""

    img_size: Annotated[Any, Meta(description='Side of the training patches as the network sees them, gt_size / scale.'
                                  )] = 64
    patch_size: Annotated[Any, Meta(description='Pixels per token: 1.')] = 1
    in_chans: Annotated[Size, Meta(description='Channels of the images.')] = 3
    embed_dim: Annotated[Size, Meta(description='Features; a multiple of every num_heads.')] = 96
    depths: Annotated[tuple[Size, ...], Meta(description='Layers in each residual Swin block.')] = (6, 6, 6, 6)
    num_heads: Annotated[tuple[Size, ...], Meta(description='Attention heads in each.')] = (6, 6, 6, 6)
    window_size: Annotated[Size, Meta(description='Side of the windows, in pixels; 8 in the published networks.')] = 7
    mlp_ratio: Annotated[Positive, Meta(description='Hidden size of an MLP divided by embed_dim.')] = 4.0
    qkv_bias: Annotated[bool, Meta(description='Biases of queries, keys and values.')] = True
    qk_scale: Annotated[float | None, Meta(description='Scale of the dot products. Default: head size to the -1/2.'
                                           )] = None
    drop_rate: Annotated[Rate, Meta(description='Dropout.')] = 0.0
    attn_drop_rate: Annotated[Rate, Meta(description='Dropout of attention.')] = 0.0
    drop_path_rate: Annotated[Rate, Meta(description='Stochastic depth.')] = 0.1
    ape: Annotated[bool, Meta(description='Absolute position embedding.')] = False
    patch_norm: Annotated[bool, Meta(description='Normalise after the embedding.')] = True
    use_checkpoint: Annotated[bool, Meta(description='Leave it: BasicSR 1.4.2 cannot compute with true. '
                                         'train.dil.checkpointing: true is the same for any network.')] = False
    upscale: Annotated[Literal[1, 2, 3, 4, 8], Meta(description='Enlargement; that of the top level.')] = 2
    img_range: Annotated[float, Meta(description='Of the values: 1.')] = 1.0
    upsampler: Annotated[Literal['', 'pixelshuffle', 'pixelshuffledirect', 'nearest+conv'],
                         Meta(description="nearest+conv: real-world super-resolution (scale 4); '': none (scale 1)."
                              )] = ''
    resi_connection: Annotated[Literal['1conv', '3conv'], Meta(description='Convolutions that end a block.')] = '1conv'

    def __post_init__(self) -> None:
        if self.use_checkpoint:
            raise ValueError('.use_checkpoint: true, with which the SwinIR of BasicSR 1.4.2 fails at its first image; '
                             'allowed: false, and train.dil.checkpointing: true for less memory')
        if len(self.depths) != len(self.num_heads):
            raise ValueError(f'.num_heads: {list(self.num_heads)}; expected as many as depths {list(self.depths)}')
        odd = next((heads for heads in self.num_heads if self.embed_dim % heads), None)
        if odd is not None:
            raise ValueError(f'.embed_dim: {self.embed_dim}; allowed: multiples of every num_heads '
                             f'{list(self.num_heads)}')
        if self.upsampler == 'nearest+conv' and self.upscale != 4:
            raise ValueError(f".upsampler: 'nearest+conv', which enlarges by 4, but upscale is {self.upscale}; "
                             "allowed: 'pixelshuffle', 'pixelshuffledirect', '' (upscale 1)")


NETWORKS: dict[str, type[Block]] = {'RRDBNet': RRDBNet, 'RRDBNetNoUpsample': RRDBNetNoUpsample, 'SwinIR': SwinIR,
                                    'MSRResNet': MSRResNet}
OPTIMIZERS: dict[str, type[Block]] = {'Adam': Adam, 'SGD': SGD}
SCHEDULERS: dict[str, type[Block]] = {'MultiStepLR': MultiStepLR, 'MultiStepRestartLR': MultiStepLR,
                                      'CosineAnnealingRestartLR': CosineAnnealingRestartLR}
PIXEL_LOSSES: dict[str, type[Block]] = {'L1Loss': L1Loss, 'MSELoss': MSELoss, 'CharbonnierLoss': CharbonnierLoss}
PERCEPTUAL_LOSSES: dict[str, type[Block]] = {'PerceptualLoss': PerceptualLoss}
METRICS: dict[str, type[Block]] = {'calculate_psnr': PixelMetric, 'calculate_ssim': PixelMetric,
                                   'calculate_niqe': Niqe}
