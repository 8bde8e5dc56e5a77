"""A picture of a smooth Gaussian prior, measured again and again: estimates of the error are tried on it."""

import torch
from torch import Tensor

from aipo.likelihoods import Gaussian
from aipo.operators import GaussianSensing, Identity, LinearOperator, Mask
from aipo.priors import Gaussian as GaussianPrior
from aipo.selection.criteria import Sure

LARGE = (1, 8, 8)
LARGE_OPERATORS: dict[str, LinearOperator] = {
    "denoising": Identity(LARGE),
    "inpainting": Mask(torch.arange(64).reshape(LARGE) % 4 > 0),
    "sensing": GaussianSensing(LARGE, 40, seed=1),
}


def smooth_prior() -> GaussianPrior:
    """Neighbouring pixels of an 8 × 8 picture are correlated."""
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    places = torch.stack((rows.flatten(), columns.flatten()), 1).double()
    covariance = 0.04 * torch.exp(-torch.cdist(places, places) / 2)
    return GaussianPrior(torch.full(LARGE, 0.5, dtype=torch.float64), covariance)


def noise_draws(operator: LinearOperator, sigma: float, draws: int = 200) -> tuple[Gaussian, Tensor]:
    """One picture measured again and again, and the clean measurement."""
    generator = torch.Generator().manual_seed(5)
    prior = smooth_prior()
    u = torch.randn(1, 64, generator=generator, dtype=torch.float64)
    clean = operator(prior.mean_like(u) + prior.factor(u))
    noise = torch.randn(draws, *operator.measurement_shape, generator=generator, dtype=torch.float64)
    return Gaussian(operator, clean + sigma * noise, sigma), clean


def own_probes(sure: Sure) -> Sure:
    """The estimate with a probe of its own for each measurement.

    It is unbiased over noise and probes together. With the one probe that all measurements share, its error
    is the same for all of them, and no mean over noise draws makes it smaller.
    """
    y = sure.likelihood.y
    white = torch.randn(y.shape, generator=torch.Generator().manual_seed(6), dtype=y.dtype)
    stein = sure.likelihood.stein(white)
    assert stein is not None
    sure.stein = stein
    return sure
