"""Closed-form inference when the prior is Gaussian: the path's first picture, and the solver's metric.

With x ~ N(μ, Σ), y = A x + e and α = λσ², the minimiser of ‖y − A x‖²/2 + α/2 ‖x − μ‖²_{Σ⁻¹} is

    x = μ + (AᵀA + αΣ⁻¹)⁻¹ Aᵀ (y − A μ)

and (AᵀA + αΣ⁻¹)⁻¹ is the metric of the solvers. α is one number per image, and one preparation serves
every α, because the weight λ changes along the path. Four forms of the inverse, by structure:

- `MaskedStationary`: A observes entries one by one, Σ is diagonal in the Fourier domain, alone or with W Wᵀ;
- `MaskedLowRank`: the same A, Σ = W Wᵀ + diag(d) (Woodbury's identity);
- `Spectral`: any other linear A, by the eigenvectors of A Σ Aᵀ (m × m);
- `Iterative`: any linear A with more measurements than that allows, by conjugate gradients.
"""

from abc import ABC, abstractmethod
from math import prod

import torch
from torch import Tensor

from aipo.arrays import Images, Measurements, PerImage, dot, expand, rowwise
from aipo.operators import Identity, LinearOperator, Mask
from aipo.surrogates import LowRankGaussian, LowRankStationary, StationaryGaussian, Surrogate

# Measurements up to which the eigenvectors of an m × m matrix are found in a minute or two, and entries m · n
# up to which what belongs to them fits in memory.
LARGEST_SPECTRAL, LARGEST_FACTOR = 4096, 50_000_000


class Posterior(ABC):
    """The closed-form posterior of one operator under one Gaussian surrogate."""

    def __init__(self, operator: LinearOperator, surrogate: Surrogate):
        self.operator = operator
        self.surrogate = surrogate

    def mode(self, y: Measurements, alpha: PerImage) -> Images:
        """The minimiser above, (B, C, H, W), computed in float64."""
        exact = y.double()
        mean = self.surrogate.mean_like(exact).expand(len(y), *self.operator.shape)
        rest = self._from_residual(exact - self.operator.forward(mean), alpha.double())
        return (mean + rest).to(y.dtype)

    def sample(self, y: Measurements, alpha: PerImage, sigma: PerImage, generator: torch.Generator) -> Images:
        """A draw from the density ∝ exp(−F) with F = D + λR of this Gaussian, α = λσ².

        Perturb, then solve: a draw x̃ of N(μ, Σ/λ) is moved by what its own noisy measurement says of y.
        """
        exact = y.double()
        mean = self.surrogate.mean_like(exact).expand(len(y), *self.operator.shape)
        like = self.surrogate.factor_adjoint(mean)
        u = torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)
        drawn = mean + expand(sigma.double() / alpha.double().sqrt(), mean) * self.surrogate.factor(u)
        noise = torch.randn(exact.shape, generator=generator, dtype=torch.float64).to(exact)
        measured = self.operator.forward(drawn) + expand(sigma.double(), exact) * noise
        return (drawn + self._from_residual(exact - measured, alpha.double())).to(y.dtype)

    @abstractmethod
    def _from_residual(self, residual: Measurements, alpha: PerImage) -> Images:
        """(AᵀA + αΣ⁻¹)⁻¹ Aᵀ r, accurately."""

    @abstractmethod
    def metric(self, v: Images, alpha: PerImage) -> Images:
        """A symmetric positive approximation of (AᵀA + αΣ⁻¹)⁻¹ v, linear in v."""


def posterior(operator: LinearOperator, surrogate: Surrogate) -> Posterior:
    """The form of the closed-form posterior that fits the operator's and the surrogate's structure."""
    if isinstance(operator, Identity | Mask) and isinstance(
        surrogate, StationaryGaussian | LowRankStationary
    ):
        return MaskedStationary(operator, surrogate)
    if isinstance(operator, Identity | Mask) and isinstance(surrogate, LowRankGaussian):
        return MaskedLowRank(operator, surrogate)
    m = operator.measurements
    many = m > LARGEST_SPECTRAL or m * prod(operator.shape) > LARGEST_FACTOR
    if many and isinstance(surrogate, StationaryGaussian | LowRankStationary):
        return Iterative(operator, surrogate)
    return Spectral(operator, surrogate)


def _observed(operator: Identity | Mask) -> Tensor:
    """Which entries of the image are measured, boolean (C, H, W)."""
    return torch.ones(operator.shape, dtype=torch.bool) if isinstance(operator, Identity) else operator.mask


class MaskedStationary(Posterior):
    """AᵀA is a 0/1 mask, Σ a covariance that knows its Wiener filter.

    With everything observed C⁻¹ = (I + αΣ⁻¹)⁻¹ = Σ(Σ + α)⁻¹ (the Wiener filter) is exact. For the
    missing entries P Woodbury's identity asks for (P(I − C⁻¹)Pᵀ)⁻¹ = (P α(Σ + α)⁻¹ Pᵀ)⁻¹; the metric
    replaces the inverse of the compression by the compression of the inverse, P(Σ + α)Pᵀ/α:

        metric = C⁻¹ + C⁻¹ Pᵀ P (Σ + α)/α Pᵀ P C⁻¹,

    and conjugate gradients with it as preconditioner give the exact solution.
    """

    operator: Identity | Mask
    surrogate: StationaryGaussian | LowRankStationary

    def __init__(self, operator: Identity | Mask, surrogate: StationaryGaussian | LowRankStationary):
        super().__init__(operator, surrogate)
        observed = _observed(operator)
        self.missing = ~observed
        self.complete = bool(observed.all())

    def metric(self, v: Images, alpha: PerImage) -> Images:
        filtered = self.surrogate.wiener(v, alpha)
        if self.complete:
            return filtered
        missing = self.missing.to(v)
        hole = missing * filtered
        hole = hole + missing * self.surrogate.covariance(hole) / expand(alpha, v)
        return filtered + self.surrogate.wiener(hole, alpha)

    def _from_residual(self, residual: Measurements, alpha: PerImage) -> Images:
        right = self.operator.adjoint(residual)
        if self.complete:
            return self.metric(right, alpha)
        observed = 1 - self.missing.to(right)

        def hessian(v: Tensor) -> Tensor:
            return observed * v + expand(alpha, v) * self.surrogate.precision(v)

        return _conjugate_gradients(hessian, right, lambda v: self.metric(v, alpha))


class MaskedLowRank(Posterior):
    """AᵀA is a 0/1 mask M, Σ = W Wᵀ + D.

    Σ⁻¹ = D⁻¹ − Q K⁻¹ Qᵀ with Q = D⁻¹W, K = I + WᵀD⁻¹W; with the diagonal E = M + αD⁻¹,

        (M + αΣ⁻¹)⁻¹ = E⁻¹ + E⁻¹Q (K/α − QᵀE⁻¹Q)⁻¹ QᵀE⁻¹.
    """

    operator: Identity | Mask
    surrogate: LowRankGaussian

    def __init__(self, operator: Identity | Mask, surrogate: LowRankGaussian):
        super().__init__(operator, surrogate)
        observed = _observed(operator)
        self._observed = observed.flatten().double()
        self._precision = 1 / surrogate.variances.double()
        self._q = surrogate.loadings.double() * self._precision[:, None]
        self._k = torch.eye(self._q.shape[1], dtype=torch.float64) + surrogate.loadings.double().T @ self._q
        self._inner: tuple[Tensor, Tensor] | None = None

    def metric(self, v: Images, alpha: PerImage) -> Images:
        alpha = alpha.double()
        scaled = v.flatten(1).double() / self._diagonal(alpha)
        core = torch.cholesky_solve(rowwise(scaled, self._q)[:, :, None], self._factor(alpha))[:, :, 0]
        result = scaled + rowwise(core, self._q.T) / self._diagonal(alpha)
        return result.to(v.dtype).unflatten(1, v.shape[1:])

    def _from_residual(self, residual: Measurements, alpha: PerImage) -> Images:
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
            unit = torch.zeros(min(rows, m - start), m, dtype=torch.float32)
            unit[torch.arange(len(unit)), torch.arange(start, start + len(unit))] = 1
            y = unit.unflatten(1, self.operator.measurement_shape)
            blocks.append(self.surrogate.factor_adjoint(self.operator.adjoint(y).double()).flatten(1))
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

    def _from_residual(self, residual: Measurements, alpha: PerImage) -> Images:
        """ΣAᵀ (AΣAᵀ + α)⁻¹ r."""
        coefficients = rowwise(residual.flatten(1), self._u) / (self._squares + alpha[:, None])
        dual = rowwise(coefficients, self._u.T).unflatten(1, residual.shape[1:])
        return self.surrogate.factor(self.surrogate.factor_adjoint(self.operator.adjoint(dual)))


class Iterative(Posterior):
    """The metric takes AᵀA to be t·I, t its mean eigenvalue: (t + αΣ⁻¹)⁻¹ = Σ(Σ + α/t)⁻¹/t, a Wiener filter.

    The mode is exact: conjugate gradients on AᵀA + αΣ⁻¹, with that as preconditioner.
    """

    surrogate: StationaryGaussian | LowRankStationary

    def __init__(self, operator: LinearOperator, surrogate: StationaryGaussian | LowRankStationary):
        super().__init__(operator, surrogate)
        probes = torch.randn(8, *operator.shape, generator=torch.Generator().manual_seed(0))
        self.scale = float(dot(image := operator.forward(probes), image).mean()) / probes[0].numel()

    def metric(self, v: Images, alpha: PerImage) -> Images:
        return self.surrogate.wiener(v, alpha / self.scale) / self.scale

    def _from_residual(self, residual: Measurements, alpha: PerImage) -> Images:
        def hessian(v: Tensor) -> Tensor:
            data = self.operator.adjoint(self.operator.forward(v))
            return data + expand(alpha, v) * self.surrogate.precision(v)

        right = self.operator.adjoint(residual)
        return _conjugate_gradients(hessian, right, lambda v: self.metric(v, alpha))


def _conjugate_gradients(
    matrix, right: Tensor, preconditioner, iterations: int = 400, tolerance: float = 1e-9
):
    """Solve matrix(x) = right for each image, a symmetric positive operator in float64."""
    x = torch.zeros_like(right)
    residual = right
    z = preconditioner(residual)
    direction, rho = z, dot(residual, z)
    stop = tolerance**2 * rho
    for _ in range(iterations):
        if bool((rho <= stop).all()):
            break
        image = matrix(direction)
        step = rho / dot(direction, image)
        step = torch.where(rho > stop, step, torch.zeros_like(step))
        x = x + expand(step, x) * direction
        residual = residual - expand(step, x) * image
        z = preconditioner(residual)
        previous, rho = rho, torch.where(rho > stop, dot(residual, z), rho)
        # A solved image has ρ = 0 where its right-hand side is zero: no 0/0.
        again = torch.where(rho > stop, rho / previous, torch.zeros_like(rho))
        direction = z + expand(again, x) * direction
    return x
