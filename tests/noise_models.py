"""Every noise model with SciPy's density of it, pictures to measure, and the prior they come from."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from aipo import priors
from aipo.likelihoods import (
    Clipped,
    Gamma,
    Heteroscedastic,
    Laplace,
    Likelihood,
    LogGamma,
    Logistic,
    OneBit,
    Poisson,
    PoissonGaussian,
    Quantised,
    Rician,
    StudentT,
)
from aipo.operators import Identity, LinearOperator

SHAPE = (1, 4, 5)
SPREAD = 0.03 + 0.05 * torch.arange(20, dtype=torch.float64).reshape(SHAPE) / 20


@dataclass(frozen=True)
class Model:
    """A noise model: how it is made, a valid measurement, and log p(y | u) of every value by SciPy."""

    make: Callable[[LinearOperator, Tensor], Likelihood]
    valid: float
    log_density: Callable[[np.ndarray, np.ndarray], np.ndarray]


def clipped_density(y: np.ndarray, u: np.ndarray) -> np.ndarray:
    inside = stats.norm.logpdf(y, u, 0.2)
    ends = np.where(y <= 0.3, stats.norm.logcdf(0.3, u, 0.2), stats.norm.logsf(0.7, u, 0.2))
    return np.where((y > 0.3) & (y < 0.7), inside, ends)


MODELS = {
    "heteroscedastic": Model(
        lambda a, y: Heteroscedastic(a, y, SPREAD), 0.0, lambda y, u: stats.norm.logpdf(y, u, SPREAD.numpy())
    ),
    "poisson": Model(
        lambda a, y: Poisson(a, y, 20.0, 1.5),
        0.0,
        lambda y, u: stats.poisson.logpmf(np.round(20 * y), 20 * u + 1.5),
    ),
    "poisson-gaussian": Model(
        lambda a, y: PoissonGaussian(a, y, 50.0, 0.02),
        0.0,
        lambda y, u: stats.norm.logpdf(y, u, np.sqrt(u / 50 + 0.02**2)),
    ),
    "laplace": Model(lambda a, y: Laplace(a, y, 0.1), 0.0, lambda y, u: stats.laplace.logpdf(y, u, 0.1)),
    "logistic": Model(lambda a, y: Logistic(a, y, 0.1), 0.0, lambda y, u: stats.logistic.logpdf(y, u, 0.1)),
    "student-t": Model(
        lambda a, y: StudentT(a, y, 5.0, 0.1), 0.0, lambda y, u: stats.t.logpdf(y, 5.0, u, 0.1)
    ),
    "gamma": Model(
        lambda a, y: Gamma(a, y, 8.0), 1.0, lambda y, u: stats.gamma.logpdf(y, 8.0, scale=u / 8.0)
    ),
    "rician": Model(
        lambda a, y: Rician(a, y, 0.1), 0.5, lambda y, u: stats.rice.logpdf(y, u / 0.1, scale=0.1)
    ),
    "log-gamma": Model(
        lambda a, y: LogGamma(a, y, 8.0), 0.0, lambda y, u: stats.loggamma.logpdf(y, 8.0, u - math.log(8.0))
    ),
    "quantised": Model(
        lambda a, y: Quantised(a, y, 0.1, 0.08),
        0.0,
        lambda y, u: np.log(stats.norm.cdf(y + 0.05, u, 0.08) - stats.norm.cdf(y - 0.05, u, 0.08)),
    ),
    "clipped": Model(lambda a, y: Clipped(a, y, 0.3, 0.7, 0.2), 0.5, clipped_density),
    "one-bit": Model(
        lambda a, y: OneBit(a, y, 0.5, 0.2), 1.0, lambda y, u: stats.norm.logcdf(y * (u - 0.5) / 0.2)
    ),
}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def pictures(count: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.2 + 0.7 * torch.rand(count, *shape, generator=generator, dtype=torch.float64)


def smooth_prior() -> priors.Gaussian:
    """Neighbouring entries are alike."""
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="ij")
    places = torch.stack((rows, columns), -1).reshape(20, 2).double()
    covariance = 0.15**2 * torch.exp(-0.5 * torch.cdist(places, places) ** 2 / 1.5**2)
    mean = torch.full(SHAPE, 0.5, dtype=torch.float64)
    return priors.Gaussian(mean, covariance + 1e-4 * torch.eye(20, dtype=torch.float64))


PRIOR = smooth_prior()


def drawn(count: int) -> Tensor:
    u = torch.randn(count, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return 0.5 + PRIOR.factor(u)


def measured(model: Model, x: Tensor, seed: int = 1) -> Likelihood:
    operator = Identity(SHAPE)
    blank = model.make(operator, torch.full_like(x, model.valid))
    return model.make(operator, blank.simulate(x, torch.Generator().manual_seed(seed)))


class Stripes:
    """A density of noise with its own mean and spread at every entry."""

    mean = 0.2 * torch.arange(5, dtype=torch.float64)

    def log_prob(self, e: Tensor) -> Tensor:
        return torch.distributions.Normal(self.mean, 0.05).log_prob(e).flatten(1).sum(1)

    def sample(self, count: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return self.mean + 0.05 * torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64)
