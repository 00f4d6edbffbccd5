"""RRDB without up-sampling, the network of the paper's denoising and deblurring experiments."""

from basicsr.archs.arch_util import make_layer
from basicsr.archs.rrdbnet_arch import RRDB
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn


@ARCH_REGISTRY.register()
class RRDBNetNoUpsample(nn.Module):
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
    """

    def __init__(self,
                 num_in_ch: int = 3,
                 num_out_ch: int = 3,
                 num_feat: int = 64,
                 num_block: int = 23,
                 num_grow_ch: int = 32) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self.body = make_layer(RRDB, num_block, num_feat=num_feat, num_grow_ch=num_grow_ch)
        self.conv_body = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv_hr = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, 1, 1)
        self.lrelu = nn.LeakyReLU(negative_slope=0.2, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Restores ``(B, num_in_ch, H, W)`` to ``(B, num_out_ch, H, W)``."""
        feat = self.conv_first(x)
        feat = feat + self.conv_body(self.body(feat))
        return self.conv_last(self.lrelu(self.conv_hr(feat)))
