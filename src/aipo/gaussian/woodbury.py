"""Posteriors that are simple without the components of the surrogate."""

from abc import abstractmethod

import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements, PerImage, rowwise
from aipo.basics.cache import Cache
from aipo.gaussian.closed_form import Posterior
from aipo.gaussian.low_rank import each_row
from aipo.gaussian.surrogate import Decomposed
from aipo.operators import LinearOperator


class Woodbury(Posterior):
    """Σ = W Wᵀ + S, and G = (AᵀA + αS⁻¹)⁻¹ is at hand. With Q = S⁻¹W and K = I + WᵀS⁻¹W,

        (AᵀA + αΣ⁻¹)⁻¹ = G + GQ (K/α − QᵀGQ)⁻¹ QᵀG,

    exactly; without W it is G.
    """

    surrogate: Decomposed

    def __init__(self, operator: LinearOperator, surrogate: Decomposed):
        super().__init__(operator, surrogate)
        self._blank = torch.zeros(1, *operator.shape, dtype=torch.float64, device=self.device)
        columns = surrogate.components(self._blank)
        self._columns = surrogate.inverse_rest(columns, self._blank.new_zeros(len(columns)))  # of Q
        self._q = self._columns.flatten(1).T.contiguous()
        self._k = torch.eye(len(columns)).to(self._q) + columns.flatten(1) @ self._q
        self._cores: Cache[float, Tensor] = Cache()

    def metric(self, v: Images, alpha: PerImage) -> Images:
        exact, alpha = v.double(), alpha.double()
        alone = self._alone(exact, alpha)
        if len(self._columns) == 0:
            return alone.to(v.dtype)
        inner = rowwise(alone.flatten(1), self._q)
        inner = each_row(inner, self._cores.serve(alpha.tolist(), self._core))
        more = rowwise(inner, self._q.T).reshape(v.shape)
        return self._alone(exact + more, alpha).to(v.dtype)

    def _from_residual(self, residual: Measurements, alpha: PerImage, tolerance: float) -> Images:
        return self.metric(self.operator.adjoint(residual), alpha)

    def _core(self, alpha: float) -> Tensor:
        """(K/α − QᵀGQ)⁻¹."""
        levels = self._blank.new_full((len(self._columns),), alpha)
        inner = self._k / alpha - self._q.T @ self._alone(self._columns, levels).flatten(1).T
        return torch.cholesky_inverse(torch.linalg.cholesky((inner + inner.T) / 2))

    @abstractmethod
    def _alone(self, v: Images, alpha: PerImage) -> Images:
        """G v, in float64."""
