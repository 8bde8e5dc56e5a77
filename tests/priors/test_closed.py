"""Gaussians and mixtures: their energies are SciPy's and torch's densities, with and without smoothing."""

import pickle

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch.autograd import gradcheck

from aipo.basics.errors import InputError
from aipo.priors import Gaussian, Mixture


def gaussian() -> tuple[Gaussian, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    root = generator.standard_normal((24, 24))
    mean, covariance = generator.standard_normal(24), root @ root.T / 24 + 0.01 * np.eye(24)
    return Gaussian(torch.from_numpy(mean.reshape(2, 3, 4)), torch.from_numpy(covariance)), mean, covariance


def mixture() -> Mixture:
    generator = torch.Generator().manual_seed(3)
    roots = torch.randn(3, 4, 4, generator=generator, dtype=torch.float64)
    covariances = roots @ roots.mT + 0.1 * torch.eye(4, dtype=torch.float64)
    means = torch.randn(3, 1, 2, 2, generator=generator, dtype=torch.float64)
    return Mixture(means, covariances, torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64))


def test_gaussian_energy_is_minus_the_log_density():
    prior, mean, covariance = gaussian()
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((5, 2, 3, 4)))
    expected = -multivariate_normal(mean, covariance).logpdf(x.flatten(1).numpy())
    np.testing.assert_allclose(prior.energy(x).numpy(), expected, rtol=1e-10)
    assert prior.surrogate is prior
    assert gradcheck(prior.energy, x.requires_grad_(True))


def test_a_smoothed_gaussian_is_wider():
    mean, covariance = torch.zeros(1, 1, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    wide = Gaussian(mean, 1.25 * covariance)
    x = torch.randn(4, 1, 1, 2, dtype=torch.float64)
    assert torch.allclose(Gaussian(mean, covariance).energy(x, tau=0.5), wide.energy(x))


@pytest.mark.parametrize("tau", [0.0, 0.7])
def test_a_mixtures_energy_is_that_of_torch(tau):
    prior = mixture()
    covariances = prior.vectors @ torch.diag_embed(prior.values + tau**2) @ prior.vectors.mT
    components = torch.distributions.MultivariateNormal(prior.means.flatten(1), covariances)
    weights = torch.distributions.Categorical(prior.log_weights.exp())
    expected = torch.distributions.MixtureSameFamily(weights, components)
    x = torch.randn(5, 1, 2, 2, dtype=torch.float64)
    assert torch.allclose(prior.energy(x, tau), -expected.log_prob(x.flatten(1)), rtol=1e-10)


def test_a_mixtures_surrogate_has_its_moments():
    prior = mixture()
    weights, means = prior.log_weights.exp(), prior.means.flatten(1)
    second = sum(
        w * (v @ torch.diag(e) @ v.T + m[:, None] * m)
        for w, v, e, m in zip(weights, prior.vectors, prior.values, means, strict=True)
    )
    mean = weights @ means
    surrogate = prior.surrogate
    assert torch.allclose(surrogate.mean.flatten(), mean)
    assert torch.allclose(surrogate.root @ surrogate.root.T, second - mean[:, None] * mean)


def test_a_mixture_whose_parts_do_not_fit_is_refused():
    with pytest.raises(InputError, match="do not fit"):
        Mixture(torch.zeros(2, 1, 1, 2), torch.eye(2)[None], torch.ones(2))


@pytest.mark.parametrize("name", ["gaussian", "mixture"])
def test_closed_priors_are_pickled(name):
    exact, _, _ = gaussian()
    covariance = exact.root @ exact.root.T
    prior = exact if name == "gaussian" else Mixture(exact.mean[None], covariance[None], torch.ones(1))
    x = torch.rand(2, *exact.mean.shape, generator=torch.Generator().manual_seed(0)).double()
    before = prior.energy(x, 0.1), prior.surrogate.mean
    other = pickle.loads(pickle.dumps(prior))
    assert torch.equal(other.energy(x, 0.1), before[0]) and torch.equal(other.surrogate.mean, before[1])
