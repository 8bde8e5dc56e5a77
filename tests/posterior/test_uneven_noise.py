"""Chains under noise that makes some values surer than others, against quadrature."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from aipo import priors
from aipo.likelihoods import Gamma, Likelihood, Poisson
from aipo.operators import Identity
from aipo.posterior.chain import sample
from aipo.posterior.langevin import LangevinOptions


def test_counts_of_photons_are_averaged_as_quadrature_does():
    """Poisson noise on 256 values that are independent under the prior, so that each has its quadrature.

    A spread is off by 0.08 in log, 0.005 on average; a mean by 0.06 of the spread, 0.004 on average. The
    bounds are more than ten standard errors off.
    """
    shape, std = (1, 8, 8), 0.2
    prior = priors.Gaussian(torch.full(shape, 0.5).double(), std**2 * torch.eye(64).double())
    generator = torch.Generator().manual_seed(0)
    x = 0.5 + std * torch.randn(4, *shape, generator=generator, dtype=torch.float64)
    y = Poisson(Identity(shape), torch.zeros_like(x), 20.0).simulate(x, generator)
    found = sample(Poisson(Identity(shape), y, 20.0), prior, options=LangevinOptions(2000, 200, step=0.2))
    mean, spread = by_quadrature(lambda y: Poisson(Identity((1, 1, 1)), y, 20.0), y, 0.5, std)
    assert float((found.std / spread).log().mean()) == pytest.approx(0, abs=0.08)
    assert float(((found.mean - mean) / spread).mean()) == pytest.approx(0, abs=0.06)


def test_dark_speckle_is_averaged_as_quadrature_does():
    """A dark value beside bright ones is far surer than they are: in their steps it would be thrown about.

    300 independent chains. The dark spread is off by 0.17 in log in each, on average by 0.01, and it is 0.045
    too small for want of draws; the mean is off by 0.14 of the spread, on average by 0.008. So the bounds are
    at least five standard errors off. In steps that fit the picture of the closed form, whose dark value is
    eight times too bright, the spread is on average 0.2 to 0.3 too large in log, and the mean 0.1 to 0.3 of
    the spread too bright.
    """
    shape, std, count = (1, 1, 4), 0.2, 300
    prior = priors.Gaussian(torch.full(shape, 0.5).double(), std**2 * torch.eye(4).double())
    dark = torch.linspace(0.02, 0.04, count, dtype=torch.float64)
    y = torch.stack((dark, 0.6 + dark, 0.9 + dark, 1.1 + dark), 1).reshape(count, *shape)
    found = sample(Gamma(Identity(shape), y, 20.0), prior, options=LangevinOptions(1600, 300))
    mean, spread = by_quadrature(lambda y: Gamma(Identity((1, 1, 1)), y, 20.0), y, 0.5, std)
    ratio = (found.std / spread).log().mean(0)
    error = ((found.mean - mean) / spread).mean(0)
    assert float(ratio.abs().max()) < 0.1 and float(error.abs().max()) < 0.1


def by_quadrature(
    of: Callable[[Tensor], Likelihood], y: Tensor, centre: float, std: float
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every value that y measures, under the prior N(centre, std²)."""
    grid = torch.linspace(-0.2, 1.8, 3001, dtype=torch.float64)
    likelihood = of(y.reshape(-1, 1, 1, 1))
    own = torch.stack([likelihood(u.expand(y.numel(), 1, 1, 1)) for u in grid], 1)
    log_density = -own - 0.5 * ((grid - centre) / std) ** 2
    density = torch.softmax(log_density, 1)
    mean = density @ grid
    spread = (density * (grid - mean[:, None]) ** 2).sum(1).sqrt()
    return mean.reshape(y.shape), spread.reshape(y.shape)
