"""Posteriors of entries measured one by one: denoising and inpainting."""

from functools import cached_property

import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements, PerImage, expand
from aipo.basics.cache import Cache
from aipo.basics.conjugate_gradients import Product
from aipo.gaussian.closed_form import DRAWN, ByIterations, Noise, Posterior, wiener_noise
from aipo.gaussian.holes import Hole, lost_alike
from aipo.gaussian.surrogate import Independent, Textured
from aipo.gaussian.woodbury import Woodbury
from aipo.operators import LinearOperator
from aipo.operators.frequencies import mix_colours

# The side of a matrix over missing entries up to which its factor solves faster than iterations do.
LARGEST_HOLE = 2048


class MaskedStationary(ByIterations):
    """AᵀA is a 0/1 mask, Σ a covariance that knows its Wiener filter.

    With everything observed C⁻¹ = (I + αΣ⁻¹)⁻¹ = Σ(Σ + α)⁻¹ (the Wiener filter) is exact. For the
    missing entries P Woodbury's identity asks for the inverse of N = P(I − C⁻¹)Pᵀ = P α(Σ + α)⁻¹ Pᵀ:

        (AᵀA + αΣ⁻¹)⁻¹ = C⁻¹ + C⁻¹ Pᵀ N⁻¹ P C⁻¹.

    The metric takes P(Σ + α)Pᵀ/α for N⁻¹, the compression of the inverse for the inverse of the compression.
    That is never less than N⁻¹. It is close in a hole, and far too large where missing entries lie scattered.

    The preconditioner of the mode takes the nearest filter for N. The filter's kernel at a distance sums the
    entries of N over all pairs of missing entries at that distance, and divides by the number of missing
    entries. In a hole such pairs become few as the distance grows, and between scattered entries they are few
    at any distance, so the same formula serves both. Where Σ differs from place to place N's entries are
    averages over all places.

    Source: Chan 1988, An optimal circulant preconditioner for Toeplitz systems.
    """

    surrogate: Textured

    def __init__(self, operator: LinearOperator, surrogate: Textured, kept: Tensor):
        super().__init__(operator, surrogate)
        self.missing = ~kept
        self.complete = not bool(self.missing.any())
        self._blank = torch.zeros(1, *operator.shape, dtype=torch.float64, device=self.device)
        self._inverses: Cache[float, Tensor] = Cache()

    def metric(self, v: Images, alpha: PerImage) -> Images:
        filtered = self.surrogate.wiener(v, alpha)
        if self.complete:
            return filtered
        missing = self.missing.to(v)
        hole = missing * filtered
        hole = hole + missing * self.surrogate.covariance(hole) / expand(alpha, v)
        return filtered + self.surrogate.wiener(hole, alpha)

    def noise(self, like: Images, alpha: PerImage, white: Noise) -> Images:
        """Of the metric's two terms, one draw each."""
        drawn = wiener_noise(self.surrogate, like, alpha, white)
        if self.complete:
            return drawn
        u = white(self.surrogate.coordinates(like))
        root = self.surrogate.factor(u) / expand(alpha.to(like).sqrt(), like) + white(like)
        return drawn + self.surrogate.wiener(self.missing.to(like) * root, alpha)

    def _from_residual(self, residual: Measurements, alpha: PerImage, tolerance: float) -> Images:
        if self.complete:
            return self.metric(self.operator.adjoint(residual), alpha)
        return super()._from_residual(residual, alpha, tolerance)

    def _preconditioner(self, alpha: PerImage) -> Product:
        missing = self.missing.to(alpha)
        inverses = torch.stack(self._inverses.serve(alpha.tolist(), self._nearest))

        def product(v: Images) -> Images:
            filtered = self.surrogate.wiener(v, alpha)
            hole = missing * mix_colours(inverses, missing * filtered)
            return filtered + self.surrogate.wiener(hole, alpha)

        return product

    def _nearest(self, alpha: float) -> Tensor:
        """The inverse of the filter nearest to N, as matrices between the colours at each frequency."""
        size = self.operator.shape[1:]
        spectrum = alpha * self.surrogate.averaged_inverse(self._blank, alpha)
        kernel = torch.fft.irfft2(spectrum.permute(2, 3, 0, 1), s=size) * self._pairs
        return torch.linalg.inv(torch.fft.rfft2(kernel).permute(2, 3, 0, 1).real)

    @cached_property
    def _pairs(self) -> Tensor:
        """The share of pairs of missing entries of two colours that lie at each distance, (C, C, H, W)."""
        spectrum = torch.fft.rfft2(self.missing.to(self._blank))
        pairs = torch.fft.irfft2(spectrum[:, None] * spectrum[None].conj(), s=self.missing.shape[1:])
        count = self.missing.flatten(1).sum(1).to(self._blank)
        whole = (count == 0).diag()[:, :, None, None]  # any filter is good for a colour that lost nothing
        return torch.where(whole, 1, pairs / (count[:, None] * count).sqrt().clamp_min(1)[:, :, None, None])

    def for_sampling(self) -> Posterior:
        """As wide as the surrogate's posterior also in a hole."""
        if self.complete:
            return self
        side = int((self.missing[0] if lost_alike(self.missing) else self.missing).sum())
        if side <= LARGEST_HOLE:
            return Hole(self.operator, self.surrogate, self.missing)
        return LargeHole(self.operator, self.surrogate, ~self.missing)


class LargeHole(MaskedStationary):
    """As `MaskedStationary`, with a metric for draws: the inverse itself, by conjugate gradients.

    A wider metric throws chains off, and a narrower one leaves them where they began. This one is linear, and
    agrees with its draws, to about the relative residual `DRAWN`.
    """

    def metric(self, v: Images, alpha: PerImage) -> Images:
        found = self._solved(v.double(), alpha.double(), DRAWN).to(v.dtype)
        self._remember("metric")
        return found

    def noise(self, like: Images, alpha: PerImage, white: Noise) -> Images:
        return Posterior.noise(self, like, alpha, white)


class MaskedLowRank(Woodbury):
    """AᵀA is a 0/1 mask M, Σ = W Wᵀ + D with D diagonal, so (M + αD⁻¹)⁻¹ is too.

    Args:
        kept: which entries are measured, boolean (C, H, W).
    """

    surrogate: Independent

    def __init__(self, operator: LinearOperator, surrogate: Independent, kept: Tensor):
        super().__init__(operator, surrogate)
        self._kept = kept.to(self._blank)
        self._precision = 1 / surrogate.variances.double().reshape(operator.shape)

    def _alone(self, v: Images, alpha: PerImage) -> Images:
        return v / (self._kept + expand(alpha, v) * self._precision)
