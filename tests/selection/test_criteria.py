"""SURE against the true predictive risk, the discrepancy principle, and the tracker of the best state."""

import math

import pytest
import torch
from closed_form import OPERATORS, SHAPE, gaussian_prior, measurement
from hypothesis import given, settings
from hypothesis import strategies as st
from noise_draws import LARGE, LARGE_OPERATORS, noise_draws, own_probes, smooth_prior

from aipo.basics.errors import InputError
from aipo.gaussian import posterior
from aipo.likelihoods import Coloured, Gaussian, Heteroscedastic, Laplace, Poisson, PoissonGaussian
from aipo.operators import Identity, Mask
from aipo.selection.criteria import Discrepancy, Sure, Tracker, l_curve

operators = pytest.mark.parametrize("operator", LARGE_OPERATORS.values(), ids=LARGE_OPERATORS)


@operators
@pytest.mark.parametrize("weight", [0.3, 1.0, 4.0])
def test_sure_is_unbiased(operator, weight):
    """Over noise draws and probes, for the linear map from measurement to the Gaussian prior's minimiser."""
    sigma = 0.15
    likelihood, clean = noise_draws(operator, sigma)
    sure = own_probes(Sure(likelihood))
    closed = posterior(operator, smooth_prior())
    alpha = torch.full((400,), weight * sigma**2, dtype=torch.float64)
    x = closed.mode(sure.batch().y, alpha)
    risk = ((operator(x[:200]) - clean) ** 2).flatten(1).mean(1)
    error = sure(x) - risk
    standard_error = float(error.std() / math.sqrt(200))
    assert abs(float(error.mean())) <= 3 * standard_error
    assert 3 * standard_error < 0.25 * float(risk.mean()), "too uncertain to notice a bias"


UNEVEN = 0.05 + 0.2 * torch.arange(64, dtype=torch.float64).reshape(LARGE) / 64
BANDS = 0.005 + 0.05 * (torch.fft.fftfreq(8).abs()[:, None] * torch.ones(8) < 0.2).double()
STEIN = {
    "one sigma for every value": lambda y: Heteroscedastic(Identity(LARGE), y, UNEVEN),
    "coloured": lambda y: Coloured(Identity(LARGE), y, BANDS),
    "counts": lambda y: Poisson(Identity(LARGE), y, 30.0, 2.0),
    "counts and read-out noise": lambda y: PoissonGaussian(Identity(LARGE), y, 30.0, 0.1),
}


@pytest.mark.parametrize("make", STEIN.values(), ids=STEIN)
def test_steins_estimate_is_unbiased_for_other_noise(make):
    """As above, for a linear and a bent map from measurement to picture."""
    count = 1500
    generator = torch.Generator().manual_seed(5)
    prior = smooth_prior()
    u = torch.randn(1, 64, generator=generator, dtype=torch.float64)
    clean = (prior.mean_like(u) + prior.factor(u)).clamp_min(0.1)
    blank = make(torch.ones(count, *LARGE, dtype=torch.float64))
    sure = own_probes(Sure(make(blank.simulate(clean.expand(count, *LARGE), generator))))
    closed = posterior(Identity(LARGE), prior)
    for bend in (lambda x: x, lambda x: torch.sigmoid(4 * x - 2)):
        x = bend(closed.mode(sure.batch().y, torch.full((2 * count,), 0.02, dtype=torch.float64)))
        risk = ((x[:count] - clean) ** 2).flatten(1).mean(1)
        error = sure(x) - risk
        standard_error = float(error.std() / math.sqrt(count))
        assert abs(float(error.mean())) <= 3 * standard_error
        assert 3 * standard_error < 0.15 * float(risk.mean()), "too uncertain to notice a bias"


def test_steins_estimate_is_refused_where_it_does_not_hold():
    y = torch.zeros(1, *LARGE)
    with pytest.raises(InputError, match="Laplace"):
        Sure(Laplace(Identity(LARGE), y, 0.1))


def test_sure_of_the_measurement_itself_is_the_noise():
    """x = y removes nothing: its risk is σ², and its divergence is clipped to m at most."""
    likelihood, _ = noise_draws(LARGE_OPERATORS["denoising"], 0.1)
    sure = Sure(likelihood)
    values = sure(sure.batch().y)
    divergence = ((sure.stein.probe / 0.1) ** 2).flatten(1).sum(1).clamp(max=64)
    assert torch.allclose(values, 0.01 * (2 * divergence / 64 - 1), rtol=1e-6)
    assert values.max() == pytest.approx(0.01)


def test_sure_of_a_constant_is_the_exact_loss_less_the_noise():
    likelihood, _ = noise_draws(LARGE_OPERATORS["denoising"], 0.1, draws=5)
    grey = torch.full((10, *LARGE), 0.5, dtype=torch.float64)
    expected = ((0.5 - likelihood.y) ** 2).flatten(1).mean(1) - 0.01
    assert torch.allclose(Sure(likelihood)(grey), expected)


def test_the_copies_of_sure_follow_the_measurements():
    likelihood = measurement(OPERATORS["sensing"], gaussian_prior())
    sure, batch = Sure(likelihood), Sure(likelihood).batch()
    assert len(batch) == 6
    assert torch.equal(batch.y[:3], likelihood.y)
    share = (batch.y[3:] - likelihood.y) / sure.stein.probe
    assert torch.allclose(share, share[0, 0].expand_as(share)), "one share of σ for every image and entry"
    assert 0 < share[0, 0] < 0.5
    assert torch.equal(batch.sigma, likelihood.sigma.repeat(2))


def test_the_probe_is_the_same_for_every_measurement():
    """So that neither the batch, nor the place in it, nor a last bit of y changes the answer."""
    likelihood = measurement(OPERATORS["denoising"], gaussian_prior())
    order = torch.tensor([2, 0, 1])
    probe = Sure(likelihood).stein.probe
    assert torch.equal(Sure(likelihood.select(order)).stein.probe, probe[order])
    assert torch.equal(Sure(likelihood.select(order[:1])).stein.probe, probe[order[:1]])
    other = Gaussian(likelihood.operator, likelihood.y + 1e-3, likelihood.sigma)
    assert torch.equal(Sure(other).stein.probe, probe)
    torch.testing.assert_close(
        probe / likelihood.sigma[:, None, None, None], (probe[:1] / likelihood.sigma[0]).expand_as(probe)
    )


def test_the_probe_is_white_noise_of_the_measured_places():
    """Of 12,288 entries: mean, variance and neighbours' correlation within four standard errors."""
    shape = (3, 64, 64)
    whole = Gaussian(Identity(shape), torch.zeros(1, *shape), 0.1)
    white = Sure(whole).stein.probe / 0.1
    bound = 4 / math.sqrt(white.numel())
    assert abs(float(white.mean())) < bound and abs(float(white.square().mean()) - 1) < math.sqrt(2) * bound
    assert abs(float((white[..., 1:] * white[..., :-1]).mean())) < 1.01 * bound
    for mask in (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5, torch.ones(shape) > 0):
        some = Mask(mask)
        assert torch.equal(
            Sure(Gaussian(some, some(whole.y), 0.1)).stein.probe, some(Sure(whole).stein.probe)
        )


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_the_discrepancy_vanishes_where_the_residual_is_as_large_as_the_noise(operator):
    picture = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigma = torch.tensor([0.1, 0.3], dtype=torch.float64)
    signs = torch.where(torch.arange(operator.measurements) % 2 == 0, 1.0, -1.0).double()
    one_sigma = signs.reshape(operator.measurement_shape) * sigma.reshape(
        2, *[1] * len(operator.measurement_shape)
    )
    clean = operator(picture)
    for factor in (1.0, 0.0, 2.0):
        criterion = Discrepancy(Gaussian(operator, clean + factor * one_sigma, sigma))
        expected = torch.full((2,), abs(factor**2 - 1), dtype=torch.float64)
        assert torch.allclose(criterion(picture), expected, atol=1e-12)
        assert len(criterion.batch()) == 2


values = st.one_of(st.floats(-5, 5, width=32), st.sampled_from([math.nan, math.inf, -math.inf]))


@settings(deadline=None)
@given(st.lists(st.tuples(values, values), min_size=1, max_size=8), st.integers(1, 4))
def test_the_tracker_keeps_the_first_smallest_value_of_each_image(rows, patience):
    tracker = Tracker(patience)
    for step, row in enumerate(rows):
        tracker.add(torch.tensor(row))
        usable = [
            [v if math.isfinite(v) else math.inf for v in column]
            for column in zip(*rows[: step + 1], strict=True)
        ]
        best = [column.index(min(column)) for column in usable]
        assert tracker.best().tolist() == best
        assert tracker.finished().tolist() == [step - index >= patience for index in best]


def test_a_residual_below_the_noise_is_early():
    operator = Identity((1, 4, 4))
    likelihood = Gaussian(operator, torch.zeros(2, 1, 4, 4), 0.1)
    x = torch.stack((torch.full((1, 4, 4), 0.05), torch.full((1, 4, 4), 0.2)))
    assert Discrepancy(likelihood).early(x).tolist() == [True, False]
    assert Discrepancy(likelihood, falls=True).early(x).tolist() == [False, True]
    assert Sure(likelihood).early(x.repeat(2, 1, 1, 1)).tolist() == [False, False]


def test_the_corner_of_an_l_is_found_whatever_its_units():
    misfit = torch.tensor([0.0, 0.1, 0.2, 0.3, 1.0, 2.0, 3.0]).exp()[:, None].expand(7, 3)
    energy = torch.tensor([9.0, 6.0, 3.0, 0.5, 0.3, 0.1, 0.0])[:, None] * torch.tensor([1.0, 1e4, 1.0]) - 5e3
    usable = torch.ones(7, 3, dtype=torch.bool)
    usable[3, 2] = False
    weights = torch.arange(7.0)[:, None].expand(7, 3)
    scaled = misfit * torch.tensor([1.0, 1e-6, 1.0])
    values = l_curve(scaled, energy, weights, usable)
    assert values.argmin(0)[:2].tolist() == [3, 3]
    assert values[3, 2] == torch.inf and torch.isfinite(values[usable]).all()
    falling = l_curve(scaled.flip(0), energy.flip(0), weights.flip(0), usable.flip(0))
    assert torch.allclose(falling.flip(0), values, atol=1e-5)


def test_a_curve_without_corner_keeps_its_last_point():
    same, usable = torch.ones(4, 2), torch.tensor([[False, True, True, False], [False, False, True, False]]).T
    weights = torch.arange(4.0)[:, None].expand(4, 2)
    assert l_curve(same, same, weights, usable).argmin(0).tolist() == [2, 2]
