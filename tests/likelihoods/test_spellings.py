"""A likelihood in its simplest spelling is the same density, on the simplest operator that measures it."""

import pytest
import torch
from noise_models import MODELS, SHAPE, Stripes, measured, pictures
from torch import Tensor

from aipo.likelihoods import Coloured, FlowNoise, Gaussian, Heteroscedastic, Likelihood
from aipo.operators import Blur, Composition, GaussianSensing, Identity, LinearOperator, Mask, Stack, mosaic


class Mirror(LinearOperator):
    """A user's own: the picture from right to left."""

    shape = measurement_shape = SHAPE

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(-1)

    def adjoint(self, y: Tensor) -> Tensor:
        return y.flip(-1)


def same_density(one: Likelihood, other: Likelihood) -> None:
    """Everything that does not name measured values is the same."""
    x = pictures(len(one), one.operator.shape)
    torch.testing.assert_close(other(x), one(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(other.misfit(x), one.misfit(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(other.noise_level, one.noise_level, rtol=1e-6, atol=0)
    white = torch.zeros_like
    probes = [own.stein(white(own.y)) for own in (one, other)]
    assert (probes[0] is None) == (probes[1] is None)
    for probe, expected in zip(probes[1:], probes[:1], strict=True):
        if probe is not None and expected is not None:
            assert probe.exact == expected.exact
            torch.testing.assert_close(probe.trace, expected.trace, rtol=1e-6, atol=0)


@pytest.mark.parametrize("operator", [Mirror(), Composition(Mirror(), Identity(SHAPE)), Identity(SHAPE)])
@pytest.mark.parametrize("name", MODELS)
def test_noise_on_single_values_follows_them_to_their_places(name, operator):
    y = measured(MODELS[name], pictures(3)).y
    spelled = MODELS[name].make(operator, y)
    simple = spelled.simplest()
    assert type(simple.operator) is Identity and type(simple) is type(spelled)
    assert torch.equal(simple.y, operator.adjoint(y))
    same_density(spelled, simple)
    x = pictures(3)
    for moment, expected in zip(simple.moments(x), spelled.moments(x), strict=True):
        torch.testing.assert_close(moment, operator.adjoint(expected), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(simple.precision(x), operator.adjoint(spelled.precision(x)))
    second = torch.tensor([1])
    same_density(spelled.select(second), spelled.select(second).simplest())
    assert torch.equal(simple.select(second).y, simple.y[second])


@pytest.mark.parametrize("operator", [Mirror(), GaussianSensing(SHAPE, 9), Stack(Mirror())])
def test_one_sigma_for_all_values_is_plain_gaussian_noise(operator):
    """Each image may have its own."""
    y = operator(pictures(2)) + 0.01
    sigma = torch.tensor([0.1, 0.2], dtype=torch.float64)
    each = Heteroscedastic(operator, y, sigma.reshape(2, *[1] * (y.ndim - 1)).expand(y.shape))
    simple = each.simplest()
    assert type(simple) is Gaussian and torch.equal(simple.sigma, sigma)
    same_density(each, simple)
    one_off = sigma.reshape(2, *[1] * (y.ndim - 1)).repeat(1, *y.shape[1:])
    one_off.view(2, -1)[1, 3] += 1e-3
    uneven = Heteroscedastic(operator, y, one_off)
    assert type(uneven.simplest()) is Heteroscedastic
    same_density(uneven, uneven.simplest())


def test_a_flat_spectrum_is_plain_gaussian_noise_and_colour_is_kept():
    y = pictures(2).flip(-1) + 0.01
    flat = Coloured(Mirror(), y, torch.full(SHAPE[1:], 0.04, dtype=torch.float64))
    simple = flat.simplest()
    assert type(simple) is Gaussian and type(simple.operator) is Identity
    same_density(flat, simple)
    rows, columns = torch.fft.fftfreq(4).double()[:, None], torch.fft.fftfreq(5).double()
    bands = 0.01 / (0.1 + rows**2 + columns**2)
    for operator in (Mirror(), Composition(Identity(SHAPE)), Composition(Mirror(), Identity(SHAPE))):
        spelled = Coloured(operator, y, bands)
        simple = spelled.simplest()
        assert type(simple) is Coloured and torch.equal(simple.spectrum, bands)
        same_density(spelled, simple)


def test_what_is_simple_already_is_left_alone():
    for operator in (GaussianSensing(SHAPE, 9), Blur(SHAPE, torch.tensor([[0.2, 0.5, 0.3]]))):
        likelihood = Gaussian(operator, operator(pictures(2)), 0.1)
        assert likelihood.simplest() is likelihood
    noise = FlowNoise(Mirror(), pictures(2), Stripes())
    assert noise.simplest() is noise, "its noise is not the same at every value"


def test_the_likelihood_itself_is_not_changed():
    shape = (3, 4, 6)
    both = Composition(Identity(shape), mosaic(shape))
    y = both(pictures(2, shape))
    likelihood = Gaussian(both, y.clone(), torch.tensor([0.1, 0.2]))
    simple = likelihood.simplest()
    assert likelihood.operator is both and torch.equal(likelihood.y, y)
    assert type(simple.operator) is Mask and torch.equal(simple.operator.mask, mosaic(shape).mask)
    same_density(likelihood, simple)
