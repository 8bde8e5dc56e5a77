"""The inference form of a flow's layers: constant weights, and derivatives written by hand.

Every step offers four functions:

    forward(h)  -> h', log |det ∂h'/∂h|, record
    inverse(h') -> h, log |det ∂h/∂h'|, record
    pull(record, g', l)         -> g    from the cotangents of forward's results to that of its argument
    pull_inverse(record, g, l)  -> g'   the same for inverse

Feature maps h and their cotangents g are (B, C, H, W) in channels_last; log-determinants and their cotangents
l are (B,). A record is what the derivatives need to know about one evaluation. `forward` and `inverse` make
the same record, so a derivative needs none that is stored: it can run the other direction again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from aipo.basics.arrays import PerImage, expand

Record = Any

# PyTorch's SiLU takes so many entries at once. It rounds what is left over at the end in another way.
VECTOR = 64


class Step(Protocol):
    def forward(self, h: Tensor) -> tuple[Tensor, PerImage, Record]: ...
    def inverse(self, h: Tensor) -> tuple[Tensor, PerImage, Record]: ...
    def pull(self, record: Record, g: Tensor, logdet: PerImage) -> Tensor: ...
    def pull_inverse(self, record: Record, g: Tensor, logdet: PerImage) -> Tensor: ...


class Convolution:
    """A convolution that keeps height and width; its adjoint is a convolution with flipped weights.

    Args:
        weight: (outputs, inputs, k, k), k odd.
        bias: (outputs,).
    """

    def __init__(self, weight: Tensor, bias: Tensor):
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.bias = bias
        self.flipped = weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)

    def __call__(self, h: Tensor) -> Tensor:
        return _convolve(h, self.weight, self.bias)

    def pull(self, g: Tensor) -> Tensor:
        return _convolve(g, self.flipped, None)


def _convolve(h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    side = weight.shape[-1] // 2
    if h.device.type == "cpu" and _mkldnn_takes(h.dtype):
        # F.conv2d takes another kernel for small inputs, so a picture's energy would depend on its batch.
        # This one is the same for all, and twice as fast for 1 × 1.
        return torch.mkldnn_convolution(h, weight, bias, [side, side], [1, 1], [1, 1], 1)
    return F.conv2d(h, weight, bias, padding=side)


def _mkldnn_takes(dtype: torch.dtype) -> bool:
    if dtype == torch.bfloat16:  # only if the processor has the instructions
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32 and torch.backends.mkldnn.is_available()


def _silu(function: Callable[..., Tensor], *maps: Tensor) -> Tensor:
    """SiLU or its derivative; what an image gets does not depend on its batch."""
    if len(maps[0]) == 1 or maps[0][0].numel() % VECTOR == 0:
        return function(*maps)
    return torch.cat([function(*images) for images in zip(*(h.split(1) for h in maps), strict=True)])


def _silu_backward(g: Tensor, before: Tensor) -> Tensor:
    return torch.ops.aten.silu_backward.grad_input(g, before, grad_input=g)  # in place: g is nobody else's


@dataclass(frozen=True)
class Network:
    """Convolutions with SiLU between them, in the precision of their weights; at the end a map is added."""

    convolutions: list[Convolution]
    position: Tensor | None = None

    def __call__(self, h: Tensor) -> tuple[Tensor, Record]:
        *inner, last = self.convolutions
        record, dtype = [], h.dtype
        h = h.to(last.weight.dtype)
        for convolution in inner:
            h = convolution(h)
            record.append(h)
            h = _silu(F.silu, h)
        out = last(h).to(dtype)
        return out if self.position is None else out + self.position, record

    def pull(self, record: Record, g: Tensor) -> Tensor:
        *inner, last = self.convolutions
        dtype = g.dtype
        g = last.pull(g.to(last.weight.dtype))
        for convolution, before in zip(reversed(inner), reversed(record), strict=True):
            g = convolution.pull(_silu(_silu_backward, g, before))
        return g.to(dtype)


@dataclass(frozen=True)
class Affine:
    """b' = b · exp(s(a)) + t(a); both directions take a and b, and pulls give the cotangents of a and b.

    Args:
        network: a -> r and t, one after the other along the channels; s = bound · tanh(r / bound).
        bound: largest |s|.
    """

    network: "Network | Checkerboard"
    bound: float

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, PerImage, Record]:
        log_scale, scale, shift, inner = self._parts(a)
        return torch.addcmul(shift, b, scale), log_scale.sum((1, 2, 3)), (b, log_scale, scale, inner)

    def inverse(self, a: Tensor, b: Tensor) -> tuple[Tensor, PerImage, Record]:
        log_scale, scale, shift, inner = self._parts(a)
        b = (b - shift).div_(scale)
        return b, log_scale.sum((1, 2, 3)).neg_(), (b, log_scale, scale, inner)

    def pull(self, record: Record, g: Tensor, logdet: PerImage) -> tuple[Tensor, Tensor]:
        b, log_scale, scale, inner = record
        own = g * scale
        raw = torch.addcmul(expand(logdet, b), own, b).mul_(self._slope(log_scale))
        return self.network.pull(inner, torch.cat((raw, g), 1)), own

    def pull_inverse(self, record: Record, g: Tensor, logdet: PerImage) -> tuple[Tensor, Tensor]:
        b, log_scale, scale, inner = record
        own = g / scale
        raw = torch.addcmul(expand(logdet, b), g, b).mul_(self._slope(log_scale))
        return self.network.pull(inner, torch.cat((raw, own), 1).neg_()), own

    def _parts(self, a: Tensor) -> tuple[Tensor, Tensor, Tensor, Record]:
        out, record = self.network(a)
        raw, shift = out.chunk(2, 1)
        log_scale = (raw / self.bound).tanh_().mul_(self.bound)
        return log_scale, log_scale.exp(), shift, record

    def _slope(self, log_scale: Tensor) -> Tensor:
        """∂ log-scale / ∂ raw, 1 − tanh²."""
        return log_scale.square().mul_(-1 / self.bound**2).add_(1)


@dataclass(frozen=True)
class Squeeze:
    """Each 2 × 2 block becomes four channels, (B, C, 2H, 2W) -> (B, 4C, H, W)."""

    def forward(self, h: Tensor) -> tuple[Tensor, PerImage, Record]:
        return unshuffle(h), h.new_zeros(len(h)), None

    def inverse(self, h: Tensor) -> tuple[Tensor, PerImage, Record]:
        return shuffle(h), h.new_zeros(len(h)), None

    def pull(self, record: Record, g: Tensor, logdet: PerImage) -> Tensor:
        return shuffle(g)

    def pull_inverse(self, record: Record, g: Tensor, logdet: PerImage) -> Tensor:
        return unshuffle(g)


def unshuffle(h: Tensor) -> Tensor:
    """(B, C, 2H, 2W) -> (B, 4C, H, W)."""
    return F.pixel_unshuffle(h, 2).contiguous(memory_format=torch.channels_last)


def shuffle(h: Tensor) -> Tensor:
    """(B, 4C, H, W) -> (B, C, 2H, 2W)."""
    return F.pixel_shuffle(h, 2).contiguous(memory_format=torch.channels_last)


class Mix:
    """h' = W h + c at every position.

    Args:
        weight: W, (C, C), float64.
        bias: c, (C,), float64.
        like: a tensor with the dtype and device of the feature maps.
    """

    def __init__(self, weight: Tensor, bias: Tensor, like: Tensor):
        self.exact, self.like = (weight, bias), like
        inverse = torch.linalg.inv(weight)
        self._forward = _pointwise(weight, bias, like)
        self._inverse = _pointwise(inverse, -inverse @ bias, like)
        self._logdet = torch.linalg.slogdet(weight).logabsdet.to(like)

    def then(self, other: "Mix") -> "Mix":
        """One step that does this one and then the other."""
        (first, bias), (second, more) = self.exact, other.exact
        return Mix(second @ first, second @ bias + more, self.like)

    def forward(self, h: Tensor) -> tuple[Tensor, PerImage, Record]:
        return self._forward(h), self._total(h), None

    def inverse(self, h: Tensor) -> tuple[Tensor, PerImage, Record]:
        return self._inverse(h), -self._total(h), None

    def pull(self, record: Record, g: Tensor, logdet: PerImage) -> Tensor:
        return self._forward.pull(g)

    def pull_inverse(self, record: Record, g: Tensor, logdet: PerImage) -> Tensor:
        return self._inverse.pull(g)

    def _total(self, h: Tensor) -> PerImage:
        return (self._logdet * (h.shape[2] * h.shape[3])).expand(len(h))


def _pointwise(weight: Tensor, bias: Tensor, like: Tensor) -> Convolution:
    return Convolution(weight.to(like)[:, :, None, None], bias.to(like))


@dataclass(frozen=True)
class ChannelCoupling:
    """One half of the channels changes, given the other half."""

    affine: Affine
    swap: bool

    def forward(self, h: Tensor) -> tuple[Tensor, PerImage, Record]:
        a, b = self._halves(h)
        b, logdet, record = self.affine.forward(a, b)
        return self._join(a, b), logdet, record

    def inverse(self, h: Tensor) -> tuple[Tensor, PerImage, Record]:
        a, b = self._halves(h)
        b, logdet, record = self.affine.inverse(a, b)
        return self._join(a, b), logdet, record

    def pull(self, record: Record, g: Tensor, logdet: PerImage) -> Tensor:
        kept, changed = self._halves(g)
        more, changed = self.affine.pull(record, changed, logdet)
        return self._join(more.add_(kept), changed)

    def pull_inverse(self, record: Record, g: Tensor, logdet: PerImage) -> Tensor:
        kept, changed = self._halves(g)
        more, changed = self.affine.pull_inverse(record, changed, logdet)
        return self._join(more.add_(kept), changed)

    def _halves(self, h: Tensor) -> tuple[Tensor, Tensor]:
        first, second = h.chunk(2, 1)
        return (second, first) if self.swap else (first, second)

    def _join(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.cat((b, a) if self.swap else (a, b), 1)


@dataclass(frozen=True)
class Checkerboard:
    """A network that sees every other pixel, as on a checkerboard, and answers at the others.

    It sees the pixels with an odd sum of row and column, or those with an even one.
    """

    network: Network
    odd: bool

    def __call__(self, h: Tensor) -> tuple[Tensor, Record]:
        seen = self._seen(h)
        out, record = self.network(h * seen)
        return out * (1 - seen), record

    def pull(self, record: Record, g: Tensor) -> Tensor:
        seen = self._seen(g)
        return self.network.pull(record, g * (1 - seen)) * seen

    def _seen(self, h: Tensor) -> Tensor:
        rows = torch.arange(h.shape[2], device=h.device)[:, None]
        columns = torch.arange(h.shape[3], device=h.device)[None]
        return ((rows + columns) % 2 == int(self.odd)).to(h)


@dataclass(frozen=True)
class CheckerboardCoupling:
    """Every other pixel changes, given the others; the network is a `Checkerboard`."""

    affine: Affine

    def forward(self, h: Tensor) -> tuple[Tensor, PerImage, Record]:
        return self.affine.forward(h, h)

    def inverse(self, h: Tensor) -> tuple[Tensor, PerImage, Record]:
        return self.affine.inverse(h, h)

    def pull(self, record: Record, g: Tensor, logdet: PerImage) -> Tensor:
        more, changed = self.affine.pull(record, g, logdet)
        return more.add_(changed)

    def pull_inverse(self, record: Record, g: Tensor, logdet: PerImage) -> Tensor:
        more, changed = self.affine.pull_inverse(record, g, logdet)
        return more.add_(changed)


@dataclass(frozen=True)
class Standardise:
    """h' = (h − mean) / std, entry by entry; mean and std are (1, C, H, W) or (1, C, 1, 1)."""

    mean: Tensor
    std: Tensor

    def forward(self, h: Tensor) -> tuple[Tensor, PerImage, Record]:
        return (h - self.mean) / self.std, -self._total(h), None

    def inverse(self, h: Tensor) -> tuple[Tensor, PerImage, Record]:
        return h * self.std + self.mean, self._total(h), None

    def pull(self, record: Record, g: Tensor, logdet: PerImage) -> Tensor:
        return g / self.std

    def pull_inverse(self, record: Record, g: Tensor, logdet: PerImage) -> Tensor:
        return g * self.std

    def _total(self, h: Tensor) -> PerImage:
        return self.std.log().expand_as(h[:1]).sum().expand(len(h))
