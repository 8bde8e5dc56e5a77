"""Gaussian priors and linear operators whose minimisers are known, by dense float64 linear algebra."""

from math import prod

import torch
from torch import Tensor

from aipo import priors
from aipo.likelihoods import Gaussian, measure
from aipo.operators import GaussianSensing, Identity, LinearOperator, Mask

SHAPE = (2, 3, 4)
_checkerboard = (torch.arange(prod(SHAPE)).reshape(SHAPE) % 3) > 0

OPERATORS: dict[str, LinearOperator] = {
    "denoising": Identity(SHAPE),
    "inpainting": Mask(_checkerboard),
    "sensing": GaussianSensing(SHAPE, 9, seed=3),
}


def covariance(seed: int, n: int = prod(SHAPE)) -> Tensor:
    """Random, with eigenvalues from 0.01 to 1."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
    return basis @ torch.diag(torch.logspace(-2, 0, n, dtype=torch.float64)) @ basis.T


def gaussian_prior(seed: int = 0) -> priors.Gaussian:
    mean = 0.5 + 0.1 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return priors.Gaussian(mean, covariance(seed))


class WithoutSurrogate:
    """The energy of another prior and nothing else."""

    def __init__(self, prior):
        self.prior = prior

    def energy(self, x: Tensor) -> Tensor:
        return self.prior.energy(x)


class WithSurrogate(WithoutSurrogate):
    """The energy of one prior with the surrogate of another."""

    def __init__(self, prior, surrogate):
        super().__init__(prior)
        self.surrogate = surrogate


class Counted(WithSurrogate):
    """Counts the images whose energy was asked for."""

    def __init__(self, prior):
        super().__init__(prior, prior.surrogate)
        self.images = 0

    def energy(self, x: Tensor) -> Tensor:
        self.images += len(x)
        return super().energy(x)


def measurement(operator: LinearOperator, prior: priors.Gaussian, sigma: float = 0.2) -> Gaussian:
    """Three pictures drawn from the prior, measured with noise of σ/4, 5σ/8 and σ."""
    generator = torch.Generator().manual_seed(1)
    u = torch.randn(3, prod(SHAPE), generator=generator, dtype=torch.float64)
    x = prior.mean_like(u) + prior.factor(u)
    return measure(operator, x, torch.linspace(sigma / 4, sigma, 3, dtype=torch.float64), generator)


def dense(operator: LinearOperator) -> Tensor:
    """A as a matrix, (m, n)."""
    unit = torch.eye(prod(operator.shape), dtype=torch.float64)
    return operator.forward(unit.unflatten(1, operator.shape)).flatten(1).T


def minimiser(likelihood: Gaussian, prior: priors.Gaussian, weight: float) -> Tensor:
    """argmin D + λR: (AᵀA/σ² + λΣ⁻¹) x = Aᵀy/σ² + λΣ⁻¹μ."""
    a = dense(likelihood.operator)
    precision = torch.linalg.inv(prior.root @ prior.root.T)
    pictures = []
    for y, sigma in zip(likelihood.y, likelihood.sigma, strict=True):
        hessian = a.T @ a / sigma**2 + weight * precision
        right = a.T @ y.flatten() / sigma**2 + weight * precision @ prior.mean.flatten()
        pictures.append(torch.linalg.solve(hessian, right).reshape(likelihood.operator.shape))
    return torch.stack(pictures)


def relative(x: Tensor, expected: Tensor) -> float:
    """Largest relative error of an image of the batch."""
    return float(((x - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)).max())
