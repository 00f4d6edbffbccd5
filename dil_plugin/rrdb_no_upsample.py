"""RRDB without up-sampling, of the residual blocks of whichever framework trains it."""

from collections.abc import Callable

from torch import Tensor, nn


class NoUpsampleTrunk(nn.Module):
    """``conv_first -> num_block blocks -> conv_body, + skip -> conv_hr -> conv_last``, without a global skip.

    Both wings register it under the name RRDBNetNoUpsample with RRDBs of their own framework, whose parameters have the
    same names, so that a checkpoint of one fits the other.

    Args:
        block: Makes one residual block that keeps ``(B, num_feat, H, W)``.
        num_in_ch: Channels of the distorted image.
        num_out_ch: Channels of the restored image.
        num_feat: Features between blocks.
        num_block: Number of blocks.
        bias: Whether convolutions have biases. Without them the network is homogeneous of degree one,
            ``f(a x) = a f(x)`` for ``a > 0``, since all that it is made of is (convolutions, leaky ReLUs, sums): what
            it learned at one noise level it can do at another (Mohan et al., *Robust and Interpretable Blind Image
            Denoising via Bias-Free Convolutional Neural Networks*, ICLR 2020). The weights start as they do with
            biases.
    """

    def __init__(self, block: Callable[[], nn.Module], num_in_ch: int, num_out_ch: int, num_feat: int,
                 num_block: int, bias: bool = True) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self.body = nn.Sequential(*(block() for _ in range(num_block)))
        self.conv_body = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv_hr = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, 1, 1)
        self.lrelu = nn.LeakyReLU(negative_slope=0.2, inplace=True)
        if not bias:  # after they were drawn, so that the same seed gives the same weights
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    module.bias = None

    def forward(self, x: Tensor) -> Tensor:
        """Restores ``(B, num_in_ch, H, W)`` to ``(B, num_out_ch, H, W)``."""
        feat = self.conv_first(x)
        feat = feat + self.conv_body(self.body(feat))
        out: Tensor = self.conv_last(self.lrelu(self.conv_hr(feat)))
        return out
