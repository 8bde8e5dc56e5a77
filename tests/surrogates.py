"""Gaussian surrogates of every kind for tests, and their posteriors by dense float64 linear algebra."""

import numpy as np
import torch
from torch import Tensor

from aipo.gaussian import LowRankGaussian, LowRankStationary, Posterior, StationaryGaussian, Surrogate, energy
from aipo.operators import LinearOperator, Mask
from aipo.priors import Gaussian

Shape = tuple[int, int, int]
SHAPE = (3, 6, 5)
ALPHAS = torch.tensor([1e-4, 0.03, 1.0, 40.0], dtype=torch.float64)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def low_rank(shape: Shape) -> LowRankGaussian:
    n = torch.Size(shape).numel()
    return LowRankGaussian(randn(*shape), randn(n, 3, seed=1), 0.1 + randn(n, seed=2).square())


def stationary(shape: Shape, dtype: torch.dtype = torch.float64) -> StationaryGaussian:
    """Power of photographs, 1/(f² + f₀²); stored in float32 as a fitted one, if so asked."""
    frequency = torch.fft.fftfreq(16, dtype=torch.float64)
    power = 0.01 / (frequency[:, None] ** 2 + frequency**2 + 0.005)
    colours = torch.linalg.qr(randn(shape[0], shape[0], seed=3))[0]
    spectrum = power * torch.tensor([1.0, 0.3, 0.1], dtype=torch.float64)[: shape[0], None, None]
    return StationaryGaussian(randn(shape[0]).to(dtype), colours.to(dtype), spectrum.to(dtype))


def textured(shape: Shape) -> LowRankStationary:
    texture, n = stationary(shape), torch.Size(shape).numel()
    power = texture.power(randn(1, *shape))
    return LowRankStationary(randn(*shape), randn(n, 3, seed=1), texture.colours, power)


def full(shape: Shape) -> Gaussian:
    n = torch.Size(shape).numel()
    root = randn(n, n, seed=4) / n**0.5
    return Gaussian(randn(*shape), root @ root.T + 0.1 * torch.eye(n))


def random_mask(shape: Shape) -> Mask:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(5)) > 0.5
    mask[0, 0, 0] = True
    return Mask(mask)


def centre_hole(shape: Shape) -> Mask:
    _, height, width = shape
    mask = torch.ones(shape, dtype=torch.bool)
    mask[:, 1 + height // 4 : height - height // 4, 1 + width // 4 : width - width // 4] = False
    return Mask(mask)


class Itself:
    """A surrogate as a prior."""

    def __init__(self, surrogate: StationaryGaussian):
        self.surrogate = surrogate

    def energy(self, x: Tensor) -> Tensor:
        return energy(self.surrogate, x)


SURROGATES = {
    "low-rank": low_rank,
    "stationary": stationary,
    "low-rank-stationary": textured,
    "full": full,
}


def unit_pictures(shape: Shape) -> Tensor:
    n = torch.Size(shape).numel()
    return torch.eye(n, dtype=torch.float64).reshape(n, *shape)


def hessian(operator: LinearOperator, surrogate: Surrogate, alpha: float) -> np.ndarray:
    """AᵀA + αΣ⁻¹ as a matrix, with Σ = F Fᵀ inverted by NumPy."""
    units = unit_pictures(operator.shape)
    matrix = operator(units).flatten(1).T.numpy()
    covariance = surrogate.factor(surrogate.factor_adjoint(units)).flatten(1).numpy()
    return matrix.T @ matrix + alpha * np.linalg.inv(covariance)


def metric_of(closed: Posterior, alpha: float) -> np.ndarray:
    units = unit_pictures(closed.operator.shape)
    return closed.metric(units, torch.full((len(units),), alpha, dtype=torch.float64)).flatten(1).numpy()


def dense_mode(operator: LinearOperator, surrogate: Surrogate, y: Tensor, alpha: float) -> np.ndarray:
    """argmin ‖y − A x‖²/2 + α/2 ‖x − μ‖²_{Σ⁻¹} of one measurement, by NumPy."""
    mean = surrogate.mean_like(y.new_zeros(1, *operator.shape)).expand(1, *operator.shape)
    right = operator.adjoint(y[None] - operator(mean)).flatten().numpy()
    return mean.flatten().numpy() + np.linalg.solve(hessian(operator, surrogate, alpha), right)


def relative(actual: Tensor, expected: np.ndarray) -> float:
    return float(np.linalg.norm(actual.detach().flatten().numpy() - expected) / np.linalg.norm(expected))


def standard():
    """White noise, the same in every test."""
    generator = torch.Generator().manual_seed(0)
    return lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)
