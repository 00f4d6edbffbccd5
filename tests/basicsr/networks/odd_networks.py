"""Networks with something odd about them, which a training must either take or refuse in one line."""

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn
from torch.nn.utils import parametrizations, parametrize, spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint


@ARCH_REGISTRY.register()
class Residual(nn.Module):
    """``x + last(middle(first(x)))``, whose middle the networks below change."""

    def __init__(self, width=4):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, width, 3, 1, 1), nn.Conv2d(width, 3, 3, 1, 1)
        self.middle = nn.Conv2d(width, width, 3, 1, 1)

    def body(self, features):
        return torch.tanh(self.middle(features))

    def forward(self, x):
        return x + self.last(self.body(torch.tanh(self.first(x))))


@ARCH_REGISTRY.register()
class NothingToTrain(nn.Module):
    """No parameters."""

    def forward(self, x):
        return x * 0.5


@ARCH_REGISTRY.register()
class Frozen(Residual):

    def __init__(self):
        super().__init__()
        self.requires_grad_(False)


@ARCH_REGISTRY.register()
class HalfFrozen(Residual):

    def __init__(self):
        super().__init__()
        self.first.requires_grad_(False)


@ARCH_REGISTRY.register()
class GivesAList(Residual):
    """Deep supervision: a list while it is trained, an image alone otherwise."""

    def forward(self, x):
        image = super().forward(x)
        return [x + self.last(torch.tanh(self.first(x))), image] if self.training else image


@ARCH_REGISTRY.register()
class GivesATuple(Residual):
    """The image and something of another shape."""

    def forward(self, x):
        features = torch.tanh(self.first(x))
        return features.mean((2, 3)), x + self.last(self.body(features))


@ARCH_REGISTRY.register()
class GivesADict(Residual):

    def forward(self, x):
        return {'image': super().forward(x)}


@ARCH_REGISTRY.register()
class GivesNothing(Residual):

    def forward(self, x):
        super().forward(x)


@ARCH_REGISTRY.register()
class WithDropout(Residual):

    def body(self, features):
        return nn.functional.dropout(super().body(features), 0.3, self.training)


@ARCH_REGISTRY.register()
class WithDropoutAlways(Residual):
    """Also in evaluation: an image is never restored the same twice."""

    def body(self, features):
        return nn.functional.dropout(super().body(features), 0.3)


@ARCH_REGISTRY.register()
class DoubleBuffer(Residual):
    """A table of another dtype, which the result takes on."""

    def __init__(self):
        super().__init__()
        self.register_buffer('table', torch.linspace(0.9, 1.1, 3, dtype=torch.float64)[:, None, None])

    def forward(self, x):
        return super().forward(x) * self.table


@ARCH_REGISTRY.register()
class DoubleNetwork(Residual):

    def __init__(self):
        super().__init__()
        self.double()


@ARCH_REGISTRY.register()
class Counting(Residual):
    """An integer buffer that every pass in training changes, and one that is not there."""

    def __init__(self):
        super().__init__()
        self.register_buffer('calls', torch.zeros((), dtype=torch.long))
        self.register_buffer('nothing', None)

    def forward(self, x):
        if self.training:
            self.calls += 1
        return super().forward(x)


@ARCH_REGISTRY.register()
class ReplacedBuffer(Residual):
    """A running mean that is assigned anew, not changed in place."""

    def __init__(self):
        super().__init__()
        self.register_buffer('mean', torch.zeros(1, 4, 1, 1))

    def body(self, features):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * features.detach().mean((0, 2, 3), keepdim=True)
        return super().body(features - self.mean)


@ARCH_REGISTRY.register()
class SizedBuffer(Residual):
    """Keeps a window of the last image's size in a buffer."""

    def __init__(self, persistent=True):
        super().__init__()
        self.register_buffer('window', torch.ones(1, 1, 1, 1), persistent=persistent)

    def body(self, features):
        if self.window.shape[-2:] != features.shape[-2:]:
            self.window = torch.ones(1, 1, *features.shape[-2:])
        return super().body(features * self.window)


@ARCH_REGISTRY.register()
class ComplexWeights(Residual):
    """Filters in the frequency domain."""

    def __init__(self):
        super().__init__()
        self.filters = nn.Parameter(torch.ones(4, 1, 1, dtype=torch.cfloat))

    def body(self, features):
        spectrum = torch.fft.rfft2(super().body(features)) * self.filters
        return torch.fft.irfft2(spectrum, s=features.shape[-2:])


@ARCH_REGISTRY.register()
class SparseGradients(Residual):

    def __init__(self):
        super().__init__()
        self.levels = nn.Embedding(16, 4, sparse=True)

    def forward(self, x):
        levels = (x.mean(1) * 15).long().clamp(0, 15)
        return x + self.last(self.body(torch.tanh(self.first(x)) + self.levels(levels).movedim(-1, 1)))


@ARCH_REGISTRY.register()
class Tied(Residual):
    """One weight under two names."""

    def __init__(self):
        super().__init__()
        self.again = nn.Conv2d(4, 4, 3, 1, 1)
        self.again.weight = self.middle.weight

    def body(self, features):
        return torch.tanh(self.again(super().body(features)))


@ARCH_REGISTRY.register()
class OneModuleTwice(Residual):

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(self.middle, nn.Tanh(), self.middle)

    def body(self, features):
        return self.blocks(features)


class WrittenNorm(nn.Module):
    """Weight normalisation by its formula, with the names of PyTorch's, whose second derivative is another."""

    def forward(self, length, direction):
        return length * direction / direction.flatten(1).norm(dim=1)[:, None, None, None]

    def right_inverse(self, weight):
        return weight.flatten(1).norm(dim=1)[:, None, None, None], weight


class WrittenNormConv(nn.Module):
    """The same with the names of PyTorch's old one."""

    def __init__(self, conv):
        super().__init__()
        self.bias = conv.bias
        length, direction = WrittenNorm().right_inverse(conv.weight.detach())
        self.weight_g, self.weight_v = nn.Parameter(length), nn.Parameter(direction)

    def forward(self, x):
        return nn.functional.conv2d(x, WrittenNorm()(self.weight_g, self.weight_v), self.bias, padding=1)


def written_weight_norm(conv):
    parametrize.register_parametrization(conv, 'weight', WrittenNorm())
    return conv


_NORMS = {'written': written_weight_norm, 'old_written': WrittenNormConv,
          'weight_norm': parametrizations.weight_norm, 'spectral_norm': parametrizations.spectral_norm,
          'old_weight_norm': weight_norm, 'old_spectral_norm': spectral_norm}


@ARCH_REGISTRY.register()
class Parametrized(Residual):

    def __init__(self, how):
        super().__init__()
        self.middle = _NORMS[how](self.middle)


@ARCH_REGISTRY.register()
class UnseenLayers(Residual):
    """Layers in a Python list: they are no parameters, and are neither trained nor saved."""

    def __init__(self):
        super().__init__()
        self.layers = [nn.Conv2d(4, 4, 3, 1, 1) for _ in range(2)]

    def body(self, features):
        for layer in self.layers:
            features = torch.tanh(layer(features))
        return super().body(features)


@ARCH_REGISTRY.register()
class UnsavedTable(Residual):
    """A random table that no checkpoint holds."""

    def __init__(self):
        super().__init__()
        self.register_buffer('table', torch.rand(1, 4, 1, 1), persistent=False)

    def body(self, features):
        return super().body(features * self.table)


@ARCH_REGISTRY.register()
class WithoutGradient(Residual):

    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


@ARCH_REGISTRY.register()
class PartWithoutGradient(Residual):

    def body(self, features):
        with torch.no_grad():
            return super().body(features)


@ARCH_REGISTRY.register()
class NeverUsed(Residual):
    """Parameters that no image passes."""

    def __init__(self):
        super().__init__()
        self.spare = nn.Conv2d(4, 4, 3)


@ARCH_REGISTRY.register()
class UsedInTurn(Residual):
    """An auxiliary head that is used in training alone, and only where images are bright."""

    def __init__(self):
        super().__init__()
        self.other = nn.Conv2d(4, 4, 3, 1, 1)

    def body(self, features):
        return torch.tanh(self.other(features)) if bool(features.mean() > 1e9) else super().body(features)


@ARCH_REGISTRY.register()
class SpoiltGraph(Residual):
    """An activation in place whose input the backward pass needs."""

    def body(self, features):
        squared = features.square()
        features.mul_(2)
        return super().body(squared)


@ARCH_REGISTRY.register()
class ChangesItsInput(Residual):

    def forward(self, x):
        x.mul_(0.9)
        return super().forward(x)


@ARCH_REGISTRY.register()
class ReturnsItsInput(nn.Module):
    """The input itself, added to in place."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, 1, 1)

    def forward(self, x):
        x += self.conv(x)
        return x


@ARCH_REGISTRY.register()
class OfOneSize(Residual):
    """A position embedding of the training patch's size."""

    def __init__(self, size=16):
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 4, size, size))

    def body(self, features):
        return super().body(features + self.position)


@ARCH_REGISTRY.register()
class OfAtLeast(Residual):
    """Reflects by 12 pixels: smaller images it cannot take."""

    def body(self, features):
        padded = nn.functional.pad(features, (12, 12, 12, 12), 'reflect')
        return super().body(padded)[..., 12:-12, 12:-12]


@ARCH_REGISTRY.register()
class Scripted(Residual):

    def __init__(self):
        super().__init__()
        self.middle = torch.jit.script(self.middle)


@ARCH_REGISTRY.register()
class Recomputing(Residual):

    def __init__(self, reentrant=False):
        super().__init__()
        self.reentrant = reentrant

    def body(self, features):
        return checkpoint(super().body, features, use_reentrant=self.reentrant)


@ARCH_REGISTRY.register()
class Lazy(Residual):

    def __init__(self):
        super().__init__()
        self.middle = nn.LazyConv2d(4, 3, 1, 1)


@ARCH_REGISTRY.register()
class Recurrent(Residual):
    """Goes along rows with a GRU, whose weights lie in one block of memory."""

    def __init__(self):
        super().__init__()
        self.rows = nn.GRU(4, 4, batch_first=True)

    def body(self, features):
        batch, width, rows, columns = features.shape
        sequences = features.permute(0, 2, 3, 1).reshape(batch * rows, columns, width)
        passed = self.rows(sequences)[0].reshape(batch, rows, columns, width).permute(0, 3, 1, 2)
        return super().body(features + passed)


@ARCH_REGISTRY.register()
class Deforming(Residual):
    """Samples where offsets say, whose bilinear sampling has a second derivative of its own."""

    def body(self, features):
        batch, _, height, width = features.shape
        grid = nn.functional.affine_grid(torch.eye(2, 3).repeat(batch, 1, 1), features.shape, align_corners=False)
        offsets = 0.1 * torch.tanh(self.middle(features))[:, :2].movedim(1, -1)
        return torch.tanh(nn.functional.grid_sample(features, grid + offsets, align_corners=False))


@ARCH_REGISTRY.register()
class PlainNumbers(Residual):
    """Fails with an error of its own for training patches alone."""

    def forward(self, x):
        if self.training:
            raise KeyError('embedding')
        return super().forward(x)
