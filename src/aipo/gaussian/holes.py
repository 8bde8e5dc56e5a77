"""Exact posteriors of pictures that lost few entries."""

import torch
from torch import Tensor

from aipo.basics.arrays import BLOCK, Images, PerImage, expand
from aipo.basics.cache import Cache
from aipo.gaussian.stationary import filter_colours
from aipo.gaussian.surrogate import Textured
from aipo.gaussian.woodbury import Woodbury
from aipo.operators import LinearOperator


class Hole(Woodbury):
    """AᵀA is a 0/1 mask, Σ = W Wᵀ + S with S diagonal in the frequencies of some colours.

    Without W, with the Wiener filter C⁻¹ = S(S + α)⁻¹ and the missing entries P,

        (AᵀA + αS⁻¹)⁻¹ = C⁻¹ + C⁻¹ Pᵀ N⁻¹ P C⁻¹,   N = P α(S + α)⁻¹ Pᵀ,

    with N⁻¹ by a factor of N. Where every channel lost the same pixels, N falls into one matrix for each of
    those colours. With three colours each has a third of the side, and all together are a ninth of the work.

    Args:
        missing: which entries are not measured, boolean (C, H, W).
    """

    surrogate: Textured

    def __init__(self, operator: LinearOperator, surrogate: Textured, missing: Tensor):
        super().__init__(operator, surrogate)
        self._apart = lost_alike(missing)
        lost = missing[:1] if self._apart else missing
        self._places = lost.flatten().nonzero().squeeze(1).to(self.device)
        self._texture = surrogate.texture(self._blank)
        self._factors: Cache[float, Tensor] = Cache()

    def _alone(self, v: Images, alpha: PerImage) -> Images:
        filtered = self._filtered(v, alpha)
        inside, solved = self._taken(filtered), torch.zeros_like(filtered)
        levels = alpha.unique()
        for level, factor in zip(levels, self._factors.serve(levels.tolist(), self._factor), strict=True):
            chosen = alpha == level
            solved[chosen] = self._put(_solved(factor, inside[chosen]))
        return filtered + self._filtered(solved, alpha)

    def _filtered(self, v: Images, alpha: PerImage) -> Images:
        """S(S + α)⁻¹ v."""
        spectrum = self._texture / (self._texture + expand(alpha, v))
        return filter_colours(self.surrogate.colours, spectrum, v)

    def _taken(self, v: Images) -> Tensor:
        """The missing entries, (B, 1, m), or in each colour those of the missing pixels, (B, C, m)."""
        if not self._apart:
            return v.flatten(1)[:, None, self._places]
        colours = self.surrogate.colours.to(v)
        return torch.einsum("ij,bjp->bip", colours, v.flatten(2)[:, :, self._places])

    def _put(self, values: Tensor) -> Images:
        """The adjoint of `_taken`."""
        flat = values.new_zeros(len(values), *self.operator.shape)
        if not self._apart:
            return flat.flatten(1).index_copy(1, self._places, values[:, 0]).reshape(flat.shape)
        mixed = torch.einsum("ij,bip->bjp", self.surrogate.colours.to(values), values)
        return flat.flatten(2).index_copy(2, self._places, mixed).reshape(flat.shape)

    def _factor(self, alpha: float) -> Tensor:
        """Cholesky factors of N, (1, m, m), or of its part in each colour, (C, m, m)."""
        channels, height, width = self.operator.shape
        kernels = torch.fft.irfft2(alpha / (self._texture + alpha), s=(height, width))  # of each colour
        if not self._apart:
            colours = self.surrogate.colours.to(kernels)
            kernels = torch.einsum("khw,ki,kj->ijhw", kernels, colours, colours)[None]
        channel, pixel = self._places // (height * width), self._places % (height * width)
        row, column = pixel // width, pixel % width
        between = (row[:, None] - row) % height * width + (column[:, None] - column) % width
        if not self._apart:
            between = between + (channel[:, None] * channels + channel) * height * width
        return torch.linalg.cholesky(kernels.flatten(1)[:, between])


def lost_alike(missing: Tensor) -> bool:
    """Whether every channel of (C, H, W) lost the same pixels."""
    return bool((missing == missing[:1]).all())


def _solved(factor: Tensor, right: Tensor) -> Tensor:
    """The systems of each colour, (K, m, m), for several images, (B, K, m).

    BLOCK images at a time, filled up with zeros, because a solve rounds differently for another number.
    """
    blocks = right.new_zeros(-(-len(right) // BLOCK) * BLOCK, *right.shape[1:])
    blocks[: len(right)] = right
    solved = [torch.cholesky_solve(block.permute(1, 2, 0), factor) for block in blocks.split(BLOCK)]
    return torch.cat(solved, 2).permute(2, 0, 1)[: len(right)]
