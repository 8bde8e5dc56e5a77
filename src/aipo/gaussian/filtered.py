"""Posteriors of measurements that treat every place alike: blur, frequencies left out, colours mixed."""

import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements, PerImage, rowwise
from aipo.gaussian.closed_form import Posterior
from aipo.gaussian.low_rank_stationary import LowRankStationary
from aipo.gaussian.stationary import StationaryGaussian
from aipo.operators import LinearOperator

# Numbers kept of the last α: those of a whole path for small pictures, two for large ones.
KEPT = 1 << 24


class Filtered(Posterior):
    """AᵀA and S of Σ = W Wᵀ + S are the same at every place: at each frequency a matrix between the colours.

    With Q = S⁻¹W, K = I + WᵀS⁻¹W and B = AᵀA + αS⁻¹, which is inverted frequency by frequency,

        (AᵀA + αΣ⁻¹)⁻¹ = B⁻¹ + B⁻¹Q (K/α − QᵀB⁻¹Q)⁻¹ QᵀB⁻¹,

    exactly; without W it is B⁻¹. What belongs to an α is kept for the last ones.

    Args:
        gram: AᵀA at each frequency, (H, W//2 + 1, C, C) in `rfft2` order, symmetric.
    """

    surrogate: StationaryGaussian | LowRankStationary

    def __init__(
        self, operator: LinearOperator, surrogate: StationaryGaussian | LowRankStationary, gram: Tensor
    ):
        super().__init__(operator, surrogate)
        blank = torch.zeros(1, *operator.shape, dtype=torch.float64, device=self.device)
        power = surrogate.power if isinstance(surrogate, LowRankStationary) else surrogate.power(blank)
        colours = surrogate.colours.double()
        self._gram = gram.to(blank)
        self._texture = torch.einsum("chw,ci,cj->hwij", 1 / power.double(), colours, colours)
        self._kept: dict[float, tuple[Tensor, Tensor, Tensor]] = {}
        columns = blank[:0]
        if isinstance(surrogate, LowRankStationary):
            columns = surrogate.loadings.double().T.unflatten(1, operator.shape)
        self._q = mix_colours(self._texture, columns)  # the columns of Q, as pictures
        self._k = torch.eye(len(columns)).to(blank) + columns.flatten(1) @ self._q.flatten(1).T

    def metric(self, v: Images, alpha: PerImage) -> Images:
        exact, found = v.double(), torch.empty_like(v)
        for level in alpha.double().unique().tolist():
            chosen = alpha.double() == level
            inverse, columns, core = self._at(level)
            own = exact[chosen]
            inner = rowwise(rowwise(own.flatten(1), columns), core)
            smooth = rowwise(inner, columns.T).reshape(own.shape)
            found[chosen] = (mix_colours(inverse, own) + smooth).to(v.dtype)
        return found

    def _from_residual(self, residual: Measurements, alpha: PerImage, tolerance: float) -> Images:
        return self.metric(self.operator.adjoint(residual), alpha)

    def _at(self, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
        """B⁻¹ at each frequency, B⁻¹Q as (n, r), and (K/α − QᵀB⁻¹Q)⁻¹."""
        if alpha not in self._kept:
            if len(self._kept) >= max(2, KEPT // self._gram.numel()):
                self._kept.clear()
            inverse = torch.linalg.inv(self._gram + alpha * self._texture)
            columns = mix_colours(inverse, self._q).flatten(1).T.contiguous()
            inner = self._k / alpha - self._q.flatten(1) @ columns
            core = torch.cholesky_inverse(torch.linalg.cholesky(inner))
            self._kept[alpha] = inverse, columns, core
        return self._kept[alpha]


def mix_colours(matrices: Tensor, v: Images) -> Images:
    """Multiply the colours of v at each frequency by a matrix, (H, W//2 + 1, C, C), one or one per image."""
    if len(v) == 0:
        return v  # which MKL's transform refuses
    # Entry by entry, not as a matrix product, whose rounding depends on the batch.
    mixed = (matrices.movedim((-2, -1), (-4, -3)) * torch.fft.rfft2(v)[:, None]).sum(2)
    return torch.fft.irfft2(mixed, s=v.shape[-2:])
