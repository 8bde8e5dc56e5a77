"""Noise that is correlated between channels: its density, its draws, and its spelling as white noise."""

import pytest
import torch

from aipo.basics.errors import InputError
from aipo.likelihoods import Coloured, Correlated
from aipo.operators import Blur, Identity, gaussian_kernel

SHAPE = (2, 6, 5)
MIXED = torch.tensor([[1.0, 0.6], [0.6, 2.0]], dtype=torch.float64)


def bands() -> torch.Tensor:
    rows, columns = torch.fft.fftfreq(6).double()[:, None], torch.fft.fftfreq(5).double()
    return 0.01 / (0.05 + rows**2 + columns**2)


def pictures(seed: int) -> torch.Tensor:
    return torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def power() -> torch.Tensor:
    return MIXED[:, :, None, None] * bands()


def test_channels_of_their_own_are_coloured_noise():
    y, x = pictures(0), pictures(1)
    alone = torch.eye(2, dtype=torch.float64)[:, :, None, None] * bands()
    torch.testing.assert_close(
        Correlated(Identity(SHAPE), y, alone)(x), Coloured(Identity(SHAPE), y, bands())(x)
    )


def test_the_density_is_that_of_the_covariance_matrix():
    y, x = pictures(0), pictures(1)
    likelihood = Correlated(Identity(SHAPE), y, power())
    units = torch.eye(60, dtype=torch.float64).reshape(60, *SHAPE)
    root = torch.stack([likelihood._colour(unit[None])[0].flatten() for unit in units], 1)
    normal = torch.distributions.MultivariateNormal(torch.zeros(60).double(), root @ root.T)
    torch.testing.assert_close(likelihood(x), -normal.log_prob((y - x).flatten(1)))


def test_draws_have_its_variance_and_fit():
    shape = (2, 64, 64)
    many = MIXED[:, :, None, None].repeat(1, 1, 64, 64)
    likelihood = Correlated(Identity(shape), torch.zeros(1, *shape), many)
    blank = torch.zeros(1, *shape)
    drawn = likelihood.simulate(blank, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn[0].flatten(1).cov(), MIXED.float(), rtol=0.1, atol=0.1)
    fits = Correlated(Identity(shape), drawn, many)
    assert float(fits.misfit(blank)) == pytest.approx(1, abs=0.1)
    assert float(fits.stein(blank).trace) == pytest.approx(3 * 64 * 64)
    assert float(fits.noise_level) == pytest.approx(1.5**0.5)


@pytest.mark.parametrize(
    "operator", [Identity(SHAPE), Blur(SHAPE, gaussian_kernel(0.6)[1:-1, 1:-1])], ids=["identity", "blur"]
)
def test_the_near_likelihood_is_the_same_density(operator):
    likelihood = Correlated(operator, pictures(0), power())
    near, constant = likelihood.gaussian(), likelihood(pictures(0)) - likelihood.gaussian()(pictures(0))
    torch.testing.assert_close(near(pictures(1)) + constant, likelihood(pictures(1)))


def test_a_window_has_the_power_that_windows_have():
    likelihood = Correlated(Identity(SHAPE), pictures(0), power())
    part = likelihood.window(slice(1, 5), slice(0, 4))
    assert part is not None and part.y.shape == (2, 2, 4, 4)
    Correlated(part.operator, part.y, part.power)  # it is valid
    torch.testing.assert_close(part.power.mean((-2, -1)), power().mean((-2, -1)))
    blank = torch.zeros(4000, *SHAPE, dtype=torch.float64)
    noise = likelihood.simulate(blank, torch.Generator().manual_seed(0))[..., 1:5, 0:4]
    seen = torch.fft.fft2(noise, norm="ortho")
    found = torch.einsum("bchw,bdhw->cdhw", seen, seen.conj()).real / len(blank)
    scale = float(part.power.abs().max())
    torch.testing.assert_close(found, part.power, rtol=0, atol=0.1 * scale)


def test_bad_powers_are_refused():
    with pytest.raises(InputError, match="shape"):
        Correlated(Identity(SHAPE), pictures(0), bands())
    with pytest.raises(InputError, match="positive definite"):
        Correlated(Identity(SHAPE), pictures(0), -power())
