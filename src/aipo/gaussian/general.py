"""Posteriors of measurements that mix entries: sensing, blur, tomography."""

import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements, PerImage, dot, expand, rowwise
from aipo.basics.conjugate_gradients import Product
from aipo.gaussian.closed_form import ByIterations, Noise, Posterior, wiener_noise
from aipo.gaussian.surrogate import Filtering, Surrogate
from aipo.operators import LinearOperator


class Spectral(Posterior):
    """Any linear A: with B = A F (Σ = F Fᵀ) and B Bᵀ = U diag(s²) Uᵀ,

        (AᵀA + αΣ⁻¹)⁻¹ = 1/α · F (I − V diag(s²/(s² + α)) Vᵀ) Fᵀ,   V = Bᵀ U diag(1/s).

    This order of the factors keeps its accuracy in float32 where Σ − ΣAᵀ(AΣAᵀ + α)⁻¹AΣ cancels.
    """

    def __init__(self, operator: LinearOperator, surrogate: Surrogate):
        super().__init__(operator, surrogate)
        whitened = self._measured_factor()
        self._squares, self._u = torch.linalg.eigh(whitened @ whitened.T)
        self._squares = self._squares.clamp_min(1e-12 * float(self._squares.max()))
        self._v = (whitened.T @ self._u / self._squares.sqrt()).float()

    def _measured_factor(self, rows: int = 256) -> Tensor:
        """B = A F, (m, columns of F) in float64, some rows of Fᵀ Aᵀ at a time."""
        m = self.operator.measurements
        blocks = []
        for start in range(0, m, rows):
            unit = torch.zeros(min(rows, m - start), m, dtype=torch.float64, device=self.device)
            unit[torch.arange(len(unit)), torch.arange(start, start + len(unit))] = 1
            y = unit.unflatten(1, self.operator.measurement_shape)
            blocks.append(self.surrogate.factor_adjoint(self.operator.adjoint(y)).flatten(1))
        return torch.cat(blocks)

    def metric(self, v: Images, alpha: PerImage) -> Images:
        u = self.surrogate.factor_adjoint(v)
        flat = u.flatten(1)
        basis, squares, noise = self._v.to(flat), self._squares.to(flat), alpha.to(flat)[:, None]
        inside = rowwise(flat, basis)
        outside = flat - rowwise(inside, basis.T)
        # Projected twice: what rounding leaves of V after one projection, 1/α would make larger than the
        # true α/(s² + α) there, and the metric indefinite.
        inside = inside * noise / (squares + noise) - rowwise(outside, basis)
        rest = outside + rowwise(inside, basis.T)
        return self.surrogate.factor(rest.unflatten(1, u.shape[1:])) / expand(alpha.to(v), v)

    def noise(self, like: Images, alpha: PerImage, white: Noise) -> Images:
        """By the root of what stands between F and Fᵀ: √(α/(s² + α)) along the columns of V, else 1."""
        u = white(self.surrogate.coordinates(like))
        flat = u.flatten(1)
        basis, squares, noise = self._v.to(flat), self._squares.to(flat), alpha.to(flat)[:, None]
        taken = rowwise(flat, basis) * (1 - (noise / (squares + noise)).sqrt())
        rest = (flat - rowwise(taken, basis.T)).unflatten(1, u.shape[1:])
        return self.surrogate.factor(rest) / expand(alpha.to(like).sqrt(), like)

    def _from_residual(self, residual: Measurements, alpha: PerImage, tolerance: float) -> Images:
        """ΣAᵀ (AΣAᵀ + α)⁻¹ r."""
        coefficients = rowwise(residual.flatten(1), self._u) / (self._squares + alpha[:, None])
        dual = rowwise(coefficients, self._u.T).unflatten(1, residual.shape[1:])
        return self.surrogate.factor(self.surrogate.factor_adjoint(self.operator.adjoint(dual)))


class Iterative(ByIterations):
    """The metric takes AᵀA to be t·I, t its mean eigenvalue: (t + αΣ⁻¹)⁻¹ = Σ(Σ + α/t)⁻¹/t, a Wiener filter.

    The mode is exact: conjugate gradients on AᵀA + αΣ⁻¹, with that as preconditioner. Eight random pictures
    tell t.

    Source: Hutchinson 1990, A stochastic estimator of the trace.
    """

    surrogate: Filtering

    def __init__(self, operator: LinearOperator, surrogate: Filtering):
        super().__init__(operator, surrogate)
        probes = torch.randn(8, *operator.shape, generator=torch.Generator().manual_seed(0))
        probes = probes.to(operator.device)
        self.scale = float(dot(image := operator.forward(probes), image).mean()) / probes[0].numel()

    def metric(self, v: Images, alpha: PerImage) -> Images:
        return self.surrogate.wiener(v, alpha / self.scale) / self.scale

    def noise(self, like: Images, alpha: PerImage, white: Noise) -> Images:
        return wiener_noise(self.surrogate, like, alpha / self.scale, white) / self.scale**0.5

    def _preconditioner(self, alpha: PerImage) -> Product:
        return lambda v: self.metric(v, alpha)
