"""TarFlow (Zhai et al. 2024, Normalizing Flows are Capable Generative Models): autoregressive over patches.

Each block is a causal transformer. From the patches before a patch it computes that patch's scale and shift.
Every other block reads the patches backwards. x -> z treats all patches at once; z -> x goes patch by patch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aipo.basics.arrays import Images, PerImage, per_image_sum
from aipo.basics.errors import InputError
from aipo.flows.flow import Flow
from aipo.flows.layers import ActNorm, bounded

# Keys and values of the patches seen so far, (B, heads, T, 32) each, for each layer.
Cache = list[tuple[Tensor, Tensor]]

HEAD = 32


class TarFlow(Flow):
    """TarFlow for pictures of one size.

    Args:
        shape: (C, H, W).
        levels: patches are squares of side 2^levels, which must divide height and width.
        steps: number of blocks.
        hidden: width of the transformers, a multiple of 32; each 32 make one attention head.
        depth: number of attention layers in each block.

    Raises:
        InputError: the shape has no size, a patch does not divide it, or the width is no multiple of 32.
    """

    def __init__(
        self,
        shape: tuple[int, int | None, int | None],
        levels: int = 2,
        steps: int = 6,
        hidden: int = 128,
        depth: int = 2,
    ):
        super().__init__(shape, 2**levels)
        channels, height, width = shape
        if height is None or width is None or hidden % HEAD:
            raise InputError(
                f"a TarFlow of shape {shape} and width {hidden}; it needs one size and a multiple of {HEAD}"
            )
        self.grid = (height // self.factor, width // self.factor)
        entries = channels * self.factor**2
        self.norm = ActNorm(entries)
        count = self.grid[0] * self.grid[1]
        self.blocks = nn.ModuleList(Block(entries, count, hidden, depth) for _ in range(steps))

    def forward(self, x: Images) -> tuple[Tensor, PerImage]:
        h, logdet = self.norm(F.pixel_unshuffle(self._checked(x) - 0.5, self.factor))
        tokens = h.flatten(2).mT
        for block in self.blocks:
            tokens, contribution = block(tokens)
            tokens, logdet = tokens.flip(1), logdet + contribution
        return self._picture(tokens), logdet

    def inverse_and_logdet(self, z: Tensor) -> tuple[Images, PerImage]:
        tokens = F.pixel_unshuffle(self._checked(z), self.factor).flatten(2).mT
        total = z.new_zeros(len(z))
        for block in reversed(self.blocks):
            tokens, logdet = block.inverse(tokens.flip(1))  # type: ignore[operator]
            total = total + logdet
        h, logdet = self.norm.inverse(tokens.mT.unflatten(2, self.grid))
        return F.pixel_shuffle(h, self.factor) + 0.5, total + logdet

    def _picture(self, tokens: Tensor) -> Tensor:
        return F.pixel_shuffle(tokens.mT.unflatten(2, self.grid), self.factor)


class Block(nn.Module):
    """z_t = (x_t − shift_t) · exp(−s_t), where s_t and shift_t depend on the patches before t; (B, T, D).

    Args:
        entries: D, the numbers in a patch.
        count: T, the patches of a picture.
        width: of the transformer.
        depth: attention layers.
    """

    def __init__(self, entries: int, count: int, width: int, depth: int):
        super().__init__()
        self.into = nn.Linear(entries, width)
        self.position = nn.Parameter(0.02 * torch.randn(1, count, width))
        self.layers = nn.ModuleList(Layer(width) for _ in range(depth))
        self.normalise = nn.LayerNorm(width)
        self.out = nn.Linear(width, 2 * entries)
        nn.init.zeros_(self.out.weight)  # every block starts as the identity
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, PerImage]:
        h = self.into(x[:, :-1]) + self.position[:, :-1]
        for layer in self.layers:
            h = layer(h)
        log_scale, shift = self._scale_shift(h, x)
        # Nothing comes before the first patch: it stays as it is.
        z = torch.cat((x[:, :1], (x[:, 1:] - shift) * torch.exp(-log_scale)), 1)
        return z, -per_image_sum(log_scale)

    def inverse(self, z: Tensor) -> tuple[Tensor, PerImage]:
        x, total = [z[:, :1]], z.new_zeros(len(z))
        caches: Cache = [(z.new_zeros(0), z.new_zeros(0)) for _ in self.layers]
        for t in range(1, z.shape[1]):
            h = self.into(x[-1]) + self.position[:, t - 1 : t]
            for i, layer in enumerate(self.layers):
                h, caches[i] = layer.step(h, caches[i])  # type: ignore[operator]
            log_scale, shift = self._scale_shift(h, z)
            x.append(z[:, t : t + 1] * torch.exp(log_scale) + shift)
            total = total + per_image_sum(log_scale)
        return torch.cat(x, 1), total

    def _scale_shift(self, h: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self.out(self.normalise(h)).to(like.dtype).chunk(2, 2)
        return bounded(raw), shift


class Layer(nn.Module):
    """Causal attention, then a network of two layers; each reads normalised values and adds to its input."""

    def __init__(self, width: int):
        super().__init__()
        self.before_attention, self.before_network = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor) -> Tensor:
        query, key, value = self._heads(h)
        later = torch.ones(h.shape[1], h.shape[1], dtype=torch.bool, device=h.device).triu(1)
        return self._finish(h, _attend(query, key, value, later))

    def step(self, h: Tensor, cache: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The result for one more patch, (B, 1, width), and the cache with that patch added."""
        query, key, value = self._heads(h)
        if cache[0].numel():
            key, value = torch.cat((cache[0], key), 2), torch.cat((cache[1], value), 2)
        return self._finish(h, _attend(query, key, value)), (key, value)

    def _heads(self, h: Tensor) -> tuple[Tensor, ...]:
        """Query, key and value, (B, heads, T, 32) each."""
        parts = self.query_key_value(self.before_attention(h)).chunk(3, 2)
        return tuple(part.unflatten(2, (-1, HEAD)).transpose(1, 2) for part in parts)

    def _finish(self, h: Tensor, seen: Tensor) -> Tensor:
        h = h + self.project(seen.transpose(1, 2).flatten(2))
        return h + self.network(self.before_network(h))


def _attend(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None = None) -> Tensor:
    """softmax(Q Kᵀ/√d) V. PyTorch's own function has no second derivatives on a CPU, so it is written out."""
    scores = query @ key.mT * HEAD**-0.5
    if hidden is not None:
        scores = scores.masked_fill(hidden, float("-inf"))
    return scores.softmax(3) @ value
