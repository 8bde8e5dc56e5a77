"""Smooth Gaussian priors of pictures of 1 × 4 × 5 values, whose posteriors are known."""

import torch
from torch import Tensor

from aipo import priors
from aipo.likelihoods import Gaussian
from aipo.operators import GaussianSensing, Identity, LinearOperator, Mask

SHAPE = (1, 4, 5)
SIGMA = 0.1


def smooth_prior(scale: float = 0.2) -> priors.Gaussian:
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="ij")
    places = torch.stack((rows, columns), -1).reshape(20, 2).double()
    covariance = scale**2 * torch.exp(-0.5 * torch.cdist(places, places) ** 2 / 1.5**2)
    mean = torch.full(SHAPE, 0.5, dtype=torch.float64)
    return priors.Gaussian(mean, covariance + 1e-3 * torch.eye(20, dtype=torch.float64))


PRIOR = smooth_prior()
OPERATORS = {
    "denoise": Identity(SHAPE),
    "inpaint": Mask(torch.arange(20).reshape(SHAPE) % 3 > 0),
    "sense": GaussianSensing(SHAPE, 8, seed=0),
}


def measured(operator: LinearOperator, count: int) -> tuple[Gaussian, Tensor]:
    """Measurements of pictures that the prior drew, and those pictures."""
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(count, 20, generator=generator, dtype=torch.float64)
    x = PRIOR.mean + PRIOR.factor(u)
    noise = SIGMA * torch.randn(count, *operator.measurement_shape, generator=generator, dtype=torch.float64)
    return Gaussian(operator, operator(x) + noise, SIGMA), x


def closed_form(
    likelihood: Gaussian, weight: float = 1.0, prior: priors.Gaussian = PRIOR
) -> tuple[Tensor, Tensor]:
    """Mean, and standard deviations, of exp(−D − λR) under a Gaussian prior."""
    a = likelihood.operator(torch.eye(20, dtype=torch.float64).unflatten(1, SHAPE)).flatten(1).T
    precision = a.T @ a / SIGMA**2 + weight * torch.cholesky_inverse(prior.root)
    covariance = torch.linalg.inv(precision)
    rest = likelihood.y.flatten(1) - prior.mean.flatten() @ a.T
    mean = prior.mean.flatten() + rest @ a @ covariance / SIGMA**2
    return mean.unflatten(1, SHAPE), covariance.diagonal().sqrt().reshape(SHAPE)


class Narrow:
    """A prior five times narrower than its surrogate says, as flows are in some directions."""

    surrogate = PRIOR
    own = smooth_prior(0.04)

    def energy(self, x: Tensor) -> Tensor:
        return self.own.energy(x)
