"""Invertible layers on feature maps (B, C, H, W), each with its exact log-determinant.

`forward(h)` gives h' and log |det ∂h'/∂h|. `inverse(h')` gives h and log |det ∂h/∂h'|. `frozen()` gives the
layer's inference form (see `aipo.flows.frozen`). Log-determinants have shape (B,).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aipo.basics.arrays import PerImage, per_image_sum
from aipo.flows import frozen

# exp(±2) per coupling is far more than trained couplings use. It is little enough for a deep stack of
# couplings to stay finite on pictures that no training batch has shown.
LOG_SCALE_BOUND = 2.0
BASE_BOUND = 6.0


def bounded(raw: Tensor, bound: float = LOG_SCALE_BOUND) -> Tensor:
    """A log-scale in (−bound, bound); near zero it is `raw` itself."""
    return bound * torch.tanh(raw / bound)


class Invertible(nn.Module):
    """What every layer of a flow offers; see the top of this file."""

    def forward(self, h: Tensor) -> tuple[Tensor, PerImage]:
        raise NotImplementedError

    def inverse(self, h: Tensor) -> tuple[Tensor, PerImage]:
        raise NotImplementedError

    def frozen(self) -> frozen.Step:
        raise NotImplementedError


class Squeeze(Invertible):
    """(C, H, W) -> (4C, H/2, W/2): each 2 × 2 block becomes four channels."""

    def forward(self, h: Tensor) -> tuple[Tensor, PerImage]:
        # This is channels_last, written with operations that torch.func.vmap knows.
        rows = F.pixel_unshuffle(h, 2).permute(0, 2, 3, 1).contiguous()
        return rows.permute(0, 3, 1, 2), h.new_zeros(len(h))

    def inverse(self, h: Tensor) -> tuple[Tensor, PerImage]:
        return F.pixel_shuffle(h, 2), h.new_zeros(len(h))

    def frozen(self) -> frozen.Step:
        return frozen.Squeeze()


class ActNorm(Invertible):
    """h' = (h + bias) · exp(log_scale) per channel.

    `initialise` sets both so that every channel of the first batch has mean 0 and variance 1 (Glow, §3.1).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(1, channels, 1, 1))

    @torch.no_grad()
    def initialise(self, h: Tensor) -> None:
        std, mean = torch.std_mean(h, dim=(0, 2, 3), keepdim=True)
        self.bias.copy_(-mean)
        self.log_scale.copy_(-torch.log(std + 1e-3))

    def forward(self, h: Tensor) -> tuple[Tensor, PerImage]:
        logdet = self.log_scale.sum() * (h.shape[2] * h.shape[3])
        return (h + self.bias) * self.log_scale.exp(), logdet.expand(len(h))

    def inverse(self, h: Tensor) -> tuple[Tensor, PerImage]:
        logdet = -self.log_scale.sum() * (h.shape[2] * h.shape[3])
        return h * torch.exp(-self.log_scale) - self.bias, logdet.expand(len(h))

    def frozen(self) -> frozen.Step:
        bias, scale = self.bias.detach().double().flatten(), self.log_scale.detach().double().exp().flatten()
        return frozen.Mix(scale.diag(), scale * bias, self.bias)


class InvertibleConv1x1(Invertible):
    """h' = W h at every position, with W = P L (U + diag(sign · exp(log_s))), (C, C) (Glow, §3.2)."""

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int):
        super().__init__()
        permutation, sign, log_s, lower, upper = _rotation(channels)
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", sign)
        self.log_s = nn.Parameter(log_s)
        self.lower = nn.Parameter(lower)
        self.upper = nn.Parameter(upper)

    def weight(self) -> Tensor:
        """W, shape (C, C)."""
        with torch.autocast(self.lower.device.type, enabled=False):
            return self._product(self.lower.dtype)

    def _product(self, dtype: torch.dtype) -> Tensor:
        permutation, lower, upper, sign, log_s = (
            tensor.to(dtype) for tensor in (self.permutation, self.lower, self.upper, self.sign, self.log_s)
        )
        one = torch.eye(len(sign), dtype=dtype, device=lower.device)
        return permutation @ (lower.tril(-1) + one) @ (upper.triu(1) + torch.diag(sign * log_s.exp()))

    def forward(self, h: Tensor) -> tuple[Tensor, PerImage]:
        logdet = self.log_s.sum() * (h.shape[2] * h.shape[3])
        return mix_channels(h, self.weight()), logdet.expand(len(h))

    def inverse(self, h: Tensor) -> tuple[Tensor, PerImage]:
        logdet = -self.log_s.sum() * (h.shape[2] * h.shape[3])
        inverse = torch.linalg.inv(self.weight().double()).to(h.dtype)
        return mix_channels(h, inverse), logdet.expand(len(h))

    def frozen(self) -> frozen.Step:
        weight = self._product(torch.float64).detach()
        return frozen.Mix(weight, weight.new_zeros(len(weight)), self.lower)


def _rotation(channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """P, sign, log_s, L and U of a random rotation.

    On the meta device, where flows are built to compare shapes, nothing is drawn: its kernels for these
    operations take seconds to import.
    """
    matrix = torch.empty(channels, channels)
    if matrix.is_meta:
        return matrix, matrix[0], matrix[0], matrix, matrix
    rotation = torch.linalg.qr(torch.randn(channels, channels))[0]
    permutation, lower, upper = torch.linalg.lu(rotation)
    diagonal = upper.diagonal()
    return permutation, diagonal.sign(), diagonal.abs().log(), lower.tril(-1), upper.triu(1)


def mix_channels(h: Tensor, weight: Tensor) -> Tensor:
    """A 1 × 1 convolution, computed as one matrix product.

    In channels_last the product needs no copy, and it is fast for a single picture too.
    """
    # Only the coupling networks have mixed precision, because this matrix is part of the exact map.
    with torch.autocast(h.device.type, enabled=False):
        return F.linear(h.permute(0, 2, 3, 1), weight).permute(0, 3, 1, 2)


def coupling_network(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Convolutions of 3 × 3, 1 × 1 and 3 × 3 with SiLU between them, (B, inputs, H, W) -> (B, outputs, H, W).

    SiLU is smooth, so the energy has a continuous gradient. The last convolution starts at zero, so every
    coupling starts as the identity.
    """
    last = nn.Conv2d(hidden, outputs, 3, padding=1)
    nn.init.zeros_(last.weight)
    assert last.bias is not None
    nn.init.zeros_(last.bias)
    layers = [
        nn.Conv2d(inputs, hidden, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(hidden, hidden, 1),
        nn.SiLU(),
        last,
    ]
    return nn.Sequential(*layers)


def _frozen_network(layers: nn.Sequential) -> frozen.Network:
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    return frozen.Network([_frozen_convolution(layer) for layer in convolutions])


def _frozen_convolution(layer: nn.Conv2d) -> frozen.Convolution:
    assert layer.bias is not None
    return frozen.Convolution(layer.weight.detach(), layer.bias.detach())


class ChannelCoupling(Invertible):
    """h_b' = h_b · exp(s(h_a)) + t(h_a), where a and b are the two halves of the channels.

    Args:
        channels: an even number.
        hidden: channels inside the network that gives s and t.
        swap: change the first half instead of the second.

    Source: Dinh et al. 2017 (RealNVP), equations 7–8; Kingma & Dhariwal 2018 (Glow), table 1.
    """

    def __init__(self, channels: int, hidden: int, swap: bool = False):
        super().__init__()
        self.swap = swap
        self.network = coupling_network(channels // 2, hidden, channels)

    def _halves(self, h: Tensor) -> tuple[Tensor, Tensor]:
        first, second = h.chunk(2, dim=1)
        return (second, first) if self.swap else (first, second)

    def _join(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.cat((b, a) if self.swap else (a, b), dim=1)

    def _scale_shift(self, a: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self.network(a).to(a.dtype).chunk(2, dim=1)
        return bounded(raw), shift

    def forward(self, h: Tensor) -> tuple[Tensor, PerImage]:
        a, b = self._halves(h)
        log_scale, shift = self._scale_shift(a)
        return self._join(a, b * log_scale.exp() + shift), per_image_sum(log_scale)

    def inverse(self, h: Tensor) -> tuple[Tensor, PerImage]:
        a, b = self._halves(h)
        log_scale, shift = self._scale_shift(a)
        return self._join(a, (b - shift) * torch.exp(-log_scale)), -per_image_sum(log_scale)

    def frozen(self) -> frozen.Step:
        affine = frozen.Affine(_frozen_network(self.network), LOG_SCALE_BOUND)
        return frozen.ChannelCoupling(affine, self.swap)


class CheckerboardCoupling(Invertible):
    """The same affine coupling, with the pixels in two halves like the squares of a checkerboard.

    Args:
        channels: of the feature map.
        hidden: channels inside the network that gives s and t.
        odd: change the pixels with an even sum of row and column instead of those with an odd sum.

    Source: Dinh et al. 2017 (RealNVP), figure 3.
    """

    def __init__(self, channels: int, hidden: int, odd: bool = False):
        super().__init__()
        self.odd = odd
        self.network = coupling_network(channels, hidden, 2 * channels)

    def _scale_shift(self, h: Tensor) -> tuple[Tensor, Tensor]:
        rows = torch.arange(h.shape[2], device=h.device)[:, None]
        columns = torch.arange(h.shape[3], device=h.device)[None]
        keep = ((rows + columns) % 2 == int(self.odd)).to(h.dtype)
        raw, shift = self.network(h * keep).to(h.dtype).chunk(2, dim=1)
        return bounded(raw) * (1 - keep), shift * (1 - keep)

    def forward(self, h: Tensor) -> tuple[Tensor, PerImage]:
        log_scale, shift = self._scale_shift(h)
        return h * log_scale.exp() + shift, per_image_sum(log_scale)

    def inverse(self, h: Tensor) -> tuple[Tensor, PerImage]:
        log_scale, shift = self._scale_shift(h)
        return (h - shift) * torch.exp(-log_scale), -per_image_sum(log_scale)

    def frozen(self) -> frozen.Step:
        network = frozen.Checkerboard(_frozen_network(self.network), self.odd)
        return frozen.CheckerboardCoupling(frozen.Affine(network, LOG_SCALE_BOUND))


class GaussianBase(Invertible):
    """h' = (h − μ) · exp(−s): what leaves the coarsest scale has a learnt Gaussian density, made standard.

    Args:
        channels: of the feature map.
        size: of μ and s, height and width of the feature map. With (1, 1) they are the same at every
            position, and the flow takes pictures of any size.
    """

    def __init__(self, channels: int, size: tuple[int, int]):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(1, channels, *size))
        self.log_std = nn.Parameter(torch.zeros(1, channels, *size))

    def forward(self, h: Tensor) -> tuple[Tensor, PerImage]:
        log_std = bounded(self.log_std, BASE_BOUND)
        return (h - self.mean) * torch.exp(-log_std), -per_image_sum(log_std.expand_as(h))

    def inverse(self, h: Tensor) -> tuple[Tensor, PerImage]:
        log_std = bounded(self.log_std, BASE_BOUND)
        return h * torch.exp(log_std) + self.mean, per_image_sum(log_std.expand_as(h))

    def frozen(self) -> frozen.Step:
        return frozen.Standardise(self.mean.detach(), bounded(self.log_std.detach(), BASE_BOUND).exp())


class ConditionalBase(nn.Module):
    """h' = (h − μ(c)) · exp(−s(c)): half of a scale leaves the flow, made standard given the other half c.

    Args:
        channels: of each half.
        size: of a map that is added to μ and s, so that they know their place: height and width of the
            feature map, or (1, 1) in a flow for any size.

    Source: Dinh et al. 2017 (RealNVP), §3.6, on factoring out; Glow's reference code, for the learnt density.
    """

    def __init__(self, channels: int, size: tuple[int, int]):
        super().__init__()
        self.convolution = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        nn.init.zeros_(self.convolution.weight)
        assert self.convolution.bias is not None
        nn.init.zeros_(self.convolution.bias)
        self.position = nn.Parameter(torch.zeros(1, 2 * channels, *size))

    def _scale_shift(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        raw, mean = (self.convolution(condition).to(condition.dtype) + self.position).chunk(2, dim=1)
        return bounded(raw, BASE_BOUND), mean

    def forward(self, h: Tensor, condition: Tensor) -> tuple[Tensor, PerImage]:
        log_std, mean = self._scale_shift(condition)
        return (h - mean) * torch.exp(-log_std), -per_image_sum(log_std)

    def inverse(self, h: Tensor, condition: Tensor) -> tuple[Tensor, PerImage]:
        log_std, mean = self._scale_shift(condition)
        return h * log_std.exp() + mean, per_image_sum(log_std)

    def frozen(self) -> frozen.Affine:
        """The inference form of the inverse, which turns standard normal values into the half that left."""
        network = frozen.Network([_frozen_convolution(self.convolution)], self.position.detach())
        return frozen.Affine(network, BASE_BOUND)
