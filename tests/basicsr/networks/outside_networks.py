"""Six small networks of a user's own, with what the well-known ones have that a training can stumble over.

Named in ``custom_imports``, as users name theirs.
"""

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn


class ChannelNorm(torch.autograd.Function):
    """Normalises over the channels by a backward pass written by hand, which autograd cannot differentiate rightly."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        centred = x - x.mean(1, keepdim=True)
        scale = (centred.square().mean(1, keepdim=True) + 1e-6).rsqrt()
        normed = centred * scale
        ctx.save_for_backward(normed, scale, weight)
        return normed * weight[:, None, None] + bias[:, None, None]

    @staticmethod
    def backward(ctx, grad):
        normed, scale, weight = ctx.saved_tensors
        inner = grad * weight[:, None, None]
        projected = normed * (inner * normed).mean(1, keepdim=True)
        return (inner - inner.mean(1, keepdim=True) - projected) * scale, (grad * normed).sum((0, 2, 3)), \
            grad.sum((0, 2, 3))


class HandWrittenNorm(nn.Module):

    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        return ChannelNorm.apply(x, self.weight, self.bias)


class GatedBlock(nn.Module):
    """A gate without activation, attention over channels, branches that begin at zero."""

    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = HandWrittenNorm(width), HandWrittenNorm(width)
        self.expand = nn.Sequential(nn.Conv2d(width, 2 * width, 1),
                                    nn.Conv2d(2 * width, 2 * width, 3, 1, 1, groups=2 * width))
        self.attention = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width, 1))
        self.project = nn.Conv2d(width, width, 1)
        self.mlp_in, self.mlp_out = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(width, width, 1)
        self.beta, self.gamma = (nn.Parameter(torch.zeros(1, width, 1, 1)) for _ in range(2))

    def forward(self, x):
        one, other = self.expand(self.norm1(x)).chunk(2, 1)
        gated = one * other
        x = x + self.project(gated * self.attention(gated)) * self.beta
        one, other = self.mlp_in(self.norm2(x)).chunk(2, 1)
        return x + self.mlp_out(one * other) * self.gamma


@ARCH_REGISTRY.register()
class NAFStyle(nn.Module):
    """As NAFNet: a U-Net of gated blocks that pads images of any size itself."""

    def __init__(self, width=4):
        super().__init__()
        self.intro, self.ending = nn.Conv2d(3, width, 3, 1, 1), nn.Conv2d(width, 3, 3, 1, 1)
        widths = [width, 2 * width]
        self.encoders = nn.ModuleList(GatedBlock(w) for w in widths)
        self.downs = nn.ModuleList(nn.Conv2d(w, 2 * w, 2, 2) for w in widths)
        self.middle = GatedBlock(4 * width)
        self.ups = nn.ModuleList(nn.Sequential(nn.Conv2d(2 * w, 4 * w, 1, bias=False), nn.PixelShuffle(2))
                                 for w in reversed(widths))
        self.decoders = nn.ModuleList(GatedBlock(w) for w in reversed(widths))

    def forward(self, image):
        height, width = image.shape[-2:]
        image = F.pad(image, (0, -width % 4, 0, -height % 4))
        x, skips = self.intro(image), []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encoder(x))
            x = down(skips[-1])
        x = self.middle(x)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            x = decoder(up(x) + skips.pop())
        return (self.ending(x) + image)[..., :height, :width]


class TransposedBlock(nn.Module):
    """Attention between channels with a learned temperature, and a gated feed-forward part; norms over channels."""

    def __init__(self, width, heads):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Sequential(nn.Conv2d(width, 3 * width, 1, bias=False),
                                 nn.Conv2d(3 * width, 3 * width, 3, 1, 1, groups=3 * width, bias=False))
        self.project = nn.Conv2d(width, width, 1, bias=False)
        self.gate = nn.Sequential(nn.Conv2d(width, 2 * width, 1, bias=False),
                                  nn.Conv2d(2 * width, 2 * width, 3, 1, 1, groups=2 * width, bias=False))
        self.out = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x):
        heads = len(self.temperature)
        normed = self.norms[0](x.movedim(1, -1)).movedim(-1, 1)
        q, k, v = (part.flatten(2).unflatten(1, (heads, -1)) for part in self.qkv(normed).chunk(3, 1))
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        x = x + self.project((scores.softmax(-1) @ v).reshape(x.shape))
        one, other = self.gate(self.norms[1](x.movedim(1, -1)).movedim(-1, 1)).chunk(2, 1)
        return x + self.out(F.gelu(one) * other)


@ARCH_REGISTRY.register()
class RestormerStyle(nn.Module):
    """As Restormer: three times down by pixel unshuffling, so that sides must be multiples of 8."""

    def __init__(self, dim=4):
        super().__init__()
        dims = [dim << level for level in range(3)]
        self.embed, self.output = nn.Conv2d(3, dim, 3, 1, 1, bias=False), nn.Conv2d(dim, 3, 3, 1, 1, bias=False)
        self.encoders = nn.ModuleList(TransposedBlock(d, 2) for d in dims)
        self.downs = nn.ModuleList(nn.Sequential(nn.Conv2d(d, d // 2, 3, 1, 1, bias=False), nn.PixelUnshuffle(2))
                                   for d in dims)
        self.latent = TransposedBlock(dim << 3, 2)
        self.ups = nn.ModuleList(nn.Sequential(nn.Conv2d(2 * d, 4 * d, 3, 1, 1, bias=False), nn.PixelShuffle(2))
                                 for d in reversed(dims))
        self.reduce = nn.ModuleList(nn.Conv2d(2 * d, d, 1, bias=False) for d in reversed(dims))

    def forward(self, image):
        x, skips = self.embed(image), []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encoder(x))
            x = down(skips[-1])
        x = self.latent(x)
        for up, reduce in zip(self.ups, self.reduce, strict=True):
            x = reduce(torch.cat([up(x), skips.pop()], 1))
        return self.output(x) + image


class HybridBlock(nn.Module):
    """Attention in shifted windows and over channels side by side, then between overlapping windows."""

    def __init__(self, dim, window, heads, drop_path):
        super().__init__()
        self.window, self.heads, self.drop_path = window, heads, drop_path
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.table = nn.Parameter(torch.zeros((2 * window - 1)**2, heads))
        self.qkv, self.project = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.channels = nn.Sequential(nn.Conv2d(dim, dim, 3, 1, 1), nn.AdaptiveAvgPool2d(1),
                                      nn.Conv2d(dim, dim // 4, 1), nn.ReLU(inplace=True), nn.Conv2d(dim // 4, dim, 1),
                                      nn.Sigmoid())
        self.overlapping = nn.Linear(dim, 3 * dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def windows(self, x, size):
        """``(B, H, W, C)`` to windows ``(B * N, size * size, C)``, neighbours overlapping where they are larger."""
        padding = (size - self.window) // 2
        columns = F.unfold(x.movedim(-1, 1), size, stride=self.window, padding=padding)
        return columns.unflatten(1, (x.shape[-1], -1)).permute(0, 3, 2, 1).flatten(0, 1)

    def image(self, windows, shape):
        batch, height, width, dim = shape
        columns = windows.reshape(batch, -1, self.window**2, dim).permute(0, 3, 2, 1).flatten(1, 2)
        return F.fold(columns, (height, width), self.window, stride=self.window).movedim(1, -1)

    def attend(self, q, k, v, bias=0.0):
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        scores = q @ k.transpose(-2, -1) * q.shape[-1]**-0.5 + bias
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)

    def forward(self, x, index, mask):
        q, k, v = self.qkv(self.norms[0](x)).chunk(3, -1)
        shift = self.window // 2
        parts = [self.windows(torch.roll(part, (-shift, -shift), (1, 2)), self.window) for part in (q, k, v)]
        bias = self.table[index.flatten()].unflatten(0, index.shape).movedim(-1, 0) + mask.repeat(len(x), 1, 1, 1)
        attended = torch.roll(self.image(self.attend(*parts, bias), x.shape), (shift, shift), (1, 2))
        weights = self.channels(x.movedim(-1, 1)).movedim(1, -1)
        x = x + self.dropped(self.project(attended)) + 0.01 * weights * x
        q, k, v = self.overlapping(self.norms[1](x)).chunk(3, -1)
        larger = self.window + 2 * (self.window // 4)
        attended = self.attend(self.windows(q, self.window), self.windows(k, larger), self.windows(v, larger))
        x = x + self.image(attended, x.shape)
        return x + self.dropped(self.mlp(self.norms[2](x)))

    def dropped(self, x):
        """Stochastic depth."""
        if not self.training:
            return x
        kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.drop_path
        return x * kept / (1 - self.drop_path)


@ARCH_REGISTRY.register()
class HATStyle(nn.Module):
    """As HAT: whole windows alone, an index in a buffer, a mean that is no buffer, a mask for each image's size."""

    def __init__(self, embed_dim=8, window_size=4, depth=2, num_heads=2, upscale=1, drop_path_rate=0.1):
        super().__init__()
        self.window = window_size
        self.mean = torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)
        self.conv_first = nn.Conv2d(3, embed_dim, 3, 1, 1)
        self.blocks = nn.ModuleList(HybridBlock(embed_dim, window_size, num_heads, drop_path_rate)
                                    for _ in range(depth))
        self.upsample = nn.Sequential(nn.Conv2d(embed_dim, 3 * upscale**2, 3, 1, 1), nn.PixelShuffle(upscale))
        where = torch.cartesian_prod(torch.arange(window_size), torch.arange(window_size))
        relative = where[:, None] - where[None] + window_size - 1
        self.register_buffer('index', relative[..., 0] * (2 * window_size - 1) + relative[..., 1])

    def mask(self, height, width, device):
        """Keeps apart what the shift has brought together, ``(windows, 1, n, n)``."""
        size, shift = self.window, self.window // 2
        regions = [(torch.arange(side, device=device) >= side - size).long() +
                   (torch.arange(side, device=device) >= side - shift).long() for side in (height, width)]
        kinds = (3 * regions[0][:, None] + regions[1])[None, None].float()
        kinds = F.unfold(kinds, size, stride=size)[0].T
        return torch.where(kinds[:, None, :, None] == kinds[:, None, None, :], 0.0, -100.0)

    def forward(self, x):
        height, width = x.shape[-2:]
        assert height % self.window == width % self.window == 0
        self.mean = self.mean.type_as(x)
        x = x - self.mean
        features = self.conv_first(x)
        deep, mask = features.movedim(1, -1), self.mask(height, width, x.device)
        for block in self.blocks:
            deep = block(deep, self.index, mask)
        return self.upsample(deep.movedim(-1, 1) + features) + self.mean


@ARCH_REGISTRY.register()
class DnCNNStyle(nn.Module):
    """As DnCNN: batch normalisation, activations in place; the network gives the noise."""

    def __init__(self, num_feat=8, depth=2):
        super().__init__()
        layers = [nn.Conv2d(3, num_feat, 3, 1, 1), nn.ReLU(inplace=True)]
        for _ in range(depth):
            layers += [nn.Conv2d(num_feat, num_feat, 3, 1, 1, bias=False), nn.BatchNorm2d(num_feat),
                       nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(num_feat, 3, 3, 1, 1))

    def forward(self, x):
        return x - self.layers(x)


@ARCH_REGISTRY.register()
class AttentionStyle(nn.Module):
    """PyTorch's attention, whose fused kernels have no second derivative: the module's, and the function on rows."""

    def __init__(self, dim=8):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, dim, 3, 1, 1), nn.Conv2d(dim, 3, 3, 1, 1)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.everywhere = nn.MultiheadAttention(dim, 2, batch_first=True)
        self.qkv = nn.Conv2d(dim, 3 * dim, 1)

    def forward(self, image):
        x = self.first(image)
        tokens = self.pool(x).flatten(2).transpose(1, 2)
        attended, _ = self.everywhere(tokens, tokens, tokens, need_weights=False)
        x = x + attended.mean(1)[..., None, None]
        q, k, v = (part.permute(0, 2, 3, 1).contiguous() for part in self.qkv(x).chunk(3, 1))
        x = x + F.scaled_dot_product_attention(q, k, v).permute(0, 3, 1, 2)
        return image + self.last(F.gelu(x))


@ARCH_REGISTRY.register()
class ListStyle(nn.Module):
    """Keeps some of its weights in a Python list as well, through which it uses them.

    Args:
        num_feat: Features.
        listed: False: the same network without the list.
    """

    def __init__(self, num_feat=8, listed=True):
        super().__init__()
        self.first, self.middle = nn.Conv2d(3, num_feat, 3, 1, 1), nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.last = nn.Conv2d(num_feat, 3, 3, 1, 1)
        self.filters = [self.middle.weight, self.middle.bias] if listed else None

    def forward(self, x):
        features = F.leaky_relu(self.first(x), 0.1)
        middle = self.middle(features) if self.filters is None else F.conv2d(features, *self.filters, padding=1)
        return x + self.last(F.leaky_relu(middle, 0.1))
