"""What every closed-form posterior of a Gaussian surrogate offers, and the solver that some of them need."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements, PerImage, dot, expand
from aipo.gaussian.low_rank_stationary import LowRankStationary
from aipo.gaussian.stationary import StationaryGaussian
from aipo.gaussian.surrogate import Surrogate
from aipo.operators import LinearOperator

# White noise like a tensor: how draws are made.
Noise: TypeAlias = Callable[[Tensor], Tensor]


class Posterior(ABC):
    """The closed-form posterior of one operator under one Gaussian surrogate."""

    def __init__(self, operator: LinearOperator, surrogate: Surrogate):
        self.operator = operator
        self.surrogate = surrogate

    @property
    def device(self) -> torch.device:
        """Where the surrogate is, and so the measurements."""
        return getattr(self.surrogate, "mean", torch.empty(0)).device

    def mode(self, y: Measurements, alpha: PerImage) -> Images:
        """The minimiser above, (B, C, H, W), computed in float64."""
        exact = y.double()
        mean = self.surrogate.mean_like(exact).expand(len(y), *self.operator.shape)
        rest = self._from_residual(exact - self.operator.forward(mean), alpha.double())
        return (mean + rest).to(y.dtype)

    def sample(self, y: Measurements, alpha: PerImage, sigma: PerImage, white: Noise) -> Images:
        """A draw from the density ∝ exp(−F) with F = D + λR of this Gaussian, α = λσ²."""
        deviation = self._deviation(y, alpha, white).to(y.dtype)
        return self.mode(y, alpha) + expand(sigma, deviation) * deviation

    def noise(self, like: Images, alpha: PerImage, white: Noise) -> Images:
        """A draw of N(0, metric), like a batch of pictures."""
        return self._deviation(like, alpha, white).to(like.dtype)

    def _deviation(self, like: Tensor, alpha: PerImage, white: Noise) -> Images:
        """A draw of N(0, (AᵀA + αΣ⁻¹)⁻¹), in float64.

        Perturb, then solve: a draw of N(0, Σ) less what its own measurement with noise says of it.
        """
        alpha = alpha.double()
        drawn = _drawn(self.surrogate, like, self.operator.shape, white)
        clean = self.operator.forward(drawn)
        measured = clean + expand(alpha.sqrt(), clean) * white(clean)
        return (drawn - self._from_residual(measured, alpha)) / expand(alpha.sqrt(), drawn)

    def for_sampling(self) -> "Posterior":
        """The same posterior in a form whose metric is as wide as the surrogate's posterior, not wider."""
        return self

    @abstractmethod
    def _from_residual(self, residual: Measurements, alpha: PerImage) -> Images:
        """(AᵀA + αΣ⁻¹)⁻¹ Aᵀ r, accurately."""

    @abstractmethod
    def metric(self, v: Images, alpha: PerImage) -> Images:
        """A symmetric positive approximation of (AᵀA + αΣ⁻¹)⁻¹ v, linear in v."""


def _drawn(surrogate: Surrogate, like: Tensor, shape: tuple[int, int, int], white: Noise) -> Images:
    """A draw of N(0, Σ) for each image of a batch, in float64."""
    blank = torch.zeros(len(like), *shape, dtype=torch.float64, device=like.device)
    return surrogate.factor(white(surrogate.coordinates(blank)))


def wiener_noise(
    surrogate: StationaryGaussian | LowRankStationary, like: Images, noise: PerImage, white: Noise
) -> Images:
    """A draw of N(0, Σ(Σ + noise)⁻¹): of N(0, Σ), less what its noisy picture says of it."""
    deviation = expand(noise.to(like).sqrt(), like)
    drawn = surrogate.factor(white(surrogate.coordinates(like)))
    return (drawn - surrogate.wiener(drawn + deviation * white(like), noise)) / deviation


def conjugate_gradients(
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
