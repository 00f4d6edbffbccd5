"""RRDB without up-sampling, the network of the paper's denoising and deblurring experiments."""

from functools import partial

from basicsr.archs.rrdbnet_arch import RRDB
from basicsr.utils.registry import ARCH_REGISTRY

from dil_plugin.rrdb_no_upsample import NoUpsampleTrunk


@ARCH_REGISTRY.register()
class RRDBNetNoUpsample(NoUpsampleTrunk):
    """RRDB network at scale 1 that keeps the full resolution throughout.

    BasicSR's ``RRDBNet`` at scale 1 un-shuffles the image by 4 and up-samples at the end, which is another network.
    This one is ``conv_first -> num_block RRDBs -> conv_body, + skip -> conv_hr -> conv_last``, without a global skip;
    the paper's has 64 features, 23 blocks and growth 32.

    Args:
        num_in_ch: Channels of the distorted image.
        num_out_ch: Channels of the restored image.
        num_feat: Features between blocks.
        num_block: Number of RRDBs.
        num_grow_ch: Growth of each dense layer.
        bias: Whether convolutions have biases; see ``NoUpsampleTrunk``.
    """

    def __init__(self,
                 num_in_ch: int = 3,
                 num_out_ch: int = 3,
                 num_feat: int = 64,
                 num_block: int = 23,
                 num_grow_ch: int = 32,
                 bias: bool = True) -> None:
        super().__init__(partial(RRDB, num_feat=num_feat, num_grow_ch=num_grow_ch), num_in_ch, num_out_ch, num_feat,
                         num_block, bias)
