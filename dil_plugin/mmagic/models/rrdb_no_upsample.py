"""RRDB without up-sampling for mmagic, the network of the paper's denoising and deblurring experiments."""

from functools import partial

from mmagic.models.editors.esrgan.rrdb_net import RRDB
from mmagic.registry import MODELS

from dil_plugin.rrdb_no_upsample import NoUpsampleTrunk


@MODELS.register_module()
class RRDBNetNoUpsample(NoUpsampleTrunk):
    """RRDB network at scale 1 that keeps the full resolution throughout; mmagic's RRDBNet un-shuffles there by 4.

    The paper's has 64 features, 23 blocks and growth 32. The options have the names of mmagic's RRDBNet.

    Args:
        in_channels: Channels of the distorted image.
        out_channels: Channels of the restored image.
        mid_channels: Features between blocks.
        num_blocks: Number of RRDBs.
        growth_channels: Growth of each dense layer.
        bias: Whether convolutions have biases; see ``NoUpsampleTrunk``.
    """

    def __init__(self,
                 in_channels: int = 3,
                 out_channels: int = 3,
                 mid_channels: int = 64,
                 num_blocks: int = 23,
                 growth_channels: int = 32,
                 bias: bool = True) -> None:
        block = partial(RRDB, mid_channels=mid_channels, growth_channels=growth_channels)
        super().__init__(block, in_channels, out_channels, mid_channels, num_blocks, bias)
