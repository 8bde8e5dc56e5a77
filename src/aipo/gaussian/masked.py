"""Posteriors of entries measured one by one: denoising and inpainting."""

from functools import cached_property
from math import prod

import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements, PerImage, expand, rowwise
from aipo.basics.conjugate_gradients import Product
from aipo.gaussian.closed_form import ByIterations, Noise, Posterior, wiener_noise
from aipo.gaussian.filtered import mix_colours
from aipo.gaussian.general import Iterative
from aipo.gaussian.low_rank import LowRankGaussian
from aipo.gaussian.low_rank_stationary import LowRankStationary
from aipo.gaussian.stationary import StationaryGaussian
from aipo.operators import Identity, Mask

# Missing entries up to which a matrix over them is factored in seconds.
LARGEST_HOLE = 4096


def observed(operator: Identity | Mask) -> Tensor:
    """Which entries of the image are measured, boolean (C, H, W)."""
    return torch.ones(operator.shape, dtype=torch.bool) if isinstance(operator, Identity) else operator.mask


class MaskedStationary(ByIterations):
    """AᵀA is a 0/1 mask, Σ a covariance that knows its Wiener filter.

    With everything observed C⁻¹ = (I + αΣ⁻¹)⁻¹ = Σ(Σ + α)⁻¹ (the Wiener filter) is exact. For the
    missing entries P Woodbury's identity asks for the inverse of N = P(I − C⁻¹)Pᵀ = P α(Σ + α)⁻¹ Pᵀ:

        (AᵀA + αΣ⁻¹)⁻¹ = C⁻¹ + C⁻¹ Pᵀ N⁻¹ P C⁻¹.

    The metric takes P(Σ + α)Pᵀ/α for N⁻¹, the compression of the inverse for the inverse of the compression.
    That is never less, good in a hole, and far too much where the missing entries lie scattered. The
    preconditioner takes a filter for N, of all filters the nearest: at a distance d of two entries N's mean
    entry over all pairs of missing entries at that distance. Two missing entries far apart are rare where
    they lie scattered or in a small hole, so it knows both.

    Source: Chan 1988, An optimal circulant preconditioner for Toeplitz systems.
    """

    operator: Identity | Mask
    surrogate: StationaryGaussian | LowRankStationary

    def __init__(self, operator: Identity | Mask, surrogate: StationaryGaussian | LowRankStationary):
        super().__init__(operator, surrogate)
        self.missing = ~observed(operator)
        self.complete = not bool(self.missing.any())
        self._blank = torch.zeros(1, *operator.shape, dtype=torch.float64, device=self.device)

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
        inverses = torch.stack([self._scattered(level) for level in alpha.tolist()])

        def product(v: Images) -> Images:
            filtered = self.surrogate.wiener(v, alpha)
            hole = missing * mix_colours(inverses, missing * filtered)
            return filtered + self.surrogate.wiener(hole, alpha)

        return product

    def _scattered(self, alpha: float) -> Tensor:
        """The inverse of the filter nearest to N, as matrices between the colours at each frequency."""
        size = self.operator.shape[1:]
        spectrum = alpha * self.surrogate.averaged_inverse(self._blank, alpha)
        kernel = torch.fft.irfft2(spectrum.permute(2, 3, 0, 1), s=size) * self._pairs
        nearest = torch.fft.rfft2(kernel).permute(2, 3, 0, 1)
        return torch.linalg.inv(nearest.real)

    @cached_property
    def _pairs(self) -> Tensor:
        """The share of pairs of missing entries of two colours that lie at each distance, (C, C, H, W)."""
        spectrum = torch.fft.rfft2(self.missing.to(self._blank))
        pairs = torch.fft.irfft2(spectrum[:, None] * spectrum[None].conj(), s=self.missing.shape[1:])
        count = self.missing.flatten(1).sum(1).to(self._blank)
        whole = (count == 0).diag()[:, :, None, None]  # any filter is good for a colour that lost nothing
        return torch.where(whole, 1, pairs / (count[:, None] * count).sqrt().clamp_min(1)[:, :, None, None])

    def for_sampling(self) -> Posterior:
        """Where few entries are missing exact; where many are, those around them hold them nearly as well."""
        if self.complete:
            return self
        few = int(self.missing.sum()) <= LARGEST_HOLE
        return Hole(self.operator, self.surrogate) if few else Iterative(self.operator, self.surrogate)


class Hole(Posterior):
    """As `MaskedStationary`, with (P α(Σ + α)⁻¹ Pᵀ)⁻¹ by a factor of that matrix: exact."""

    operator: Identity | Mask
    surrogate: StationaryGaussian | LowRankStationary

    def __init__(self, operator: Identity | Mask, surrogate: StationaryGaussian | LowRankStationary):
        super().__init__(operator, surrogate)
        self._index = (~observed(operator)).flatten().nonzero().squeeze(1)
        self._factors: dict[float, Tensor] = {}

    def metric(self, v: Images, alpha: PerImage) -> Images:
        filtered = self.surrogate.wiener(v.double(), alpha.double())
        hole = torch.zeros_like(filtered).flatten(1)
        for i, level in enumerate(alpha.tolist()):
            inside = filtered[i].flatten()[self._index, None]
            hole[i, self._index] = torch.cholesky_solve(inside, self._factor(level, v))[:, 0]
        return (filtered + self.surrogate.wiener(hole.reshape(v.shape), alpha.double())).to(v.dtype)

    def _from_residual(self, residual: Measurements, alpha: PerImage, tolerance: float) -> Images:
        return self.metric(self.operator.adjoint(residual), alpha)

    def _factor(self, alpha: float, like: Tensor, rows: int = 128) -> Tensor:
        """Of P (I − Σ(Σ + α)⁻¹) Pᵀ, some columns at a time; the last few α are kept."""
        if alpha not in self._factors:
            if len(self._factors) >= 4:
                self._factors.clear()
            columns = []
            for own in self._index.split(rows):
                unit = torch.zeros(len(own), prod(self.operator.shape), dtype=torch.float64)
                unit[torch.arange(len(own)), own] = 1
                pictures = unit.reshape(-1, *self.operator.shape).to(like.device)
                level = torch.full((len(own),), alpha, dtype=torch.float64, device=like.device)
                columns.append((pictures - self.surrogate.wiener(pictures, level)).flatten(1)[:, self._index])
            self._factors[alpha] = torch.linalg.cholesky(torch.cat(columns))
        return self._factors[alpha]


class MaskedLowRank(Posterior):
    """AᵀA is a 0/1 mask M, Σ = W Wᵀ + D.

    Σ⁻¹ = D⁻¹ − Q K⁻¹ Qᵀ with Q = D⁻¹W, K = I + WᵀD⁻¹W; with the diagonal E = M + αD⁻¹,

        (M + αΣ⁻¹)⁻¹ = E⁻¹ + E⁻¹Q (K/α − QᵀE⁻¹Q)⁻¹ QᵀE⁻¹.
    """

    operator: Identity | Mask
    surrogate: LowRankGaussian

    def __init__(self, operator: Identity | Mask, surrogate: LowRankGaussian):
        super().__init__(operator, surrogate)
        self._precision = 1 / surrogate.variances.double()
        self._observed = observed(operator).flatten().to(self._precision)
        self._q = surrogate.loadings.double() * self._precision[:, None]
        self._k = torch.eye(self._q.shape[1]).to(self._q) + surrogate.loadings.double().T @ self._q
        self._inner: tuple[Tensor, Tensor] | None = None

    def metric(self, v: Images, alpha: PerImage) -> Images:
        alpha = alpha.double()
        scaled = v.flatten(1).double() / self._diagonal(alpha)
        core = torch.cholesky_solve(rowwise(scaled, self._q)[:, :, None], self._factor(alpha))[:, :, 0]
        result = scaled + rowwise(core, self._q.T) / self._diagonal(alpha)
        return result.to(v.dtype).unflatten(1, v.shape[1:])

    def _from_residual(self, residual: Measurements, alpha: PerImage, tolerance: float) -> Images:
        return self.metric(self.operator.adjoint(residual), alpha)

    def _diagonal(self, alpha: PerImage) -> Tensor:
        return self._observed + alpha[:, None] * self._precision

    def _factor(self, alpha: PerImage) -> Tensor:
        """Cholesky factor of K/α − QᵀE⁻¹Q, kept while α stays the same (one solve per iteration)."""
        if self._inner is None or not torch.equal(self._inner[0], alpha):
            distinct, index = alpha.unique(return_inverse=True)
            cores = [self._k / a - self._q.T @ (self._q / self._diagonal(a[None]).T) for a in distinct]
            self._inner = (alpha.clone(), torch.linalg.cholesky(torch.stack(cores))[index])
        return self._inner[1]
