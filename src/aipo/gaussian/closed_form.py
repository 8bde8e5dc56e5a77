"""What every closed-form posterior of a Gaussian surrogate offers, and what those by iterations share."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements, PerImage, expand
from aipo.basics.conjugate_gradients import Product, conjugate_gradients
from aipo.gaussian.surrogate import Filtering, Surrogate
from aipo.operators import LinearOperator

# White noise like a tensor: how draws are made.
Noise: TypeAlias = Callable[[Tensor], Tensor]

# Relative residuals (see `aipo.basics.conjugate_gradients`) that solvers by iterations aim at for a mode and
# for draws, and those beyond which the user is told.
SOLVED, DRAWN = 1e-11, 1e-3
LIMITS = {"picture": 1e-4, "metric": 10 * DRAWN}


class Posterior(ABC):
    """The closed-form posterior of one operator under one Gaussian surrogate.

    Attributes:
        residuals: of a "picture" (a mode) and a "metric" that were solved for by iterations, the worst
            relative residual so far; what is found without iterations is not named.
    """

    # Of the last solve by iterations.
    _residual: float | None = None

    def __init__(self, operator: LinearOperator, surrogate: Surrogate):
        self.operator = operator
        self.surrogate = surrogate
        self.residuals: dict[str, float] = {}

    @property
    def device(self) -> torch.device:
        """Where the surrogate is, and so the measurements."""
        return getattr(self.surrogate, "mean", torch.empty(0)).device

    def mode(self, y: Measurements, alpha: PerImage) -> Images:
        """The minimiser of ‖y − A x‖²/2 + α/2 ‖x − μ‖²_{Σ⁻¹}, (B, C, H, W), computed in float64.

        If iterations end before it is found, `residuals` tells how far they got, and one warning is logged.

        Args:
            y: (B, ...) as the operator measures.
            alpha: α = λσ², (B,).
        """
        exact = y.double()
        mean = self.surrogate.mean_like(exact).expand(len(y), *self.operator.shape)
        rest = self._from_residual(exact - self.operator.forward(mean), alpha.double(), SOLVED)
        self._remember("picture")
        return (mean + rest).to(y.dtype)

    def sample(self, y: Measurements, alpha: PerImage, sigma: PerImage, white: Noise) -> Images:
        """A draw from the density ∝ exp(−F) with F = D + λR of this Gaussian, (B, C, H, W).

        Args:
            y: (B, ...) as the operator measures.
            alpha: α = λσ², (B,).
            sigma: σ, the noise's standard deviation, (B,).
            white: makes white noise like a tensor.
        """
        deviation = self._deviation(y, alpha, white).to(y.dtype)
        return self.mode(y, alpha) + expand(sigma, deviation) * deviation

    def noise(self, like: Images, alpha: PerImage, white: Noise) -> Images:
        """A draw of N(0, metric), like a batch of pictures (B, C, H, W)."""
        return self._deviation(like, alpha, white).to(like.dtype)

    def _deviation(self, like: Tensor, alpha: PerImage, white: Noise) -> Images:
        """A draw of N(0, (AᵀA + αΣ⁻¹)⁻¹), in float64.

        It is a draw of N(0, Σ), less what a noisy measurement of that draw says of it, over √α.

        Source: Hoffman & Ribak 1991, Constrained realizations of Gaussian fields: a simple algorithm.
        """
        alpha = alpha.double()
        drawn = _drawn(self.surrogate, like, self.operator.shape, white)
        clean = self.operator.forward(drawn)
        measured = clean + expand(alpha.sqrt(), clean) * white(clean)
        return (drawn - self._from_residual(measured, alpha, DRAWN)) / expand(alpha.sqrt(), drawn)

    def for_sampling(self) -> "Posterior":
        """The same posterior in a form whose metric is as wide as the surrogate's posterior, not wider."""
        return self

    def _remember(self, what: str) -> None:
        """Keep the residual of the last solve if it is the worst; warn, once, if it is beyond the limit."""
        if self._residual is None:
            return
        before, worst = self.residuals.get(what, 0.0), self._residual
        self.residuals[what] = max(before, worst)
        if before <= LIMITS[what] < worst:
            (sentence,) = unsolved({what: worst})
            logging.getLogger("aipo").warning(sentence)

    @abstractmethod
    def _from_residual(self, residual: Measurements, alpha: PerImage, tolerance: float) -> Images:
        """(AᵀA + αΣ⁻¹)⁻¹ Aᵀ r; where that is iterated, to this relative residual."""

    @abstractmethod
    def metric(self, v: Images, alpha: PerImage) -> Images:
        """A symmetric positive approximation of (AᵀA + αΣ⁻¹)⁻¹ v, linear in v, (B, C, H, W)."""


def unsolved(residuals: Mapping[str, float]) -> list[str]:
    """A sentence for each of a `Posterior`'s residuals that is beyond its limit."""
    return [
        f"The Gaussian surrogate's {what} was solved for to a relative residual of {residual:.1e} only, so "
        "what uses it is off by about as much; a larger weight or more noise makes it easier to solve for."
        for what, residual in residuals.items()
        if residual > LIMITS[what]
    ]


def _drawn(surrogate: Surrogate, like: Tensor, shape: tuple[int, int, int], white: Noise) -> Images:
    """A draw of N(0, Σ) for each image of a batch, in float64."""
    blank = torch.zeros(len(like), *shape, dtype=torch.float64, device=like.device)
    return surrogate.factor(white(surrogate.coordinates(blank)))


def wiener_noise(surrogate: Filtering, like: Images, noise: PerImage, white: Noise) -> Images:
    """A draw of N(0, Σ(Σ + noise)⁻¹), like a batch of pictures; `noise` is a variance, (B,).

    It is a draw of N(0, Σ), less what that draw with noise says of it, over the noise's standard deviation.
    """
    deviation = expand(noise.to(like).sqrt(), like)
    drawn = surrogate.factor(white(surrogate.coordinates(like)))
    return (drawn - surrogate.wiener(drawn + deviation * white(like), noise)) / deviation


class ByIterations(Posterior):
    """Solves by conjugate gradients on AᵀA + αΣ⁻¹."""

    def _from_residual(self, residual: Measurements, alpha: PerImage, tolerance: float) -> Images:
        return self._solved(self.operator.adjoint(residual), alpha, tolerance)

    def _solved(self, right: Images, alpha: PerImage, tolerance: float) -> Images:
        """(AᵀA + αΣ⁻¹)⁻¹ b, in float64."""

        def matrix(v: Tensor) -> Tensor:
            data = self.operator.adjoint(self.operator.forward(v))
            return data + expand(alpha, v) * self.surrogate.precision(v)

        found = conjugate_gradients(matrix, right, self._preconditioner(alpha), tolerance=tolerance)
        self._residual = float(found.residual.nan_to_num(torch.inf).max())
        return found.x

    @abstractmethod
    def _preconditioner(self, alpha: PerImage) -> Product:
        """A product with a symmetric positive matrix near (AᵀA + αΣ⁻¹)⁻¹."""
